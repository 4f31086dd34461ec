"""Sorted ranges without overlaps, so that a request with many ranges costs no more than its text.

Must not know what the ranges are for.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence

from infill.findings import Range


def disjoint(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """The ranges in text order, with overlapping ones joined; those that only touch stay apart."""
    found: list[Range] = []
    for start, end in sorted(ranges):
        if found and start < found[-1][1]:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((start, end))
    return tuple(found)


class RangeIndex:
    """Searches disjoint ranges by bisection."""

    def __init__(self, ranges: Sequence[Range]) -> None:
        self.ranges = ranges
        self._starts, self._ends = [start for start, _ in ranges], [end for _, end in ranges]

    def contains(self, start: int, end: int) -> bool:
        """Whether one range contains [start, end)."""
        last = bisect_right(self._starts, start) - 1
        return last >= 0 and end <= self._ends[last]

    def overlaps(self, start: int, end: int) -> bool:
        """Whether a range has a part in common with [start, end)."""
        last = bisect_left(self._starts, end) - 1
        return last >= 0 and start < self._ends[last]
