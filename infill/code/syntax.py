"""Syntax trees in character offsets: parse errors, imports, and whether an offset lies in a string or a comment.

The UTF-8 bytes that tree-sitter works on stay inside this module. Must not know models, prompts or completions.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from engine.errors import Stop, pacer
from infill.code.brackets import scan
from infill.code.languages import Language, get

if TYPE_CHECKING:
    import tree_sitter

MAX_PARSE_CHARS = 2_000_000
MAX_WORK, MAX_WORK_PER_BYTE = 1_000, 0.04  # progress reports of tree-sitter; usual code takes up to 0.02 per byte
_CHUNK = 1024
_SHORT = 16_384  # bytes, parsed within some 5 ms
_CONTINUATION_BYTES = bytes(range(0x80, 0xC0))
_SURROGATES = re.compile("[\ud800-\udfff]")


class ParsingStopped(Exception):
    """The caller stopped parsing."""


class Span(NamedTuple):
    """text[start:end], in characters."""

    start: int
    end: int


class ErrorScore(NamedTuple):
    """errors: number of ERROR and MISSING nodes. covered: characters under the ERROR nodes."""

    errors: int
    covered: int


class SyntaxTree:
    """A parsed text. `root` is a tree-sitter node; `span` and `byte` convert between its bytes and characters."""

    def __init__(self, text: str, language: Language, data: bytes, tree: tree_sitter.Tree) -> None:
        self.text, self.language, self._data, self._tree = text, language, data, tree

    @property
    def root(self) -> tree_sitter.Node:
        return self._tree.root_node

    @cached_property
    def _chunk_bytes(self) -> list[int]:
        """Byte offset of every 1,024th character; empty if all characters are ASCII."""
        if len(self._data) == len(self.text):
            return []
        offsets = [0]
        for start in range(0, len(self.text), _CHUNK):
            offsets.append(offsets[-1] + len(_encode(self.text[start : start + _CHUNK])))
        return offsets

    def byte(self, offset: int) -> int:
        if not self._chunk_bytes:
            return offset
        chunk = offset // _CHUNK
        return self._chunk_bytes[chunk] + len(_encode(self.text[chunk * _CHUNK : offset]))

    def _character(self, byte: int) -> int:
        if not self._chunk_bytes:
            return byte
        chunk = bisect_right(self._chunk_bytes, byte, 0, max(1, len(self._chunk_bytes) - 1)) - 1
        part = self._data[self._chunk_bytes[chunk] : byte]
        return chunk * _CHUNK + len(part.translate(None, _CONTINUATION_BYTES))

    def span(self, node: tree_sitter.Node) -> Span:
        return Span(self._character(node.start_byte), self._character(node.end_byte))

    def part(self, node: tree_sitter.Node) -> str:
        """The text of a node. Not `node.text`, which would call back for the bytes."""
        return self._data[node.start_byte : node.end_byte].decode("utf-8", "replace")

    def path(self, offset: int) -> list[tree_sitter.Node]:
        """The nodes around the character at `offset`, innermost first."""
        node = self.root.descendant_for_byte_range(self.byte(offset), self.byte(offset + 1))
        path = []
        while node is not None:
            path.append(node)
            node = node.parent
        return path

    def replaced(self, start: int, end: int, replacement: str, stop: Stop | None = None) -> SyntaxTree:
        """The tree of the text with text[start:end] replaced; only what changes is parsed again."""
        return self.edited([(start, end, replacement)], stop)

    def edited(self, edits: Sequence[tuple[int, int, str]], stop: Stop | None = None) -> SyntaxTree:
        """The tree after the replacements (start, end, text), one after the other; parsed once, at the end.

        Raises ParsingStopped once `stop` returns True, or if the new text takes too much work.
        """
        text, data, tree = self.text, self._data, self._tree.copy()
        for start, end, replacement in edits:
            first = len(_encode(text[:start]))
            last, new_last = first + len(_encode(text[start:end])), first + len(_encode(replacement))
            text = text[:start] + replacement + text[end:]
            before, data = data, _encode(text)
            tree.edit(first, last, new_last, _point(before, first), _point(before, last), _point(data, new_last))
        return SyntaxTree(text, self.language, data, _parsed(self.language, data, tree, stop))


def _encode(text: str) -> bytes:
    """UTF-8, with U+FFFD for a lone surrogate: both take three bytes."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        return _SURROGATES.sub("\ufffd", text).encode("utf-8")


def _point(data: bytes, byte: int) -> tuple[int, int]:
    return data.count(b"\n", 0, byte), byte - (data.rfind(b"\n", 0, byte) + 1)


class _TooMuchWork(ParsingStopped):
    """The text takes more than MAX_WORK_PER_BYTE, as `A<A<A<…` in C++ does, which is read in several ways at once."""


def _parsed(
    language: Language, data: bytes, old: tree_sitter.Tree | None = None, stop: Stop | None = None
) -> tree_sitter.Tree:
    """Parses a long text through a callback: a parser that gets all bytes at once holds the GIL until it is done.

    py-tree-sitter 0.26 leaks what the callback returns (`parser_read_wrapper`), so that is a view, released at the end.
    """
    grammar = language.grammar()
    if grammar is None:
        raise LookupError(f"No grammar is installed for {language.id}; check `language.grammar()` first.")
    import tree_sitter  # absent if there is no grammar

    parser, views = tree_sitter.Parser(grammar), list[memoryview]()
    if len(data) <= _SHORT:
        return parser.parse(data) if old is None else parser.parse(data, old)

    def rest(byte: int, _: tree_sitter.Point) -> memoryview | bytes:
        if byte >= len(data):
            return b""
        views.append(memoryview(data)[byte:])
        return views[-1]

    most, work, stopped = MAX_WORK + MAX_WORK_PER_BYTE * len(data), 0, False

    def progress(*_: object) -> bool:
        nonlocal work, stopped
        work += 1
        stopped = stop is not None and stop()
        return stopped or work > most

    try:
        if stop is not None and stop():
            raise ParsingStopped
        if old is None:
            return parser.parse(rest, progress_callback=progress)
        return parser.parse(rest, old, progress_callback=progress)
    except ValueError as error:  # the parser was stopped
        raise (ParsingStopped if stopped else _TooMuchWork) from error
    finally:
        for view in views:
            view.release()


def parse(text: str, language_id: str | None, stop: Stop | None = None) -> SyntaxTree | None:
    """None if the language is unknown, its grammar is not installed, or the text exceeds MAX_PARSE_CHARS or takes too
    much work. Raises ParsingStopped once `stop` returns True; it is called about once per 100 tokens.
    """
    language = get(language_id)
    if language is None or len(text) > MAX_PARSE_CHARS or language.grammar() is None:
        return None
    data = _encode(text)
    try:
        return SyntaxTree(text, language, data, _parsed(language, data, None, stop))
    except _TooMuchWork:
        return None


def error_nodes(tree: SyntaxTree, stop: Stop | None = None) -> tuple[Span, ...]:
    """The outermost ERROR nodes and the MISSING nodes (empty spans), in text order. Raises Cancelled once `stop`
    returns True."""
    found, pending, pace = [], [tree.root], pacer(stop)
    while pending:
        pace()
        node = pending.pop()
        if node.is_error or node.is_missing:
            found.append(tree.span(node))
        elif node.has_error:
            pending.extend(reversed(node.children))
    return tuple(found)


def error_score(tree: SyntaxTree, outside: Span | None = None) -> ErrorScore:
    """The score of a tree; characters within `outside` do not count as covered."""
    spans = error_nodes(tree)
    covered = sum(span.end - span.start for span in spans)
    if outside:
        covered -= sum(max(0, min(span.end, outside.end) - max(span.start, outside.start)) for span in spans)
    return ErrorScore(len(spans), covered)


def imports(tree: SyntaxTree, stop: Stop | None = None) -> tuple[Span, ...]:
    """The imports in text order, including those under top-level conditions; a group of imports is one span. Raises
    Cancelled once `stop` returns True."""
    found, pace = [], pacer(stop)
    pending = [(node, 0) for node in reversed(tree.root.children)]
    while pending:
        pace()
        node, depth = pending.pop()
        if node.type in tree.language.imports:
            span = tree.span(node)
            found.append(Span(span.start, span.start + len(tree.text[span.start : span.end].rstrip())))
        elif depth < 3 and node.type not in tree.language.scopes and not node.type.startswith("expression"):
            pending.extend((child, depth + 1) for child in reversed(node.children))
    return tuple(found)


def in_string(tree: SyntaxTree, offset: int) -> bool:
    """Whether text typed at `offset` would be part of a string; code in a template or f-string is not."""
    if tree.root.has_error:
        return scan(tree.text, tree.language.id, offset).inside not in ("", "#", "//", "/*")
    for node in tree.path(offset - 1) if offset else ():
        if node.type in ("interpolation", "template_substitution") and offset < tree.span(node).end:
            return False
        if node.type in tree.language.strings:
            return offset < tree.span(node).end
    return False


def in_comment(tree: SyntaxTree, offset: int) -> bool:
    """Whether text typed at `offset` would be part of a comment, as at the end of a line comment."""
    if tree.root.has_error:
        return scan(tree.text, tree.language.id, offset).inside in ("#", "//", "/*")
    for node in tree.path(offset - 1) if offset else ():
        if node.type in tree.language.comments:
            return offset < tree.span(node).end or tree.text[offset - 2 : offset] != "*/"
    return False
