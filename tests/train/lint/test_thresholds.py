"""Logistic models and thresholds fitted on samples."""

import random
from dataclasses import replace

import pytest

from infill.lint.kinds import Edit
from infill.lint.linter import EditCandidate
from infill.lint.thresholds import EditEvidence
from tests.train.lint.fakes import clean, seeded
from train.lint.thresholds import NEVER, Scores, fit, learn, scores, set_thresholds, unseen_scores


def test_a_fit_ranks_fixes_above_other_edits() -> None:
    noise = random.Random(1)
    right = [EditEvidence(edit_gain=noise.gauss(4, 1), bigram_ratio=noise.gauss(0, 1)) for _ in range(60)]
    wrong = [EditEvidence(edit_gain=noise.gauss(-2, 1), bigram_ratio=noise.gauss(0, 1)) for _ in range(200)]
    fitted = fit(right, wrong)
    weights = fitted.weights
    assert weights["edit_gain"] > 0.5 and abs(weights["bigram_ratio"]) < 0.5 and weights["masked_gain"] == 0
    assert fitted.log_odds(EditEvidence(edit_gain=4)) > 0 > fitted.log_odds(EditEvidence(edit_gain=-2))


def test_false_positives_go_to_the_kind_that_finds_most() -> None:
    good = Scores([5.0, 1.0], [4.0, 3.0, 2.0, 0.0], 4)
    poor = Scores([5.0, 4.0, 3.0], [0.5], 4)
    thresholds = set_thresholds({"good": good, "poor": poor}, 2)
    assert 1.0 < thresholds["good"] < 2.0 and thresholds["poor"] == NEVER
    assert good.recall(thresholds["good"]) == 0.75 and poor.recall(thresholds["poor"]) == 0


def test_a_threshold_above_all_clean_code_still_costs_a_false_positive() -> None:
    one = Scores([5.0], [6.0, 4.0], 2)
    assert set_thresholds({"one": one}, 0)["one"] == NEVER
    assert set_thresholds({"one": one}, 1)["one"] == pytest.approx(5.001)
    assert set_thresholds({"one": one}, 2)["one"] == 4.0
    many = Scores([], [float(number) for number in range(100)], 100)
    assert set_thresholds({"many": many}, 1)["many"] == 5.0
    assert set_thresholds({"one": Scores([], [], 2)}, 3)["one"] == NEVER


def test_thresholds_keep_to_the_false_positives_allowed() -> None:
    noise = random.Random(2)
    bugs = [seeded(noise.gauss(3, 1)) for _ in range(40)]
    files = [clean(*(noise.gauss(-1, 1.5) for _ in range(50))) for _ in range(10)]
    thresholds = learn(files, bugs, per_thousand=0.5)
    one = thresholds["wrong-name"]
    ranked = scores(one, "wrong-name", files, bugs)
    assert one.shown and ranked.false_positives(one.minimum) <= 5
    assert ranked.recall(one.minimum) > 0.3
    assert set(thresholds) == {"wrong-name"}


def test_thresholds_are_cross_validated_by_project() -> None:
    """Project `four` has evidence that misleads a fit without it; a fit that included it would rank it differently."""
    projects = []
    for name in ("one", "two", "three"):
        bugs = [replace(bug, file=replace(bug.file, project=name)) for bug in [seeded(3.0) for _ in range(12)]]
        files = [clean(*(0.0 for _ in range(20))), clean(3.0)]
        projects.append((bugs, [replace(one, file=replace(one.file, project=name)) for one in files]))
    bugs = [bug for project_bugs, _ in projects for bug in project_bugs]
    files = [one for _, project_files in projects for one in project_files]
    odd = EditCandidate(Edit(0, 5, "z", "wrong-name"), EditEvidence(edit_gain=-6.0, bigram_ratio=9.0))
    files.append(replace(files[-1], candidates=[odd], file=replace(files[-1].file, project="four")))
    right = [one.evidence for bug in bugs for one in bug.candidates]
    with_odd = fit(right, [one.evidence for sample in files for one in sample.candidates])
    without_odd = fit(right, [one.evidence for sample in files[:-1] for one in sample.candidates])
    ranked = unseen_scores(with_odd, "wrong-name", files, bugs)
    assert len(ranked.clean) == len(scores(with_odd, "wrong-name", files, bugs).clean) and ranked.bugs == 36
    expected = without_odd.log_odds(odd.evidence)
    assert any(score == pytest.approx(expected, abs=1e-4) for score in ranked.clean)
    assert expected != pytest.approx(with_odd.log_odds(odd.evidence), abs=1e-2)


def test_kinds_that_are_rare_in_clean_code_also_learn_from_others() -> None:
    bugs = [seeded(3.0) for _ in range(40)]
    others = [
        replace(one, edit=replace(one.edit, code="misspelled")) for one in clean(*(-1.0 for _ in range(60))).candidates
    ]
    thresholds = learn([replace(clean(), lines=5000, candidates=others)], bugs, per_thousand=1.0)
    assert thresholds["wrong-name"].shown and thresholds["wrong-name"].weights["edit_gain"] > 0


def test_a_kind_that_finds_nothing_is_off() -> None:
    bugs = [seeded(0.0) for _ in range(40)]
    thresholds = learn([clean(*(0.0 for _ in range(50)))], bugs, per_thousand=1.0)
    assert not thresholds["wrong-name"].shown
