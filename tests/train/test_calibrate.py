"""Fitting the confidence and its threshold, and storing both."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from engine.errors import GessoError, InputError
from infill.complete.confidence import Calibration
from infill.request import Candidate, Evidence, Hole, HoleCompletion, InfillRequest, InfillResult
from tests.infill.fakes import load_completer
from train.calibrate import BATCH, Judged, best_of_each_hole, collect, fit, lowest_threshold, store
from train.held_out import HeldOutHole, Neighbourhood

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


class Interrupted:
    """A completer that finds two candidates for every hole, and is interrupted after some batches."""

    def __init__(self, batches: int) -> None:
        self.batches, self.holes = batches, 0

    def complete_batch(self, requests: Sequence[InfillRequest]) -> list[InfillResult | GessoError]:
        if not self.batches:
            raise KeyboardInterrupt
        self.batches -= 1
        self.holes += len(requests)
        return [self._result(request) for request in requests]

    def _result(self, request: InfillRequest) -> InfillResult:
        found = tuple(
            Candidate(text, 0.5, True, None, "model", 1, Evidence(seam=-float(len(request.text))))
            for text in ("1", "2")
        )
        filled = HoleCompletion(Hole(0, 0), "1", True, None, 0.5, found)
        return InfillResult((filled,), 1, 1, 1, 0, 1, {"total": 1.0}, "coder", 0)


def test_an_interrupted_collection_continues(tmp_path: Path) -> None:
    holes = [HeldOutHole("python", "line", "p", "p.py", "x = " + "a" * n, "1", "\n") for n in range(3 * BATCH - 2)]
    whole = collect(Interrupted(3), holes, Neighbourhood([]))  # type: ignore[arg-type]
    assert [one.hole for one in whole] == [hole for hole in range(len(holes)) for _ in range(2)]
    assert [one.exact for one in whole] == [True, False] * len(holes)
    with pytest.raises(KeyboardInterrupt):
        collect(Interrupted(2), holes, Neighbourhood([]), tmp_path / "kept")  # type: ignore[arg-type]
    rest = Interrupted(9)
    assert collect(rest, holes, Neighbourhood([]), tmp_path / "kept") == whole  # type: ignore[arg-type]
    assert rest.holes == BATCH - 2


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
