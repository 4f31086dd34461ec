"""In 16 bits on a CPU queries and keys come in blocks, because the library compiles a kernel for every other size;
padding is not seen."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.canvas import Canvas, Known, Slots
from engine.canvas_run import DenoiseRequest
from engine.config import SamplingConfig
from engine.denoiser import Denoiser
from engine.key_values import CanvasMemory, KeyValues
from engine.models.diffusion_gemma import DiffusionGemma
from engine.ops import attention
from engine.ops.attention import CAUSAL, KEY_BLOCK, ROW_BLOCK, attend, causal_mask
from tests.engine.tiny import ours, reference

Mask = Callable[[int, int], Tensor | None]
MASKS: dict[str, Mask] = {
    "all": lambda rows, keys: None,
    "causal": lambda rows, keys: causal_mask(rows, keys - rows, None, torch.device("cpu")),
    "keys": lambda rows, keys: (torch.arange(keys) > 3)[None, None, None],
    "same": lambda rows, keys: CAUSAL if rows == keys else None,
}


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> set[tuple[int, int]]:
    """Numbers of queries and keys of all library calls for which it compiles kernels."""
    found: set[tuple[int, int]] = set()
    original = torch.nn.functional.scaled_dot_product_attention

    def noted(query: Tensor, key: Tensor, *rest: Any, **more: Any) -> Tensor:
        if min(query.shape[2], key.shape[2]) >= attention.COMPILED_ROWS:
            found.add((query.shape[2], key.shape[2]))
        return original(query, key, *rest, **more)

    monkeypatch.setattr("torch.nn.functional.scaled_dot_product_attention", noted)
    return found


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize(("rows", "keys"), [(64, 64), (70, 70), (70, 200), (64, 129), (80, 128), (9, 300)])
def test_what_is_added_changes_nothing(rows: int, keys: int, kind: str, sizes: set[tuple[int, int]]) -> None:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(1, 4, rows, 16, generator=generator).bfloat16()
    key, value = (torch.randn(1, 2, keys, 16, generator=generator).bfloat16() for _ in range(2))
    mask = MASKS[kind](rows, keys)
    found = attend(query, key, value, mask)
    expected = attend(query.float(), key.float(), value.float(), mask)
    assert found.shape == expected.shape == (1, rows, 64)
    torch.testing.assert_close(found.float(), expected, atol=0.03, rtol=0.03)
    if mask is not CAUSAL and rows >= attention.COMPILED_ROWS:
        assert (-(-rows // ROW_BLOCK) * ROW_BLOCK, -(-keys // KEY_BLOCK) * KEY_BLOCK) in sizes


@pytest.fixture(scope="module")
def model() -> DiffusionGemma:
    return ours(reference(feedback=0.02, sliding_window=90, num_experts=1, top_k_experts=1)).to(torch.bfloat16)


def test_canvases_of_all_lengths_need_few_sizes(model: DiffusionGemma, sizes: set[tuple[int, int]]) -> None:
    denoiser = Denoiser(model)
    for length in (20, 61, 90, 127, 150):
        canvas = Canvas.of(Known([5, 6]), Slots(61 + length % 4))
        request = DenoiseRequest([n % 113 for n in range(length)], canvas, SamplingConfig(2))
        denoiser.run([request])
        denoiser.run([request, request])
    assert len(sizes) >= 3
    assert all(rows % ROW_BLOCK == 0 and keys % KEY_BLOCK == 0 for rows, keys in sizes)


@pytest.mark.parametrize("length", [3, 64, 100])
def test_a_canvas_is_read_as_without_blocks_whatever_stood_behind_it(
    model: DiffusionGemma, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The free space behind the canvas may hold NaN."""
    width, prompt = 70, [n % 113 for n in range(length)]
    tokens = torch.arange(width)[None]

    def hidden(model: DiffusionGemma) -> Tensor:
        belief = torch.zeros(1, width, model.config.hidden_size, dtype=model.kv_dtype)
        with Denoiser(model).cache.encoded(prompt) as lease, torch.inference_mode():
            lease.kv.reserve(300)
            for buffer in (*lease.kv.keys, *lease.kv.values):
                buffer[:, :, length:] = torch.nan
            memory = CanvasMemory(lease.kv, width)
            return model.denoise(tokens, belief, memory.positions(), memory.masks(), memory).float()

    exact, found = hidden(copy.deepcopy(model).float()), hidden(model)
    monkeypatch.setattr("engine.key_values.should_come_in_blocks", lambda key: False)
    monkeypatch.setattr("engine.ops.attention.should_come_in_blocks", lambda key: False)
    plain = hidden(model)
    assert not torch.equal(found, plain), "both ways were tried"
    assert (found - exact).abs().mean() < 1.2 * (plain - exact).abs().mean(), "they round alike"


def test_other_numbers_come_as_they_are(sizes: set[tuple[int, int]]) -> None:
    kv = KeyValues(ours(reference()).config, torch.device("cpu"), torch.float32)
    memory = CanvasMemory(kv, 70)
    assert kv.capacity == 70 and set(memory.masks().values()) == {None}
    attend(torch.zeros(1, 2, 70, 16), torch.zeros(1, 2, 75, 16), torch.zeros(1, 2, 75, 16), None)
    assert sizes == {(70, 75)}
