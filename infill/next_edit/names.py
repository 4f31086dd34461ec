"""Where a name occurs in a file, and which declaration each occurrence belongs to; shadowing is respected.

Starts from the text and looks up only the nodes around each occurrence, so the cost depends on how often the name
occurs, not on the length of the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import tree_sitter

from engine.errors import Stop, leave_if
from infill.code.syntax import SyntaxTree
from infill.next_edit.grammar import GRAMMARS, Grammar

Role = Literal["binding", "use", "member", "label", "other"]
MAX_OCCURRENCES = 300  # of one name; more are a file of data or generated code
ScopeKey = tuple[int, int, str]


class Step(NamedTuple):
    """A node on the way from the root to a leaf, with its field in the parent."""

    node: tree_sitter.Node
    field: str | None


def steps_to(tree: SyntaxTree, start: int, end: int) -> list[Step]:
    """The nodes around text[start:end] from the root to the innermost. Faster than `node.parent`, which searches from
    the root each time."""
    cursor, first, last = tree.root.walk(), tree.byte(start), tree.byte(end)
    steps = [Step(tree.root, None)]
    while cursor.goto_first_child_for_byte(first) is not None:
        node = cursor.node
        assert node is not None
        if node.start_byte > first or node.end_byte < last:
            break
        steps.append(Step(node, cursor.field_name))
    return steps


def class_around(steps: Sequence[Step], grammar: Grammar) -> tree_sitter.Node | None:
    """The innermost class that has the last of these nodes in its body."""
    return next((step.node for step in reversed(steps[:-2]) if step.node.type in grammar.classes), None)


def inherits(steps: Sequence[Step], owner: tree_sitter.Node | None, tree: SyntaxTree) -> bool:
    """Whether the last of these nodes is in a class whose header names the class `owner`."""
    around = class_around(steps, GRAMMARS[tree.language.id])
    name = owner.child_by_field_name("name") if owner is not None else None
    body = around.child_by_field_name("body") if around is not None else None
    if around is None or name is None or body is None or around == owner:
        return False
    header = tree.text[tree.span(around).start : tree.span(body).start]
    return re.search(rf"\b{re.escape(tree.part(name))}\b", header) is not None


@dataclass(frozen=True)
class Occurrence:
    """The name at [start, end) characters. scope: for a binding, the scope that it binds in."""

    start: int
    end: int
    steps: Sequence[Step]
    role: Role
    scope: ScopeKey | None = None

    @property
    def node(self) -> tree_sitter.Node:
        return self.steps[-1].node

    @property
    def parent(self) -> tree_sitter.Node:
        return self.steps[-2].node


def key_of(node: tree_sitter.Node) -> ScopeKey:
    return node.start_byte, node.end_byte, node.type


class NameTable:
    """All occurrences of one name in a file."""

    def __init__(self, tree: SyntaxTree, name: str, stop: Stop | None = None) -> None:
        self.tree, self.name = tree, name
        self.grammar: Grammar = GRAMMARS[tree.language.id]
        self.is_complete = True
        self.occurrences: list[Occurrence] = []
        for start, end in word_spans(tree.text, name):
            leave_if(stop)
            if len(self.occurrences) == MAX_OCCURRENCES:
                self.is_complete = False
                break
            found = self._occurrence(start, end)
            if found is not None:
                self.occurrences.append(found)

    @cached_property
    def scopes(self) -> set[ScopeKey]:
        """The scopes that bind the name."""
        return {one.scope for one in self.occurrences if one.scope is not None}

    def at(self, start: int) -> Occurrence | None:
        return next((one for one in self.occurrences if one.start == start), None)

    def scope_of(self, occurrence: Occurrence) -> ScopeKey | None:
        """The scope whose variable this is; None if the file does not bind it there."""
        if occurrence.role == "binding":
            return occurrence.scope
        if occurrence.role != "use":
            return None
        return self.visible_scope(occurrence.steps)

    def visible_scope(self, steps: Sequence[Step]) -> ScopeKey | None:
        """The innermost scope around the last of these nodes that binds the name."""
        grammar, in_function = self.grammar, False
        for index in range(len(steps) - 1, -1, -1):
            node = steps[index].node
            kind = node.type
            if kind not in grammar.blocks and kind not in grammar.comprehensions:
                continue
            if index + 1 < len(steps) and (kind, steps[index + 1].field) in grammar.outside:
                continue
            if not (kind in grammar.hidden and in_function) and key_of(node) in self.scopes:
                return key_of(node)
            in_function = in_function or kind in grammar.functions
        return None

    def bound_in(self, scope: ScopeKey) -> list[Occurrence]:
        """The bindings and uses of the variable of this scope, in text order."""
        return [one for one in self.occurrences if self.scope_of(one) == scope]

    def _occurrence(self, start: int, end: int) -> Occurrence | None:
        steps = steps_to(self.tree, start, end)
        leaf = steps[-1].node
        if leaf.child_count or leaf.end_byte - leaf.start_byte != len(self.name.encode()) or len(steps) < 2:
            return None
        edge = steps[-2].node.type, steps[-1].field
        if edge in self.grammar.members:
            return Occurrence(start, end, steps, "member")
        if leaf.type not in self.grammar.names:
            return Occurrence(start, end, steps, "other") if "identifier" in leaf.type else None
        if edge in self.grammar.labels or self._is_label(steps):
            return Occurrence(start, end, steps, "label")
        return self._variable(start, end, steps)

    def _is_label(self, steps: Sequence[Step]) -> bool:
        """Whether the name is the key of an element of a Go literal."""
        return len(steps) > 2 and (steps[-3].node.type, steps[-2].field) in self.grammar.labels

    def _variable(self, start: int, end: int, steps: Sequence[Step]) -> Occurrence:
        grammar, index = self.grammar, len(steps) - 1
        while index:
            parent, child = steps[index - 1].node, steps[index]
            edge = parent.type, child.field
            kind = grammar.binds.get(edge)
            if kind is not None:
                return self._binding(start, end, steps, index - 1, edge)
            if parent.type == "dotted_name" and not _is_imported(steps, index):
                break
            if edge not in grammar.patterns:
                break
            index -= 1
        is_path = steps[-2].node.type == "dotted_name" and not _is_pattern(steps)
        return Occurrence(start, end, steps, "other" if is_path else "use")

    def _binding(
        self, start: int, end: int, steps: Sequence[Step], index: int, edge: tuple[str, str | None]
    ) -> Occurrence:
        """The binding whose target the node at `index` has."""
        binder = steps[index].node
        if edge == ("import_specifier", "name") and binder.child_by_field_name("alias") is not None:
            return Occurrence(start, end, steps, "other")
        if edge == ("for_in_statement", "left") and binder.child_by_field_name("kind") is None:
            return Occurrence(start, end, steps, "use")
        if edge[0] == "range_clause" and all(child.type != ":=" for child in binder.children):
            return Occurrence(start, end, steps, "use")
        kind = self.grammar.binds[edge]
        if edge[0] == "variable_declarator" and index and steps[index - 1].node.type == "variable_declaration":
            kind = "function"
        return Occurrence(start, end, steps, "binding", self._scope(steps, index, kind))

    def _scope(self, steps: Sequence[Step], index: int, kind: str) -> ScopeKey:
        grammar = self.grammar
        if kind == "own":
            return key_of(steps[index].node)
        wanted = {"function": grammar.functions, "comprehension": grammar.comprehensions}.get(kind, grammar.blocks)
        for step in reversed(steps[:index]):
            if step.node.type in wanted:
                found = step.node
                return self._declared_elsewhere(steps, found) or key_of(found)
        return key_of(steps[0].node)

    def _declared_elsewhere(self, steps: Sequence[Step], scope: tree_sitter.Node) -> ScopeKey | None:
        """The scope that `global` or `nonlocal` in a Python function moves the name to."""
        if scope.type != "function_definition" or self.tree.language.id != "python":
            return None
        start, end = self.tree.span(scope)
        moved = re.compile(rf"^[ \t]*(global|nonlocal)\b[^\n#]*(?<!\w){re.escape(self.name)}(?!\w)", re.MULTILINE)
        match = moved.search(self.tree.text, start, end)
        if match is None:
            return None
        if match[1] == "global":
            return key_of(steps[0].node)
        outer = [step.node for step in steps if step.node.type == "function_definition" and step.node != scope]
        return key_of(outer[-1]) if outer else None


def word_spans(text: str, name: str) -> Iterator[tuple[int, int]]:
    """Where the name occurs as a whole word. Much faster than a regular expression in a long text."""
    start = text.find(name)
    while start >= 0:
        end = start + len(name)
        if not (_is_part(text[start - 1 : start]) or _is_part(text[end : end + 1])):
            yield start, end
        start = text.find(name, end)


def _is_part(character: str) -> bool:
    return character.isalnum() or character in ("_", "$")


def _is_imported(steps: Sequence[Step], index: int) -> bool:
    """Whether the part at `index` of a dotted name is what an import or a pattern binds."""
    dotted = steps[index - 1].node
    outer = steps[index - 2].node.type if index > 1 else ""
    if outer == "case_pattern":
        return dotted.named_child_count == 1
    return outer.startswith("import_") and dotted.named_children[0] == steps[index].node


def _is_pattern(steps: Sequence[Step]) -> bool:
    """Whether a dotted name is an expression, as in a pattern of `match`."""
    return len(steps) > 2 and steps[-3].node.type in ("case_pattern", "class_pattern")
