"""The outline of a file: its imports and the signatures of its functions and classes.

Must not know tokens or prompts; the limit is in characters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from engine.errors import Stop, pacer
from infill.code.syntax import Span, SyntaxTree, imports, parse

if TYPE_CHECKING:
    import tree_sitter

MAX_HEADER_CHARS = 400
_HEADER_PARENTS = frozenset(
    "decorated_definition export_statement template_declaration lexical_declaration variable_declarator "
    "variable_declaration type_declaration".split()
)
_TRANSPARENT = frozenset(
    "decorated_definition export_statement template_declaration lexical_declaration variable_declarator "
    "variable_declaration expression_statement type_declaration type_definition linkage_specification "
    "declaration_list ambient_declaration if_statement try_statement block else_clause except_clause "
    "preproc_ifdef preproc_if preproc_else preproc_elif".split()
)


class _Scope(NamedTuple):
    """header: the span of decorators and signature."""

    kind: str
    header: Span
    span: Span


class _Entry(NamedTuple):
    """span: what is shown. whole: for a scope, with its body. parents: indexes of the scopes around it."""

    span: Span
    whole: Span
    text: str
    is_import: bool
    parents: tuple[int, ...]


def outline(
    text: str, language_id: str | None, keep: Sequence[Span], limit_chars: int = 4000, stop: Stop | None = None
) -> str:
    """Imports and signatures outside the `keep` spans, in file order, each with its indentation.

    Lines end in "\\n". Within `limit_chars`, the scopes around the kept spans come first, then imports (up to half of
    the limit), then the nearest signatures, each with the headers of its own scopes. Empty without a grammar.
    Raises ParsingStopped or Cancelled once `stop` returns True.
    """
    tree = parse(text, language_id, stop)
    if tree is None:
        return ""
    entries = _entries(tree, stop)
    shown = [not any(_overlap(entry.span, kept) for kept in keep) for entry in entries]
    order = sorted(
        (index for index in range(len(entries)) if shown[index]),
        key=lambda index: _rank(entries[index], keep),
    )
    chosen: set[int] = set()
    remaining, import_remaining = limit_chars, limit_chars // 2
    for index in order:
        added = [n for n in (*entries[index].parents, index) if shown[n] and n not in chosen]
        cost = sum(len(entries[n].text) for n in added)
        if cost > (min(remaining, import_remaining) if entries[index].is_import else remaining):
            continue
        chosen.update(added)
        remaining -= cost
        if entries[index].is_import:
            import_remaining -= cost
    return "".join(entries[index].text for index in sorted(chosen))


def _overlap(one: Span, other: Span) -> bool:
    return one.start < other.end and other.start < one.end


def _rank(entry: _Entry, keep: Sequence[Span]) -> tuple[bool, bool, int]:
    around = any(_overlap(entry.whole, kept) for kept in keep)
    return not around, not entry.is_import, _distance(entry.span, keep)


def _distance(span: Span, keep: Sequence[Span]) -> int:
    """Characters between a span and the nearest kept span; from the start of the file if none is kept."""
    if not keep:
        return span.start
    return min(max(0, kept.start - span.end, span.start - kept.end) for kept in keep)


def _entries(tree: SyntaxTree, stop: Stop | None) -> list[_Entry]:
    """All entries in file order."""
    found = [(span, span, _lines(tree.text, span), True) for span in imports(tree, stop)]
    pending, pace = list(tree.root.children), pacer(stop)
    while pending:
        pace()
        node = pending.pop()
        scope = _scope_of(tree, node)
        if scope:
            found.append((scope.header, scope.span, _lines(tree.text, scope.header), False))
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
    """The text of a span with the indentation before it and "\\n" line ends, cut at MAX_HEADER_CHARS."""
    start = text.rfind("\n", 0, span.start) + 1
    before = text[start : span.start]
    shown = (before if not before.strip() else "") + text[span.start : span.end]
    return shown.replace("\r\n", "\n")[:MAX_HEADER_CHARS].rstrip() + "\n"


def _scope_of(tree: SyntaxTree, node: tree_sitter.Node) -> _Scope | None:
    """The scope that a node opens; None if it opens none, as when it only names a struct."""
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
    outer = node
    while outer.parent is not None and outer.parent.type in _HEADER_PARENTS and outer.parent.named_children:
        if outer.parent.named_children[-1] != outer:
            break
        outer = outer.parent
    start, end = tree.span(outer)
    last = body.prev_sibling
    while last is not None and last.type in tree.language.comments:
        last = last.prev_sibling
    header_end = tree.span(last).end if last is not None else start
    return _Scope(kind, Span(start, header_end), Span(start, end))
