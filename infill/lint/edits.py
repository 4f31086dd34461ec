"""The edits that could mend a text, kind by kind: one other name, operator, literal, order or word at a time.

Only what changes meaning: no edit touches a comment, a docstring, a string's wording or the layout. Far more are
proposed than are ever right; the model chooses. Must not know the model.
"""

from __future__ import annotations

import builtins
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import tree_sitter

from infill.code.syntax import SyntaxTree
from infill.findings import Range
from infill.lint.copies import left_over
from infill.lint.kinds import Edit
from infill.lint.symbols import PARAMETERS, Name, Survey

OPERATORS = {
    "<": ("<=", ">"), "<=": ("<", ">="), ">": (">=", "<"), ">=": (">", "<="), "==": ("!=",), "!=": ("==",),
    "===": ("!==",), "!==": ("===",), "and": ("or",), "or": ("and",), "&&": ("||",), "||": ("&&",), "+": ("-",),
    "-": ("+",), "is": ("is not",), "is not": ("is",), "in": ("not in",), "not in": ("in",),
}  # fmt: skip
_OPERATIONS = frozenset("comparison_operator boolean_operator binary_operator binary_expression".split())
_INTEGERS = frozenset("integer integer_literal int_literal decimal_integer_literal number number_literal".split())
_OPPOSITE = {"True": "False", "False": "True", "true": "false", "false": "true"}
_LARGEST_LITERAL = 16
_ARGUMENT_LISTS = frozenset(("argument_list", "arguments"))
_SIMPLE = frozenset(
    "identifier attribute member_expression selector_expression field_expression field_access subscript integer float "
    "number string true false none call call_expression unary_operator binary_operator".split()
)
_LONGEST_ARGUMENT = 60
_SYMMETRIC = frozenset("min max print zip union intersection gcd hypot allclose isclose array_equal".split())
_CONDITIONED = frozenset("if_statement elif_clause while_statement if_expression assert_statement do_statement".split())
_NEGATABLE = frozenset(
    "identifier attribute call member_expression call_expression selector_expression field_expression subscript "
    "method_invocation field_access subscript_expression index_expression".split()
)
_BUILTINS = frozenset(dir(builtins))
_AWAITS = {"call": "await", "call_expression": "await_expression"}
MOST_ALTERNATIVES = 12
LEAST_SPELLED = 4  # characters of a name that may be misspelled
_ASSIGNED = re.compile(r"[ \t]*(?::[^=\n]*)?=(?!=)")
_KEY = re.compile(r"[\"']([^\W\d]\w*)[\"']\Z")


def find_edits(tree: SyntaxTree, survey: Survey, ranges: Sequence[Range]) -> list[Edit]:
    """All edits within `ranges`, one for each place and replacement; where two kinds propose the same, the first of
    `infill.lint.kinds.KINDS` that does."""
    finder = _Finder(tree, survey, ranges)
    found: dict[tuple[int, int, str], Edit] = {}
    for way in finder.ways:
        for edit in way():
            if edit.replacement != tree.text[edit.start : edit.end]:
                found.setdefault((edit.start, edit.end, edit.replacement), edit)
    return sorted(found.values(), key=lambda edit: (edit.start, edit.end))


class _Finder:
    def __init__(self, tree: SyntaxTree, survey: Survey, ranges: Sequence[Range]) -> None:
        self.tree, self.survey, self.ranges, self.text = tree, survey, ranges, tree.text
        self.python = tree.language.id == "python"
        self.ways: tuple[Callable[[], Iterator[Edit]], ...] = (
            self.misspelled,
            self.copy_paste,
            self.missing_self,
            self.wrong_name,
            self.wrong_attribute,
            self.by_node,
        )

    @cached_property
    def names(self) -> list[Name]:
        """The names within the ranges."""
        return [name for name in self.survey.names if self._within(name.start, name.end)]

    def _within(self, start: int, end: int) -> bool:
        return any(first <= start and end <= last for first, last in self.ranges)

    def wrong_name(self) -> Iterator[Edit]:
        """A variable where another of the same function, or of those around it, could stand."""
        functions = self.survey.functions
        for name in self.names:
            if name.role not in ("use", "call") or name.function < 0:
                continue
            visible = self.survey.visible(name.function, name.start)
            if name.text not in visible:
                continue
            own = functions[name.function]
            others = [other for other in visible if other not in (name.text, "self", "cls", "_")]
            others.sort(key=lambda other: (other not in own.bound, -visible[other]))
            for other in others[:MOST_ALTERNATIVES]:
                yield Edit(name.start, name.end, other, "wrong-name")

    def wrong_attribute(self) -> Iterator[Edit]:
        """A member where another that the file uses on the same object could stand."""
        for name in self.names:
            if name.role not in ("attribute", "method"):
                continue
            known = self.survey.members[name.owner].most_common()
            others = [other for (other, role), _ in known if role == name.role and other != name.text]
            for other in others[:MOST_ALTERNATIVES]:
                yield Edit(name.start, name.end, other, "wrong-attribute")

    def missing_self(self) -> Iterator[Edit]:
        """A member of `self` or `this` where nothing else of that name can be meant: a name without an origin, or one
        that a line gives a value which no other line reads, where the function goes on."""
        for owner in ("self", "this"):
            members = {text for text, _ in self.survey.members[owner]}
            members |= self.survey.declared if members else set()
            for name in self.names:
                if name.text not in members or name.function < 0:
                    continue
                visible = self.survey.visible(name.function, len(self.text))
                if (owner == "self" and owner not in visible) or self._is_shared(name.text) or not self._in_body(name):
                    continue
                unknown = name.role in ("use", "call") and name.text not in visible
                if unknown or (name.role == "bound" and self._begins_assignment(name) and self._is_lost(name)):
                    yield Edit(name.start, name.end, f"{owner}.{name.text}", "missing-self")

    def _is_shared(self, text: str) -> bool:
        """Whether the whole file knows the name, or may know it."""
        known = text in self.survey.shared or (self.python and text in _BUILTINS)
        return known or self.survey.is_open

    def _in_body(self, name: Name) -> bool:
        """Whether the name stands in the body of its function: not among the parameters, nor in a class within."""
        node = self.tree.root.descendant_for_byte_range(self.tree.byte(name.start), self.tree.byte(name.end))
        scopes = self.tree.language.scopes
        while node is not None and scopes.get(node.type) not in ("function", "method"):
            if node.type in PARAMETERS or scopes.get(node.type) == "class":
                return False
            node = node.parent
        return True

    def _is_lost(self, name: Name) -> bool:
        """Whether the function goes on below the line of `name`, and reads no variable of this name in another line.

        What stands last may still be in the making."""
        first, last = self.text.rfind("\n", 0, name.start) + 1, self.text.find("\n", name.end)
        last = last if last >= 0 else len(self.text)
        function = self.survey.functions[name.function]
        others = [
            other
            for other in self.survey.names
            if function.start <= other.start < function.end and not first <= other.start < last
        ]
        read = any(other.text == name.text and other.role in ("use", "call", "written") for other in others)
        return not read and any(other.start >= last for other in others)

    def _begins_assignment(self, name: Name) -> bool:
        line = self.text.rfind("\n", 0, name.start) + 1
        return not self.text[line : name.start].strip() and bool(_ASSIGNED.match(self.text, name.end))

    def misspelled(self) -> Iterator[Edit]:
        """A name or key that stands in the file once, one or two letters from another that stands there more often."""
        keys = [(start, end, text) for start, end, text in self.keys if self._within(start, end)]
        places = [(name.start, name.end, name.text) for name in self.names if name.role not in ("bound", "other")]
        for start, end, text in [*places, *keys]:
            if len(text) < LEAST_SPELLED or self.spellings.get(text, 0) != 1:
                continue
            for other in self._near(text):
                yield Edit(start, end, other, "misspelled")

    @cached_property
    def keys(self) -> list[tuple[int, int, str]]:
        """Strings that stand for names: keys of dictionaries and subscripts, without their quotes."""
        found = []
        for node in self._nodes(("string",), everywhere=True):
            parent = node.parent
            if parent is None or parent.type not in ("subscript", "pair", "subscript_expression", "index_expression"):
                continue
            if parent.type == "pair" and parent.child_by_field_name("key") != node:
                continue
            if match := _KEY.match(self.tree.part(node)):
                start, _ = self.tree.span(node)
                found.append((start + match.start(1), start + match.end(1), match[1]))
        return found

    @cached_property
    def spellings(self) -> dict[str, int]:
        """How often each name or key stands in the file."""
        counts = dict(self.survey.counts)
        for _, _, text in self.keys:
            counts[text] = counts.get(text, 0) + 1
        return counts

    @cached_property
    def _shapes(self) -> dict[str, list[str]]:
        """Frequent names by what is left of them without one letter: names one step apart share such a shape."""
        shapes: dict[str, list[str]] = {}
        for name, count in self.spellings.items():
            if count > 1 and len(name) >= LEAST_SPELLED:
                for shape in _shapes_of(name):
                    shapes.setdefault(shape, []).append(name)
        return shapes

    def _near(self, text: str) -> list[str]:
        near = dict.fromkeys(name for shape in _shapes_of(text) for name in self._shapes.get(shape, ()))
        return [name for name in near if name != text and _one_slip(text, name)]

    def copy_paste(self) -> Iterator[Edit]:
        """A name that stayed as in a line above of the same shape, where all else of its kind was changed."""
        code = {name.start for name in self.survey.names}
        for start, end, replacement in left_over(self.text):
            if start in code and self._within(start, end):
                yield Edit(start, end, replacement, "copy-paste")

    def by_node(self) -> Iterator[Edit]:
        """Operators, literals, arguments, and words that may be missing."""
        for node in self._nodes(()):
            kind, parent = node.type, node.parent
            if kind in OPERATORS and parent is not None and parent.type in _OPERATIONS:
                for other in OPERATORS[kind]:
                    yield self._edit(node, other, "wrong-operator")
            elif kind in _INTEGERS or kind in ("true", "false", "boolean_literal"):
                for other in self._literals(self.tree.part(node)):
                    yield self._edit(node, other, "wrong-literal")
            elif kind in _OPERATIONS:
                yield from self._off_by_one(node)
            elif kind in _ARGUMENT_LISTS:
                yield from self._swapped(node)
            elif kind in _CONDITIONED:
                yield from self._negated(node)
            if kind in _AWAITS:
                yield from self._awaited(node)
            elif kind == "expression_statement":
                yield from self._returned(node)

    def _literals(self, text: str) -> Iterator[str]:
        if text in _OPPOSITE:
            yield _OPPOSITE[text]
        elif text.isdecimal() and int(text) <= _LARGEST_LITERAL:
            yield str(int(text) + 1)
            if int(text) > 0:
                yield str(int(text) - 1)

    def _off_by_one(self, node: tree_sitter.Node) -> Iterator[Edit]:
        """`x - 1` -> `x`."""
        left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
        operator = node.child_by_field_name("operator")
        if left is None or right is None or operator is None or operator.type not in ("+", "-"):
            return
        if self.tree.part(right) == "1":
            yield self._edit(node, self.tree.part(left), "wrong-literal")

    def _swapped(self, node: tree_sitter.Node) -> Iterator[Edit]:
        arguments = node.named_children
        if self._in_any_order(node, arguments):
            return
        for one, other in zip(arguments, arguments[1:], strict=False):
            first, second = self.tree.part(one), self.tree.part(other)
            if one.type in _SIMPLE and other.type in _SIMPLE and len(first) + len(second) < _LONGEST_ARGUMENT:
                if first != second:
                    start, middle = self.tree.span(one)
                    last, end = self.tree.span(other)
                    yield Edit(start, end, second + self.text[middle:last] + first, "swapped-arguments")

    def _in_any_order(self, node: tree_sitter.Node, arguments: Sequence[tree_sitter.Node]) -> bool:
        """Whether order means nothing to what is called (`min`), or follows a format that is not read."""
        callee = node.parent.child_by_field_name("function") if node.parent is not None else None
        called = self.tree.part(callee).rsplit(".", 1)[-1] if callee is not None else ""
        formats = bool(arguments) and "%" in self.tree.part(arguments[0]) and arguments[0].type == "string"
        return called in _SYMMETRIC or formats

    def _negated(self, node: tree_sitter.Node) -> Iterator[Edit]:
        condition = node.child_by_field_name("condition")
        if condition is None and node.type == "assert_statement" and node.named_children:
            condition = node.named_children[0]
        while condition is not None and condition.type == "parenthesized_expression" and condition.named_children:
            condition = condition.named_children[0]
        if condition is not None and condition.type in _NEGATABLE:
            word = "not " if self.python else "!"
            yield self._edit(condition, word + self.tree.part(condition), "missing-not")

    def _awaited(self, node: tree_sitter.Node) -> Iterator[Edit]:
        """A call within an async function of what is awaited elsewhere, or is a coroutine by its definition."""
        callee, parent = node.child_by_field_name("function"), node.parent
        if callee is None or parent is None or parent.type == _AWAITS[node.type]:
            return
        if self.tree.part(callee).rsplit(".", 1)[-1] not in self.survey.awaited:
            return
        start, end = self.tree.span(node)
        function = self.survey.function_at(start, end)
        if function >= 0 and self.survey.functions[function].is_async:
            yield Edit(start, end, "await " + self.text[start:end], "missing-await")

    def _returned(self, node: tree_sitter.Node) -> Iterator[Edit]:
        """The last statement of a Python function, or of a branch of it, where it is an expression."""
        body = node.parent
        if not self.python or body is None or body.type != "block" or body.named_children[-1] != node:
            return
        expression = node.named_children[0] if node.named_children else None
        if expression is None or expression.type in ("assignment", "augmented_assignment", "yield", "string", "await"):
            return
        start, end = self.tree.span(node)
        if self.survey.function_at(start, end) >= 0:
            yield Edit(start, end, "return " + self.text[start:end], "missing-return")

    def _edit(self, node: tree_sitter.Node, replacement: str, code: str) -> Edit:
        start, end = self.tree.span(node)
        return Edit(start, end, replacement, code)

    def _nodes(self, kinds: Sequence[str], everywhere: bool = False) -> Iterator[tree_sitter.Node]:
        """The nodes of these kinds, of all where none is named, that lie within the ranges; none within strings."""
        bounds = [(0, len(self.text))] if everywhere else self.ranges
        windows = [(self.tree.byte(start), self.tree.byte(end)) for start, end in bounds]
        pending = [self.tree.root]
        while pending:
            node = pending.pop()
            if not any(start < node.end_byte and node.start_byte < end for start, end in windows):
                continue
            if (not kinds or node.type in kinds) and any(
                start <= node.start_byte and node.end_byte <= end for start, end in windows
            ):
                yield node
            if node.type not in self.tree.language.comments:
                pending.extend(reversed(node.children))


def _shapes_of(name: str) -> set[str]:
    return {name, *(name[:index] + name[index + 1 :] for index in range(len(name)))}


def _one_slip(one: str, other: str) -> bool:
    """Whether one letter more, fewer, or different, or two neighbours exchanged, lead from one name to the other.

    Names that differ in their first letter, in a digit, in capitals, or in an `s` at the end are meant as they are.
    """
    if one[0] != other[0] or one.lower() == other.lower() or one + "s" == other or other + "s" == one:
        return False
    first = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    a, b = one[first:], other[first:]
    if any(character.isdigit() for character in a[:1] + b[:1]):
        return False
    swapped = len(a) > 1 and a[:2] == b[:2][::-1] and a[2:] == b[2:]
    return swapped or a[1:] == b[1:] or a[1:] == b or a == b[1:]
