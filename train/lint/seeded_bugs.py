"""Seeds bugs of every kind that lint knows into correct code, one at a time.

Each imitates a human error: the wrong variable, two arguments swapped, a missing `self.`, a typo, a copied line that
was not fully updated. Must not know a model.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import tree_sitter

from infill.code.syntax import SyntaxTree, error_score, parse
from infill.lint.symbols import Name, SymbolTable

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_WORD = re.compile(r"\w+|[^\w\s]")
_IDENTIFIER = re.compile(r"[^\W\d]\w*\Z")
_ATTEMPTS = 20
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
    tree = parse(text, language)
    if tree is None or tree.root.has_error:
        return None
    symbols = SymbolTable(tree)
    replacements = [
        replacement
        for replacement in _SEEDERS[code](tree, symbols, rng)
        if symbols.function_at(replacement[0], replacement[1]) >= 0
    ]
    for start, end, wrong in rng.sample(replacements, min(len(replacements), _ATTEMPTS)):
        if wrong == text[start:end] or error_score(tree.replaced(start, end, wrong)).errors:
            continue
        function = symbols.functions[symbols.function_at(start, end)]
        longer = len(wrong) - (end - start)
        scope = function.start, function.end + longer
        return SeededBug(code, text[:start] + wrong + text[end:], start, start + len(wrong), text[start:end], scope)
    return None


def _wrong_name(tree: SyntaxTree, symbols: SymbolTable, rng: random.Random) -> Iterator[Replacement]:
    for name in symbols.names:
        if name.role != "use" or name.function < 0:
            continue
        visible = symbols.visible(name.function, name.start)
        others = sorted({*visible} - {name.text, "self", "cls", "_"})
        if name.text in visible and name.text not in ("self", "cls") and others:
            yield name.start, name.end, rng.choice(others)


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


_SEEDERS: dict[str, Callable[[SyntaxTree, SymbolTable, random.Random], Iterator[Replacement]]] = {
    "wrong-name": _wrong_name,
    "swapped-arguments": _swapped,
    "missing-self": _missing_self,
    "misspelled": _misspelled,
    "copy-paste": _copy_paste,
}
