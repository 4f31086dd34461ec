"""What a file that does not fit says in few lines: its imports and the signatures of its scopes.

Works on text and tree alone. It must not know tokens or prompts: its limit is in characters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tree_sitter

from infill.code.syntax import Span, SyntaxTree, imports, parse, scope_of

MAX_HEADER_CHARS = 400
_TRANSPARENT = frozenset(
    "decorated_definition export_statement template_declaration lexical_declaration variable_declarator "
    "variable_declaration expression_statement type_declaration type_definition linkage_specification "
    "declaration_list ambient_declaration if_statement try_statement block else_clause except_clause "
    "preproc_ifdef preproc_if preproc_else preproc_elif".split()
)


class _Entry(NamedTuple):
    span: Span
    whole: Span
    text: str
    is_import: bool
    parents: tuple[int, ...]


def outline(
    text: str,
    language_id: str | None,
    keep: Sequence[Span],
    limit_chars: int = 4000,
    docstrings: bool = False,
    tree: SyntaxTree | None = None,
) -> str:
    """Imports and signatures that stand outside the `keep` spans, in file order, each with its indentation.

    Lines end in "\\n". At most `limit_chars` characters: the scopes around the kept spans come first, then
    imports (up to half of the room), then the nearest signatures, each with the headers of its own scopes.
    `docstrings` adds the first line of Python docstrings. `tree` saves parsing. No grammar: an empty string.
    """
    tree = tree or parse(text, language_id)
    if tree is None:
        return ""
    entries = _entries(tree, docstrings)
    shown = [not any(_overlap(entry.span, kept) for kept in keep) for entry in entries]
    order = sorted(
        (index for index in range(len(entries)) if shown[index]),
        key=lambda index: _rank(entries[index], keep),
    )
    chosen: set[int] = set()
    room, import_room = limit_chars, limit_chars // 2
    for index in order:
        wanted = [n for n in (*entries[index].parents, index) if shown[n] and n not in chosen]
        cost = sum(len(entries[n].text) for n in wanted)
        if cost > (min(room, import_room) if entries[index].is_import else room):
            continue
        chosen.update(wanted)
        room -= cost
        if entries[index].is_import:
            import_room -= cost
    return "".join(entries[index].text for index in sorted(chosen))


def _overlap(one: Span, other: Span) -> bool:
    return one.start < other.end and other.start < one.end


def _rank(entry: _Entry, keep: Sequence[Span]) -> tuple[bool, bool, int]:
    around = any(_overlap(entry.whole, kept) for kept in keep)
    return not around, not entry.is_import, _distance(entry.span, keep)


def _distance(span: Span, keep: Sequence[Span]) -> int:
    """Characters between a span and the nearest kept one; from the file's start when nothing is kept."""
    if not keep:
        return span.start
    return min(max(0, kept.start - span.end, span.start - kept.end) for kept in keep)


def _entries(tree: SyntaxTree, docstrings: bool) -> list[_Entry]:
    """All entries in file order."""
    found = [(span, span, _lines(tree.text, span), True) for span in imports(tree)]
    pending = list(tree.root.children)
    while pending:
        node = pending.pop()
        scope = scope_of(tree, node)
        if scope:
            header = _lines(tree.text, scope.header_span)
            if docstrings:
                header += _docstring_line(tree, node)
            found.append((scope.header_span, scope.span, header, False))
        if scope is None or scope.kind not in ("function", "method"):
            body = node.child_by_field_name("body") if scope else None
            if body is not None:
                pending.extend(body.children)
            elif scope is None and node.type in _TRANSPARENT:
                pending.extend(node.children)
    found.sort(key=lambda entry: (entry[0].start, -entry[1].end))
    entries: list[_Entry] = []
    around: list[int] = []
    for span, whole, header, is_import in found:
        while around and entries[around[-1]].whole.end <= span.start:
            around.pop()
        entries.append(_Entry(span, whole, header, is_import, tuple(around)))
        if not is_import:
            around.append(len(entries) - 1)
    return entries


def _lines(text: str, span: Span) -> str:
    """The text of a span with the indentation before it, "\\n" line ends, cut at MAX_HEADER_CHARS."""
    start = text.rfind("\n", 0, span.start) + 1
    before = text[start : span.start]
    shown = (before if not before.strip() else "") + text[span.start : span.end]
    return shown.replace("\r\n", "\n")[:MAX_HEADER_CHARS].rstrip() + "\n"


def _docstring_line(tree: SyntaxTree, node: tree_sitter.Node) -> str:
    """The first line of a Python docstring, closed, with indentation and line end; "" when there is none."""
    body = node.child_by_field_name("body")
    if not tree.language.indentation_sensitive or body is None or not body.named_children:
        return ""
    first = body.named_children[0]
    if first.type != "expression_statement" or first.named_children[0].type != "string":
        return ""
    span = tree.span(first)
    lines = tree.text[span.start : span.end].splitlines()
    before = tree.text[tree.text.rfind("\n", 0, span.start) + 1 : span.start]
    if before.strip() or len(lines[0].strip("\"'")) > MAX_HEADER_CHARS:
        return ""
    closing = tree.text[span.end - 3 : span.end] if len(lines) > 1 else ""
    return f"{before}{lines[0].rstrip()}{closing}\n"
