"""What the places of names say for an edit: what else stands in such places, and how they are named.

A place is what is around a name: the member asked of it, the call and the position it is an argument of, what it is
compared with, what gets its value. Must not know the model.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import tree_sitter

from infill.lint.kinds import Edit
from infill.lint.names import KnownNames, words_of
from infill.lint.symbols import NAMES, PARAMETERS, Survey

_MEMBER = {"attribute": "attribute", "member_expression": "property", "selector_expression": "field",
           "field_expression": "field", "field_access": "field"}  # fmt: skip
_OBJECT = ("object", "operand", "argument", "value")
_CALLS = frozenset(("call", "call_expression", "new_expression"))
_ARGUMENTS = frozenset(("argument_list", "arguments"))
_FUNCTIONS = frozenset(("function_definition", "function_declaration", "method_definition"))
_SIDES = frozenset(("comparison_operator", "binary_operator", "binary_expression", "boolean_operator"))
_GIVEN = {"assignment": "right", "variable_declarator": "value", "named_expression": "value"}
_RECEIVERS = frozenset(("self", "cls", "this"))
_LITERALS = frozenset(
    "string integer float number true false none null list dictionary set concatenated_string".split()
)

Place = tuple[str, ...]


@dataclass(frozen=True)
class Slot:
    """See `infill.lint.thresholds.LintEvidence`, whose fields these are."""

    fits: float = 0.0
    named: float = 0.0
    akin: float = 0.0
    crossed: float = 0.0
    turned: float = 0.0
    unlike: float = 0.0
    strange: float = 0.0


class Slots:
    """Of one text. known: what many projects use."""

    def __init__(self, survey: Survey, known: KnownNames | None = None) -> None:
        self.tree, self.known = survey.tree, known
        self.parts: Counter[tuple[str, str]] = Counter()
        self.owners: Counter[tuple[str, str]] = Counter()
        for name in survey.names:
            self.parts[_part(name.role), name.text] += 1
            self.owners[name.owner, name.text] += 1
        self.names = {name.start: name for name in survey.names}
        self.filled: Counter[tuple[Place, str]] = Counter()
        self.arguments: Counter[tuple[str, int, str]] = Counter()
        self.parameters: defaultdict[str, set[tuple[str, ...]]] = defaultdict(set)
        for node in self._walk():
            if node.type in NAMES and (place := self._place(node)) is not None:
                self.filled[place, self.tree.part(node)] += 1
            elif node.type in _ARGUMENTS:
                callee = self._callee(node)
                for index, argument in enumerate(node.named_children):
                    self.arguments[callee, index, self._last_name(argument)] += 1
            elif node.type in _FUNCTIONS:
                self._defined(node)
            elif node.type == "class_definition":
                self._fields(node)

    def of(self, edit: Edit) -> Slot:
        """What speaks for `edit`; nothing where no name is exchanged for another, and no arguments."""
        if edit.code == "swapped-arguments":
            return self._swapped(edit)
        name = self.names.get(edit.start)
        if name is None or name.end != edit.end or not edit.replacement.isidentifier():
            return Slot()
        old, new = name.text, edit.replacement
        node = self._node(edit.start, edit.end)
        place = self._place(node) if node is not None else None
        fits = named = 0.0
        if place is not None and node is not None:
            fits = math.log1p(self.filled[place, new]) - math.log1p(max(0, self.filled[place, old] - 1))
            wanted = self._wanted(node)
            named = max((_alike(new, one) - _alike(old, one) for one in wanted), key=abs, default=0.0)
        akin = float(self.parts[_part(name.role), new] > 0) + float(self.owners[name.owner, new] > 0)
        return Slot(fits=fits, named=named, akin=akin)

    def _swapped(self, edit: Edit) -> Slot:
        found = self._arguments(edit)
        if found is None:
            return Slot()
        callee, index, one, other = found
        first, second = self._last_name(one), self._last_name(other)
        crossed = 0.0
        for names in self.parameters.get(callee, ()):
            if len(names) > index + 1:
                straight = _alike(first, names[index]) + _alike(second, names[index + 1])
                crossed = max(
                    crossed, _alike(first, names[index + 1]) + _alike(second, names[index]) - straight, key=abs
                )
        there = self.arguments[callee, index, second] + self.arguments[callee, index + 1, first]
        here = self.arguments[callee, index, first] + self.arguments[callee, index + 1, second] - 2
        kinds = [(node.type if node.type in _LITERALS else "name") for node in (one, other)]
        unlike = float(kinds[0] != kinds[1]) + float(kinds[0] != "name" and kinds[1] != "name")
        turned = math.log1p(there) - math.log1p(max(0, here))
        strange = callee not in self.parameters and not (self.known is not None and callee in self.known.names)
        return Slot(crossed=crossed, turned=turned, unlike=unlike, strange=float(strange))

    def _arguments(self, edit: Edit) -> tuple[str, int, tree_sitter.Node, tree_sitter.Node] | None:
        """(what is called, position of the first, both arguments) that the edit exchanges."""
        holder: tree_sitter.Node | None = self._node(edit.start, edit.end)
        while holder is not None and holder.type not in _ARGUMENTS:
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

    def _place(self, node: tree_sitter.Node) -> Place | None:
        """What is around a name that stands for a value; None where nothing is known of it."""
        parent = node.parent
        if parent is None:
            return None
        member = _MEMBER.get(parent.type)
        if member is not None:
            asked = parent.child_by_field_name(member)
            return (".", self.tree.part(asked)) if asked is not None and asked != node else None
        if parent.type in _ARGUMENTS:
            return "argument", self._callee(parent), str(_index(parent, node))
        if parent.type == "keyword_argument":
            keyword = parent.child_by_field_name("name")
            return ("keyword", self.tree.part(keyword)) if keyword is not None and keyword != node else None
        if parent.type in _SIDES:
            sides = [child for child in parent.named_children if child != node]
            sign = next((child.type for child in parent.children if not child.is_named), "")
            return ("beside", sign, self.tree.part(sides[0])) if sides else None
        if parent.type == "subscript":
            value, inner = parent.child_by_field_name("value"), parent.child_by_field_name("subscript")
            if value is not None and value != node:
                return "within", self.tree.part(value)
            return ("of", self.tree.part(inner)) if inner is not None else None
        if parent.type in _GIVEN and parent.child_by_field_name(_GIVEN[parent.type]) == node:
            target = parent.child_by_field_name("left") or parent.child_by_field_name("name")
            return ("to", self.tree.part(target)) if target is not None else None
        if parent.type in _CALLS:
            return ("call",)
        return None

    def _wanted(self, node: tree_sitter.Node) -> Iterator[str]:
        """How what stands in the place of `node` is called where it goes: a keyword, a parameter, a target."""
        parent = node.parent
        if parent is None:
            return
        if parent.type == "keyword_argument" and (keyword := parent.child_by_field_name("name")) is not None:
            yield self.tree.part(keyword)
        elif parent.type in _GIVEN and parent.child_by_field_name(_GIVEN[parent.type]) == node:
            target = parent.child_by_field_name("left") or parent.child_by_field_name("name")
            if target is not None:
                yield self._last_name(target)
        elif parent.type in _ARGUMENTS:
            index = _index(parent, node)
            for names in self.parameters.get(self._callee(parent), ()):
                if index < len(names):
                    yield names[index]

    def _callee(self, arguments: tree_sitter.Node) -> str:
        call = arguments.parent
        callee = call.child_by_field_name("function") if call is not None and call.type in _CALLS else None
        return self._last_name(callee) if callee is not None else ""

    def _last_name(self, node: tree_sitter.Node) -> str:
        """`a.b.name`, `a.b.name(…)` and `name[…]` as `name`; all else as it is written."""
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

    def _defined(self, node: tree_sitter.Node) -> None:
        """Notes the names of the parameters of a function; those of a class are the ones of its `__init__`."""
        named = node.child_by_field_name("name")
        holder = next((child for child in node.children if child.type in PARAMETERS), None)
        if named is None or holder is None:
            return
        names = tuple(self._parameter(child) for child in holder.named_children)
        own = self.tree.part(named)
        if names and names[0] in _RECEIVERS:
            names = names[1:]
        if own == "__init__":
            above = node.parent
            while above is not None and above.type != "class_definition":
                above = above.parent
            named = above.child_by_field_name("name") if above is not None else None
            own = self.tree.part(named) if named is not None else own
        self.parameters[own].add(names)

    def _fields(self, node: tree_sitter.Node) -> None:
        """Notes the annotated names of a Python class without `__init__`, which are the parameters of a dataclass."""
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


def _part(role: str) -> str:
    if role in ("attribute", "method"):
        return "member"
    return "keyword" if role == "keyword" else "plain"


def _alike(one: str, other: str) -> float:
    """Share of the words that two names have in common, 0 to 1 (Jaccard)."""
    if one == other:
        return 1.0
    first, second = set(words_of(one)), set(words_of(other))
    return len(first & second) / len(first | second) if first and second else 0.0
