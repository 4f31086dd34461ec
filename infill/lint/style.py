"""Style against the file's own habits: what is written otherwise than nearly everywhere else in the file.

Counting finds it, and the model has a say: shown is what it, too, finds likelier in the file's way. Must not know why
one way may be better than another, nor what else is shown.
"""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from dataclasses import replace

from infill.code.syntax import SyntaxTree, error_score
from infill.findings import LintRequest, Range
from infill.lint.kinds import StyleEdit
from infill.lint.likelihood import Likelihood, stretches
from infill.lint.style_idioms import unusual_idioms
from infill.lint.style_names import CODE as NAMING
from infill.lint.style_names import unusual_names
from infill.lint.symbols import Survey

STYLE_GAIN = 0.0  # nats, at least, by which the whole must be likelier
_MEANT = re.compile(r"\b(?:noqa|pylint:|nolint|NOLINT|eslint-disable|fmt: (?:off|skip)|prettier-ignore)")
MOST_STRETCHES = 3  # in which the model reads a name that changes


def find_style(
    tree: SyntaxTree, survey: Survey, codes: Set[str], ranges: Sequence[Range], elsewhere: Set[str] = frozenset()
) -> list[StyleEdit]:
    """What is against a clear habit, in text order, shown within `ranges`; codes: of `infill.lint.kinds.STYLE`.

    elsewhere: names that other files have.
    """
    found = list(unusual_names(tree, survey, elsewhere)) if NAMING in codes else []
    if codes - {NAMING}:
        found += unusual_idioms(tree, survey)
    own = [
        one
        for one in found
        if one.edit.code in codes
        and any(start <= one.edit.start and one.edit.end <= end for start, end in ranges)
        and not any(_MEANT.search(line) for line in _lines(tree.text, one.edit.start, one.edit.end))
    ]
    return sorted(own, key=lambda one: (one.edit.start, one.edit.end))


def _lines(text: str, start: int, end: int) -> list[str]:
    last = text.find("\n", end)
    return text[text.rfind("\n", 0, start) + 1 : last if last >= 0 else len(text)].split("\n")


def style_gains(
    likelihood: Likelihood, request: LintRequest, ranges: Sequence[Range], edits: Sequence[StyleEdit]
) -> dict[StyleEdit, float]:
    """By how much the whole is likelier with each, in nats; those that the model found far too unlikely are left out.

    Of a name that changes in several places, both texts are read; the text must have "\\n" line ends.
    """
    gains: dict[StyleEdit, float] = {}
    single = {one.edit: one for one in edits if not one.also}
    for stretch in stretches(request.text, ranges) if single else ():
        own = [edit for edit in single if stretch[0] <= edit.start and edit.end <= stretch[1]]
        if own:
            gains |= {single[edit]: gain.whole for edit, gain in likelihood.gains(request, stretch, own).items()}
    for one in edits:
        if one.also and (gain := _renamed_gain(likelihood, request, one)) is not None:
            gains[one] = gain
    return gains


def parses(tree: SyntaxTree, one: StyleEdit) -> bool:
    """Whether the text is no more broken with all places changed."""
    changes = [(start, end, one.edit.replacement) for start, end in reversed(one.places)]
    return error_score(tree.edited(changes)) <= error_score(tree)


def _renamed_gain(likelihood: Likelihood, request: LintRequest, one: StyleEdit) -> float | None:
    """Of the stretches that hold the first of the places, as they are and with all places changed."""
    places, new = one.places, one.edit.replacement
    text = request.text
    for start, end in reversed(places):
        text = text[:start] + new + text[end:]
    renamed = replace(request, text=text)
    longer = len(new) - (places[0][1] - places[0][0])

    def moved(offset: int) -> int:
        return offset + longer * sum(start < offset for start, _ in places)

    total, read = 0.0, 0
    for stretch in stretches(request.text, [(places[0][0], places[-1][1])]):
        if read == MOST_STRETCHES or not any(stretch[0] <= start < stretch[1] for start, _ in places):
            continue
        before = likelihood.of(request, stretch)
        after = likelihood.of(renamed, (moved(stretch[0]), moved(stretch[1])))
        if before is None or after is None:
            return None
        total, read = total + after - before, read + 1
    return total
