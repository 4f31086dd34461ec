"""Counting steps and right texts with and without the last canvas."""

from __future__ import annotations

from collections import defaultdict

from bench.quality.warm_start import Row, measure, typed_texts
from tests.infill.fakes import scripted_completer
from train.held_out import HeldOutHole

HOLE = HeldOutHole("python", "rest of line", "project", "a.py", "x = ", "first + second", "\nrest\n")


def test_a_line_is_typed_key_by_key_and_a_key_is_removed() -> None:
    texts = typed_texts(HOLE)
    assert [text for _, text in texts[:5]] == ["f", "fi", "fir", "firs", "first"]
    assert texts[5] == ("removed", "firs") and texts[6] == ("typed", "first ")


def test_both_ways_answer_the_same_requests() -> None:
    asked = len(typed_texts(HOLE))
    rests = [HOLE.truth[len(text) :] for _, text in typed_texts(HOLE)]
    completer = scripted_completer(HOLE.truth, *(rest for rest in rests for _ in range(2)))
    rows: dict[tuple[str, str], Row] = defaultdict(Row)
    measure(completer, HOLE, rows)
    assert {kind for kind, _ in rows} == {"typed as drafted", "removed"}
    assert sum(row.requests for (_, start), row in rows.items() if start == "warm") == asked
    assert all(row.exact == row.requests for row in rows.values())
