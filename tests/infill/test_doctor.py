"""What `gesso doctor` reports for made-up machines."""

import json
from typing import Any

import pytest
import torch

from bench.gpu.step_shapes import shapes_of
from engine.checkpoints.config_files import read_config
from engine.checkpoints.loading import empty_model
from engine.config import ModelConfig
from engine.denoiser import Denoiser
from engine.memory_use import CONTEXT, DRIVER_BYTES, key_bytes, reserved_bytes
from engine.released import TRUE_26B
from infill.doctor import GIB, LARGE_BYTES, Fit, examine
from infill.model_store import POCKET_FOLDER

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
    "driver": None,
    "no_cuda": "no CUDA driver or GPU was found",
    "mps": False,
    "torch": "2.13.0",
    "device": "cpu",
    "dtype": "float32",
}


def gpu(free: float, trouble: str | None = None, total: float = 140) -> dict[str, Any]:
    return {
        "name": "Some GPU",
        "compute_capability": "9.0",
        "memory_total": int(total * GIB),
        "memory_available": int(free * GIB),
        "trouble": trouble,
        "no_kernels": None,
    }


def by_build(models: tuple[Fit, ...]) -> dict[tuple[str, str], Fit]:
    return {(fit.model, fit.dtype): fit for fit in models}


def test_a_small_machine_is_advised_to_use_the_pocket_model() -> None:
    report = examine(LAPTOP)
    models = by_build(report.models)
    assert models["pocket", "float32"].runs
    assert not models["26b", "float32"].fits and ("26b", "bfloat16") not in models
    expected = "The 26B model does not fit: it needs 99 GiB in float32 with 8k of context, and 8 GiB are free."
    assert expected in report.advice


@pytest.mark.parametrize(("free", "fits"), [(49, False), (50, True)])
def test_a_large_gpu_runs_the_large_model(free: float, fits: bool) -> None:
    report = examine({**LAPTOP, "gpus": [gpu(free)], "device": "cuda:0", "dtype": "bfloat16"})
    large = by_build(report.models)["26b", "bfloat16"]
    assert (large.fits, large.runs) == (fits, fits)
    assert any("`gesso model pull 26b`" in sentence for sentence in report.advice) == fits


@pytest.mark.parametrize(
    ("free", "best", "way"),
    [
        (27.4, "fp8", "quantize 26b DEST --format fp8"),
        (23.5, "nvfp4", "NVIDIA's NVFP4 build"),
        (18.0, "int4", "quantize 26b DEST --format int4"),
    ],
)
def test_a_smaller_gpu_fits_a_quantized_model(free: float, best: str, way: str) -> None:
    report = examine({**LAPTOP, "gpus": [gpu(free)], "device": "cuda:0", "dtype": "bfloat16"})
    advice = next(sentence for sentence in report.advice if "The 26B model fits" in sentence)
    assert f"fits in {best} with 8k of context" in advice and way in advice
    models = by_build(report.models)
    assert models["26b", best].runs and not models["26b", "bfloat16"].fits
    assert models["26b", "int4"].bytes <= 18 * GIB


def test_doctor_counts_as_loading_does() -> None:
    config = read_config(POCKET_FOLDER)
    weights = sum(parameter.nbytes for parameter in empty_model(POCKET_FOLDER, config, torch.float32).parameters())
    pocket = by_build(examine(LAPTOP).models)["pocket", "float32"]
    not_stored = 10_000
    assert abs(pocket.bytes - weights - reserved_bytes(config, 4, 4, recorded=False)) < not_stored
    card = examine({**LAPTOP, "gpus": [gpu(22, total=24)], "device": "cuda:0", "dtype": "bfloat16"})
    assert all(by_build(card.models)["26b", build].fits for build in ("nvfp4", "int4"))


@pytest.mark.parametrize(
    ("free", "total", "dtype", "runs"),
    [(23, 24, "bfloat16", True), (15, 16, "int4", True), (7.5, 8, "int4", True), (5, 6, "int4", False)],
)
def test_the_infilling_model_is_recommended_by_card(free: float, total: float, dtype: str, runs: bool) -> None:
    report = examine({**LAPTOP, "gpus": [gpu(free, total=total)], "device": "cuda:0", "dtype": "bfloat16"})
    fit = by_build(report.models)["Dream-org/DreamOn-v0-7B", dtype]
    assert (fit.fits, fit.runs) == (runs, runs)
    assert any("DreamOn" in sentence and dtype in sentence for sentence in report.advice) == runs


def test_on_a_cpu_only_the_small_masked_model_runs_slowly() -> None:
    report = examine({**LAPTOP, "memory_available": 32 * GIB})
    models = by_build(report.models)
    small, large = models["fredzzp/open-dcoder-0.5B", "int8"], models["Dream-org/DreamOn-v0-7B", "int8"]
    assert small.runs and "slow on a CPU" in small.note
    assert large.fits and not large.runs and "GPU" in large.note
    assert not any("DreamOn" in sentence for sentence in report.advice)


@pytest.mark.parametrize(("free", "dtype", "fits"), [(6, "bfloat16", True), (3, "int4", True), (2, "int4", False)])
def test_a_code_model_is_in_int4_where_a_gpu_has_too_little_memory(free: float, dtype: str, fits: bool) -> None:
    report = examine({**LAPTOP, "gpus": [gpu(free)], "device": "cuda:0", "dtype": "bfloat16"})
    (model,) = (fit for fit in report.models if fit.model == "coder-1.5b")
    assert (model.dtype, model.fits) == (dtype, fits)


def test_a_gpu_is_called_experimental() -> None:
    report = examine({**LAPTOP, "gpus": [gpu(23)], "device": "cuda:0", "dtype": "bfloat16"})
    assert sum("experimental" in sentence for sentence in report.advice) == 1
    assert not any("experimental" in sentence for sentence in examine(LAPTOP).advice)


def test_memory_used_by_other_programs_is_reported() -> None:
    report = examine({**LAPTOP, "gpus": [gpu(10, total=24)], "device": "cuda:0", "dtype": "bfloat16"})
    advice = report.advice[0]
    assert advice.startswith("Other programs use 14.0 GiB of Some GPU; close them, and the 26B model fits in int4")
    small = examine({**LAPTOP, "gpus": [gpu(10, total=12)], "device": "cuda:0", "dtype": "bfloat16"})
    assert "The 26B model does not fit: it needs 18 GiB in int4" in small.advice[0]


def test_the_limits_of_an_old_gpu_are_reported() -> None:
    old = {
        **gpu(23),
        "compute_capability": "7.5",
        "no_kernels": "the GPU has compute capability 7.5, and they need 8.9",
    }
    report = examine({**LAPTOP, "gpus": [old], "device": "cuda:0", "dtype": "float32"})
    assert report.advice[0].startswith("Some GPU runs without Gesso's kernels, slower: the GPU has")
    assert "(compute capability 7.5) is too old for bfloat16" in report.advice[1]
    assert by_build(report.models)["26b", "int4"].note.startswith("slow here: the GPU has compute")


def test_a_driver_without_a_usable_gpu_is_reported() -> None:
    reason = "the NVIDIA driver 470.82.01 does not serve this PyTorch"
    report = examine({**LAPTOP, "driver": "470.82.01", "no_cuda": reason})
    assert report.advice[0] == f"No GPU can be used: {reason}."


def test_quantized_models_are_not_useful_on_a_cpu() -> None:
    report = examine({**LAPTOP, "memory_available": 30 * GIB})
    build = by_build(report.models)["26b", "nvfp4"]
    assert build.fits and not build.runs and "needs an NVIDIA GPU" in build.note


def test_the_problem_of_an_unusable_gpu_is_reported() -> None:
    report = examine({**LAPTOP, "gpus": [gpu(0, "the driver is too old")]})
    assert report.advice[0] == "Some GPU cannot be used: the driver is too old."


def test_too_little_memory_for_any_model_is_reported() -> None:
    report = examine({**LAPTOP, "memory_available": GIB // 8})
    assert not by_build(report.models)["pocket", "float32"].runs
    assert not any("Try it" in sentence for sentence in report.advice)
    assert any("pocket model cannot be loaded" in sentence for sentence in report.advice)


def test_this_machine_can_be_examined() -> None:
    report = json.loads(examine().to_json())
    assert report["machine"]["usable_cores"] >= 1 and report["languages"]["python"] is True
    assert report["models"][0]["model"] == "pocket" and report["models"][0]["bytes"] > 0


@pytest.mark.parametrize("build", ["nvfp4", "int4"])
def test_doctor_loader_and_engine_have_one_account_and_leave_a_part_of_a_24_gb_card_free(
    build: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, model = int(LARGE_BYTES[build]), shapes_of(ModelConfig.from_json(TRUE_26B), torch.bfloat16)
    card = gpu(23.5, total=24)
    machine = {**LAPTOP, "gpus": [card], "device": "cuda:0", "dtype": "bfloat16"}
    fit = by_build(examine(machine).models)["26b", build]
    reserved = reserved_bytes(model.config, 2, 2, recorded=True)
    assert fit.fits and fit.bytes == weights + reserved + DRIVER_BYTES
    free = card["memory_available"] - DRIVER_BYTES - weights
    for module in ("engine.denoiser", "engine.prefix_cache"):
        monkeypatch.setattr(f"{module}.available_memory", lambda device: free)
    monkeypatch.setattr(type(model), "weight_bytes", weights)
    denoiser = Denoiser(model)
    kept, batch = denoiser.cache.limit_bytes, denoiser.step_limit
    assert kept >= key_bytes(model.config, CONTEXT, 2) and batch >= reserved - key_bytes(model.config, CONTEXT, 2)
    assert DRIVER_BYTES + weights + kept + batch < 22 * GIB
