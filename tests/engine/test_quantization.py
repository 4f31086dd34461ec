"""int8 and int4 numbers: what they mean, and how far from the weight they may be."""

from __future__ import annotations

import pytest
import torch

from engine.quantization import (
    GROUP,
    can_group,
    dequantize,
    quantize,
    quantize_groups,
    row_scales,
    stored_shapes,
)


def test_two_columns_share_a_byte_and_thirty_two_a_scale() -> None:
    numbers = torch.full((1, GROUP), 0x88, dtype=torch.uint8)  # 64 columns of zero steps
    numbers[0, 0], numbers[0, GROUP // 2] = 0xF0, 0x7A
    weight = dequantize(numbers, torch.tensor([[0.5, 2.0]], dtype=torch.float16))
    assert weight.shape == (1, 2 * GROUP) and weight.dtype == torch.float32
    assert weight[0, :3].tolist() == [-4.0, 3.5, 0.0]
    assert weight[0, GROUP : GROUP + 3].tolist() == [4.0, -2.0, 0.0]


def test_what_lies_on_the_grid_comes_back_exactly() -> None:
    steps = torch.randint(-8, 8, (3, 4, 2 * GROUP)).float()
    steps[..., ::GROUP] = -8
    scales = torch.tensor([0.25, 2.0]).repeat_interleave(GROUP)
    assert torch.equal(dequantize(*quantize(steps * scales, 4)), steps * scales)
    assert torch.equal(dequantize(*quantize(-steps * scales, 4)), -steps * scales)


def test_a_group_is_as_near_as_its_best_scale_allows() -> None:
    weight = torch.randn(40, 4 * GROUP, generator=torch.Generator().manual_seed(0))
    groups = weight.unflatten(-1, (-1, GROUP))
    found = dequantize(*quantize(weight, 4)).unflatten(-1, (-1, GROUP))
    largest = groups.gather(-1, groups.abs().argmax(-1, keepdim=True))
    plain = (groups / (largest / -8)).round().clamp(-8, 7) * (largest / -8)
    error, plain_error = ((x - groups).square().sum(-1) for x in (found, plain))
    assert bool((error <= plain_error * 1.01 + 1e-9).all()) and error.mean() < 0.97 * plain_error.mean()
    assert (found - groups).abs().max() < 0.25 * groups.abs().max()


@pytest.mark.parametrize("bits", [4, 8])
def test_rows_of_zeros_and_of_tiny_numbers(bits: int) -> None:
    weight = torch.stack((torch.zeros(GROUP), torch.full((GROUP,), 1e-45), torch.linspace(-3, 3, GROUP)))
    restored = dequantize(*quantize(weight, bits))  # type: ignore[arg-type]
    assert not restored[:2].abs().gt(1e-40).any()
    torch.testing.assert_close(restored[2], weight[2], atol=3 / 7 if bits == 4 else 3 / 120, rtol=0)


def test_int4_takes_half_a_byte_and_a_sixteenth() -> None:
    numbers, scales = quantize_groups(torch.randn(10, 320))
    assert numbers.nbytes + scales.nbytes == 10 * 320 * (1 / 2 + 1 / 16)
    assert quantize(torch.randn(10, 320), 8)[1].shape == row_scales(torch.randn(10, 320)).shape == (10,)


def test_stored_shapes_follow_from_the_type() -> None:
    assert stored_shapes("I8", (4, 6, 48)) == ((4, 6, 48), (4, 6))
    assert stored_shapes("U8", (4, 6, 64)) == ((4, 6, 32), (4, 6, 2))
    assert stored_shapes("BF16", (6, 64)) is None
    assert stored_shapes("U8", (6, 48)) is None and stored_shapes("U8", (64,)) is None
    assert can_group((6, 64)) and not can_group((6, 48)) and not can_group((64,))
