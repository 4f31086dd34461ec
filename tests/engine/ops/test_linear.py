"""Packed products compared with PyTorch's own, and what happens if nothing can be packed."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from engine.ops import linear
from engine.ops.experts import gated_gelu
from engine.ops.linear import GatedProduct, Product, can_pack, pad_rows


@pytest.fixture(params=[True, False], ids=["as the machine can", "without oneDNN"])
def operators(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not request.param:
        monkeypatch.setattr(linear, "_bfloat16_works", lambda: False)


@pytest.mark.usefixtures("operators")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 7, 8, 40])
@torch.inference_mode()
def test_a_product_is_the_linear_product(dtype: torch.dtype, rows: int) -> None:
    weight, x = torch.randn(24, 64).to(dtype), torch.randn(rows, 64)
    found = Product(weight)(x)
    assert found.dtype == dtype
    expected = F.linear(x.to(dtype).float(), weight.float())
    precise = dtype == torch.float32
    torch.testing.assert_close(found.float(), expected, atol=1e-5 if precise else 0.1, rtol=1e-5 if precise else 0.01)


@pytest.mark.usefixtures("operators")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, linear.FUSED_ROWS, 40])
@torch.inference_mode()
def test_a_gated_product_is_the_gated_gelu_of_one(dtype: torch.dtype, rows: int) -> None:
    gate_up, x = torch.randn(2 * 24, 64).to(dtype) / 8, torch.randn(rows, 64)
    found = GatedProduct(*gate_up.chunk(2))(x)
    expected = gated_gelu(F.linear(x.to(dtype).float(), gate_up.float()))
    precise = dtype == torch.float32
    torch.testing.assert_close(found.float(), expected, atol=1e-5 if precise else 0.05, rtol=1e-5 if precise else 0.02)


def test_only_bfloat16_on_a_cpu_that_computes_in_it_is_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.randn(8, 32)
    assert not can_pack(weight) and not can_pack(weight.bfloat16().to("meta"))
    monkeypatch.setattr(linear, "cpu_has_bfloat16", lambda: False)
    linear._bfloat16_works.cache_clear()
    assert not can_pack(weight.bfloat16()) and not Product(weight.bfloat16()).packed
    linear._bfloat16_works.cache_clear()


def test_operators_that_compute_something_else_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "cpu_has_bfloat16", lambda: True)
    linear._bfloat16_works.cache_clear()
    monkeypatch.setattr(linear.F, "gelu", lambda x, approximate: x + 1)
    assert not linear._bfloat16_works()
    linear._bfloat16_works.cache_clear()


def test_a_weight_that_must_not_be_copied_is_used_as_it_lies() -> None:
    weight = torch.randn(32, 8).bfloat16()
    product = Product(weight.t(), may_copy=False)
    assert product.weight.data_ptr() == weight.data_ptr()
    torch.testing.assert_close(
        product(torch.ones(2, 32)).float(), weight.float().sum(0).expand(2, -1), atol=0.2, rtol=0
    )


def test_rows_are_padded_where_a_product_is_compiled_for_their_number() -> None:
    x = torch.randn(2, 9, 3)
    padded = pad_rows(x, packed=True)
    assert padded.shape == (32, 3) and torch.equal(padded[:18], x.flatten(0, 1)) and not padded[18:].any()
    assert torch.equal(pad_rows(x, packed=False), x.flatten(0, 1))
    assert pad_rows(torch.randn(1, 1, 3), packed=True).shape == (1, 3)
    assert pad_rows(torch.randn(3), packed=True).shape == (1, 3)
    assert pad_rows(torch.randn(48, 3), packed=True).shape == (48, 3)
