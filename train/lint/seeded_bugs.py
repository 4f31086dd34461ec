"""Bugs put into code that is right, one at a time, of every kind that lint knows.

Each is a slip that a person makes: another variable in scope, two arguments exchanged, an operator or a literal beside
the right one, a word left out, a letter, a name left from the line above. Must not know a model.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import tree_sitter

from infill.code.syntax import SyntaxTree, error_score, parse
from infill.lint.edits import OPERATORS
from infill.lint.symbols import Name, Survey

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_WORD = re.compile(r"\w+|[^\w\s]")
_IDENTIFIER = re.compile(r"[^\W\d]\w*\Z")
_OPPOSITE = {"True": "False", "False": "True", "true": "false", "false": "true"}
_ATTEMPTS = 20
Slip = tuple[int, int, str]  # text[start:end] becomes this


@dataclass(frozen=True)
class SeededBug:
    """text[start:end] is wrong; `right` stood there. scope: the function around it, or its lines."""

    code: str
    text: str
    start: int
    end: int
    right: str
    scope: tuple[int, int]

    @property
    def mended(self) -> str:
        return self.text[: self.start] + self.right + self.text[self.end :]


def seed_bug(text: str, language: str, code: str, rng: random.Random) -> SeededBug | None:
    """A bug of the kind at a random place where there can be one, which still parses; None where there is none."""
    tree = parse(text, language)
    if tree is None or tree.root.has_error:
        return None
    survey = Survey(tree)
    slips = [slip for slip in _SLIPS[code](tree, survey, rng) if survey.function_at(slip[0], slip[1]) >= 0]
    for start, end, wrong in rng.sample(slips, min(len(slips), _ATTEMPTS)):
        if wrong == text[start:end] or error_score(tree.replaced(start, end, wrong)).errors:
            continue
        function = survey.functions[survey.function_at(start, end)]
        longer = len(wrong) - (end - start)
        scope = function.start, function.end + longer
        return SeededBug(code, text[:start] + wrong + text[end:], start, start + len(wrong), text[start:end], scope)
    return None


def _wrong_name(tree: SyntaxTree, survey: Survey, rng: random.Random) -> Iterator[Slip]:
    for name in survey.names:
        if name.role != "use" or name.function < 0:
            continue
        visible = survey.visible(name.function, name.start)
        others = sorted({*visible} - {name.text, "self", "cls", "_"})
        if name.text in visible and name.text not in ("self", "cls") and others:
            yield name.start, name.end, rng.choice(others)


def _wrong_attribute(tree: SyntaxTree, survey: Survey, rng: random.Random) -> Iterator[Slip]:
    for name in survey.names:
        if name.role in ("attribute", "method"):
            others = sorted(
                text for text, role in survey.members[name.owner] if role == name.role and text != name.text
            )
            if others:
                yield name.start, name.end, rng.choice(others)


def _swapped(tree: SyntaxTree, survey: Survey, rng: random.Random) -> Iterator[Slip]:
    for node in _nodes(tree, ("argument_list", "arguments")):
        plain = [one for one in node.named_children if "keyword" not in one.type and "splat" not in one.type]
        for one, other in zip(plain, plain[1:], strict=False):
            if other.prev_named_sibling == one:
                start, middle = tree.span(one)
                last, end = tree.span(other)
                yield start, end, tree.text[last:end] + tree.text[middle:last] + tree.text[start:middle]


def _wrong_operator(tree: SyntaxTree, survey: Survey, rng: random.Random) -> Iterator[Slip]:
    operations = ("comparison_operator", "boolean_operator", "binary_operator", "binary_expression")
    for node in _nodes(tree, tuple(OPERATORS)):
        if node.parent is not None and node.parent.type in operations:
            yield *tree.span(node), rng.choice(OPERATORS[node.type])


def _wrong_literal(tree: SyntaxTree, survey: Survey, rng: random.Random) -> Iterator[Slip]:
    kinds = ("integer", "integer_literal", "int_literal", "decimal_integer_literal", "number", "number_literal")
    for node in _nodes(tree, (*kinds, "true", "false", "boolean_literal")):
        text = tree.part(node)
        if text in _OPPOSITE:
            yield *tree.span(node), _OPPOSITE[text]
        elif text.isdecimal() and int(text) <= 16:
            yield *tree.span(node), str(int(text) + (1 if text == "0" else rng.choice((-1, 1))))
    for node in _nodes(tree, ("binary_operator", "binary_expression")):
        left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
        if left is not None and right is not None and tree.part(right) == "1":
            yield *tree.span(node), tree.part(left)


def _missing_not(tree: SyntaxTree, survey: Survey, rng: random.Random) -> Iterator[Slip]:
    for node in _nodes(tree, ("not_operator", "unary_expression")):
        argument, parent = node.child_by_field_name("argument"), node.parent
        while parent is not None and parent.type == "parenthesized_expression":
            parent = parent.parent
        if parent is None or not parent.type.startswith(("if_", "while_", "elif_", "assert_")):
            continue
        if argument is not None and tree.part(node).startswith(("not ", "!")):
            yield *tree.span(node), tree.part(argument)


def _missing_await(tree: SyntaxTree, survey: Survey, rng: random.Random) -> Iterator[Slip]:
    for node in _nodes(tree, ("await", "await_expression")):
        if node.named_children and "call" in node.named_children[0].type:
            yield *tree.span(node), tree.part(node.named_children[0])


def _missing_self(tree: SyntaxTree, survey: Survey, rng: random.Random) -> Iterator[Slip]:
    for name in survey.names:
        if name.role in ("attribute", "method") and name.owner in ("self", "this"):
            yield name.start - len(name.owner) - 1, name.end, name.text


def _missing_return(tree: SyntaxTree, survey: Survey, rng: random.Random) -> Iterator[Slip]:
    for node in _nodes(tree, ("return_statement",)):
        if node.named_children and node.named_children[0].type in ("call", "call_expression", "attribute", "subscript"):
            yield *tree.span(node), tree.part(node.named_children[0])


def _misspelled(tree: SyntaxTree, survey: Survey, rng: random.Random) -> Iterator[Slip]:
    for name in survey.names:
        if name.role in ("use", "call", "attribute", "method", "keyword") and len(name.text) >= 4:
            if survey.counts[name.text] > 1:
                yield name.start, name.end, _slip_of_the_pen(name, rng)


def _slip_of_the_pen(name: Name, rng: random.Random) -> str:
    """Two letters exchanged, one left out, doubled or taken for another; never the first."""
    text, at = name.text, rng.randrange(1, len(name.text) - 1)
    return rng.choice(
        (
            text[:at] + text[at + 1] + text[at] + text[at + 2 :],
            text[:at] + text[at + 1 :],
            text[:at] + text[at] + text[at:],
            text[:at] + rng.choice(_LETTERS) + text[at + 1 :],
        )
    )


def _copy_paste(tree: SyntaxTree, survey: Survey, rng: random.Random) -> Iterator[Slip]:
    """In two lines of one shape, where the same is exchanged for the same in two places or more: one that is not."""
    code = {name.start for name in survey.names}
    starts = [0, *(match.end() for match in re.finditer("\n", tree.text))]
    lines = tree.text.split("\n")
    for index in range(1, len(lines)):
        old, new = [*_WORD.finditer(lines[index - 1])], [*_WORD.finditer(lines[index])]
        if len(old) != len(new) or len(old) < 5:
            continue
        changed = [(a[0], b) for a, b in zip(old, new, strict=True) if a[0] != b[0]]
        cores = Counter(_core(was, word[0]) for was, word in changed)
        for was, word in changed:
            start = starts[index] + word.start()
            if cores[_core(was, word[0])] > 1 and start in code and _IDENTIFIER.match(was):
                yield start, start + len(word[0]), was


def _core(was: str, became: str) -> tuple[str, str]:
    """The parts in which two words differ: (x, y) of x_min and y_min."""
    start = 0
    while start < min(len(was), len(became)) and was[start] == became[start]:
        start += 1
    was, became = was[start:], became[start:]
    while was and became and was[-1] == became[-1]:
        was, became = was[:-1], became[:-1]
    return was, became


def _nodes(tree: SyntaxTree, kinds: tuple[str, ...]) -> Iterator[tree_sitter.Node]:
    pending = [tree.root]
    while pending:
        node = pending.pop()
        if node.type in kinds:
            yield node
        pending.extend(reversed(node.children))


_SLIPS: dict[str, Callable[[SyntaxTree, Survey, random.Random], Iterator[Slip]]] = {
    "wrong-name": _wrong_name,
    "wrong-attribute": _wrong_attribute,
    "swapped-arguments": _swapped,
    "wrong-operator": _wrong_operator,
    "wrong-literal": _wrong_literal,
    "missing-not": _missing_not,
    "missing-await": _missing_await,
    "missing-self": _missing_self,
    "missing-return": _missing_return,
    "misspelled": _misspelled,
    "copy-paste": _copy_paste,
}
