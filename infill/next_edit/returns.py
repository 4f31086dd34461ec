"""A function returns more values than before: the code that uses its calls follows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import tree_sitter

from infill.code.syntax import SyntaxTree
from infill.next_edit.calls import calls
from infill.next_edit.change import Change
from infill.next_edit.edits import Place, Proposal
from infill.next_edit.functions import Function, function_of
from infill.next_edit.grammar import Grammar
from infill.next_edit.names import NameTable, Step, steps_to

RANK = 0.85
_TUPLES = frozenset(("expression_list", "tuple", "array"))
_SPREADS = frozenset(("list_splat", "spread_element"))
_PATTERNS = frozenset(("pattern_list", "tuple_pattern", "expression_list"))
_AWAITS = frozenset(("await", "await_expression"))
_DECLARATIONS = frozenset(("assignment", "variable_declarator", "short_var_declaration", "assignment_statement"))
_NAME = re.compile(r"(?:\w+\.)*([^\W\d]\w*)")
_CONSTANTS = frozenset(("None", "True", "False", "null", "undefined", "true", "false", "nil", "self", "this"))
_USES = frozenset(
    "binary_operator binary_expression comparison_operator boolean_operator not_operator unary_operator "
    "unary_expression argument_list arguments keyword_argument attribute member_expression subscript "
    "subscript_expression if_statement while_statement assignment_expression".split()
)


@dataclass(frozen=True)
class _Values:
    """The new values: texts in order. added: indices of those that are new. is_single: whether there was one before."""

    texts: Sequence[str]
    added: Sequence[int]
    is_single: bool

    @property
    def kept(self) -> int:
        """The index of the first value that was there before."""
        return next(index for index in range(len(self.texts)) if index not in self.added)


def more_values(change: Change) -> Iterator[Proposal]:
    """All values are from `return` statements that have the same number of values by now."""
    function = _function_around(change)
    values = _values(change, function) if function is not None else None
    if function is None or values is None:
        return
    is_async = change.after.part(function.node).startswith("async")
    places = []
    for call, _ in calls(change, change.after, function):
        place = _place(change, call, values, is_async)
        if place is not None and not change.edit.start <= place.start <= change.edit.end:
            places.append(place)
    if places:
        what = f"{len(places)} calls" if len(places) > 1 else "1 call"
        name = change.after.part(function.name)
        reason = f"`{name}` returns {len(values.texts)} values: adapt {what}."
        yield Proposal("return", tuple(sorted(set(places))), reason, RANK, change.edit.start)


def _function_around(change: Change) -> Function | None:
    """The function whose body has the edit."""
    steps = change.steps
    for index in range(len(steps) - 2, -1, -1):
        node = steps[index].node
        if node.type in change.grammar.functions:
            is_in_body = steps[index + 1].field == "body"
            return function_of(node, steps[:index], change.after, change.grammar) if is_in_body else None
    return None


def _values(change: Change, function: Function) -> _Values | None:
    """None unless the edit added values to one `return`, and all others have as many."""
    tree = change.after
    body = function.node.child_by_field_name("body")
    if body is None or re.search(r"\byield\b", tree.part(body)):
        return None
    found = list(_returns(body, change.grammar))
    new = [_parts(node) for node in found]
    edited = [node for node in found if _touches(change, node)]
    if len(edited) != 1 or any(parts is None or len(parts) != len(new[0] or []) for parts in new):
        return None
    now = [tree.part(one) for one in _parts(edited[0]) or []]
    before = _before(change)
    old = [change.before.part(one) for one in _parts(before) or []] if before is not None else []
    if not 0 < len(old) < len(now) or before is None:
        return None
    added = _added(old, now)
    is_single = len(old) == 1
    if added is None or is_single and any(one.type in _TUPLES - {"expression_list"} for one in before.named_children):
        return None
    if not is_single and tree.language.id not in ("python", "go"):
        return None
    return _Values(
        [_variable(parts, tree) for parts in zip(*(one or [] for one in new), strict=True)], added, is_single
    )


def _returns(body: tree_sitter.Node, grammar: Grammar) -> Iterator[tree_sitter.Node]:
    """The `return` statements of a function, without those of functions within."""
    pending = [body]
    while pending:
        node = pending.pop()
        if node.type == "return_statement":
            yield node
        elif node.type not in grammar.functions and node.type not in grammar.classes:
            pending.extend(reversed(node.named_children))


def _parts(node: tree_sitter.Node) -> list[tree_sitter.Node] | None:
    """The values of a `return`; None if their number is not certain."""
    values = [one for one in node.named_children if one.type != "comment"]
    if len(values) == 1 and values[0].type in _TUPLES:
        values = [one for one in values[0].named_children if one.type != "comment"]
    return None if any(one.type in _SPREADS for one in values) else values


def _touches(change: Change, node: tree_sitter.Node) -> bool:
    start, end = change.after.span(node)
    return start < change.edit.end and change.edit.start <= end


def _before(change: Change) -> tree_sitter.Node | None:
    """The `return` statement before the edit."""
    start = change.edit.start
    around = steps_to(change.before, max(0, start - 1), start)
    return next(
        (step.node for step in reversed([*change.old_steps, *around]) if step.node.type == "return_statement"), None
    )


def _added(old: Sequence[str], new: Sequence[str]) -> list[int] | None:
    """The indices of the new values; None if the old ones are not among them in their order."""
    added, rest = [], list(old)
    for index, text in enumerate(new):
        if rest and text == rest[0]:
            rest.pop(0)
        else:
            added.append(index)
    return None if rest else added


def _variable(values: Sequence[tree_sitter.Node], tree: SyntaxTree) -> str:
    """A name for what these values have in common; empty if none has one."""
    for node in values:
        match = _NAME.fullmatch(tree.part(node)) if node.end_byte - node.start_byte < 100 else None
        if match is not None and match[1] not in _CONSTANTS:
            return match[1]
    return ""


def _place(change: Change, call: tree_sitter.Node, values: _Values, is_async: bool) -> Place | None:
    tree, node, parent = change.after, call, call.parent
    is_awaited = parent is not None and parent.type in _AWAITS
    if is_async != is_awaited or parent is None:
        return None
    if is_awaited:
        node, parent = parent, parent.parent
    if parent is not None and parent.type == "expression_list":
        if parent.named_child_count != 1:
            return None
        node, parent = parent, parent.parent
    if parent is None:
        return None
    if parent.type in _DECLARATIONS and node in (
        parent.child_by_field_name("right"),
        parent.child_by_field_name("value"),
    ):
        return _target(change, parent, values)
    is_condition = parent.type in ("if_statement", "while_statement")
    if not values.is_single or is_awaited or parent.type not in _USES or tree.language.id == "go":
        return None
    if is_condition and parent.child_by_field_name("condition") != node:
        return None
    end = tree.span(node).end
    return Place(end, end, f"[{values.kept}]")


def _target(change: Change, declaration: tree_sitter.Node, values: _Values) -> Place | None:
    """The variables on the left."""
    tree, language = change.after, change.after.language.id
    left = declaration.child_by_field_name("left") or declaration.child_by_field_name("name")
    outer = declaration.parent
    if (
        left is None
        or declaration.child_by_field_name("type") is not None
        or (outer and outer.type == declaration.type)
    ):
        return None
    targets = left.named_children if left.type in _PATTERNS else [left]
    if len(targets) != len(values.texts) - len(values.added) or any("splat" in one.type for one in targets):
        return None
    if language not in ("python", "go") and left.type != "identifier":
        return None
    kept = [tree.part(one) for one in targets]
    around = steps_to(tree, *tree.span(left))
    names = []
    for index, name in enumerate(values.texts):
        names.append(_free(change, name, around, declaration, kept) if index in values.added else kept.pop(0))
    if language in ("python", "go"):
        text = ", ".join(name or "_" for name in names)
        text = f"({text})" if left.type == "tuple_pattern" else text
    else:
        while not names[-1]:
            names.pop()
        text = f"[{', '.join(names)}]"
    return Place(*tree.span(left), text)


def _free(
    change: Change, name: str, around: Sequence[Step], declaration: tree_sitter.Node, targets: Sequence[str]
) -> str:
    """The name if it can be bound there, otherwise nothing. In Go `err` is assigned again and again."""
    if not name or name in targets:
        return ""
    is_bound = NameTable(change.after, name, change.stop).visible_scope(around) is not None
    if change.after.language.id == "go":
        again = name == "err" and (is_bound or declaration.type == "short_var_declaration")
        return name if again or (not is_bound and declaration.type == "short_var_declaration") else ""
    return "" if is_bound else name
