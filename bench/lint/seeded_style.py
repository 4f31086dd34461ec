"""Slips of style put into files with clear habits: one variable renamed into the other convention, one string in other
quotes, one comparison or empty literal written otherwise. Must not know a model.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import tree_sitter

from infill.code.syntax import SyntaxTree, error_score, parse
from infill.findings import Range
from infill.lint.style_names import Renames, convention, rewritten
from infill.lint.symbols import Survey

_ATTEMPTS = 20
_STRING = re.compile(r"""([bru]{0,2})(["'])([^"'\n]*)\2\Z""")
Slip = tuple[list[Range], str]  # all of these places become this


@dataclass(frozen=True)
class SeededStyle:
    """text[start:end], the first of the places that are written otherwise than in the file; `right` stood there."""

    code: str
    text: str
    start: int
    end: int
    right: str


def seed_style(text: str, language: str, code: str, rng: random.Random) -> SeededStyle | None:
    """A slip of the kind at a random place, which still parses; None where there can be none."""
    tree = parse(text, language)
    if tree is None or tree.root.has_error:
        return None
    slips = list(_SLIPS[code](tree, Survey(tree)))
    for places, wrong in rng.sample(slips, min(len(slips), _ATTEMPTS)):
        changed = text
        for start, end in sorted(places, reverse=True):
            changed = changed[:start] + wrong + changed[end:]
        after = parse(changed, language)
        if after is not None and not error_score(after).errors:
            start, end = min(places)
            return SeededStyle(code, changed, start, start + len(wrong), text[start:end])
    return None


def _naming(tree: SyntaxTree, survey: Survey) -> Iterator[Slip]:
    """A variable of one function, in all of its places."""
    renames = Renames(tree, survey)
    for text, name in renames.variables.items():
        own = convention(text)
        if own is not None:
            wrong = rewritten(text, "camel" if own == "snake" else "snake")
            places = renames.places(name.start, wrong)
            if places is not None and rewritten(wrong, own) == text:
                yield places, wrong


def _quotes(tree: SyntaxTree, survey: Survey) -> Iterator[Slip]:
    for node in _nodes(tree, "string"):
        found = _STRING.match(tree.part(node))
        if found is not None and node.parent is not None and node.parent.type != "expression_statement":
            other = "'" if found[2] == '"' else '"'
            yield [tree.span(node)], f"{found[1]}{other}{found[3]}{other}"


def _comparison(tree: SyntaxTree, survey: Survey) -> Iterator[Slip]:
    for node in _nodes(tree, "comparison_operator"):
        left = tree.part(node.named_children[0])
        rest = tree.part(node)[len(left) :]
        if node.parent is None or len(node.named_children) != 2:
            continue
        if node.parent.type == "if_statement" and rest in (" is None", " is not None"):
            yield [tree.span(node)], left + (" == None" if rest == " is None" else " != None")
        elif rest.startswith(" not in "):
            yield [tree.span(node)], f"not {left}{rest.replace(' not in ', ' in ', 1)}"


def _literal(tree: SyntaxTree, survey: Survey) -> Iterator[Slip]:
    """Of a value that gets a name."""
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


_SLIPS: dict[str, Callable[[SyntaxTree, Survey], Iterator[Slip]]] = {
    "style-naming": _naming,
    "style-quotes": _quotes,
    "style-comparison": _comparison,
    "style-literal": _literal,
}
SEEDED = tuple(_SLIPS)
