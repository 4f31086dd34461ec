"""The parts of a text that are looked at apart: definitions, members of long ones, statements; always whole lines.

A part that does not change need not be looked at again. Must not know what is looked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import tree_sitter

from infill.code.syntax import SyntaxTree

LONG = 3_000  # bytes, beyond which the members of a definition are parts of their own
LONGEST = 20_000  # characters; what is longer holds data
DEEPEST = 4  # from a definition to the block with its members


@dataclass(frozen=True)
class Unit:
    """[start, end) of the document, with the comments right above; text: what stands there."""

    start: int
    end: int
    text: str


@dataclass(frozen=True)
class _Piece:
    """[start, end) in characters. sound: without an error of syntax."""

    start: int
    end: int
    sound: bool


def units(tree: SyntaxTree, start: int, end: int) -> list[Unit]:
    """The sound parts that lie in [start, end) at least partly, in text order and without overlaps."""
    text = tree.text
    window = tree.byte(max(0, start)), tree.byte(min(max(0, end), len(text)))
    joined: list[_Piece] = []
    for piece in _pieces(tree, tree.root, window):
        first = text.rfind("\n", 0, piece.start) + 1
        last = text.find("\n", piece.end)
        whole = _Piece(first, len(text) if last < 0 else last, piece.sound)
        if joined and whole.start <= joined[-1].end:
            before = joined.pop()
            whole = _Piece(before.start, max(before.end, whole.end), before.sound and whole.sound)
        joined.append(whole)
    return [
        Unit(one.start, one.end, text[one.start : one.end])
        for one in joined
        if one.sound and one.end - one.start <= LONGEST
    ]


def _pieces(tree: SyntaxTree, parent: tree_sitter.Node, window: tuple[int, int]) -> Iterator[_Piece]:
    """The children of a node, and in place of those that are long or broken what they consist of."""
    row, comment = -1, None  # where the last child ended, and the first of the comments since
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
            yield _Piece(tree.span(top).start, tree.span(node).end, not node.has_error)
            continue
        inner, outer = tree.span(block), tree.span(node)
        yield _Piece(tree.span(top).start, inner.start, not node.has_error)
        yield from _pieces(tree, block, window)
        if tree.text[inner.end : outer.end].strip(" \t\r\n;)}"):
            yield _Piece(inner.end, outer.end, not node.has_error)


def _block(tree: SyntaxTree, node: tree_sitter.Node) -> tree_sitter.Node | None:
    """The outermost block of a definition or statement, or the list of statements that is all it holds."""
    level = node.named_children
    for _ in range(DEEPEST):
        for one in level:
            if one.type in tree.language.blocks:
                only = one.named_children
                return only[0] if len(only) == 1 and only[0].type.endswith("_list") else one
        level = [child for one in level for child in one.named_children]
    return None
