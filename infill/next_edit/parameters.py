"""A parameter was removed or added: the calls of the function in the file follow."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import tree_sitter

from infill.code.syntax import SyntaxTree, parse
from infill.next_edit.change import Change
from infill.next_edit.edits import Place, Proposal
from infill.next_edit.grammar import Grammar
from infill.next_edit.names import NameTable, Occurrence, Step, key_of, steps_to

REMOVED_RANK, ADDED_RANK, BLANK_RANK = 0.9, 0.8, 0.7
_SEPARATORS = frozenset(("keyword_separator", "positional_separator", "comment"))
_SPLATS = frozenset(
    ("list_splat_pattern", "dictionary_splat_pattern", "rest_pattern", "variadic_parameter_declaration")
)
_OPTIONAL = frozenset(("default_parameter", "typed_default_parameter", "assignment_pattern", "optional_parameter"))
_SPREADS = frozenset(("list_splat", "dictionary_splat", "spread_element", "variadic_argument"))


@dataclass(frozen=True)
class Parameter:
    """node: the whole parameter. kind: required, optional, or a splat, which takes several arguments."""

    name: str
    kind: str
    node: tree_sitter.Node


@dataclass(frozen=True)
class Function:
    """A function with a name. owner: the class around it, if that is the innermost scope."""

    node: tree_sitter.Node
    name: tree_sitter.Node
    parameters: list[Parameter]
    owner: tree_sitter.Node | None

    @property
    def names(self) -> list[str]:
        return [one.name for one in self.parameters]


def function_at(steps: Sequence[Step], tree: SyntaxTree, grammar: Grammar) -> Function | None:
    """The function that has the last of these nodes in its list of parameters."""
    for index in range(len(steps) - 2, -1, -1):
        node = steps[index].node
        if node.type in grammar.functions:
            if steps[index + 1].field != "parameters" or node.type not in grammar.definitions:
                return None
            return function_of(node, steps[:index], tree, grammar)
    return None


def function_of(node: tree_sitter.Node, around: Sequence[Step], tree: SyntaxTree, grammar: Grammar) -> Function | None:
    """The function that a definition defines. around: the nodes around it."""
    name, listed = node.child_by_field_name("name"), node.child_by_field_name("parameters")
    if name is None or listed is None:
        return None
    scopes = [step.node for step in around if step.node.type in grammar.functions | grammar.classes]
    owner = scopes[-1] if scopes and scopes[-1].type in grammar.classes else None
    return Function(node, name, list(_parameters(listed, tree)), owner)


def _parameters(listed: tree_sitter.Node, tree: SyntaxTree) -> Iterator[Parameter]:
    for node in listed.named_children:
        if node.type in _SEPARATORS:
            continue
        named = (
            node.child_by_field_name("name") or node.child_by_field_name("pattern") or node.child_by_field_name("left")
        )
        names = node.children_by_field_name("name") or [named or (node.named_children or [node])[0]]
        inner = named.type if named is not None else names[0].type
        splat = node.type in _SPLATS or inner in _SPLATS
        has_default = node.type in _OPTIONAL or node.child_by_field_name("value") is not None
        kind = "splat" if splat else "optional" if has_default else "required"
        for name in names:
            yield Parameter(tree.part(name).lstrip("*."), kind, node)


def removed_parameter(change: Change) -> Iterator[Proposal]:
    pair = _functions(change)
    if pair is None:
        return
    old, new = pair
    removed = [index for index, name in enumerate(old.names) if name not in new.names]
    if len(removed) != 1 or len(old.names) != len(new.names) + 1 or old.parameters[removed[0]].kind == "splat":
        return
    if [name for name in old.names if name in new.names] != new.names:
        return
    index, name = removed[0], old.names[removed[0]]
    listed = new.node.child_by_field_name("parameters")
    if listed is None or re.search(rf"(?<!\w){re.escape(name)}(?!\w)", change.after.part(listed)):
        return
    if index == 0 and name in change.grammar.receivers:
        return
    places = []
    for call, bound in calls(change, change.before, old):
        span = _argument(change.before, call, name, index - _skipped(old, bound, change.grammar))
        if span is not None and (place := change.place(*span, "")) is not None:
            places.append(place)
    if places:
        what = f"{len(places)} calls" if len(places) > 1 else "1 call"
        reason = f"Remove the argument `{name}` from {what} of `{change.before.part(old.name)}`."
        yield Proposal("argument", tuple(sorted(set(places))), reason, REMOVED_RANK, change.edit.start)


def added_parameter(change: Change) -> Iterator[Proposal]:
    """Only for a parameter that calls must have: the variable of that name where one is visible, else a blank."""
    pair = _functions(change)
    if pair is None:
        return
    old, new = pair
    added = [index for index, name in enumerate(new.names) if name not in old.names]
    if len(added) != 1 or len(new.names) != len(old.names) + 1 or new.parameters[added[0]].kind != "required":
        return
    index, name = added[0], new.names[added[0]]
    if index == 0 and name in change.grammar.receivers:
        return
    table = NameTable(change.after, name, change.stop)
    known, unknown = set[Place](), set[Place]()
    for call, bound in calls(change, change.after, new):
        at = index - _skipped(new, bound, change.grammar)
        place = _insertion(change.after, call, at, len(old.names), name, new)
        if place is None:
            continue
        if table.visible_scope(steps_to(change.after, place.start, place.start)) is not None:
            known.add(place)
        else:
            unknown.add(place)
    for places, rank in ((known, ADDED_RANK), (unknown, BLANK_RANK)):
        if places:
            what = f"{len(places)} calls" if len(places) > 1 else "1 call"
            reason = f"Pass `{name}` in {what} of `{change.after.part(new.name)}`."
            proposal = Proposal("argument", tuple(sorted(places)), reason, rank, change.edit.start)
            yield proposal if places is known else _with_blanks(proposal, name)


def _with_blanks(proposal: Proposal, name: str) -> Proposal:
    """The proposal without the name that its places insert."""
    blanks = tuple(place.text.index(name) for place in proposal.places)
    places = tuple(Place(one.start, one.end, one.text.replace(name, "", 1)) for one in proposal.places)
    return replace(proposal, places=places, blanks=blanks)


def is_argument(text: str, language: str) -> bool:
    """Whether the text is one argument of a call, in one line."""
    call = f"f({text})"
    tree = parse(f"{call}\n", language) if text.strip() and "\n" not in text else None
    if tree is None or tree.root.has_error or tree.root.named_child_count != 1:
        return False
    node = tree.root.named_children[0]
    if node.type == "expression_statement" and node.named_child_count == 1:
        node = node.named_children[0]
    return tree.part(node) == call and node.type in ("call", "call_expression") and len(arguments(node)) == 1


def _functions(change: Change) -> tuple[Function, Function] | None:
    """The function before and after, if the edit is in its list of parameters."""
    new = function_at(change.steps, change.after, change.grammar)
    old = function_at(change.old_steps, change.before, change.grammar) if new is not None else None
    if new is None or old is None or change.after.part(new.name) != change.before.part(old.name):
        return None
    return old, new


def _skipped(function: Function, bound: bool, grammar: Grammar) -> int:
    """How many parameters a call does not pass: the receiver of a method."""
    first = function.names[0] if function.names else ""
    return int(bound and first in grammar.receivers)


def calls(change: Change, tree: SyntaxTree, function: Function) -> Iterator[tuple[tree_sitter.Node, bool]]:
    """The calls of a function in `tree`, and whether they are bound to an object, which is then not an argument."""
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
        if (receiver in grammar.receivers and inside) or is_only or is_class:
            yield call, not is_class


def _call(one: Occurrence, table: NameTable) -> tree_sitter.Node | None:
    """The call whose function this is."""
    steps = one.steps[:-1] if one.role == "member" else one.steps
    if len(steps) < 2 or steps[-1].field not in ("function", "constructor"):
        return None
    call = steps[-2].node
    return call if call.type in table.grammar.calls else None


def arguments(call: tree_sitter.Node) -> list[tree_sitter.Node]:
    listed = call.child_by_field_name("arguments")
    if listed is None or listed.type == "generator_expression":
        return []
    return [one for one in listed.named_children if one.type not in _SEPARATORS]


def _argument(tree: SyntaxTree, call: tree_sitter.Node, name: str, index: int) -> tuple[int, int] | None:
    """What to delete for one argument, with a comma."""
    passed = arguments(call)
    if any(one.is_error or one.has_error for one in passed):
        return None
    for number, one in enumerate(passed):
        if one.type == "keyword_argument":
            keyword = one.child_by_field_name("name")
            found = keyword is not None and tree.part(keyword) == name
        elif one.type in _SPREADS:
            return None
        else:
            found = number == index
        if found:
            start, end = tree.span(one)
            if number + 1 < len(passed):
                return start, tree.span(passed[number + 1]).start
            return (tree.span(passed[number - 1]).end, end) if number else (start, _after_comma(tree.text, end))
    return None


def _after_comma(text: str, end: int) -> int:
    rest = text[end : end + 2]
    return end + 1 if rest.startswith(",") else end


def _insertion(
    tree: SyntaxTree, call: tree_sitter.Node, index: int, least: int, name: str, function: Function
) -> Place | None:
    """Where to insert the argument; None if the call seems to have it, or passes a different number."""
    passed, listed = arguments(call), call.child_by_field_name("arguments")
    if listed is None or any(one.type in _SPREADS or one.has_error for one in passed):
        return None
    keywords = {
        tree.part(found)
        for one in passed
        if (found := one.child_by_field_name("name")) is not None and one.type == "keyword_argument"
    }
    positional = [one for one in passed if one.type != "keyword_argument"]
    needed = [one.name for one in function.parameters if one.kind == "required" and one.name not in keywords]
    receivers = sum(one in ("self", "cls") for one in function.names[:1])
    if name in keywords or len(positional) >= len(needed) - receivers or len(positional) < index:
        return None
    if index < len(positional):
        start = tree.span(positional[index]).start
        return Place(start, start, f"{name}, ")
    if passed:
        before = positional[-1] if positional else None
        if before is None:
            start = tree.span(passed[0]).start
            return Place(start, start, f"{name}, ")
        end = tree.span(before).end
        return Place(end, end, f", {name}")
    start = tree.span(listed).start + 1
    return Place(start, start, name)
