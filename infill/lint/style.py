"""Style findings: code that differs from the convention that its file follows nearly everywhere.

Counting finds the conventions. Must not know why one style may be better than another, nor other findings.
"""

from __future__ import annotations

import re
from collections.abc import Sequence, Set

from engine.errors import Stop
from infill.code.syntax import SyntaxTree
from infill.findings import Range
from infill.lint.kinds import StyleEdit
from infill.lint.ranges import RangeIndex, disjoint
from infill.lint.style_idioms import unusual_idioms
from infill.lint.style_names import CODE as NAMING
from infill.lint.style_names import unusual_names
from infill.lint.symbols import SymbolTable

_INTENDED = re.compile(r"\b(?:noqa|pylint:|nolint|NOLINT|eslint-disable|fmt: (?:off|skip)|prettier-ignore)")


def find_style(
    tree: SyntaxTree,
    symbols: SymbolTable,
    codes: Set[str],
    ranges: Sequence[Range],
    neighbour_names: Set[str] = frozenset(),
    stop: Stop | None = None,
) -> list[StyleEdit]:
    """Edits of the kinds `codes` (from `infill.lint.kinds.STYLE`) within `ranges`, in text order.

    neighbour_names: names that other files use. stop: polled; once it returns True, Cancelled is raised.
    """
    found = list(unusual_names(tree, symbols, neighbour_names, stop)) if NAMING in codes else []
    if codes - {NAMING}:
        found += unusual_idioms(tree, symbols, stop)
    index = RangeIndex(disjoint(ranges))
    selected = [
        one
        for one in found
        if one.edit.code in codes
        and index.contains(one.edit.start, one.edit.end)
        and not _INTENDED.search(_lines(tree.text, one.edit.start, one.edit.end))
    ]
    return sorted(selected, key=lambda one: (one.edit.start, one.edit.end))


def _lines(text: str, start: int, end: int) -> str:
    last = text.find("\n", end)
    return text[text.rfind("\n", 0, start) + 1 : last if last >= 0 else len(text)]
