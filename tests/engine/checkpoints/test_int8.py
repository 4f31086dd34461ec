"""int8 numbers with one scale per row: what they mean, and how far from the weight they may be."""

from __future__ import annotations

import torch

from engine.checkpoints.int8 import dequantize_rows, quantize_rows, row_scales, stored_shapes


def test_rows_of_zeros_and_of_tiny_numbers() -> None:
    weight = torch.stack((torch.zeros(32), torch.full((32,), 1e-45), torch.linspace(-3, 3, 32)))
    scales = row_scales(weight)
    restored = dequantize_rows(quantize_rows(weight, scales), scales)
    assert not restored[:2].abs().gt(1e-40).any()
    torch.testing.assert_close(restored[2], weight[2], atol=3 / 254, rtol=1e-6)


def test_there_is_one_scale_per_row() -> None:
    assert row_scales(torch.randn(10, 320)).shape == (10,)


def test_stored_shapes_follow_from_the_type() -> None:
    assert stored_shapes("I8", (4, 6, 48)) == ((4, 6, 48), (4, 6))
    assert stored_shapes("BF16", (6, 64)) is None
    assert stored_shapes("U8", (6, 64)) is None and stored_shapes("I8", (64,)) is None
