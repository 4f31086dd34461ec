"""From evidence to confidence."""

from __future__ import annotations

import math

import pytest

from infill.complete.confidence import Calibration
from infill.request import Evidence


def test_without_weights_confidence_is_likelihood_times_certainty() -> None:
    assert Calibration({}).confidence(Evidence(seam=-0.5, certainty=-0.2)) == pytest.approx(math.exp(-0.7))
    assert Calibration({}).confidence(Evidence(seam=-math.inf)) == 0.0


def test_weights_make_a_logistic_model() -> None:
    calibration = Calibration({"seam": 2.0, "copied": 1.0}, intercept=0.5)
    sure, unsure = Evidence(seam=-0.1, copied=1.0), Evidence(seam=-3.0)
    assert calibration.confidence(sure) == pytest.approx(1 / (1 + math.exp(-(0.5 - 0.2 + 1.0))))
    assert calibration.confidence(unsure) == pytest.approx(1 / (1 + math.exp(5.5)))


@pytest.mark.parametrize("seam", [-math.inf, -1e9, -40.0])
def test_impossible_evidence_is_bounded(seam: float) -> None:
    found = Calibration({"seam": 100.0}, intercept=0.0).confidence(Evidence(seam=seam))
    assert 0.0 <= found < 1e-6


def test_weights_of_unknown_evidence_are_ignored() -> None:
    assert Calibration({"unheard_of": 9.0}).confidence(Evidence()) == pytest.approx(0.5)
