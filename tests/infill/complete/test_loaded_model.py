"""What is stored beside a model: its calibration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.errors import ModelError
from infill.complete.loaded_model import stored_calibration


def write(folder: Path, text: str) -> Path:
    (folder / "config.json").write_text(text)
    return folder


def test_the_calibration_has_the_weights_of_known_evidence(tmp_path: Path) -> None:
    confidence = {"weights": {"seam": 0.5, **{str(number): 1.0 for number in range(1000)}}, "intercept": -1}
    stored = {"gesso": {"confidence": confidence, "min_confidence": 0.25}}
    calibration, least = stored_calibration(write(tmp_path, json.dumps(stored)))
    assert (calibration.weights, calibration.intercept, least) == ({"seam": 0.5}, -1.0, 0.25)


@pytest.mark.parametrize(
    "text",
    [
        '{"gesso": {"confidence": {"intercept": NaN}}}',
        '{"gesso": {"confidence": {"weights": {"seam": Infinity}}}}',
        '{"gesso": {"confidence": {"weights": {"seam": 1e308}}}}',
        '{"gesso": {"min_confidence": NaN}}',
        '{"gesso": {"confidence": {"intercept": ' + "9" * 400 + "}}}",
        '{"gesso": {"confidence": [1]}}',
        '{"gesso": 5}',
    ],
)
def test_numbers_that_are_not_finite_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ModelError, match="no usable gesso.confidence"):
        stored_calibration(write(tmp_path, text))
