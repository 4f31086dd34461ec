"""The calls of a function in its file, and their arguments."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import tree_sitter

from engine.errors import leave_if
from infill.code.syntax import SyntaxTree
from infill.next_edit.change import Change
from infill.next_edit.functions import SEPARATORS, Function
from infill.next_edit.grammar import Grammar
from infill.next_edit.names import (
    MAX_OCCURRENCES,
    NameTable,
    Occurrence,
    Step,
    inherits,
    key_of,
    steps_to,
    word_spans,
)

_SUPER = ("super", "super()")


def calls(change: Change, tree: SyntaxTree, function: Function) -> Iterator[tuple[tree_sitter.Node, bool]]:
    """The calls of a function in `tree`, and whether they are bound to an object, which is then not an argument."""
    if function.owner is not None:
        yield from _super_calls(change, tree, function)
    grammar, name = change.grammar, tree.part(function.name)
    is_constructor = name in grammar.constructors
    if function.owner is not None and is_constructor:
        class_name = function.owner.child_by_field_name("name")
        if class_name is None:
            return
        name = tree.part(class_name)
    table = NameTable(tree, name, change.stop)
    if not table.is_complete:
        return
    if function.owner is None or is_constructor:
        declared_at = function.name if function.owner is None else function.owner.child_by_field_name("name")
        assert declared_at is not None
        yield from _plain_calls(table, declared_at, is_constructor)
    if function.owner is not None and not is_constructor or function.node.type == "method_declaration":
        yield from _member_calls(table, function)


def _plain_calls(
    table: NameTable, declared_at: tree_sitter.Node, bound: bool
) -> Iterator[tuple[tree_sitter.Node, bool]]:
    declared = table.at(table.tree.span(declared_at).start)
    if declared is None or declared.scope is None:
        return
    bindings = [one for one in table.occurrences if one.scope == declared.scope]
    if len(bindings) > 1:
        return
    for one in table.bound_in(declared.scope):
        call = _call(one, table)
        if one.role == "use" and call is not None:
            yield call, bound


def _member_calls(table: NameTable, function: Function) -> Iterator[tuple[tree_sitter.Node, bool]]:
    grammar, tree = table.grammar, table.tree
    definitions = [
        one
        for one in table.occurrences
        if one.parent.type in grammar.definitions and one.steps[-1].field == "name" and one.node != function.name
    ]
    owner = key_of(function.owner) if function.owner is not None else None
    class_name = function.owner.child_by_field_name("name") if function.owner is not None else None
    for one in table.occurrences:
        if one.role != "member" or (call := _call(one, table)) is None:
            continue
        objects = (one.parent.child_by_field_name(name) for name in grammar.objects)
        receiver = next((tree.part(found) for found in objects if found is not None), "")
        is_class = class_name is not None and receiver == tree.part(class_name)
        inside = owner is not None and any(key_of(step.node) == owner for step in one.steps)
        is_only = not definitions and table.name not in grammar.known
        is_own = receiver in grammar.receivers and (inside or inherits(one.steps, function.owner, tree))
        if is_own or is_class or is_only and receiver not in _SUPER:
            yield call, not is_class


def _super_calls(change: Change, tree: SyntaxTree, function: Function) -> Iterator[tuple[tree_sitter.Node, bool]]:
    """`super().f()`, `super.f()` and, for a constructor, `super()`, in classes that inherit from the function's."""
    grammar, name = change.grammar, tree.part(function.name)
    is_plain = name in grammar.constructors and tree.language.id != "python"
    for number, (start, end) in enumerate(word_spans(tree.text, "super")):
        leave_if(change.stop)
        if number == MAX_OCCURRENCES:
            return
        steps = steps_to(tree, start, end)
        if tree.language.id == "python" and tree.text.startswith("()", end):
            steps = steps_to(tree, start, end + 2)
        if not is_plain and len(steps) > 1:
            member = next((steps[-2].node.child_by_field_name(one) for one in ("attribute", "property")), None)
            steps = steps[:-1] if member is not None and tree.part(member) == name else []
        if len(steps) > 1 and (call := _call_of(steps, grammar)) is not None and inherits(steps, function.owner, tree):
            yield call, True


def _call(one: Occurrence, table: NameTable) -> tree_sitter.Node | None:
    """The call whose function this is."""
    return _call_of(one.steps[:-1] if one.role == "member" else one.steps, table.grammar)


def _call_of(steps: Sequence[Step], grammar: Grammar) -> tree_sitter.Node | None:
    """The call whose function the last of these nodes is."""
    if len(steps) < 2 or steps[-1].field not in ("function", "constructor"):
        return None
    call = steps[-2].node
    return call if call.type in grammar.calls else None


def arguments(call: tree_sitter.Node) -> list[tree_sitter.Node]:
    listed = call.child_by_field_name("arguments")
    if listed is None or listed.type == "generator_expression":
        return []
    return [one for one in listed.named_children if one.type not in SEPARATORS]
