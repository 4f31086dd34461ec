"""Exactness, intervals, tables, and what a confidence threshold does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.quality.baselines import Attempt
from bench.quality.judge import ConfidenceCurve, Outcome, judge, length_gap, rows, wilson
from infill.complete.completion import Completer
from train.held_out import HeldOutHole

LINE = HeldOutHole("python", "line", "p", "p.py", "x = 1\n", "y = call(x)", "\nz = 2\n")
BLOCK = HeldOutHole("python", "block", "p", "p.py", "if x:\n", "    a = 1\n    b = 2", "\nz = 2\n")


def attempt(text: str, shown: bool = True, passing: tuple[float, str] | None = None) -> Attempt:
    return Attempt(text, shown, None if shown else "no", 0.5, "model", 3, 10.0, passing)


@pytest.fixture
def judged(completer: Completer):  # type: ignore[no-untyped-def]
    def judged(hole: HeldOutHole, given: Attempt) -> Outcome:
        return judge("pipeline", hole, given, completer.family.tokens)

    return judged


@pytest.mark.parametrize(
    "hole, text, exact",
    [
        (LINE, "  y = call(x)  \n", True),
        (LINE, "y = call(y)", False),
        (BLOCK, "    a = 1\n    b = 2\n\n", True),
        (BLOCK, "a = 1\n    b = 2", False),
        (BLOCK, "    a = 1\n\n    b = 2", False),
    ],
)
def test_white_space_at_the_edges_does_not_count(judged, hole: HeldOutHole, text: str, exact: bool) -> None:  # type: ignore[no-untyped-def]
    assert judged(hole, attempt(text)).exact is exact


def test_every_field_of_an_outcome(judged) -> None:  # type: ignore[no-untyped-def]
    outcome = judged(LINE, attempt("y = call(", passing=(0.2, "y = call(x)\n")))
    assert (outcome.offset, outcome.truth, outcome.text) == (6, "y = call(x)", "y = call(")
    assert not outcome.exact and not outcome.parses
    assert outcome.similarity == pytest.approx(2 * 9 / 20)
    assert outcome.kept == pytest.approx(9 / 11)
    assert 0 < outcome.tokens < outcome.true_tokens
    assert outcome.passing == (0.2, True)
    assert judged(LINE, attempt("y = 3", shown=False)).kept == 0
    assert judged(LINE, attempt("y = 3")).parses


def test_as_many_syntax_errors_as_the_truth_is_good_enough(judged) -> None:  # type: ignore[no-untyped-def]
    broken = replace(LINE, before="x = (\n")
    assert judged(broken, attempt("y = 3")).parses


def outcome(
    exact: bool = False,
    confidence: float | None = None,
    method: str = "pipeline",
    kind: str = "line",
    language: str = "python",
    **more: object,
) -> Outcome:
    passing = None if confidence is None else (confidence, exact)
    base = Outcome(
        method, language, kind, "p", "p.py", 0, exact, 0.5, True, 4, 4, 2, 10.0, True, None, confidence, "model", 0.5,
        passing, "text", "truth",
    )  # fmt: skip
    return replace(base, **more)  # type: ignore[arg-type]


def test_the_score_interval() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert wilson(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)


def test_rows_keep_the_order_of_the_outcomes_with_sums_last() -> None:
    given = [
        outcome(True, kind="token span", tokens=6, source="copy"),
        outcome(kind="token span", method="copy", shown=False, tokens=2),
        outcome(True, kind="line", shown=False),
        outcome(kind="line", method="copy"),
        outcome(kind="line", language="go", source="causal"),
    ]
    found = {(row.language, row.kind, row.method): row for row in rows(given)}
    assert list(found)[:4] == [
        ("python", "token span", "pipeline"),
        ("python", "token span", "copy"),
        ("python", "line", "pipeline"),
        ("python", "line", "copy"),
    ]
    assert list(found)[-1] == ("all", "all", "copy")
    python = found["python", "all", "pipeline"]
    assert (python.holes, python.exact, python.shown, python.exact_of_shown, python.copied) == (2, 1.0, 0.5, 1.0, 0.5)
    assert (python.length_ratio, python.within_one) == (1.25, 0.5)
    lines = found["all", "line", "pipeline"]
    assert (lines.holes, lines.exact, lines.drafted, lines.interval) == (2, 0.5, 0.5, wilson(1, 2))
    assert found["python", "token span", "copy"].exact_of_shown is None
    assert not [row for row in rows(given[:4]) if row.language == "all"], "one language needs no sum"


CONFIDENCES = [(0.9, True), (0.8, True), (0.7, False), (0.6, True), (0.5, False), (0.4, False)]


@pytest.fixture
def calibration() -> ConfidenceCurve:
    passing = [outcome(exact, confidence) for confidence, exact in reversed(CONFIDENCES)]
    return ConfidenceCurve([*passing, *[outcome()] * 4])


def test_what_a_threshold_shows(calibration: ConfidenceCurve) -> None:
    point = calibration.at(0.6)
    assert (point.count, point.right, point.shown, point.precision) == (4, 3, 0.4, 0.75)
    assert point.interval == wilson(3, 4)
    nothing = calibration.at(0.95)
    assert (nothing.count, nothing.precision, nothing.shown) == (0, None, 0.0)


def test_thresholds_by_the_share_they_show(calibration: ConfidenceCurve) -> None:
    assert [(point.threshold, point.shown) for point in calibration.at_shares()] == [
        (0.9, 0.1),
        (0.8, 0.2),
        (0.7, 0.3),
        (0.6, 0.4),
        (0.5, 0.5),
        (0.4, 0.6),
    ], "the other checks refuse the rest"


@pytest.mark.parametrize("precision, threshold", [(1.0, 0.8), (0.75, 0.6), (0.7, 0.6), (0.5, 0.4), (0.0, 0.4)])
def test_lowest_threshold_with_a_precision(calibration: ConfidenceCurve, precision: float, threshold: float) -> None:
    point = calibration.lowest(precision)
    assert point is not None and point.threshold == threshold


def test_no_threshold_has_the_precision() -> None:
    assert ConfidenceCurve([outcome(False, 0.9), outcome(True, 0.5)]).lowest(0.6) is None
    assert ConfidenceCurve([outcome()]).lowest(0.1) is None


def test_the_area_under_the_roc(calibration: ConfidenceCurve) -> None:
    assert calibration.area() == pytest.approx(8 / 9), "one of nine pairs is in the wrong order"
    assert ConfidenceCurve([outcome(True, 0.5), outcome(False, 0.5)]).area() == 0.5
    assert ConfidenceCurve([outcome(True, 0.5)]).area() is None


def test_the_share_of_the_gap_closed() -> None:
    def group(method: str, right: int, similarity: float) -> list[Outcome]:
        return [outcome(number < right, method=method, similarity=similarity) for number in range(10)]

    names = ("fixed", "null", "true")
    given = [*group("fixed", 2, 0.3), *group("null", 5, 0.6), *group("true", 6, 0.5)]
    given.append(outcome(True, method="null", kind="block"))
    gap = length_gap(given, names)
    assert gap is not None
    assert (gap.holes, gap.exact, gap.exact_closed) == (10, (0.2, 0.5, 0.6), pytest.approx(0.75))
    assert gap.similarity_closed == pytest.approx(1.5), "the null slots may do better"
    flat = length_gap([*group("fixed", 2, 0.3), *group("null", 5, 0.3), *group("true", 2, 0.3)], names)
    assert flat is not None and flat.exact_closed is None
    assert length_gap(given, ("fixed", "null", "missing")) is None
