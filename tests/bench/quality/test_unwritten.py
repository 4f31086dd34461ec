"""Counting what is shown while the lines below a hole are not written yet."""

from __future__ import annotations

from bench.quality.unwritten import LINES, measure, unwritten
from tests.infill.tiny_coder import coder
from train.held_out import HeldOutHole, Neighbourhood

BELOW = "".join(f"\nline_{number} = {number}" for number in range(20))


def hole(truth: str) -> HeldOutHole:
    return HeldOutHole("python", "rest of line", "project", "a.py", "x = ", truth, BELOW)


def test_some_lines_below_are_removed() -> None:
    texts = {unwritten(hole("first"), index) for index in range(50)}
    assert texts == {"\n" + BELOW[1:].split("\n", removed)[removed] for removed in range(LINES + 1)}


def test_whole_lines_and_beginnings_are_counted_apart() -> None:
    sure, unsure = coder("x = first + second\n"), coder("x = first + second\n", min_confidence=1.0)
    one = measure(sure, [hole("first + second"), hole("first + third")], Neighbourhood([]))
    assert (one.holes, one.whole, one.exact, one.beginning) == (2, 1.0, 0.5, 0.0)
    other = measure(unsure, [hole("first + second"), hole("other")], Neighbourhood([]))
    assert (other.whole, other.beginning, other.right) == (0.0, 1.0, 0.5) and 0 < other.saved <= 14 / 19
