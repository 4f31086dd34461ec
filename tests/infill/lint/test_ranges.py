"""Ranges by bisection agree with a search through all of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from infill.lint.ranges import RangeIndex, disjoint

OFFSETS = st.integers(0, 30)
RANGES = st.lists(st.tuples(OFFSETS, OFFSETS).map(lambda pair: (min(pair), max(pair))), max_size=8)


def test_overlapping_ranges_are_joined_and_touching_ones_are_not() -> None:
    assert disjoint([(5, 9), (0, 3), (8, 12), (12, 14), (2, 4)]) == ((0, 4), (5, 12), (12, 14))
    assert disjoint([(0, 100)] * 10_000) == ((0, 100),)


@given(RANGES, OFFSETS, OFFSETS)
def test_it_finds_what_a_search_finds(ranges: list[tuple[int, int]], one: int, other: int) -> None:
    start, end = min(one, other), max(one, other)
    apart = [(first, last) for first, last in disjoint(ranges) if first < last]
    index = RangeIndex(apart)
    assert {n for first, last in ranges for n in range(first, last)} == {n for a, b in apart for n in range(a, b)}
    if start < end:
        assert index.contains(start, end) == any(first <= start and end <= last for first, last in apart)
        assert index.overlaps(start, end) == any(first < end and start < last for first, last in apart)
