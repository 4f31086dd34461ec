"""Evidence by usage: which names the file uses in the same way, and what parameters and targets are called.

The usage of a name is the code around it: the member accessed on it, the call and the position it is an argument of,
what it is compared with, the target it is assigned to. Must not know the model.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import tree_sitter

from engine.errors import Stop, leave_if, pacer
from infill.lint.kinds import Edit
from infill.lint.names import KnownNames, words_of
from infill.lint.symbols import ARGUMENT_LISTS, NAMES, PARAMETERS, SymbolTable, short_part

_MEMBER = {"attribute": "attribute", "member_expression": "property", "selector_expression": "field",
           "field_expression": "field", "field_access": "field"}  # fmt: skip
_CALLS = frozenset(("call", "call_expression", "new_expression"))
_FUNCTIONS = frozenset(("function_definition", "function_declaration", "method_definition"))
_SIDES = frozenset(("comparison_operator", "binary_operator", "binary_expression", "boolean_operator"))
_ASSIGNED = {"assignment": "right", "variable_declarator": "value", "named_expression": "value"}
_RECEIVERS = frozenset(("self", "cls", "this"))
_LITERALS = frozenset(
    "string integer float number true false none null list dictionary set concatenated_string".split()
)

MAX_SIBLINGS = 500  # arguments or operands; a longer list is data

Usage = tuple[str, ...]


@dataclass(frozen=True)
class UsageEvidence:
    """Fields of `infill.lint.thresholds.EditEvidence`."""

    usage_ratio: float = 0.0
    name_match: float = 0.0
    member_match: float = 0.0
    parameter_match: float = 0.0
    call_ratio: float = 0.0
    literal_mix: float = 0.0
    unknown_callee: float = 0.0


class Usages:
    """Usages in one file. known: names that many projects use. stop: polled; once it returns True, Cancelled is
    raised."""

    def __init__(self, symbols: SymbolTable, known: KnownNames | None = None, stop: Stop | None = None) -> None:
        self.tree, self.known = symbols.tree, known
        self.by_role: Counter[tuple[str, str]] = Counter()
        self.by_owner: Counter[tuple[str, str]] = Counter()
        pace = pacer(stop)
        for name in symbols.names:
            pace()
            self.by_role[_role_group(name.role), name.text] += 1
            self.by_owner[name.owner, name.text] += 1
        self.names = {name.start: name for name in symbols.names}
        self.usages: Counter[tuple[Usage, str]] = Counter()
        self.arguments: Counter[tuple[str, int, str]] = Counter()
        self.parameters: defaultdict[str, set[tuple[str, ...]]] = defaultdict(set)
        for node in self._walk():
            leave_if(stop)
            if node.type in NAMES and (usage := self._usage(node)) is not None:
                self.usages[usage, self.tree.part(node)] += 1
            elif node.type in ARGUMENT_LISTS:
                callee = self._callee(node)
                for index, argument in enumerate(node.named_children):
                    self.arguments[callee, index, self._last_name(argument)] += 1
            elif node.type in _FUNCTIONS:
                self._add_parameters(node)
            elif node.type == "class_definition":
                self._add_fields(node)

    def evidence(self, edit: Edit) -> UsageEvidence:
        """All zeros unless the edit replaces a name by another or swaps arguments."""
        if edit.code == "swapped-arguments":
            return self._swapped(edit)
        name = self.names.get(edit.start)
        if name is None or name.end != edit.end or not edit.replacement.isidentifier():
            return UsageEvidence()
        old, new = name.text, edit.replacement
        node = self._node(edit.start, edit.end)
        usage = self._usage(node) if node is not None else None
        usage_ratio = name_match = 0.0
        if usage is not None and node is not None:
            usage_ratio = math.log1p(self.usages[usage, new]) - math.log1p(max(0, self.usages[usage, old] - 1))
            name_match = _strongest(_similarity(new, one) - _similarity(old, one) for one in self._expected_names(node))
        in_role = self.by_role[_role_group(name.role), new] > 0
        on_object = self.by_owner[name.owner, new] > 0
        return UsageEvidence(
            usage_ratio=usage_ratio, name_match=name_match, member_match=float(in_role) + float(on_object)
        )

    def _swapped(self, edit: Edit) -> UsageEvidence:
        found = self._arguments(edit)
        if found is None:
            return UsageEvidence()
        callee, index, one, other = found
        first, second = self._last_name(one), self._last_name(other)
        matches = []
        for names in self.parameters.get(callee, ()):
            if len(names) > index + 1:
                as_written = _similarity(first, names[index]) + _similarity(second, names[index + 1])
                swapped = _similarity(first, names[index + 1]) + _similarity(second, names[index])
                matches.append(swapped - as_written)
        swapped_calls = self.arguments[callee, index, second] + self.arguments[callee, index + 1, first]
        same_calls = self.arguments[callee, index, first] + self.arguments[callee, index + 1, second] - 2
        kinds = [(node.type if node.type in _LITERALS else "name") for node in (one, other)]
        is_known = callee in self.parameters or (self.known is not None and callee in self.known.names)
        return UsageEvidence(
            parameter_match=_strongest(matches),
            call_ratio=math.log1p(swapped_calls) - math.log1p(max(0, same_calls)),
            literal_mix=float(kinds[0] != kinds[1]) + float(kinds[0] != "name" and kinds[1] != "name"),
            unknown_callee=float(not is_known),
        )

    def _arguments(self, edit: Edit) -> tuple[str, int, tree_sitter.Node, tree_sitter.Node] | None:
        """(name of the callee, index of the first argument, both arguments) that the edit swaps."""
        holder: tree_sitter.Node | None = self._node(edit.start, edit.end)
        while holder is not None and holder.type not in ARGUMENT_LISTS:
            holder = holder.parent
        if holder is None:
            return None
        children = holder.named_children
        for index, (one, other) in enumerate(zip(children, children[1:], strict=False)):
            if self.tree.span(one).start == edit.start and self.tree.span(other).end == edit.end:
                return self._callee(holder), index, one, other
        return None

    def _node(self, start: int, end: int) -> tree_sitter.Node | None:
        return self.tree.root.descendant_for_byte_range(self.tree.byte(start), self.tree.byte(end))

    def _usage(self, node: tree_sitter.Node) -> Usage | None:
        """The code around a name that is used as a value; None for code that no rule below covers."""
        parent = node.parent
        if parent is None or parent.named_child_count > MAX_SIBLINGS:
            return None
        member = _MEMBER.get(parent.type)
        if member is not None:
            accessed = parent.child_by_field_name(member)
            return (".", self.tree.part(accessed)) if accessed is not None and accessed != node else None
        if parent.type in ARGUMENT_LISTS:
            return "argument", self._callee(parent), str(_index(parent, node))
        if parent.type == "keyword_argument":
            keyword = parent.child_by_field_name("name")
            return ("keyword", self.tree.part(keyword)) if keyword is not None and keyword != node else None
        if parent.type in _SIDES:
            sides = [child for child in parent.named_children if child != node]
            operator = next((child.type for child in parent.children if not child.is_named), "")
            return ("operand", operator, short_part(self.tree, sides[0])) if sides else None
        if parent.type == "subscript":
            value, inner = parent.child_by_field_name("value"), parent.child_by_field_name("subscript")
            if value is not None and value != node:
                return "index", short_part(self.tree, value)
            return ("indexed", short_part(self.tree, inner)) if inner is not None else None
        if parent.type in _ASSIGNED and parent.child_by_field_name(_ASSIGNED[parent.type]) == node:
            target = parent.child_by_field_name("left") or parent.child_by_field_name("name")
            return ("assigned", short_part(self.tree, target)) if target is not None else None
        if parent.type in _CALLS:
            return ("call",)
        return None

    def _expected_names(self, node: tree_sitter.Node) -> Iterator[str]:
        """The names of the keyword, parameter or target that takes the value of `node`."""
        parent = node.parent
        if parent is None:
            return
        if parent.type == "keyword_argument" and (keyword := parent.child_by_field_name("name")) is not None:
            yield self.tree.part(keyword)
        elif parent.type in _ASSIGNED and parent.child_by_field_name(_ASSIGNED[parent.type]) == node:
            target = parent.child_by_field_name("left") or parent.child_by_field_name("name")
            if target is not None:
                yield self._last_name(target)
        elif parent.type in ARGUMENT_LISTS:
            index = _index(parent, node)
            for names in self.parameters.get(self._callee(parent), ()):
                if index < len(names):
                    yield names[index]

    def _callee(self, arguments: tree_sitter.Node) -> str:
        call = arguments.parent
        callee = call.child_by_field_name("function") if call is not None and call.type in _CALLS else None
        return self._last_name(callee) if callee is not None else ""

    def _last_name(self, node: tree_sitter.Node) -> str:
        """`name` for `a.b.name`, `a.b.name(…)` and `name[…]`; other code unchanged."""
        while True:
            inner: tree_sitter.Node | None = None
            if node.type in _MEMBER:
                inner = node.child_by_field_name(_MEMBER[node.type])
            elif node.type in _CALLS:
                inner = node.child_by_field_name("function")
            elif node.type == "subscript":
                inner = node.child_by_field_name("value")
            if inner is None:
                return self.tree.part(node)
            node = inner

    def _add_parameters(self, node: tree_sitter.Node) -> None:
        """Records the names of the parameters of a function; `__init__` counts as a function named like its class."""
        named = node.child_by_field_name("name")
        holder = next((child for child in node.children if child.type in PARAMETERS), None)
        if named is None or holder is None:
            return
        names = tuple(self._parameter(child) for child in holder.named_children)
        function = self.tree.part(named)
        if names and names[0] in _RECEIVERS:
            names = names[1:]
        if function == "__init__":
            above = node.parent
            while above is not None and above.type != "class_definition":
                above = above.parent
            named = above.child_by_field_name("name") if above is not None else None
            function = self.tree.part(named) if named is not None else function
        self.parameters[function].add(names)

    def _add_fields(self, node: tree_sitter.Node) -> None:
        """Records the annotated names of a Python class, which are the parameters of a dataclass."""
        named, body = node.child_by_field_name("name"), node.child_by_field_name("body")
        if named is None or body is None:
            return
        statements = (child.named_children[0] for child in body.named_children if child.named_children)
        targets = (one.child_by_field_name("left") for one in statements if one.child_by_field_name("type") is not None)
        names = tuple(self.tree.part(target) for target in targets if target is not None)
        if names:
            self.parameters[self.tree.part(named)].add(names)

    def _parameter(self, node: tree_sitter.Node) -> str:
        while node.type not in NAMES and node.named_children:
            node = node.child_by_field_name("name") or node.named_children[0]
        return self.tree.part(node)

    def _walk(self) -> Iterator[tree_sitter.Node]:
        pending = [self.tree.root]
        while pending:
            node = pending.pop()
            yield node
            pending.extend(reversed(node.named_children))


def _index(holder: tree_sitter.Node, node: tree_sitter.Node) -> int:
    return next((index for index, child in enumerate(holder.named_children) if child == node), -1)


def _role_group(role: str) -> str:
    if role in ("attribute", "method"):
        return "member"
    return "keyword" if role == "keyword" else "plain"


def _strongest(matches: Iterable[float]) -> float:
    """The match furthest from 0. If two contradict each other, the one against the edit."""
    return max(matches, key=lambda match: (abs(match), -match), default=0.0)


def _similarity(one: str, other: str) -> float:
    """Share of the words that two names have in common, 0 to 1 (Jaccard)."""
    if one == other:
        return 1.0
    first, second = set(words_of(one)), set(words_of(other))
    return len(first & second) / len(first | second) if first and second else 0.0
