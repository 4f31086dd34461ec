"""int4 numbers in groups of columns: what they mean, and how far from the weight they may be."""

from __future__ import annotations

import torch

from engine.quantized import INT4_GROUP, QuantizedWeight, quantize_weight


def test_two_columns_share_a_byte_and_thirty_two_a_scale() -> None:
    numbers = torch.full((1, INT4_GROUP), 0x88, dtype=torch.uint8)  # 64 columns of zero steps
    numbers[0, 0], numbers[0, INT4_GROUP // 2] = 0xF0, 0x7A
    scales = torch.tensor([[0.5, 2.0]], dtype=torch.float16)
    weight = QuantizedWeight("int4", numbers, None, scales, INT4_GROUP).dequantize()
    assert weight.shape == (1, 2 * INT4_GROUP) and weight.dtype == torch.float32
    assert weight[0, :3].tolist() == [-4.0, 3.5, 0.0]
    assert weight[0, INT4_GROUP : INT4_GROUP + 3].tolist() == [4.0, -2.0, 0.0]


def test_weights_on_the_grid_come_back_exactly() -> None:
    steps = torch.randint(-8, 8, (3, 4, 2 * INT4_GROUP)).float()
    steps[..., ::INT4_GROUP] = -8
    scales = torch.tensor([0.25, 2.0]).repeat_interleave(INT4_GROUP)
    assert torch.equal(quantize_weight(steps * scales, "int4").dequantize(), steps * scales)
    assert torch.equal(quantize_weight(-steps * scales, "int4").dequantize(), -steps * scales)


def test_a_group_is_as_near_as_its_best_scale_allows() -> None:
    weight = torch.randn(40, 4 * INT4_GROUP, generator=torch.Generator().manual_seed(0))
    groups = weight.unflatten(-1, (-1, INT4_GROUP))
    found = quantize_weight(weight, "int4").dequantize().unflatten(-1, (-1, INT4_GROUP))
    largest = groups.gather(-1, groups.abs().argmax(-1, keepdim=True))
    plain = (groups / (largest / -8)).round().clamp(-8, 7) * (largest / -8)
    error, plain_error = ((x - groups).square().sum(-1) for x in (found, plain))
    assert bool((error <= plain_error * 1.01 + 1e-9).all()) and error.mean() < 0.97 * plain_error.mean()
    assert (found - groups).abs().max() < 0.25 * groups.abs().max()


def test_rows_of_zeros_and_of_tiny_numbers() -> None:
    rows = torch.zeros(INT4_GROUP), torch.full((INT4_GROUP,), 1e-45), torch.linspace(-3, 3, INT4_GROUP)
    weight = torch.stack(rows)
    restored = quantize_weight(weight, "int4").dequantize()
    assert not restored[:2].abs().gt(1e-40).any()
    torch.testing.assert_close(restored[2], weight[2], atol=3 / 7, rtol=0)


def test_int4_takes_half_a_byte_and_a_sixteenth() -> None:
    assert quantize_weight(torch.randn(10, 320), "int4").bytes == 10 * 320 * (1 / 2 + 1 / 16)
