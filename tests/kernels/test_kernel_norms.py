"""The passes between the products compared with the plain norms and rotation of the model."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from engine.kernels.norms import add_normed, gated, join_branches, split_heads
from engine.ops.experts import gated_gelu
from engine.ops.rope import rotate, rotation

EPS = 1e-6


def norm(x: Tensor, gain: Tensor | None = None) -> Tensor:
    return F.rms_norm(x, x.shape[-1:], gain, EPS)


@pytest.mark.parametrize(("rows", "size", "gains"), [(1, 48, 0), (5, 130, 2), (3, 64, 3)])
def test_a_residual_sum_and_its_norms(rows: int, size: int, gains: int) -> None:
    torch.manual_seed(0)
    residual, product, gain = torch.randn(rows, size), 9 * torch.randn(rows, size), torch.rand(size)
    others = [torch.rand(size) + number for number in range(gains)]
    out, scaled = add_normed(residual, product, gain, EPS, others)
    wanted = residual + norm(product, gain)
    torch.testing.assert_close(out, wanted)
    in_parts = torch.stack((product - 2, torch.full_like(product, 2.0)))
    torch.testing.assert_close(add_normed(residual, in_parts, gain, EPS, others)[0], wanted)
    assert len(scaled) == gains
    for found, other in zip(scaled, others, strict=True):
        torch.testing.assert_close(found, norm(wanted, other))


@pytest.mark.parametrize(("tokens", "top_k"), [(1, 1), (6, 4)])
def test_the_end_of_a_layer(tokens: int, top_k: int) -> None:
    torch.manual_seed(1)
    residual, dense, slots = torch.randn(tokens, 96), torch.randn(tokens, 96), torch.randn(tokens, top_k, 96)
    a, b, c, following = (torch.rand(96) + 0.5 for _ in range(4))
    scalar = torch.tensor([0.7])
    out, normed = join_branches(residual, dense, slots, (a, b, c), scalar, EPS, following)
    wanted = (residual + norm(norm(dense, a) + norm(slots.sum(1), b), c)) * scalar
    torch.testing.assert_close(out, wanted)
    torch.testing.assert_close(normed, norm(wanted, following))
    in_parts = torch.stack((dense * 0.25, dense * 0.75))
    torch.testing.assert_close(join_branches(residual, in_parts, slots, (a, b, c), scalar, EPS, following)[0], wanted)


@pytest.mark.parametrize("shape", [(1, 2, 24), (3, 2 * 1500)])
def test_a_gated_product(shape: tuple[int, ...]) -> None:
    torch.manual_seed(3)
    gate_up = 3 * torch.randn(shape)
    torch.testing.assert_close(gated(gate_up), gated_gelu(gate_up), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("has_value", [True, False])
def test_heads_are_normed_rotated_and_kept(has_value: bool) -> None:
    torch.manual_seed(2)
    heads, kv_heads, dim, length, batch = 4, 2, 32, 3, 2
    projected = 5 * torch.randn(batch, length, heads + kv_heads * (2 if has_value else 1), dim)
    positions = torch.arange(100, 100 + length).repeat(batch, 1)
    cos, sin = rotation(positions, 0.3 ** torch.arange(dim // 2), torch.float32)
    q_gain, k_gain = torch.rand(dim), torch.rand(dim)
    cache = torch.zeros(2, batch, kv_heads, length + 5, dim)
    key, value = cache[0, :, :, 4 : 4 + length], cache[1, :, :, 4 : 4 + length]
    half = (cos[:, :, 0, : dim // 2], sin[:, :, 0, dim // 2 :])
    query = split_heads(projected, half, q_gain, k_gain, EPS, key, value, heads)
    raw_key = projected[:, :, heads : heads + kv_heads]
    raw_value = projected[:, :, heads + kv_heads :] if has_value else raw_key
    torch.testing.assert_close(query, rotate(norm(projected[:, :, :heads], q_gain), cos, sin).transpose(1, 2))
    torch.testing.assert_close(key, rotate(norm(raw_key, k_gain), cos, sin).transpose(1, 2))
    torch.testing.assert_close(value, norm(raw_value).transpose(1, 2))
    assert not cache[..., :4, :].any() and not cache[..., 4 + length :, :].any()
