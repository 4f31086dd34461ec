"""Fitting the confidence and its threshold, and storing both."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from engine.errors import InputError
from infill.complete.confidence import Calibration
from infill.request import Evidence
from tests.infill.fakes import load_completer
from train.calibrate import Judged, best_of_each_hole, fit, lowest_threshold, store

POCKET = Path(__file__).parents[2] / "infill" / "models" / "pocket"


def synthetic(count: int, seed: int = 0) -> list[Judged]:
    """Candidates that are right with the probability of a logistic model over two fields."""
    rng = random.Random(seed)
    truth = Calibration({"seam": 1.5, "copied": 2.0}, intercept=0.5)
    judged = []
    for hole in range(count):
        evidence = Evidence(seam=-3 * rng.random(), certainty=-rng.random(), copied=float(rng.random() < 0.3))
        judged.append(Judged(hole, evidence, rng.random() < truth.confidence(evidence)))
    return judged


def test_the_fit_finds_the_weights() -> None:
    found = fit(synthetic(4000))
    assert found.weights["seam"] == pytest.approx(1.5, abs=0.25)
    assert found.weights["copied"] == pytest.approx(2.0, abs=0.35)
    assert abs(found.weights["certainty"]) < 0.35
    fresh = synthetic(2000, seed=1)
    expected, happened = sum(found.confidence(one.evidence) for one in fresh), sum(one.exact for one in fresh)
    assert expected == pytest.approx(happened, rel=0.08), "calibrated probabilities, not only a ranking"


def test_too_few_right_candidates_are_refused() -> None:
    wrong = [Judged(index, Evidence(), False) for index in range(500)]
    with pytest.raises(InputError, match="take more holes"):
        fit(wrong)


def test_the_best_candidate_of_each_hole_counts() -> None:
    judged = [
        Judged(0, Evidence(seam=-1.0), False),
        Judged(0, Evidence(seam=-0.1), True),
        Judged(1, Evidence(seam=-2.0), True),
    ]
    confidence, exact = best_of_each_hole(judged, Calibration({"seam": 1.0}))
    assert exact.tolist() == [True, True] and confidence[0] > confidence[1]


def test_the_threshold_is_the_lowest_with_the_precision() -> None:
    confidence = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    exact = np.array([True, True, False, True, False, False])
    assert lowest_threshold(confidence, exact, 0.75) == pytest.approx(0.6)
    assert lowest_threshold(confidence, exact, 0.5) == pytest.approx(0.4)
    assert lowest_threshold(confidence, ~exact, 0.9) > 0.9, "rather nothing than mostly wrong answers"


def test_it_is_stored_in_the_model_folder_and_used(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(POCKET, folder)
    store(str(folder), Calibration({"seam": 1.25, "copied": -0.5}, 0.25), 0.4321)
    sums = dict(reversed(line.split()) for line in (folder / "SHA256SUMS").read_text().splitlines())
    assert sums["config.json"] == hashlib.sha256((folder / "config.json").read_bytes()).hexdigest()
    before = json.loads((POCKET / "config.json").read_text())
    after = json.loads((folder / "config.json").read_text())
    assert {**after, "gesso": None} == {**before, "gesso": None}
    completer = load_completer(model=str(folder), threads=1)
    assert completer.model.calibration == Calibration({"seam": 1.25, "copied": -0.5}, 0.25)
    assert completer.min_confidence == pytest.approx(0.432)
