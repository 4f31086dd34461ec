"""Figures of lint on samples, without a model."""

import pytest

from bench.lint.run import Figures, baseline, measure, offset_for, recall_alone
from infill.lint.kinds import Edit
from infill.lint.linter import Linter
from infill.lint.thresholds import Threshold, Thresholds
from tests.train.lint.fakes import clean, seeded
from train.lint.samples import CleanSample, SeededSample


class Selecting(Linter):
    """Only selects from given candidates, so it needs no model."""

    def __init__(self, thresholds: Thresholds) -> None:
        self.thresholds = thresholds


def by_gain(minimum: float) -> Linter:
    return Selecting(Thresholds({"wrong-name": Threshold({"edit_gain": 1.0}, 0.0, minimum)}, frozenset({"python"})))


def test_figures_count_what_is_shown() -> None:
    bugs = [seeded(3.0), seeded(3.0, right=False), seeded(1.0)]
    rows = measure(by_gain(2.0), [clean(5.0, 1.0, lines=500)], bugs)
    assert rows["wrong-name"] == Figures(3, 2, 2, 1, 1, 500, 10)
    assert rows["all"] == rows["wrong-name"] and rows["misspelled"].false_positives == 0
    assert rows["all"].per_thousand == 2.0 and rows["all"].recall == pytest.approx(2 / 3)
    assert measure(by_gain(2.0), [clean(5.0, 1.0)], bugs, offset=1.0)["all"].found == 3


def test_thresholds_are_lowered_as_far_as_the_false_positives_allow() -> None:
    files = [clean(5.0, 1.0, -1.0), clean(0.0)]
    assert offset_for(by_gain(2.0), files, 1) == pytest.approx(1.0, abs=0.1)
    assert offset_for(by_gain(2.0), files, 3) == pytest.approx(3.0, abs=0.1)


def test_a_kind_alone_may_have_all_false_positives() -> None:
    bugs = [seeded(3.0), seeded(3.0, right=False), seeded(0.5), seeded(-3.0)]
    files = [clean(5.0, 1.0)]
    assert [recall_alone(by_gain(2.0), files, bugs, count)["wrong-name"] for count in (0, 1, 2)] == [0, 0.25, 0.75]


def test_precision_assumes_one_bug_in_a_hundred_functions() -> None:
    assert Figures(10, 10, 5, 5, 1, 1000, 200).precision == pytest.approx(0.5)
    assert Figures(10, 10, 0, 0, 0, 1000, 200).precision is None


def test_a_baseline_has_the_given_number_of_false_positives() -> None:
    def rank(sample: CleanSample | SeededSample) -> list[tuple[float, Edit]]:
        return [(one.evidence.edit_gain, one.edit) for one in sample.candidates]

    files = [clean(5.0, 4.0, 1.0)]
    bugs = [seeded(4.5), seeded(4.5, right=False), seeded(3.0)]
    assert baseline("gain", files, bugs, 1, rank).found == 2
    assert baseline("gain", files, bugs, 0, rank).found == 0
    assert baseline("gain", files, bugs, 2, rank).right == 2
