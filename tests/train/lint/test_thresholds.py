"""Logistic models and thresholds fitted on samples."""

import random
from dataclasses import replace

import pytest

from infill.lint.thresholds import EditEvidence
from tests.train.lint.fakes import clean, found, seeded
from train.lint.thresholds import NEVER, Scores, common_minimum, fit, fit_all, learn, scores, unseen_scores


def test_a_fit_ranks_fixes_above_other_edits() -> None:
    noise = random.Random(1)
    right = [EditEvidence(edit_gain=noise.gauss(4, 1), bigram_ratio=noise.gauss(0, 1)) for _ in range(60)]
    wrong = [EditEvidence(edit_gain=noise.gauss(-2, 1), bigram_ratio=noise.gauss(0, 1)) for _ in range(200)]
    fitted = fit(right, wrong)
    weights = fitted.weights
    assert weights["edit_gain"] > 0.5 and abs(weights["bigram_ratio"]) < 0.5 and weights["margin"] == 0
    assert fitted.log_odds(EditEvidence(edit_gain=4)) > 0 > fitted.log_odds(EditEvidence(edit_gain=-2))


def test_one_threshold_for_all_kinds_keeps_to_the_false_positives() -> None:
    one, other = Scores([(5.0, "python"), (1.0, "go")], [4.0, 0.5], 4), Scores([(3.0, "python")], [], 4)
    assert common_minimum([one, other], 0) == NEVER
    assert [common_minimum([one, other], budget) for budget in (1, 2, 3)] == pytest.approx([5.001, 3.001, 1.001])
    assert common_minimum([one, other], 4) == 0.0, "without an edit of clean code that sets it"
    assert one.recall(0.5) == 0.5 and one.false_positives(0.5) == 2 and one.false_positives(0.5, "go") == 1


def test_thresholds_keep_to_the_false_positives_allowed() -> None:
    noise = random.Random(2)
    samples = [seeded(noise.gauss(3, 1)) for _ in range(40)]
    samples += [clean(*(noise.gauss(-1, 1.5) for _ in range(50))) for _ in range(10)]
    thresholds = learn(samples, per_thousand=0.5)
    one = thresholds["wrong-name"]
    by_kind = scores(one, "wrong-name", samples)
    assert by_kind.false_positives(one.minimums["python"]) <= 5
    assert by_kind.recall(one.minimums["python"]) > 0.3
    assert set(thresholds) == {"wrong-name"}


def test_a_language_with_more_false_positives_has_a_higher_minimum() -> None:
    noise = random.Random(2)
    samples = [seeded(noise.gauss(3, 1)) for _ in range(40)]
    samples += [clean(*(noise.gauss(-3, 1) for _ in range(50))) for _ in range(10)]
    samples += [clean(3.0, 3.5, 4.0, 4.5, lines=1000, language="go")]
    minimums = learn(samples, per_thousand=1.0)["wrong-name"].minimums
    assert minimums["go"] > minimums["python"]
    assert scores(learn(samples, 1.0)["wrong-name"], "wrong-name", samples).false_positives(minimums["go"], "go") <= 1


def test_thresholds_are_cross_validated_by_project() -> None:
    """Project `odd` has evidence that misleads a fit without it; a fit that included it would rank it differently."""
    samples = []
    for name in ("one", "two", "three"):
        samples += [seeded(3.0, project=name) for _ in range(12)]
        samples += [clean(*(0.0 for _ in range(20)), project=name), clean(3.0, project=name)]
    odd = found(-6.0, bigram_ratio=9.0)
    samples.append(replace(clean(project="odd"), candidates=[odd]))
    with_odd = fit_all(samples)["wrong-name"]
    by_kind = unseen_scores(samples)["wrong-name"]
    assert len(by_kind.clean) == len(scores(with_odd, "wrong-name", samples).clean) and by_kind.bugs == 36
    assert with_odd.log_odds(odd.candidate.evidence) not in [score for score, _ in by_kind.clean]


def test_a_kind_with_few_bugs_follows_the_model_of_all_kinds() -> None:
    noise = random.Random(1)
    right = [EditEvidence(edit_gain=noise.gauss(4, 1)) for _ in range(60)]
    wrong = [EditEvidence(edit_gain=noise.gauss(-2, 1)) for _ in range(200)]
    common = fit(right, wrong)
    few = fit([EditEvidence(surprisal=1.0)] * 2, [EditEvidence()] * 3, common)
    assert few.weights["edit_gain"] == common.weights["edit_gain"] and few.weights["surprisal"] > 0


def test_a_kind_that_finds_nothing_is_off() -> None:
    samples = [*(seeded(0.0) for _ in range(40)), clean(*(0.0 for _ in range(50)))]
    assert not learn(samples, per_thousand=1.0)["wrong-name"].minimums
