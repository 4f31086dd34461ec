"""Seeds style deviations into files with clear conventions: a renamed variable, a string in other quotes, a comparison
or an empty literal written differently. Must not know a model.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import tree_sitter

from infill.code.syntax import SyntaxTree, error_score, parse
from infill.findings import Range
from infill.lint.style_names import Renames, convention, convert
from infill.lint.symbols import SymbolTable

_ATTEMPTS = 20
_STRING = re.compile(r"""([bru]{0,2})(["'])([^"'\n]*)\2\Z""")
Deviation = tuple[list[Range], str]  # all ranges get this text


@dataclass(frozen=True)
class SeededStyle:
    """text[start:end] is the first deviation; it was `right` before."""

    code: str
    text: str
    start: int
    end: int
    right: str


def seed_style(text: str, language: str, code: str, rng: random.Random) -> SeededStyle | None:
    """A deviation of the kind at a random position, which still parses; None if there is no such position."""
    tree = parse(text, language)
    if tree is None or tree.root.has_error:
        return None
    deviations = list(_SEEDERS[code](tree, SymbolTable(tree)))
    for ranges, wrong in rng.sample(deviations, min(len(deviations), _ATTEMPTS)):
        changed = text
        for start, end in sorted(ranges, reverse=True):
            changed = changed[:start] + wrong + changed[end:]
        after = parse(changed, language)
        if after is not None and not error_score(after).errors:
            start, end = min(ranges)
            return SeededStyle(code, changed, start, start + len(wrong), text[start:end])
    return None


def _naming(tree: SyntaxTree, symbols: SymbolTable) -> Iterator[Deviation]:
    """A variable of one function, everywhere."""
    renames = Renames(tree, symbols)
    for text, name in renames.variables.items():
        current = convention(text)
        if current is not None:
            wrong = convert(text, "camel" if current == "snake" else "snake")
            ranges = renames.ranges(name.start, wrong)
            if ranges is not None and convert(wrong, current) == text:
                yield ranges, wrong


def _quotes(tree: SyntaxTree, symbols: SymbolTable) -> Iterator[Deviation]:
    for node in _nodes(tree, "string"):
        found = _STRING.match(tree.part(node))
        if found is not None and node.parent is not None and node.parent.type != "expression_statement":
            other = "'" if found[2] == '"' else '"'
            yield [tree.span(node)], f"{found[1]}{other}{found[3]}{other}"


def _comparison(tree: SyntaxTree, symbols: SymbolTable) -> Iterator[Deviation]:
    for node in _nodes(tree, "comparison_operator"):
        left = tree.part(node.named_children[0])
        rest = tree.part(node)[len(left) :]
        if node.parent is None or len(node.named_children) != 2:
            continue
        if node.parent.type == "if_statement" and rest in (" is None", " is not None"):
            yield [tree.span(node)], left + (" == None" if rest == " is None" else " != None")
        elif rest.startswith(" not in "):
            yield [tree.span(node)], f"not {left}{rest.replace(' not in ', ' in ', 1)}"


def _literal(tree: SyntaxTree, symbols: SymbolTable) -> Iterator[Deviation]:
    """An empty literal assigned to a name."""
    calls = {"{}": "dict()", "[]": "list()"}
    for node in (*_nodes(tree, "dictionary"), *_nodes(tree, "list")):
        named = node.parent is not None and node.parent.type == "assignment"
        if named and (text := tree.part(node)) in calls:
            yield [tree.span(node)], calls[text]


def _nodes(tree: SyntaxTree, kind: str) -> Iterator[tree_sitter.Node]:
    pending = [tree.root]
    while pending:
        node = pending.pop()
        if node.type == kind:
            yield node
        pending.extend(reversed(node.children))


_SEEDERS: dict[str, Callable[[SyntaxTree, SymbolTable], Iterator[Deviation]]] = {
    "style-naming": _naming,
    "style-quotes": _quotes,
    "style-comparison": _comparison,
    "style-literal": _literal,
}
SEEDED = tuple(_SEEDERS)
