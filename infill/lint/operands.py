"""Evidence by operands: an edit that makes two equal operands different, or two different ones equal.

`a < a`, `min(a, a)` and `x.y and x.y` do nothing that `a` alone does not do, so one of the two is probably wrong. Must
not know the model.
"""

from __future__ import annotations

import tree_sitter

from engine.errors import Stop, leave_if
from infill.code.syntax import SyntaxTree
from infill.findings import Range
from infill.lint.kinds import Edit
from infill.lint.symbols import ARGUMENT_LISTS, called_name

_OPERATIONS = frozenset(("comparison_operator", "binary_operator", "boolean_operator", "binary_expression"))
_OPERATORS = frozenset("== != === !== < <= > >= is and or && || - / // % & | ^ &^".split()) | {"is not"}
_JOINING = frozenset(("and", "or", "&&", "||"))  # operands of a chain of these are compared with each other
_IDENTITIES = frozenset(("==", "!=", "===", "!==", "is", "is not"))  # `x != x` asks whether x is a number
_CALLS = frozenset(("call", "call_expression"))
_FUNCTIONS = frozenset("min max range gcd hypot isclose allclose array_equal union intersection difference".split())
_NAMES = frozenset(("identifier", "property_identifier", "field_identifier"))
_ENDS = ("_statement", "_definition", "_declaration", "block", "module", "program", "lambda", "arrow_function")
MAX_OPERANDS = 50
MAX_OPERAND = 200  # bytes; longer code is not compared


def operand_change(tree: SyntaxTree, edit: Edit, stop: Stop | None = None) -> float:
    """1 if the edit makes two equal operands of one operation different, -1 if it makes two different ones equal, and
    otherwise 0. Operations are those that make no sense with equal operands."""
    return _operation(tree, edit, stop)[1]


def changed_operation(tree: SyntaxTree, edit: Edit, stop: Stop | None = None) -> Range | None:
    """The operation, or the argument list, that `operand_change` is about; None if that is 0."""
    node, _ = _operation(tree, edit, stop)
    return tree.span(node) if node is not None else None


def _operation(tree: SyntaxTree, edit: Edit, stop: Stop | None) -> tuple[tree_sitter.Node | None, float]:
    start, end = tree.byte(edit.start), tree.byte(edit.end)
    node = tree.root.descendant_for_byte_range(start, end)
    while node is not None and not node.type.endswith(_ENDS):
        leave_if(stop)
        operands = _operands(tree, node)
        edited = next((one for one in operands if one.start_byte <= start and end <= one.end_byte), None)
        if edited is not None and edited.end_byte - edited.start_byte <= MAX_OPERAND:
            change = _change(tree, edit, edited, operands)
            if change:
                return node, change
        node = node.parent
    return None, 0.0


def _operands(tree: SyntaxTree, node: tree_sitter.Node) -> list[tree_sitter.Node]:
    """The operands of an operation, or the arguments of a function, that should differ; empty for other code."""
    if node.type in ARGUMENT_LISTS:
        differ = called_name(tree, node) in _FUNCTIONS and node.named_child_count <= MAX_OPERANDS
        return node.named_children if differ else []
    if node.type not in _OPERATIONS or len(node.children) != 3 or node.children[1].type not in _OPERATORS:
        return []
    left, operator, right = node.children
    if operator.type in _IDENTITIES and left.type == "identifier":
        return []
    found = [right]
    while operator.type in _JOINING and left.type == node.type and len(left.children) == 3:
        first, inner, second = left.children
        if inner.type != operator.type or len(found) >= MAX_OPERANDS:
            break
        found.append(second)
        left = first
    return [*found, left]


def _change(tree: SyntaxTree, edit: Edit, edited: tree_sitter.Node, operands: list[tree_sitter.Node]) -> float:
    others = {_plain(tree.part(one)) for one in operands if one != edited}
    before, (start, _) = tree.part(edited), tree.span(edited)
    after = before[: edit.start - start] + edit.replacement + before[edit.end - start :]
    if not _is_pure(tree, edited):
        return 0.0
    return float(_plain(before) in others) - float(_plain(after) in others)


def _plain(code: str) -> str:
    return "".join(code.split())


def _is_pure(tree: SyntaxTree, node: tree_sitter.Node) -> bool:
    """Whether the code names something, and calls nothing that may return something else the next time."""
    has_name, pending = False, [node]
    while pending:
        one = pending.pop()
        if one.type in _CALLS:
            arguments, callee = one.child_by_field_name("arguments"), one.child_by_field_name("function")
            if arguments is None or not arguments.named_children or callee is None or tree.part(callee) == "next":
                return False
        has_name = has_name or one.type in _NAMES
        pending.extend(one.named_children)
    return has_name
