"""Seeds bugs of every kind that lint knows into correct code, some lines from each other.

Each imitates a human error: the wrong variable, two arguments swapped, a missing `self.` or `await`, a typo, a copied
line that was not fully updated. Must not know a model.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import tree_sitter

from infill.code.syntax import SyntaxTree, error_score, parse
from infill.findings import Range
from infill.lint.slips import GRAMMARS
from infill.lint.symbols import Name, SymbolTable

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_WORD = re.compile(r"\w+|[^\w\s]")
_IDENTIFIER = re.compile(r"[^\W\d]\w*\Z")
_ATTEMPTS = 20
APART = 350  # characters between two bugs
Replacement = tuple[int, int, str]  # text[start:end] is replaced by the string


@dataclass(frozen=True)
class SeededBug:
    """text[start:end] is wrong; it was `right` before. scope: the function around it."""

    code: str
    text: str
    start: int
    end: int
    right: str
    scope: tuple[int, int]

    @property
    def original(self) -> str:
        return self.text[: self.start] + self.right + self.text[self.end :]


def seed_bug(text: str, language: str, code: str, rng: random.Random) -> SeededBug | None:
    """A bug of the kind at a random position of a function, which still parses; None if there is no such position."""
    found = seed_bugs(text, language, (code,), rng, (0, len(text)), 1)
    return found[0] if found else None


def seed_bugs(
    text: str, language: str, codes: Sequence[str], rng: random.Random, within: Range, most: int
) -> list[SeededBug]:
    """At most `most` bugs at random positions of functions in text[start:end], at least APART characters from each
    other, all in one text, which still parses. The kinds take turns, in the order of `codes`."""
    tree = parse(text, language)
    if tree is None or tree.root.has_error:
        return []
    symbols = SymbolTable(tree)
    chosen: list[tuple[str, Replacement]] = []
    possible: dict[str, list[Replacement]] = {}
    for code in codes:
        if len(chosen) == most:
            break
        if code not in possible:
            possible[code] = [
                one
                for one in _SEEDERS[code](tree, symbols, rng)
                if within[0] <= one[0] and one[1] <= within[1] and symbols.function_at(one[0], one[1]) >= 0
            ]
        for start, end, wrong in rng.sample(possible[code], min(len(possible[code]), _ATTEMPTS)):
            is_apart = all(start >= other[1] + APART or end <= other[0] - APART for _, other in chosen)
            if is_apart and wrong != text[start:end] and not error_score(tree.replaced(start, end, wrong)).errors:
                chosen.append((code, (start, end, wrong)))
                break
    return _applied(text, symbols, chosen)


def _applied(text: str, symbols: SymbolTable, chosen: Sequence[tuple[str, Replacement]]) -> list[SeededBug]:
    """The bugs in the text that has all of them."""
    parts, at, shift, positions = list[str](), 0, 0, []
    for code, (start, end, wrong) in sorted(chosen, key=lambda one: one[1]):
        parts += [text[at:start], wrong]
        longer = len(wrong) - (end - start)
        function = symbols.functions[symbols.function_at(start, end)]
        scope = function.start + shift, function.end + shift + longer
        positions.append((code, start + shift, start + shift + len(wrong), text[start:end], scope))
        at, shift = end, shift + longer
    whole = "".join(parts) + text[at:]
    return [SeededBug(code, whole, start, end, right, scope) for code, start, end, right, scope in positions]


def _wrong_name(tree: SyntaxTree, symbols: SymbolTable, rng: random.Random) -> Iterator[Replacement]:
    for name in symbols.names:
        if name.role != "use" or name.function < 0:
            continue
        visible = symbols.visible(name.function, name.start)
        others = sorted({*visible} - {name.text, "self", "cls", "_"})
        if name.text in visible and name.text not in ("self", "cls") and others:
            yield name.start, name.end, _near_or_any(tree, name, others, rng)


def _near_or_any(tree: SyntaxTree, name: Name, others: Sequence[str], rng: random.Random) -> str:
    """One of the others; every second time one of the same line if there is any, as in `min(a, a)` for `min(a, b)`."""
    first, last = tree.text.rfind("\n", 0, name.start) + 1, tree.text.find("\n", name.end)
    words = set(_WORD.findall(tree.text[first : last if last >= 0 else len(tree.text)]))
    near = [one for one in others if one in words]
    return rng.choice(near if near and rng.random() < 0.5 else others)


def _swapped(tree: SyntaxTree, symbols: SymbolTable, rng: random.Random) -> Iterator[Replacement]:
    for node in _nodes(tree, ("argument_list", "arguments")):
        plain = [one for one in node.named_children if "keyword" not in one.type and "splat" not in one.type]
        for one, other in zip(plain, plain[1:], strict=False):
            if other.prev_named_sibling == one:
                start, middle = tree.span(one)
                last, end = tree.span(other)
                yield start, end, tree.text[last:end] + tree.text[middle:last] + tree.text[start:middle]


def _missing_self(tree: SyntaxTree, symbols: SymbolTable, rng: random.Random) -> Iterator[Replacement]:
    for name in symbols.names:
        if name.role in ("attribute", "method") and name.owner in ("self", "this"):
            yield name.start - len(name.owner) - 1, name.end, name.text


def _misspelled(tree: SyntaxTree, symbols: SymbolTable, rng: random.Random) -> Iterator[Replacement]:
    for name in symbols.names:
        if name.role in ("use", "call", "attribute", "method", "keyword") and len(name.text) >= 4:
            if symbols.counts[name.text] > 1:
                yield name.start, name.end, _typo(name, rng)


def _typo(name: Name, rng: random.Random) -> str:
    """The name with two letters swapped, or one dropped, doubled or changed; never the first."""
    text, at = name.text, rng.randrange(1, len(name.text) - 1)
    return rng.choice(
        (
            text[:at] + text[at + 1] + text[at] + text[at + 2 :],
            text[:at] + text[at + 1 :],
            text[:at] + text[at] + text[at:],
            text[:at] + rng.choice(_LETTERS) + text[at + 1 :],
        )
    )


def _copy_paste(tree: SyntaxTree, symbols: SymbolTable, rng: random.Random) -> Iterator[Replacement]:
    """Between two lines that differ by one substitution made at least twice: one of them not made."""
    code = {name.start for name in symbols.names}
    starts = [0, *(match.end() for match in re.finditer("\n", tree.text))]
    lines = tree.text.split("\n")
    for index in range(1, len(lines)):
        old, new = [*_WORD.finditer(lines[index - 1])], [*_WORD.finditer(lines[index])]
        if len(old) != len(new) or len(old) < 5:
            continue
        changed = [(a[0], b) for a, b in zip(old, new, strict=True) if a[0] != b[0]]
        differences = Counter(_difference(was, word[0]) for was, word in changed)
        for was, word in changed:
            start = starts[index] + word.start()
            if differences[_difference(was, word[0])] > 1 and start in code and _IDENTIFIER.match(was):
                yield start, start + len(word[0]), was


def _difference(was: str, became: str) -> tuple[str, str]:
    """The parts in which two words differ: (x, y) for x_min and y_min."""
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


def _wrong_member(tree: SyntaxTree, symbols: SymbolTable, rng: random.Random) -> Iterator[Replacement]:
    members: dict[tuple[str, str], set[str]] = {}
    for name in symbols.names:
        if name.role in ("attribute", "method") and name.owner:
            members.setdefault((name.owner, name.role), set()).add(name.text)
    for name in symbols.names:
        others = sorted(members.get((name.owner, name.role), set()) - {name.text})
        if others and name.role in ("attribute", "method"):
            yield name.start, name.end, _near_or_any(tree, name, others, rng)


def _wrong_operator(tree: SyntaxTree, symbols: SymbolTable, rng: random.Random) -> Iterator[Replacement]:
    grammar = GRAMMARS.get(tree.language.id)
    for node in _nodes(tree, tuple(grammar.binary)) if grammar is not None else ():
        for child in node.children:
            if grammar is not None and child.type in grammar.operators and "type" not in (node.parent or node).type:
                yield *tree.span(child), rng.choice(grammar.operators[child.type])


def _off_by_one(tree: SyntaxTree, symbols: SymbolTable, rng: random.Random) -> Iterator[Replacement]:
    for node in _nodes(tree, ("binary_operator", "binary_expression")):
        left, operator, right = (node.children * 3)[:3]
        if operator.type in ("+", "-") and tree.part(right) == "1":
            yield tree.span(left).end, tree.span(right).end, ""
    for node in _nodes(tree, ("integer", "number", "int_literal")):
        parent, text = node.parent, tree.part(node)
        if parent is not None and text in ("0", "1", "2", "3") and "assign" not in parent.type:
            yield *tree.span(node), str(abs(int(text) + rng.choice((-1, 1))))


def _wrong_negation(tree: SyntaxTree, symbols: SymbolTable, rng: random.Random) -> Iterator[Replacement]:
    grammar = GRAMMARS.get(tree.language.id)
    if grammar is None:
        return
    for node in _nodes(tree, tuple(grammar.conditions)):
        condition = node.child_by_field_name("condition")
        while condition is not None and condition.type == "parenthesized_expression":
            condition = condition.named_children[0] if condition.named_children else None
        if condition is None:
            continue
        is_logical = any(child.type in ("and", "or", "&&", "||") for child in condition.children)
        parts = condition.named_children if is_logical else [condition]
        for one in parts:
            start, end = tree.span(one)
            if one.type in grammar.simple:
                yield start, start, grammar.negation
            elif one.type == grammar.negated and one.children[0].type in ("not", "!"):
                yield start, tree.span(one.named_children[-1]).start, ""


def _missing_await(tree: SyntaxTree, symbols: SymbolTable, rng: random.Random) -> Iterator[Replacement]:
    for node in _nodes(tree, ("await", "await_expression")):
        if node.named_children:
            yield tree.span(node).start, tree.span(node.named_children[-1]).start, ""


def _missing_return(tree: SyntaxTree, symbols: SymbolTable, rng: random.Random) -> Iterator[Replacement]:
    for node in _nodes(tree, ("return_statement",)):
        value = node.named_children[0] if node.named_children else None
        if value is not None and value.type in ("call", "call_expression", "identifier", "binary_operator"):
            yield tree.span(node).start, tree.span(value).start, ""


def _missing_f(tree: SyntaxTree, symbols: SymbolTable, rng: random.Random) -> Iterator[Replacement]:
    for node in _nodes(tree, ("string", "template_string")):
        text, (start, end) = tree.part(node), tree.span(node)
        if any(child.type == "interpolation" for child in node.children) and text[0] in "fF" and text[1] in "\"'":
            yield start, start + 1, ""
        elif any(child.type == "template_substitution" for child in node.children) and not re.search(r"[\"\n]", text):
            yield start, end, f'"{text[1:-1]}"'


_SEEDERS: dict[str, Callable[[SyntaxTree, SymbolTable, random.Random], Iterator[Replacement]]] = {
    "wrong-name": _wrong_name,
    "swapped-arguments": _swapped,
    "missing-self": _missing_self,
    "misspelled": _misspelled,
    "copy-paste": _copy_paste,
    "wrong-member": _wrong_member,
    "wrong-operator": _wrong_operator,
    "off-by-one": _off_by_one,
    "wrong-negation": _wrong_negation,
    "missing-await": _missing_await,
    "missing-return": _missing_return,
    "missing-f": _missing_f,
}
