"""Style findings: code that differs from the convention that its file follows nearly everywhere.

Counting finds the conventions; a finding is shown only if the model also finds the edited text likelier. Must not know
why one style may be better than another, nor other findings.
"""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from dataclasses import replace

from engine.errors import Stop
from infill.code.syntax import SyntaxTree
from infill.findings import LintRequest, Range
from infill.lint.kinds import StyleEdit
from infill.lint.likelihood import EditsByPosition, Likelihood, chunks
from infill.lint.ranges import RangeIndex, disjoint
from infill.lint.style_idioms import unusual_idioms
from infill.lint.style_names import CODE as NAMING
from infill.lint.style_names import unusual_names
from infill.lint.symbols import SymbolTable

MIN_STYLE_GAIN = 0.0  # nats by which the whole text must become likelier
MAX_CHUNKS = 3  # that the model reads for a name that changes in several positions
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


def style_gains(
    likelihood: Likelihood, request: LintRequest, ranges: Sequence[Range], edits: Sequence[StyleEdit]
) -> dict[StyleEdit, float]:
    """How much likelier the whole text becomes with each edit, in nats; edits far too unlikely are left out.

    For a name that changes in several positions the model reads both texts. The text must have "\\n" line ends.
    """
    gains: dict[StyleEdit, float] = {}
    single = {one.edit: one for one in edits if not one.also}
    in_order = EditsByPosition(single)
    for chunk in chunks(request.text, ranges) if single else ():
        in_chunk = in_order.within(chunk)
        gains |= {single[edit]: gain.total for edit, gain in likelihood.gains(request, chunk, in_chunk).items()}
    for one in edits:
        if one.also and (gain := _rename_gain(likelihood, request, one)) is not None:
            gains[one] = gain
    return gains


def _rename_gain(likelihood: Likelihood, request: LintRequest, one: StyleEdit) -> float | None:
    """The gain over the first MAX_CHUNKS chunks in which the name occurs."""
    ranges, new = one.ranges, one.edit.replacement
    text = request.text
    for start, end in reversed(ranges):
        text = text[:start] + new + text[end:]
    renamed = replace(request, text=text)
    growth = len(new) - (ranges[0][1] - ranges[0][0])

    def moved(offset: int) -> int:
        return offset + growth * sum(start < offset for start, _ in ranges)

    total, read = 0.0, 0
    for chunk in chunks(request.text, [(ranges[0][0], ranges[-1][1])]):
        if read == MAX_CHUNKS or not any(chunk[0] <= start < chunk[1] for start, _ in ranges):
            continue
        before = likelihood.log_probability(request, chunk)
        after = likelihood.log_probability(renamed, (moved(chunk[0]), moved(chunk[1])))
        if before is None or after is None:
            return None
        total, read = total + after - before, read + 1
    return total
