"""What `gesso doctor` says of made-up machines."""

import json
from typing import Any

import pytest

from infill.doctor import GIB, Fit, examine

LAPTOP = {
    "cpu": "A processor",
    "architecture": "x86_64",
    "system": "Linux",
    "logical_cores": 4,
    "usable_cores": 2,
    "capability": "AVX2",
    "bfloat16": False,
    "memory_total": 16 * GIB,
    "memory_available": 8 * GIB,
    "gpus": [],
    "mps": False,
    "torch": "2.13.0",
    "device": "cpu",
    "dtype": "float32",
}


def gpu(free: float, trouble: str | None = None) -> dict[str, Any]:
    return {
        "name": "Some GPU",
        "compute_capability": "9.0",
        "memory_total": 140 * GIB,
        "memory_available": int(free * GIB),
        "trouble": trouble,
    }


def by_build(models: tuple[Fit, ...]) -> dict[tuple[str, str], Fit]:
    return {(fit.model, fit.dtype): fit for fit in models}


def test_a_small_machine_is_sent_to_the_pocket_model() -> None:
    report = examine(LAPTOP)
    models = by_build(report.models)
    assert models["pocket", "float32"].runs
    assert not models["26b", "float32"].fits and ("26b", "bfloat16") not in models
    assert "Use the pocket model: the 26B model needs 94 GiB in float32, and 8 GiB are free." in report.advice


@pytest.mark.parametrize(("free", "fits"), [(47, False), (48, True)])
def test_a_large_gpu_runs_the_large_model(free: float, fits: bool) -> None:
    report = examine({**LAPTOP, "gpus": [gpu(free)], "device": "cuda:0", "dtype": "bfloat16"})
    large = by_build(report.models)["26b", "bfloat16"]
    assert (large.fits, large.runs) == (fits, fits)
    assert any("`gesso model pull 26b`" in sentence for sentence in report.advice) == fits


def test_a_quantized_build_that_fits_is_not_said_to_run() -> None:
    report = examine({**LAPTOP, "memory_available": 20 * GIB})
    build = by_build(report.models)["26b", "nvfp4"]
    assert build.fits and not build.runs and "does not read it yet" in build.note


def test_a_gpu_that_cannot_be_used_is_named_with_its_trouble() -> None:
    report = examine({**LAPTOP, "gpus": [gpu(0, "the driver is too old")]})
    assert report.advice[0] == "Some GPU cannot be used: the driver is too old."


def test_too_little_memory_for_anything_is_said() -> None:
    report = examine({**LAPTOP, "memory_available": GIB // 8})
    assert not by_build(report.models)["pocket", "float32"].runs
    assert not any("Try it" in sentence for sentence in report.advice)
    assert any("pocket model cannot be loaded" in sentence for sentence in report.advice)


def test_this_machine_can_be_examined() -> None:
    report = json.loads(examine().to_json())
    assert report["machine"]["usable_cores"] >= 1 and report["languages"]["python"] is True
    assert report["models"][0]["model"] == "pocket" and report["models"][0]["bytes"] > 0
