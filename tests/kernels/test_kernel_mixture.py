"""Grouped products and routing compared with `engine.ops.experts` and `QuantizedWeight.dequantize`."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from engine.kernels.mixture import mixture
from engine.kernels.routing import choose, schedule
from engine.ops.experts import experts, route
from engine.quantized import FORMATS, PACKED, QuantizedWeight, quantize_weight

HIDDEN, SIZE, EXPERTS = 96, 96, 5


def weights_of(kind: str) -> tuple[QuantizedWeight, QuantizedWeight]:
    torch.manual_seed(1)
    gate_up, down = torch.randn(EXPERTS, 2 * SIZE, HIDDEN) / 10, torch.randn(EXPERTS, HIDDEN, SIZE) / 10
    return tuple(quantize_weight(w.half() if kind == "plain" else w, kind) for w in (gate_up, down))  # type: ignore


def routing(case: str) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(2)
    tokens = {"one token": 1, "odd": 21, "all to one": 20, "empty experts": 9}[case]
    if case == "all to one":
        indices = torch.full((tokens, 1), 3)
    elif case == "empty experts":
        indices = torch.tensor([[0, 4]]).repeat(tokens, 1)
    else:
        indices = torch.stack([torch.randperm(EXPERTS)[:2] for _ in range(tokens)])
    return torch.randn(tokens, HIDDEN), torch.rand(indices.shape), indices.int()


def multiplied(weight: QuantizedWeight, dtype: torch.dtype) -> Tensor:
    """The weight as kernels use it for an input of this type: packed formats are always rounded to bfloat16."""
    dtype = torch.bfloat16 if weight.format in PACKED else dtype
    numbers = replace(weight, row_scales=None).dequantize(dtype).float()
    return numbers if weight.row_scales is None else numbers * weight.row_scales[..., None]


def expected(x: Tensor, weights: Tensor, indices: Tensor, gate_up: QuantizedWeight, down: QuantizedWeight) -> Tensor:
    return experts(x.float(), weights, indices.long(), multiplied(gate_up, x.dtype), multiplied(down, x.dtype))


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("case", ["one token", "odd", "all to one", "empty experts"])
def test_the_mixture_equals_the_reference(kind: str, case: str) -> None:
    x, weights, indices = routing(case)
    gate_up, down = weights_of(kind)
    wanted = expected(x, weights, indices, gate_up, down)
    torch.testing.assert_close(mixture(x, weights, indices, gate_up, down), wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_mixture_in_bfloat16(kind: str) -> None:
    """The interpreter truncates where a GPU rounds."""
    x, weights, indices = routing("empty experts")
    gate_up, down = weights_of(kind)
    if kind == "plain":
        gate_up, down = (QuantizedWeight("plain", w.numbers.bfloat16()) for w in (gate_up, down))
    x = x.bfloat16()
    found, wanted = mixture(x, weights, indices, gate_up, down), expected(x, weights, indices, gate_up, down)
    assert (found.float() - wanted).norm() < 1e-2 * wanted.norm()


def test_blocks_of_scales_need_not_divide_the_columns() -> None:
    x, weights, indices = routing("one token")
    gate_up, down = (
        QuantizedWeight("fp8", w.numbers, None, torch.rand(*w.numbers.shape[:-1], -(-w.columns // 64)) / 2000, 64)
        for w in weights_of("fp8")
    )
    wanted = expected(x, weights, indices, gate_up, down)
    torch.testing.assert_close(mixture(x, weights, indices, gate_up, down), wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("tokens", [1, 7, 700])
@pytest.mark.parametrize("case", ["random", "one expert"])
def test_the_schedule_covers_every_slot_once(tokens: int, case: str) -> None:
    torch.manual_seed(tokens)
    indices = torch.randint(0, EXPERTS - 1, (tokens, 2)).int() if case == "random" else torch.ones(tokens, 2).int()
    plan = schedule(indices, EXPERTS, 16)
    flat = indices.flatten()
    assert torch.equal(plan.order.long(), flat.argsort(stable=True))
    covered = []
    for expert, first, end in plan.blocks.tolist():
        if expert >= 0:
            assert 0 < end - first <= 16 and (flat[plan.order[first:end].long()] == expert).all()
            covered += range(first, end)
    assert sorted(covered) == list(range(2 * tokens))


def test_the_likeliest_experts_are_chosen() -> None:
    torch.manual_seed(3)
    scores, scale = torch.randn(11, EXPERTS) * 3, torch.rand(EXPERTS) + 0.5
    weights, indices = choose(scores, scale, 2)
    wanted, wanted_indices = route(scores, scale, 2)
    assert torch.equal(indices.long(), wanted_indices)
    torch.testing.assert_close(weights, wanted)
