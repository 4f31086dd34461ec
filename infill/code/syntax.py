"""What the grammar says about a place in a text: errors, scopes, statements, imports, strings.

Works on Python strings and character offsets; the bytes that tree-sitter wants stay inside this module.
All but `parse` take a `SyntaxTree`, so need a grammar; in a broken tree some fall back on reading the text.
It must not know the model, prompts, or whether a completion is any good.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import tree_sitter

from infill.code.brackets import scan
from infill.code.indentation import column_width, expects_block, indentation, indentation_at, line_end, lines_after
from infill.code.languages import Language, get

MAX_PARSE_CHARS = 2_000_000
_CHUNK = 1024
_AT_ONCE = 16_384  # bytes that are parsed in some 5 ms
_CONTINUATION_BYTES = bytes(range(0x80, 0xC0))
_SURROGATES = re.compile("[\ud800-\udfff]")
_HEADER_PARENTS = frozenset(
    "decorated_definition export_statement template_declaration lexical_declaration variable_declarator "
    "variable_declaration type_declaration".split()
)
_CLASS_KINDS = frozenset(("class", "interface", "enum"))
_PYTHON_SCOPE = re.compile(r"^([ \t]*)(?:async[ \t]+)?(def|class)[ \t]+(\w+)", re.MULTILINE)


class Span(NamedTuple):
    """text[start:end], in characters."""

    start: int
    end: int


class Scope(NamedTuple):
    """A function, method, class, interface, enum or namespace; `header_span`: decorators, signature."""

    kind: str
    name: str
    header_span: Span
    span: Span


class ErrorScore(NamedTuple):
    """How broken a tree is: ERROR and MISSING nodes, and the characters that the ERROR nodes cover."""

    errors: int
    covered: int


class SyntaxTree:
    """A parsed text. `root` is the tree-sitter node; `span` and `byte` translate its bytes and back."""

    def __init__(self, text: str, language: Language, data: bytes, tree: tree_sitter.Tree) -> None:
        self.text, self.language, self._data, self._tree = text, language, data, tree

    @property
    def root(self) -> tree_sitter.Node:
        return self._tree.root_node

    @cached_property
    def _chunk_bytes(self) -> list[int]:
        """Byte offset of every 1,024th character; empty when characters and bytes are the same."""
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
        """The text of a node; `node.text` would go through the parser's callback."""
        return self._data[node.start_byte : node.end_byte].decode("utf-8", "replace")

    def path(self, offset: int) -> list[tree_sitter.Node]:
        """The nodes that hold the character at `offset`, innermost first."""
        node = self.root.descendant_for_byte_range(self.byte(offset), self.byte(offset + 1))
        path = []
        while node is not None:
            path.append(node)
            node = node.parent
        return path

    def replaced(self, start: int, end: int, replacement: str) -> SyntaxTree:
        """The tree of the text with text[start:end] replaced; only what that changes is parsed anew."""
        return self.edited([(start, end, replacement)])

    def edited(self, edits: Sequence[tuple[int, int, str]]) -> SyntaxTree:
        """The tree after replacements (start, end, text), each counted in the text that those before it left; parsed
        once, in the end."""
        text, data, tree = self.text, self._data, self._tree.copy()
        for start, end, replacement in edits:
            first = len(_encode(text[:start]))
            last, new_last = first + len(_encode(text[start:end])), first + len(_encode(replacement))
            text = text[:start] + replacement + text[end:]
            before, data = data, _encode(text)
            tree.edit(first, last, new_last, _point(before, first), _point(before, last), _point(data, new_last))
        return SyntaxTree(text, self.language, data, _parsed(self.language, data, tree))


def _encode(text: str) -> bytes:
    """UTF-8; a lone surrogate counts as the replacement character, which takes as many bytes."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        return _SURROGATES.sub("\ufffd", text).encode("utf-8")


def _point(data: bytes, byte: int) -> tuple[int, int]:
    return data.count(b"\n", 0, byte), byte - (data.rfind(b"\n", 0, byte) + 1)


def _parsed(language: Language, data: bytes, old: tree_sitter.Tree | None = None) -> tree_sitter.Tree:
    """A long text through a callback, since a parser that is handed the bytes lets no other thread run until it is
    done. py-tree-sitter 0.26 never lets go of what it was called back with (`parser_read_wrapper`): views, which can be
    emptied."""
    grammar = language.grammar()
    if grammar is None:
        raise LookupError(f"no grammar is installed for {language.id}")
    parser, views = tree_sitter.Parser(grammar), list[memoryview]()
    if len(data) <= _AT_ONCE:
        return parser.parse(data) if old is None else parser.parse(data, old)

    def rest(byte: int, _: tree_sitter.Point) -> memoryview | bytes:
        if byte >= len(data):
            return b""
        views.append(memoryview(data)[byte:])
        return views[-1]

    def stop(*_: object) -> bool:
        return False

    try:
        if old is None:
            return parser.parse(rest, progress_callback=stop)
        return parser.parse(rest, old, progress_callback=stop)
    finally:
        for view in views:
            view.release()


def parse(text: str, language_id: str | None) -> SyntaxTree | None:
    """The tree of a text; None for an unknown language, a missing grammar, or more than MAX_PARSE_CHARS."""
    language = get(language_id)
    if language is None or len(text) > MAX_PARSE_CHARS or language.grammar() is None:
        return None
    data = _encode(text)
    return SyntaxTree(text, language, data, _parsed(language, data))


def error_nodes(tree: SyntaxTree) -> tuple[Span, ...]:
    """The outermost ERROR nodes, and the MISSING ones (empty spans), in text order."""
    found, pending = [], [tree.root]
    while pending:
        node = pending.pop()
        if node.is_error or node.is_missing:
            found.append(tree.span(node))
        elif node.has_error:
            pending.extend(reversed(node.children))
    return tuple(found)


def error_score(tree: SyntaxTree, outside: Span | None = None) -> ErrorScore:
    """Count of error nodes, and the characters they cover that do not stand within `outside`."""
    spans = error_nodes(tree)
    covered = sum(span.end - span.start for span in spans)
    if outside:
        covered -= sum(max(0, min(span.end, outside.end) - max(span.start, outside.start)) for span in spans)
    return ErrorScore(len(spans), covered)


def scope_of(tree: SyntaxTree, node: tree_sitter.Node) -> Scope | None:
    """The scope that a node opens, or None when it opens none (it only names a struct, for instance)."""
    kind = tree.language.scopes.get(node.type)
    if kind is None or not node.is_named:
        return None
    body = node.child_by_field_name("body")
    if body is None and node.type == "type_spec":
        inner = node.child_by_field_name("type")
        if inner is None or inner.type not in ("struct_type", "interface_type"):
            return None
        bodies = [child for child in inner.children if child.type in ("field_declaration_list", "{")]
        body = bodies[0] if bodies else None
    if body is None:
        return None
    outer, name = node, _scope_name(tree, node)
    while outer.parent is not None and outer.parent.type in _HEADER_PARENTS and outer.parent.named_children:
        if outer.parent.named_children[-1] != outer:
            break
        outer = outer.parent
        name = name or _scope_name(tree, outer)
    if kind == "function":
        parent = node.parent
        while parent is not None and parent.type not in tree.language.scopes:
            parent = parent.parent
        if parent is not None and tree.language.scopes[parent.type] in _CLASS_KINDS:
            kind = "method"
    start, end = tree.span(outer)
    last = body.prev_sibling
    while last is not None and last.type in tree.language.comments:
        last = last.prev_sibling
    header_end = tree.span(last).end if last is not None else start
    return Scope(kind, name, Span(start, header_end), Span(start, end))


def _scope_name(tree: SyntaxTree, node: tree_sitter.Node) -> str:
    for step in ("name", "declarator", "type"):
        named = node.child_by_field_name(step)
        if named is None:
            continue
        while named.type.endswith("declarator"):
            inner = named.child_by_field_name("declarator")
            if inner is None:
                break
            named = inner
        return tree.part(named)
    return ""


def enclosing_scopes(tree: SyntaxTree, offset: int) -> tuple[Scope, ...]:
    """The scopes around a place, outermost first. A blank line of Python belongs to what its column says."""
    text = tree.text
    if not text.strip():
        return ()
    if tree.language.indentation_sensitive:
        if tree.root.has_error:
            return _python_scopes_by_indentation(text, offset)
        return _python_scopes(tree, offset)
    found = []
    for node in tree.path(offset - 1) if offset else ():
        scope = scope_of(tree, node)
        if scope and scope.span.start < offset:
            ends_here = offset == scope.span.end and text[offset - 1] != "}"
            if offset < scope.span.end or ends_here:
                found.append(scope)
    return tuple(reversed(found))


def _python_scopes(tree: SyntaxTree, offset: int) -> tuple[Scope, ...]:
    blank, column = _python_column(tree.text, offset)
    last = len(tree.text[:offset].rstrip()) - 1
    found = []
    for node in tree.path(last) if last >= 0 else ():
        scope = scope_of(tree, node)
        if scope and scope.span.start < offset:
            if (blank and column_width(indentation(tree.text, scope.span.start)) < column) or (
                not blank and offset <= scope.span.end
            ):
                found.append(scope)
    return tuple(reversed(found))


def _python_scopes_by_indentation(text: str, offset: int) -> tuple[Scope, ...]:
    _, column = _python_column(text, offset)
    hidden = scan(text, "python", offset).multiline
    found: list[Scope] = []
    for match in reversed(list(_PYTHON_SCOPE.finditer(text, 0, offset))):
        width = column_width(match[1])
        if width >= column or any(start < match.start() < end for start, end in hidden):
            continue
        column = width
        end = offset
        for line, start in lines_after(text, offset):
            if line.strip() and column_width(indentation(text, start)) <= width:
                break
            end = start + len(line)
        start = match.start() + len(match[1])
        colon = re.compile(r":[ \t]*(?:#[^\n]*)?\r?$", re.MULTILINE).search(text, match.end())
        header_end = colon.start() + 1 if colon and colon.end() <= end else line_end(text, start)
        kind = "function" if match[2] == "def" else "class"
        found.append(Scope(kind, match[3], Span(start, header_end), Span(start, max(end, header_end))))
        if not width:
            break
    for n, outer in enumerate(found[1:]):
        if found[n].kind == "function" and outer.kind == "class":
            found[n] = found[n]._replace(kind="method")
    return tuple(reversed(found))


def _python_column(text: str, offset: int) -> tuple[bool, int]:
    """Whether the line is blank, and the column that decides which scopes a Python line belongs to."""
    start, end = text.rfind("\n", 0, offset) + 1, line_end(text, offset)
    if text[start:end].strip():
        return False, column_width(indentation(text, start))
    if expects_block(text, offset, "python"):
        return True, column_width(indentation_at(text, offset, "python"))
    if offset > start:
        return True, column_width(text[start:offset])
    above = column_width(indentation(text, max(0, len(text[:start].rstrip()) - 1)))
    below = (column_width(indentation(text, at)) for line, at in lines_after(text, offset) if line.strip())
    return True, min(above, next(below, 0))


def statement_at(tree: SyntaxTree, offset: int) -> Span | None:
    """The innermost statement that holds or ends at the place; None on blank lines and outside statements."""
    for at in (offset - 1, offset):
        if 0 <= at < len(tree.text) and not tree.text[at].isspace():
            for node in tree.path(at):
                if tree.language.is_statement(node.type):
                    return tree.span(node)
    return None


def imports(tree: SyntaxTree) -> tuple[Span, ...]:
    """The file's imports in text order, also those in top-level conditions, and grouped ones as one span."""
    found = []
    pending = [(node, 0) for node in reversed(tree.root.children)]
    while pending:
        node, depth = pending.pop()
        if node.type in tree.language.imports:
            found.append(Span(tree.span(node).start, len(tree.text[: tree.span(node).end].rstrip())))
        elif depth < 3 and node.type not in tree.language.scopes and not node.type.startswith("expression"):
            pending.extend((child, depth + 1) for child in reversed(node.children))
    return tuple(found)


def in_string(tree: SyntaxTree, offset: int) -> bool:
    """Whether text typed at the place would be part of a string; code in a template or f-string is not."""
    if tree.root.has_error:
        return scan(tree.text, tree.language.id, offset).inside not in ("", "#", "//", "/*")
    for node in tree.path(offset - 1) if offset else ():
        if node.type in ("interpolation", "template_substitution") and offset < tree.span(node).end:
            return False
        if node.type in tree.language.strings:
            return offset < tree.span(node).end
    return False


def in_comment(tree: SyntaxTree, offset: int) -> bool:
    """Whether text typed at the place would be part of a comment; so it is at the end of a line comment."""
    if tree.root.has_error:
        return scan(tree.text, tree.language.id, offset).inside in ("#", "//", "/*")
    for node in tree.path(offset - 1) if offset else ():
        if node.type in tree.language.comments:
            return offset < tree.span(node).end or tree.text[offset - 2 : offset] != "*/"
    return False
