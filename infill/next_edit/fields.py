"""A parameter or a field was added to a constructor: the assignment, the parameter or `__repr__` follows."""

from __future__ import annotations

import re
from collections.abc import Iterator

import tree_sitter

from infill.code.syntax import SyntaxTree
from infill.next_edit.change import Change
from infill.next_edit.edits import Place, Proposal
from infill.next_edit.functions import Function, function_at, function_of
from infill.next_edit.names import NameTable

RANK = 0.85
_ASSIGNMENTS = frozenset(("assignment", "assignment_expression"))
_SHOWN = re.compile(r"(\w+)=\{self\.\1(![rsa])?\}")


def stored_parameter(change: Change) -> Iterator[Proposal]:
    """A parameter was added to a constructor that stores the others: store it too."""
    new = function_at(change.steps, change.after, change.grammar)
    if new is None or not _is_constructor(change, new):
        return
    old = function_at(change.old_steps, change.before, change.grammar)
    if old is None:
        return
    added = [one for one in new.parameters if one.name not in old.names]
    body = new.node.child_by_field_name("body")
    if len(added) != 1 or len(new.names) <= len(old.names) or added[0].kind == "splat" or body is None:
        return
    if any(child.type == "accessibility_modifier" for child in added[0].node.children):
        return
    name, tree = added[0].name, change.after
    stored = _stored(body, tree, new)
    others = [one for one in new.names if one not in change.grammar.receivers and one != name]
    if not stored or len(stored) * 2 < len(others) or re.search(rf"(?<!\w){re.escape(name)}(?!\w)", tree.part(body)):
        return
    earlier = [one for one in new.names[: new.names.index(name)] if one in stored]
    beside, prefix = stored[earlier[-1] if earlier else next(one for one in others if one in stored)]
    start, end = tree.span(beside)
    indent = tree.text[tree.text.rfind("\n", 0, start) + 1 : start]
    end += tree.text[end : end + 1] == ";"
    if indent.strip() or tree.text[end : end + 1] not in ("\n", "\r", ""):
        return
    statement = f"{prefix}{name} = {name}{';' if tree.text[end - 1] == ';' else ''}"
    place = Place(end, end, f"\n{indent}{statement}") if earlier else Place(start, start, f"{statement}\n{indent}")
    yield Proposal("field", (place,), f"Store the new parameter `{name}`.", RANK, change.edit.start)


def parameter_for_field(change: Change) -> Iterator[Proposal]:
    """`self.x = x` was added to a constructor without a parameter `x`: add it."""
    found = _new_field(change)
    if found is None:
        return
    function, name, value = found
    if value != name or name in function.names:
        return
    body = function.node.child_by_field_name("body")
    listed = function.node.child_by_field_name("parameters")
    if body is None or listed is None or len(_stored(body, change.after, function)) < 1:
        return
    start = change.edit.start + change.edit.new.rfind(name)
    table = NameTable(change.after, name, change.stop)
    use = table.at(start)
    if use is None or table.scope_of(use) is not None or name in change.grammar.known:
        return
    required = [one for one in function.parameters if one.kind == "required"]
    if not required or len(required) != len(function.parameters):
        return
    end = change.after.span(required[-1].node).end
    place = Place(end, end, f", {name}")
    yield Proposal("field", (place,), f"Add the parameter `{name}`.", RANK, change.edit.start)


def shown_field(change: Change) -> Iterator[Proposal]:
    """A field was added to a class whose `__repr__` shows all others: show it too."""
    found = _new_field(change)
    if found is None or change.after.language.id != "python":
        return
    function, name, _ = found
    tree, owner = change.after, function.owner
    body = owner.child_by_field_name("body") if owner is not None else None
    if body is None or name.startswith("_"):
        return
    for node in body.named_children:
        defined = node.child_by_field_name("name")
        if node.type == "function_definition" and defined is not None and tree.part(defined) == "__repr__":
            start, end = tree.span(node)
            shown = list(_SHOWN.finditer(tree.text, start, end))
            names = {match[1] for match in shown}
            init = function.node.child_by_field_name("body")
            stored = set(_stored(init, tree, function)) - {name} if init is not None else set()
            if shown and name not in names and stored <= names:
                at = shown[-1].end()
                place = Place(at, at, f", {name}={{self.{name}{shown[-1][2] or ''}}}")
                yield Proposal("field", (place,), f"Show the new field `{name}`.", RANK, change.edit.start)


def _is_constructor(change: Change, function: Function) -> bool:
    return function.owner is not None and change.after.part(function.name) in change.grammar.constructors


def _new_field(change: Change) -> tuple[Function, str, str] | None:
    """The constructor, the field and the value, if the edit adds an assignment to a field there."""
    grammar, steps = change.grammar, change.steps
    match = re.search(r"(?:self|this)\.(\w+)\s*(?::[^=\n]+)?=\s*([^\n;]+?)\s*;?\s*\Z", change.edit.new.strip())
    if match is None or change.edit.new.strip().count("\n") or f".{match[1]} " in change.edit.old:
        return None
    for index in range(len(steps) - 1, -1, -1):
        node = steps[index].node
        if node.type in grammar.definitions:
            function = function_of(node, steps[:index], change.after, grammar)
            if function is None or not _is_constructor(change, function):
                return None
            return function, match[1], match[2]
    return None


def _stored(body: tree_sitter.Node, tree: SyntaxTree, function: Function) -> dict[str, tuple[tree_sitter.Node, str]]:
    """The parameters that the body assigns to a field of the same name: the statement, and what precedes the name, such
    as `self._`."""
    found = {}
    for statement in body.named_children:
        node = statement.named_children[0] if statement.named_children else statement
        if node.type not in _ASSIGNMENTS:
            continue
        left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
        if left is None or right is None or left.end_byte - left.start_byte > 200:
            continue
        receiver, _, name = tree.part(left).rpartition(".")
        if receiver in ("self", "this") and name.lstrip("_") == tree.part(right) and tree.part(right) in function.names:
            found[tree.part(right)] = (node, tree.part(left).removesuffix(tree.part(right)))
    return found
