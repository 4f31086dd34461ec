"""A parameter was removed or added: the calls of the function in the file follow."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import tree_sitter

from infill.code.syntax import SyntaxTree
from infill.next_edit.calls import arguments, calls
from infill.next_edit.change import Change
from infill.next_edit.edits import Place, Proposal
from infill.next_edit.functions import Function, Parameter, function_at, record_at
from infill.next_edit.grammar import Grammar
from infill.next_edit.names import NameTable, steps_to

REMOVED_RANK, ADDED_RANK = 0.9, 0.8
_LISTS = frozenset(("argument_list", "arguments"))  # not a generator or a template
_SPREADS = frozenset(("list_splat", "dictionary_splat", "spread_element", "variadic_argument"))


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
    if listed is not None and re.search(rf"(?<!\w){re.escape(name)}(?!\w)", change.after.part(listed)):
        return
    if index == 0 and name in change.grammar.receivers:
        return
    places = []
    for call, bound in calls(change, change.before, old):
        number = -1 if old.parameters[index].by_name else index - _skipped(old, bound, change.grammar)
        span = _argument(change.before, call, name, number)
        if span is not None and (place := change.place(*span, "")) is not None:
            places.append(place)
    if places:
        what = f"{len(places)} calls" if len(places) > 1 else "1 call"
        reason = f"Remove the argument `{name}` from {what} of `{change.before.part(old.name)}`."
        yield Proposal("argument", tuple(sorted(set(places))), reason, REMOVED_RANK, change.edit.start)


def added_parameter(change: Change) -> Iterator[Proposal]:
    """Only for a parameter that calls must have, and where a variable of that name is visible.

    Otherwise nothing in the file says what to pass, and a code model is wrong every second time
    (`bench.edits.arguments`).
    """
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
    places = set[Place]()
    for call, bound in calls(change, change.after, new):
        skipped = _skipped(new, bound, change.grammar)
        found = _insertion(change.after, call, new, new.parameters[index], skipped)
        if found is not None and _is_variable(table, found.offset(change.after)):
            places.add(found.place(change.after, name))
    if places:
        what = f"{len(places)} calls" if len(places) > 1 else "1 call"
        reason = f"Pass `{name}` in {what} of `{change.after.part(new.name)}`."
        yield Proposal("argument", tuple(sorted(places)), reason, ADDED_RANK, change.edit.start)


def _functions(change: Change) -> tuple[Function, Function] | None:
    """The function before and after, if the edit is in its list of parameters."""
    new = function_at(change.steps, change.after, change.grammar)
    old = function_at(change.old_steps, change.before, change.grammar)
    if new is not None and old is None:  # the last field of a class is new
        old = record_at(change.before, change.after.span(new.name).start)
    elif old is not None and new is None:
        new = record_at(change.after, change.before.span(old.name).start)
    if new is None or old is None or change.after.part(new.name) != change.before.part(old.name):
        return None
    return old, new


def _skipped(function: Function, bound: bool, grammar: Grammar) -> int:
    """How many parameters a call does not pass: the receiver of a method."""
    first = function.names[0] if function.names else ""
    return int(bound and first in grammar.receivers)


@dataclass(frozen=True)
class _Insertion:
    """A new argument before the one at `index` of the arguments `passed` in the list `listed`. head: what is before its
    value."""

    listed: tree_sitter.Node
    passed: Sequence[tree_sitter.Node]
    index: int
    head: str

    def offset(self, tree: SyntaxTree) -> int:
        if self.index < len(self.passed):
            return tree.span(self.passed[self.index]).start
        return tree.span(self.passed[-1]).end if self.passed else tree.span(self.listed).start + 1

    def place(self, tree: SyntaxTree, value: str) -> Place:
        """With a line of its own if the other arguments have one each, and no comment follows the last one."""
        at, text = self.offset(tree), self.head + value
        if not self.passed:
            return Place(at, at, text)
        spans = [tree.span(one) for one in self.passed]
        ends = [tree.span(self.listed).start, *(one.end for one in spans)]
        gaps = [tree.text[end:start] for end, (start, _) in zip(ends, spans, strict=False)]
        rest = tree.text[at:].partition("\n")[0].lstrip(", \t")
        one_each = all("\n" in gap and not gap.strip("(,\r\n\t ") for gap in gaps)
        one_each = one_each and (self.index < len(spans) or not rest.startswith(("#", "/")))
        gap = gaps[min(self.index, len(gaps) - 1)].lstrip("(,") if one_each else " "
        return Place(at, at, f"{text},{gap}" if self.index < len(self.passed) else f",{gap}{text}")


def _is_variable(table: NameTable, at: int) -> bool:
    """Whether the name is that of a variable or parameter that has a value at `at`."""
    steps = steps_to(table.tree, at, at)
    scope = table.visible_scope(steps)
    if scope is None:
        return False
    bindings = [one for one in table.occurrences if one.scope == scope]
    definitions = table.grammar.definitions | table.grammar.classes
    if any(one.parent.type in definitions or any("import" in step.node.type for step in one.steps) for one in bindings):
        return False
    functions = [step.node for step in steps if step.node.type in table.grammar.functions]
    is_outer = bool(functions) and scope[0] < functions[-1].start_byte or scope[2] in table.grammar.comprehensions
    return is_outer or bindings[0].start < at


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
    tree: SyntaxTree, call: tree_sitter.Node, function: Function, added: Parameter, skipped: int
) -> _Insertion | None:
    """Where to insert the argument; None if the call seems to have it, or passes a different number."""
    passed, listed = arguments(call), call.child_by_field_name("arguments")
    if listed is None or listed.type not in _LISTS or any(one.type in _SPREADS or one.has_error for one in passed):
        return None
    keywords = {
        tree.part(found)
        for one in passed
        if (found := one.child_by_field_name("name")) is not None and one.type == "keyword_argument"
    }
    count = sum(one.type != "keyword_argument" for one in passed)
    positional = [one for one in function.parameters[skipped:] if not one.by_name and one.kind != "splat"]
    needed = [one for one in positional if one.kind == "required" and one.name not in keywords]
    if added.name in keywords:
        return None
    if added.by_name:
        return _Insertion(listed, passed, len(passed), f"{added.name}=")
    index = positional.index(added)
    if count >= len(needed):
        return None
    if index <= count and (count or not keywords):
        return _Insertion(listed, passed, index, "")
    if all(one.name in keywords or one.kind != "required" for one in positional[count:index]):
        return _Insertion(listed, passed, len(passed) if index else 0, f"{added.name}=")
    return None
