"""Splits a text into chunks that are linted separately: definitions, members of long ones, statements; whole lines.

A chunk that does not change need not be linted again. Must not know what is searched for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import tree_sitter

from infill.code.syntax import SyntaxTree

LONG = 3_000  # bytes; the members of a longer definition are chunks of their own
LONGEST = 20_000  # characters; longer chunks hold data and are left out
DEEPEST = 4  # levels from a definition to the block of its members


@dataclass(frozen=True)
class Chunk:
    """[start, end) of the document, including the comments right above; text: the characters there."""

    start: int
    end: int
    text: str


@dataclass(frozen=True)
class _Span:
    """[start, end) in characters. valid: without syntax errors."""

    start: int
    end: int
    valid: bool


def chunks_in(tree: SyntaxTree, start: int, end: int) -> list[Chunk]:
    """The chunks without syntax errors that overlap [start, end), in text order and disjoint."""
    text = tree.text
    window = tree.byte(max(0, start)), tree.byte(min(max(0, end), len(text)))
    joined: list[_Span] = []
    for span in _spans(tree, tree.root, window):
        first = text.rfind("\n", 0, span.start) + 1
        last = text.find("\n", span.end)
        lines = _Span(first, len(text) if last < 0 else last, span.valid)
        if joined and lines.start <= joined[-1].end:
            before = joined.pop()
            lines = _Span(before.start, max(before.end, lines.end), before.valid and lines.valid)
        joined.append(lines)
    return [
        Chunk(span.start, span.end, text[span.start : span.end])
        for span in joined
        if span.valid and span.end - span.start <= LONGEST
    ]


def _spans(tree: SyntaxTree, parent: tree_sitter.Node, window: tuple[int, int]) -> Iterator[_Span]:
    """The children of a node; long or invalid ones are replaced by their own children."""
    row, comment = -1, None  # where the last child ended, and the first comment after it
    for node in parent.named_children:
        if node.type in tree.language.comments:
            if node.start_point.row != row:
                comment = comment or node
            continue
        top, comment = comment or node, None
        row = node.end_point.row
        if node.end_byte < window[0] or top.start_byte > window[1]:
            continue
        block = _block(tree, node) if node.has_error or node.end_byte - node.start_byte > LONG else None
        if block is None:
            yield _Span(tree.span(top).start, tree.span(node).end, not node.has_error)
            continue
        inner, outer = tree.span(block), tree.span(node)
        yield _Span(tree.span(top).start, inner.start, not node.has_error)
        yield from _spans(tree, block, window)
        if tree.text[inner.end : outer.end].strip(" \t\r\n;)}"):
            yield _Span(inner.end, outer.end, not node.has_error)


def _block(tree: SyntaxTree, node: tree_sitter.Node) -> tree_sitter.Node | None:
    """The outermost block of a definition or statement, or the statement list that is its only child."""
    level = node.named_children
    for _ in range(DEEPEST):
        for child in level:
            if child.type in tree.language.blocks:
                only = child.named_children
                return only[0] if len(only) == 1 and only[0].type.endswith("_list") else child
        level = [grandchild for child in level for grandchild in child.named_children]
    return None
