"""What the bits of a weight mean, and how far a quantized weight is from the original."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from engine.errors import ModelError
from engine.quantized import (
    E2M1,
    FORMATS,
    QuantizedWeight,
    concatenate,
    e2m1_values,
    pack_bytes,
    plain,
    quantize_weight,
    unpack_bytes,
)

ERRORS = {"plain": 0.0, "fp8": 0.03, "int4": 0.1, "nvfp4": 0.11}  # relative, for normal numbers
BITS = {"plain": 32.0, "fp8": 8.25, "int4": 4.5, "nvfp4": 4.75}  # the row scales count for a little here


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("shape", [(24, 128), (3, 10, 128)])
def test_a_quantized_weight_is_near_the_weight(kind: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    weight = torch.randn(shape)
    made = quantize_weight(weight, kind)  # type: ignore[arg-type]
    assert (made.rows, made.columns) == shape[-2:]
    assert (made.dequantize() - weight).norm() <= ERRORS[kind] * weight.norm()
    assert 8 * made.bytes / weight.numel() <= BITS[kind]


@pytest.mark.parametrize("kind", FORMATS)
def test_zeros_stay_zeros_and_outliers_stay_in_range(kind: str) -> None:
    weight = torch.zeros(4, 64)
    weight[1, 5], weight[2, :] = 3e4, 1e-6
    found = quantize_weight(weight, kind).dequantize()  # type: ignore[arg-type]
    assert found.isfinite().all() and not found[0].any()
    assert abs(found[1, 5] - 3e4) < 2e3 and not found[1, 6:].any()


def test_every_nvfp4_number_is_kept_exactly() -> None:
    values = torch.tensor([*E2M1, *(-value for value in E2M1)]).repeat(2, 1)
    made = quantize_weight(values * 0.25, "nvfp4")
    torch.testing.assert_close(made.dequantize(), values * 0.25, rtol=1e-6, atol=0)


def test_the_low_half_of_a_byte_is_the_first_column() -> None:
    codes = torch.tensor([[1, 7, 15, 8]], dtype=torch.uint8)
    packed = pack_bytes(codes)
    assert packed.tolist() == [[0x71, 0x8F]] and torch.equal(unpack_bytes(packed), codes)
    assert e2m1_values(codes).tolist() == [[0.5, 6.0, -6.0, 0.0]]


def test_row_scales_are_what_a_product_leaves_to_the_end() -> None:
    made = quantize_weight(torch.randn(6, 32), "fp8")
    assert made.row_scales is not None
    torch.testing.assert_close(
        replace(made, row_scales=None).dequantize() * made.row_scales[:, None], made.dequantize()
    )


def test_blocks_at_the_edge_may_be_narrower() -> None:
    numbers, scales = torch.ones(2, 5).to(torch.float8_e4m3fn), torch.tensor([[2.0, 3.0], [4.0, 5.0]])
    found = QuantizedWeight("fp8", numbers, None, scales, 4).dequantize()
    assert found.tolist() == [[2, 2, 2, 2, 3], [4, 4, 4, 4, 5]]


@pytest.mark.parametrize("kind", FORMATS)
def test_weights_are_put_below_each_other(kind: str) -> None:
    first, second = torch.randn(3, 64), torch.randn(5, 64)
    parts = [quantize_weight(weight, kind) for weight in (first, second)]  # type: ignore[arg-type]
    whole = concatenate(parts).dequantize()
    assert torch.equal(whole, torch.cat([part.dequantize() for part in parts]))


def test_columns_that_cannot_be_grouped_are_refused() -> None:
    assert plain(torch.ones(2, 20)).columns == 20
    for kind in ("int4", "nvfp4"):
        with pytest.raises(ModelError, match="choose fp8 or bfloat16"):
            quantize_weight(torch.ones(2, 20), kind)  # type: ignore[arg-type]
