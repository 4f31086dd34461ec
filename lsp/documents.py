"""The open documents as the editor has them: exact line ends, three encodings, one immutable snapshot per version.

A line ends at "\\n", "\\r\\n" or "\\r" and at nothing else (LSP 3.17, Text Documents). A change costs the lines that it
touches and a copy of the list of lines; the text is joined only on demand. Must not know trees, suggestions, or the
disk.
"""

from __future__ import annotations

import logging
import os
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from urllib.parse import unquote_to_bytes, urlsplit

from lsprotocol import types

from infill.code.languages import detect, get
from lsp.positions import Encoding, column_to_index, index_to_column

logger = logging.getLogger(__name__)
_LINE = re.compile(r"[^\r\n]*+(?:\r\n?|\n)|[^\r\n]+")
_AUTHORITY = re.compile("[^/]*//[^/]*")
_EDITOR_NAMES = {
    "javascriptreact": "javascript",
    "javascript.jsx": "javascript",
    "typescriptreact": "tsx",
    "typescript.tsx": "tsx",
    "c++": "cpp",
    "golang": "go",
}


def uri_path(uri: str) -> str:
    """The path in a URI of any scheme, as a file name on this machine.

    `vscode-notebook-cell:` and `untitled:` name the file that the text belongs to, or will belong to.
    """
    try:
        path = urlsplit(uri).path
    except ValueError:  # of the part between "//" and the path
        path = _AUTHORITY.sub("", uri)
    try:
        encoded = path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        encoded = path.encode("utf-8", "surrogatepass")
    return os.fsdecode(unquote_to_bytes(encoded))


class DocumentError(KeyError):
    """The document is not open."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class Edit:
    """`inserted` replaced `removed` at character `start` of the text just before this edit."""

    start: int
    removed: str
    inserted: str


@dataclass(frozen=True, eq=False)
class Snapshot:
    """One immutable version of a document. edits: the changes of the message that produced it, in order.

    `lines` include their line ends; the last one has none and may be empty. Offsets count characters of `text`.
    """

    uri: str
    language_id: str
    version: int
    lines: tuple[str, ...]
    encoding: Encoding
    edits: tuple[Edit, ...] = ()

    @cached_property
    def path(self) -> str | None:
        """The file on disk; None for a document without a local file (untitled, or on another machine)."""
        return uri_path(self.uri) if self.uri.startswith("file:") else None

    @cached_property
    def language(self) -> str | None:
        """The id in `infill.code.languages`, from the editor's language id, the file's name or the first line."""
        name = _EDITOR_NAMES.get(self.language_id, self.language_id)
        if get(name) is not None:
            return name
        return detect(self.path or self.uri, self.lines[0])

    @cached_property
    def text(self) -> str:
        return "".join(self.lines)

    @cached_property
    def _starts(self) -> list[int]:
        """The offset of each line's first character, and the text's length."""
        return list(accumulate(map(len, self.lines), initial=0))

    @property
    def length(self) -> int:
        """The number of characters in the text."""
        return self._starts[-1]

    def offset(self, position: types.Position) -> int:
        """The offset of a position, clamped to the end of its line or, past the last line, of the text."""
        line, index = _clamped(self.lines, position, self.encoding)
        return self._starts[line] + index

    def position(self, offset: int) -> types.Position:
        """The position of an offset, clamped to the text; inside "\\r\\n" it is the end of the line."""
        line = bisect_right(self._starts, max(0, offset), hi=len(self.lines)) - 1
        bare = _without_end(self.lines[line])
        return types.Position(line, index_to_column(bare, max(0, offset) - self._starts[line], self.encoding))

    def range(self, start: int, end: int) -> types.Range:
        return types.Range(self.position(start), self.position(end))


class Documents:
    """All open documents. `encoding` is set once, at the client's `initialize`."""

    def __init__(self, encoding: Encoding = "utf-16") -> None:
        self.encoding = encoding
        self._open: dict[str, Snapshot] = {}

    def open(self, item: types.TextDocumentItem) -> Snapshot:
        """The first snapshot of a document; replaces one that is already open."""
        lines = tuple(_split(item.text, True))
        return self._put(Snapshot(item.uri, item.language_id, item.version, lines, self.encoding))

    def change(
        self,
        document: types.VersionedTextDocumentIdentifier,
        changes: Sequence[types.TextDocumentContentChangeEvent],
    ) -> Snapshot:
        """Applies the changes of one message in their order; raises DocumentError for a document that is not open."""
        before = self.get(document.uri)
        if before is None:
            raise DocumentError(f"The document {document.uri} was changed but is not open.")
        if document.version <= before.version:
            logger.warning("Version %d of a document arrived after version %d.", document.version, before.version)
        draft = _Draft(before)
        edits = tuple(draft.apply(change) for change in changes)
        lines = tuple(draft.lines)
        return self._put(Snapshot(before.uri, before.language_id, document.version, lines, before.encoding, edits))

    def close(self, uri: str) -> None:
        self._open.pop(uri, None)

    def get(self, uri: str) -> Snapshot | None:
        """The newest snapshot; None for a document that is not open."""
        return self._open.get(uri)

    def recent(self) -> list[Snapshot]:
        """The open documents, last opened or changed first."""
        return list(reversed(self._open.values()))

    def _put(self, snapshot: Snapshot) -> Snapshot:
        self._open.pop(snapshot.uri, None)
        self._open[snapshot.uri] = snapshot
        return snapshot


class _Draft:
    """The lines of a document while the changes of one message are applied."""

    def __init__(self, before: Snapshot) -> None:
        self.lines, self._encoding = list(before.lines), before.encoding
        self._line = self._start = 0  # a line, and the offset of its first character

    def apply(self, change: types.TextDocumentContentChangeEvent) -> Edit:
        if isinstance(change, types.TextDocumentContentChangeWholeDocument):
            return self._replace_all(change.text)
        ends = change.range.start, change.range.end
        start, end = sorted(_clamped(self.lines, position, self._encoding) for position in ends)
        return self._replace(start, end, change.text)

    def _replace(self, start: tuple[int, int], end: tuple[int, int], text: str) -> Edit:
        """Replaces the text between two positions, each a line and an index within it."""
        lines, (first, left), (last, right) = self.lines, start, end
        head, tail = lines[first][:left], lines[last][right:]
        if first == last:
            removed = lines[first][left:right]
        else:
            removed = "".join((lines[first][left:], *lines[first + 1 : last], lines[last][:right]))
        edit = Edit(self._start_of(first) + left, removed, text)
        if first and (head + text + tail).startswith("\n") and lines[first - 1].endswith("\r"):
            first -= 1
            self._start_of(first)  # moves the cached offset here: the lengths below may change
            head = lines[first]
        lines[first : last + 1] = _split(head + text + tail, last + 1 == len(lines))
        return edit

    def _replace_all(self, text: str) -> Edit:
        """Replaces the whole text and returns only the difference: some editors send everything with every key."""
        old, new = self.lines, _split(text, True)
        top = _common(old, new)
        bottom = _common(old[top:][::-1], new[top:][::-1])
        removed, inserted = "".join(old[top : len(old) - bottom]), "".join(new[top : len(new) - bottom])
        head = _common(removed, inserted)
        removed, inserted = removed[head:], inserted[head:]
        tail = _common(removed[::-1], inserted[::-1])
        edit = Edit(self._start_of(top) + head, removed[: len(removed) - tail], inserted[: len(inserted) - tail])
        self.lines = new
        return edit

    def _start_of(self, line: int) -> int:
        """The offset of a line's start, counted from the last requested line, so that many cursors cost one pass."""
        if line >= self._line:
            self._start += sum(map(len, self.lines[self._line : line]))
        else:
            self._start -= sum(map(len, self.lines[line : self._line]))
        self._line = line
        return self._start


def _clamped(lines: Sequence[str], position: types.Position, encoding: Encoding) -> tuple[int, int]:
    """Line and index of a position, clamped to the text."""
    if position.line >= len(lines):
        return len(lines) - 1, len(lines[-1])
    return position.line, column_to_index(_without_end(lines[position.line]), position.character, encoding)


def _split(text: str, to_the_end: bool) -> list[str]:
    """Lines with their line ends. With `to_the_end` the last line has none and may be empty."""
    lines = _LINE.findall(text)
    if to_the_end and not (lines and _without_end(lines[-1]) == lines[-1]):
        lines.append("")
    return lines


def _without_end(line: str) -> str:
    return line.removesuffix("\n").removesuffix("\r")


def _common(first: Sequence[str], second: Sequence[str]) -> int:
    """The length of the common prefix."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((number for number, (a, b) in pairs if a != b), min(len(first), len(second)))
