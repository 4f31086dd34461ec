"""Figures of lint on samples, without a model."""

import pytest

from bench.lint.run import Figures, by_evidence, least_for, lint_report, margins, measure
from infill.lint.thresholds import Threshold, Thresholds
from tests.train.lint.fakes import clean, found, seeded

THRESHOLDS = Thresholds({"wrong-name": Threshold({"edit_gain": 1.0}, 0.0, {"python": 2.0})})
BUGS = [seeded(3.0), seeded(3.0, right=False), seeded(1.0)]


def test_figures_count_what_is_shown() -> None:
    samples = [clean(5.0, 1.0, lines=500), *BUGS]
    rows = measure(samples, margins(THRESHOLDS))
    assert rows["wrong-name"] == Figures(3, 2, 2, 1, 1, 500, 10)
    assert rows["all"] == rows["wrong-name"] and rows["misspelled"].false_positives == 0
    assert rows["all"].per_thousand == 2.0 and rows["all"].recall == pytest.approx(2 / 3)
    assert measure(samples, margins(THRESHOLDS), -1.0)["all"].found == 3


def test_languages_and_kinds_without_a_threshold_show_nothing() -> None:
    margin = margins(THRESHOLDS)
    assert margin(found(9.0), "python") == 7.0 and margin(found(9.0), "go") < -90
    assert margin(found(9.0, code="misspelled"), "python") < -90


def test_a_baseline_has_the_given_number_of_false_positives() -> None:
    gain = by_evidence(lambda one: one.edit_gain)
    samples = [clean(5.0, 4.0, 1.0), seeded(4.5), seeded(4.5, right=False), seeded(3.0)]
    counts = [measure(samples, gain, least_for(samples, gain, number))["all"] for number in (0, 1, 2, 3)]
    assert [one.found for one in counts] == [0, 2, 3, 3]
    assert [one.false_positives for one in counts] == [0, 1, 2, 3] and counts[2].right == 2


def test_precision_assumes_one_bug_in_a_hundred_functions() -> None:
    assert Figures(10, 10, 5, 5, 1, 1000, 200).precision == pytest.approx(0.5)
    assert Figures(10, 10, 0, 0, 0, 1000, 200).precision is None


def test_the_report_has_a_row_for_each_kind_and_language() -> None:
    report = lint_report([clean(5.0, 1.0), clean(9.0, language="go"), *BUGS], THRESHOLDS, {"model": "fake"})
    assert [row[0] for row in report.rows] == ["wrong-name", "all, go", "all, python", "all"]
    assert report.rows[-1][1:6] == ["3", "67%", "67%", "50%", "1"]
