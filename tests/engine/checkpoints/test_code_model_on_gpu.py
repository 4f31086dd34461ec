"""Which form of a code model is loaded on an NVIDIA GPU, by its free memory. Sizes of Qwen2.5-Coder-7B, no weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from engine.checkpoints import qwen2 as loading
from engine.checkpoints.qwen2 import load_qwen2, weight_bytes
from engine.errors import ModelError
from engine.models.qwen2 import Qwen2Config
from tests.engine.tiny_qwen2 import MemoryWeights

CUDA, GIB = torch.device("cuda", 0), 2**30
SEVEN_B = Qwen2Config(152_064, 3584, 18_944, 28, 28, 4, 128, tied=False)


def load(
    free: float,
    monkeypatch: pytest.MonkeyPatch,
    config: Qwen2Config = SEVEN_B,
    kernels: bool = True,
    device: torch.device = CUDA,
    dtype: torch.dtype = torch.bfloat16,
    weights: MemoryWeights | None = None,
) -> tuple[str, bool]:
    """What the layers are in, and whether they use the kernel."""
    loaded: list[str] = []
    on_kernel: list[Any] = []

    def plain_qwen2(*arguments: Any) -> str:
        loaded.append(arguments[4] if len(arguments) > 4 else "plain")
        return "model"

    monkeypatch.setattr(loading, "available_memory", lambda device: int(free * GIB))
    monkeypatch.setattr(loading, "enable_kernels", lambda index: kernels)
    monkeypatch.setattr(loading, "plain_qwen2", plain_qwen2)
    monkeypatch.setattr(loading, "use_kernels", on_kernel.append)
    load_qwen2(weights or MemoryWeights(config, {}), device, dtype)
    (layers,) = loaded
    return layers, bool(on_kernel)


def test_seven_billion_weights_fit_eight_gigabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert weight_bytes(SEVEN_B, torch.bfloat16) > 14 * GIB
    assert load(6.5, monkeypatch) == ("int4", True)


@pytest.mark.parametrize(("free", "layers"), [(15.3, "plain"), (15.1, "int4")])
def test_layers_are_in_int4_if_the_model_does_not_fit_otherwise(
    free: float, layers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load(free, monkeypatch) == (layers, layers == "int4")


def test_layers_that_are_stored_quantized_stay_so_however_much_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = MemoryWeights(SEVEN_B, {})
    weights.stored_bytes = 5 * GIB
    assert load(80.0, monkeypatch, weights=weights) == ("stored", True)
    with pytest.raises(ModelError, match=r"needs 6.0 GiB on cuda:0, but only 5.0"):
        load(5.0, monkeypatch, weights=weights)


def test_a_model_that_is_too_large_in_int4_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"needs 6.4 GiB on cuda:0 even in 4 bits, but only 6.2 .*a smaller model"):
        load(6.2, monkeypatch)


def test_dequantizing_without_kernels_needs_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"needs 8.0 GiB on cuda:0 even in 4 bits"):
        load(6.5, monkeypatch, kernels=False)
    assert load(8.1, monkeypatch, kernels=False) == ("int4", False)


def test_float32_has_no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(12.0, monkeypatch, dtype=torch.float32) == ("int4", False)


def test_only_an_nvidia_gpu_has_int4(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"needs 14.4 GiB on mps, but only 12.0"):
        load(12.0, monkeypatch, device=torch.device("mps"))


def test_rows_that_are_not_whole_groups_are_not_quantized(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"needs 15.2 GiB on cuda:0, but only 12.0 GiB"):
        load(12.0, monkeypatch, replace(SEVEN_B, intermediate_size=18_952))
