"""Kernels compiled for GPUs on a machine without one: every kernel of a step and of encoding a prompt, at the true
sizes of the 26B, fits the memory and registers of the supported GPUs, and no step waits for the host.

The interpreter cannot show these: types that change in a branch, tiles larger than a GPU's shared memory, numbers
copied to the host while a CUDA graph is recorded.
"""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

triton = pytest.importorskip("triton")

from bench.gpu.step_shapes import BUILDS, TRUE_26B, fused, shapes_of  # noqa: E402
from engine.config import ModelConfig  # noqa: E402
from engine.graphs.fixed_step import Bucket, FixedStep, KeyValueBuffers  # noqa: E402
from engine.graphs.step_stats import ComputeStats, all_stats, top_stats  # noqa: E402
from engine.kernels.linear import linear  # noqa: E402
from engine.key_values import KeyValues, PromptMemory  # noqa: E402
from engine.models.fused import FusedModel  # noqa: E402
from engine.quantized import INT4_GROUP, QuantizedWeight  # noqa: E402
from engine.self_check import PRODUCT_TOKENS  # noqa: E402
from tests.kernels.fake_gpu import Launch, Recording, fake_gpu  # noqa: E402

SHARED = {89: 101_376, 90: 232_448, 100: 232_448, 120: 101_376}  # bytes per block; CUDA's programming guide
CUDA, KINDS = torch.device("cuda", 0), ["sliding_attention", "full_attention"]
CONFIG = ModelConfig.from_json(
    {**TRUE_26B, "text_config": {**TRUE_26B["text_config"], "num_hidden_layers": 2, "layer_types": KINDS}}
)
CANVASES = Bucket(1, 256, 256, 2048, 0), Bucket(1, 128, 64, 2048, 1)
PROMPT = 1024
CODE_MODEL_WEIGHTS = (2 * 18_944, 3584), (3584, 18_944)  # gate and up, and down, of Qwen2.5-Coder-7B
SHAPING = ("FORMAT", "TOKENS", "ROWS", "BLOCK", "D", "HAS_MASK", "TOP_K", "TOP")  # these determine registers and memory


def one_step(model: FusedModel, bucket: Bucket, keys: torch.dtype, stats: ComputeStats = all_stats) -> FixedStep:
    step = FixedStep(model, bucket, KeyValueBuffers(model.config, bucket, CUDA, keys), stats)
    step()
    return step


@cache
def launches(capability: int) -> tuple[Launch, ...]:
    """One of each kernel, format and tile."""
    found: dict[Any, Launch] = {}
    for build in BUILDS.values():
        shapes = shapes_of(CONFIG, torch.bfloat16)
        with fake_gpu(capability) as seen, torch.inference_mode():
            model = fused(shapes, build, CUDA)
            for bucket in CANVASES:
                one_step(model, bucket, torch.bfloat16)
                one_step(model, bucket, torch.bfloat16, top_stats)
            one_step(model, CANVASES[0], torch.float8_e4m3fn)
            memory = PromptMemory(KeyValues(model.config, CUDA, torch.bfloat16), PROMPT)
            tokens = torch.zeros(1, PROMPT, dtype=torch.long, device=CUDA)
            model.encode(tokens, memory.positions(), memory.masks(), memory)
        for launch in seen:
            shape = tuple((name, value) for name, value in launch.constants if name in SHAPING)
            found.setdefault((launch.name, shape, dict(launch.signature).get("key")), launch)
    return tuple(found.values())


def stack_bytes(machine_code: bytes, folder: Path) -> int:
    """Bytes per thread that do not fit into registers."""
    file = folder / "kernel.cubin"
    file.write_bytes(machine_code)
    tool = Path(triton.__path__[0]) / "backends" / "nvidia" / "bin" / "cuobjdump"
    message = subprocess.run([tool, "-res-usage", file], capture_output=True, text=True, check=True).stdout
    (stack,) = re.findall(r"STACK:(\d+)", message)
    return int(stack)


@pytest.mark.slow
@pytest.mark.parametrize("capability", SHARED)
def test_every_kernel_fits_its_gpu(capability: int, tmp_path: Path) -> None:
    chosen = launches(capability)
    assert {"_gate_up", "_down", "_linear", "_attend", "_from_hidden", "_from_logits", "_probabilities"} < {
        one.name for one in chosen
    }
    if capability in (100, 120):  # they use the tiles of 90 and 89
        chosen = tuple(one for one in chosen if one.name in ("_gate_up", "_down", "_attend"))
    for launch in chosen:
        compiled = launch.compiled(capability)
        assert compiled.metadata.shared <= SHARED[capability], launch
        assert stack_bytes(compiled.asm["cubin"], tmp_path) == 0, launch


@pytest.mark.slow
@pytest.mark.parametrize("capability", [89, 90])  # the others use their tiles
def test_the_int4_products_of_a_code_model_fit_the_gpu(capability: int, tmp_path: Path) -> None:
    with fake_gpu(capability) as seen, torch.inference_mode():
        for rows, columns in CODE_MODEL_WEIGHTS:
            numbers = torch.empty(rows, columns // 2, dtype=torch.uint8, device=CUDA)
            scales = torch.empty(rows, columns // INT4_GROUP, dtype=torch.float16, device=CUDA)
            weight = QuantizedWeight("int4", numbers, None, scales, INT4_GROUP)
            for tokens in PRODUCT_TOKENS:
                linear(torch.empty(1, tokens, columns, dtype=torch.bfloat16, device=CUDA), weight)
    assert {dict(launch.constants)["TOKENS"] for launch in seen} == {16, 64, 128}  # every tiling
    for launch in seen:
        compiled = launch.compiled(capability)
        assert compiled.metadata.shared <= SHARED[capability], launch
        assert stack_bytes(compiled.asm["cubin"], tmp_path) == 0, launch


@pytest.mark.parametrize("build", BUILDS)
def test_nothing_in_a_step_waits_for_the_host(build: str) -> None:
    shapes = shapes_of(CONFIG, torch.bfloat16)
    with fake_gpu(90), torch.inference_mode():
        model = fused(shapes, BUILDS[build], CUDA)
        for bucket in CANVASES:
            for stats in (all_stats, top_stats):
                step = one_step(model, bucket, torch.float8_e4m3fn, stats)
                with Recording():
                    step()


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (lambda x: x.sum().item(), "waits"),
        (lambda x: x.to("cpu"), "to the host"),
        (lambda x: x + torch.ones(3).to(x.device), "to the GPU"),
        (lambda x: x.copy_(torch.ones(3)), "to the GPU"),
    ],
)
def test_what_a_recording_does_not_allow_is_seen(what: Any, message: str) -> None:
    with fake_gpu(90):
        x = torch.ones(3, device=CUDA)
        with Recording(), pytest.raises((AssertionError, RuntimeError), match=f"{message}|_local_scalar_dense"):
            what(x)
