"""The bytes of a step, the choice of the device, and rows of the table. No time is asserted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")

from bench.gpu.common import choose_device, timed  # noqa: E402
from bench.gpu.step import row  # noqa: E402
from bench.gpu.step_shapes import BUILDS, TINY, TRUE_26B, random_keys, random_model, random_weight, step_bytes  # noqa: E402
from bench.report import Spread  # noqa: E402
from engine.config import ModelConfig  # noqa: E402
from engine.errors import InputError  # noqa: E402
from engine.quantized import FORMATS  # noqa: E402

CPU, ROOT = torch.device("cpu"), Path(__file__).parents[3]


def test_the_true_shapes_are_those_of_the_26b() -> None:
    config = ModelConfig.from_json(TRUE_26B)
    full = [index for index, layer in enumerate(config.layers) if not layer.is_sliding]
    assert full == [5, 11, 17, 23, 29] and config.layers[5].head_dim == 512 and config.layers[5].num_kv_heads == 2
    assert (config.num_experts, config.experts_per_token, config.expert_intermediate_size) == (128, 8, 704)


@pytest.mark.parametrize("name", BUILDS)
def test_a_step_reads_every_weight_once(name: str) -> None:
    config = ModelConfig.from_json(TINY)
    model = random_model(config, BUILDS[name], CPU, torch.bfloat16)
    kv = random_keys(config, 40, 8, CPU, torch.bfloat16)
    read = step_bytes(model, kv, 8)
    elements = 2 * config.num_experts * 3 * config.expert_intermediate_size * config.hidden_size
    bits = {"bf16": 16, "fp8": 8, "nvfp4": 4.5, "int4": 4.5}[name]
    touched = 1 - 0.5**8
    scales = {"bf16": 0, "fp8": 4, "nvfp4": 4, "int4": 0}[name] * 2 * 4 * (2 * 32 + 64)
    assert read.experts == pytest.approx((elements * bits / 8 + scales) * touched, abs=1)
    assert read.head == 2 * step_bytes(model, kv, 8, likeliest=True).head == 2 * 300 * 64 * 2
    sliding, full = 2 * 2 * 16 * (15 + 8) * 2, 2 * 1 * 32 * (40 + 8) * 2
    assert read.keys == sliding + full and read.total == read.experts + read.dense + read.head + read.keys


@pytest.mark.parametrize("kind", FORMATS)
def test_random_weights_are_as_large_as_trained_weights(kind: str) -> None:
    torch.manual_seed(0)
    made = random_weight(torch.empty(2, 64, 256, device="meta", dtype=torch.bfloat16), kind, CPU)  # type: ignore
    assert 0.85 < float(made.dequantize().std()) * 256**0.5 < 1.15


def test_without_a_gpu_only_a_dry_run_is_possible() -> None:
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="TRITON_INTERPRET=1"):
            choose_device(tiny=False, module="bench.gpu.step", kernels=True)


def test_a_row_has_the_measured_figures() -> None:
    calls: list[int] = []
    spread = timed(lambda: calls.append(1), CPU, 4, warm_up=2)
    assert len(calls) == 6 and len(spread.samples) == 4
    figures = {
        "eager_ms": Spread.of([20.0]),
        "graph_ms": Spread.of([15.5]),
        "floor_ms": 12.4,
        "over_floor": 1.25,
        "bytes": {"total": 53.1e9},
        "memory_bytes": 2**36,
    }
    expected = ["bf16", "256", "2048", "20.00", "15.50", "12.40", "1.25", "53.1", "64.0"]
    assert row("bf16", 256, 2048, figures) == expected


@pytest.mark.slow
def test_a_dry_run_writes_its_results(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "bench.gpu.step",
        "--tiny",
        "--format",
        "int4",
        "--repeats",
        "2",
        "--out",
        str(tmp_path),
    ]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, cwd=ROOT, env=environment, capture_output=True)
    figures = json.loads((tmp_path / "step.json").read_text())["figures"]
    assert figures["rows"]["int4, 8, 20"]["over_floor"] > 0
    assert "int4" in (tmp_path / "step.md").read_text()
