"""The open documents, as the editor has them: exact line ends, three encodings, one immutable snapshot a version.

A line ends at "\n", "\r\n" or "\r" and at nothing else (LSP 3.17, Text Documents). A change costs the lines that it
touches and one copy of the list of lines; the text is put together only when it is asked for. Must not know trees,
suggestions, or the disk.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from lsprotocol import types
from pygls.uris import to_fs_path

from infill.languages import detect, get
from lsp.positions import Encoding, column_to_index, index_to_column

logger = logging.getLogger(__name__)
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+\Z")
_ENDS = ("\r\n", "\n", "\r")
_EDITOR_NAMES = {"javascriptreact": "javascript", "typescriptreact": "tsx", "c++": "cpp", "golang": "go"}


class DocumentError(KeyError):
    """A document that was never opened, or was closed."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class Edit:
    """`removed` at character `start` became `inserted`; `start` counts in the text just before this edit."""

    start: int
    removed: str
    inserted: str


@dataclass(frozen=True, eq=False)
class Snapshot:
    """One version of a document. `lines` with their ends, never empty; `edits`: of the message that made it."""

    uri: str
    language_id: str
    version: int
    lines: Sequence[str]
    encoding: Encoding
    edits: tuple[Edit, ...] = ()

    @cached_property
    def path(self) -> str | None:
        return to_fs_path(self.uri) if self.uri.startswith("file:") else None

    @cached_property
    def language(self) -> str | None:
        """The id in `infill.languages`: the editor's, or by the name of the file."""
        name = _EDITOR_NAMES.get(self.language_id, self.language_id)
        if get(name) is not None:
            return name
        return detect(self.path or self.uri, self.lines[0])

    @cached_property
    def text(self) -> str:
        return "".join(self.lines)

    @cached_property
    def length(self) -> int:
        return sum(map(len, self.lines))

    def offset(self, position: types.Position) -> int:
        """The character at a position; past a line's end it is the end, past the last line the text's end."""
        if position.line >= len(self.lines):
            return self.length
        line = self.lines[max(0, position.line)]
        column = column_to_index(_without_end(line), position.character, self.encoding)
        return sum(map(len, self.lines[: max(0, position.line)])) + column

    def position(self, offset: int) -> types.Position:
        """The inverse; between the two characters of "\r\n" it is the line's end."""
        left = min(max(0, offset), self.length)
        for number, line in enumerate(self.lines):
            if left < len(line) or number == len(self.lines) - 1:
                bare = _without_end(line)
                return types.Position(number, index_to_column(bare, min(left, len(bare)), self.encoding))
            left -= len(line)
        return types.Position(0, 0)

    def range(self, start: int, end: int) -> types.Range:
        return types.Range(self.position(start), self.position(end))


class Documents:
    """All open documents. `encoding` is set once, when the client has said what it can."""

    def __init__(self, encoding: Encoding = "utf-16") -> None:
        self.encoding = encoding
        self._open: dict[str, Snapshot] = {}

    def open(self, item: types.TextDocumentItem) -> Snapshot:
        snapshot = Snapshot(item.uri, item.language_id, item.version, _split(item.text), self.encoding)
        return self._put(snapshot)

    def change(
        self,
        document: types.VersionedTextDocumentIdentifier,
        changes: Sequence[types.TextDocumentContentChangeEvent],
    ) -> Snapshot:
        """Applies the changes of one message in their order; raises DocumentError for a document that is not open."""
        before = self.get(document.uri)
        if before is None:
            raise DocumentError(f"The document {document.uri} was changed, but is not open.")
        if document.version is not None and document.version <= before.version:
            logger.warning("A change to version %s follows version %s.", document.version, before.version)
        lines, edits = list(before.lines), []
        for change in changes:
            edits.append(_apply(lines, change, self.encoding))
        version = before.version + 1 if document.version is None else document.version
        return self._put(Snapshot(before.uri, before.language_id, version, lines, self.encoding, tuple(edits)))

    def close(self, uri: str) -> None:
        self._open.pop(uri, None)

    def get(self, uri: str) -> Snapshot | None:
        return self._open.get(uri)

    def recent(self) -> list[Snapshot]:
        """Last touched first."""
        return list(reversed(self._open.values()))

    def _put(self, snapshot: Snapshot) -> Snapshot:
        self._open.pop(snapshot.uri, None)
        self._open[snapshot.uri] = snapshot
        return snapshot


def _apply(lines: list[str], change: types.TextDocumentContentChangeEvent, encoding: Encoding) -> Edit:
    """One change on the list of lines, in place; ends that it splits or joins are put right at its seams."""
    if isinstance(change, types.TextDocumentContentChangeWholeDocument):
        edit = Edit(0, "".join(lines), change.text)
        lines[:] = _split(change.text)
        return edit
    (first, start), (last, end) = sorted(
        _place(lines, position, encoding) for position in (change.range.start, change.range.end)
    )
    before, after = lines[first][:start], lines[last][end:]
    if first == last:
        removed = lines[first][start:end]
    else:
        removed = "".join((lines[first][start:], *lines[first + 1 : last], lines[last][:end]))
    offset = sum(map(len, lines[:first])) + start
    touched = before + change.text + after
    if first and lines[first - 1].endswith("\r"):  # a "\n" at the start of what is new would join it
        first -= 1
        touched = lines[first] + touched
    if touched.endswith("\r") and last + 1 < len(lines):
        last += 1
        touched += lines[last]
    while not touched.endswith(("\r", "\n")) and last + 1 < len(lines):
        last += 1
        touched += lines[last]
    lines[first : last + 1] = _split(touched, last + 1 == len(lines))
    return Edit(offset, removed, change.text)


def _place(lines: Sequence[str], position: types.Position, encoding: Encoding) -> tuple[int, int]:
    """Line and index of a position, both within the text."""
    if position.line >= len(lines):
        return len(lines) - 1, len(lines[-1])
    line = lines[max(0, position.line)]
    return max(0, position.line), column_to_index(_without_end(line), position.character, encoding)


def _split(text: str, to_the_end: bool = True) -> list[str]:
    """Lines with their ends. At the text's end there is always a line without one, perhaps an empty one."""
    lines = _LINE.findall(text)
    if to_the_end and (not lines or lines[-1].endswith(("\r", "\n"))):
        lines.append("")
    return lines


def _without_end(line: str) -> str:
    for end in _ENDS:
        if line.endswith(end):
            return line[: -len(end)]
    return line
