"""Everything between the products of a layer, each in one pass: norms, residual sums, rotation.

Reference: `engine.ops.norm` and `engine.ops.rope`, as `engine.models.diffusion_gemma.Layer` combines them. A row is
read once, kept in fp32 in registers, and written once in every form that the next products need. Must not know
quantized weights.
"""

# mypy: allow-untyped-defs
# (Triton reads the signatures of its kernels itself.)

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.kernels.tiles import gelu_tanh


@triton.jit
def _unit(x, SIZE: tl.constexpr, EPS: tl.constexpr):
    """x over its root mean square, for a row of SIZE numbers followed by zeros."""
    return x * tl.rsqrt(tl.sum(x * x, axis=0) / SIZE + EPS)


@triton.jit
def _store_scaled(unit, column, mask, row, gain_0, gain_1, gain_2, out_0, out_1, out_2, SIZE, GAINS: tl.constexpr):
    """Stores the normed row times each of the gains."""
    place = row * SIZE + column
    if GAINS > 0:
        gain = tl.load(gain_0 + column, mask=mask, other=0.0).to(tl.float32)
        tl.store(out_0 + place, (unit * gain).to(out_0.dtype.element_ty), mask=mask)
    if GAINS > 1:
        gain = tl.load(gain_1 + column, mask=mask, other=0.0).to(tl.float32)
        tl.store(out_1 + place, (unit * gain).to(out_1.dtype.element_ty), mask=mask)
    if GAINS > 2:
        gain = tl.load(gain_2 + column, mask=mask, other=0.0).to(tl.float32)
        tl.store(out_2 + place, (unit * gain).to(out_2.dtype.element_ty), mask=mask)


@triton.jit
def _sum_of_parts(x, parts, place, mask, WIDTH: tl.constexpr, SIZE: tl.constexpr):
    """A row of x [parts, rows, SIZE], added up in float32; a program per row."""
    total = tl.zeros((WIDTH,), dtype=tl.float32)
    rows = tl.num_programs(0).to(tl.int64)
    for part in range(parts):
        total += tl.load(x + part * rows * SIZE + place, mask=mask, other=0.0).to(tl.float32)
    return total


@triton.jit(do_not_specialize=["parts"])
def _add_normed(
    residual, product, parts, product_gain, out, gain_0, gain_1, gain_2, out_0, out_1, out_2,
    SIZE: tl.constexpr, EPS: tl.constexpr, WIDTH: tl.constexpr, GAINS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, WIDTH)
    mask = column < SIZE
    place = row * SIZE + column
    x = _sum_of_parts(product, parts, place, mask, WIDTH, SIZE)
    x = _unit(x, SIZE, EPS) * tl.load(product_gain + column, mask=mask, other=0.0).to(tl.float32)
    x = (x + tl.load(residual + place, mask=mask, other=0.0).to(tl.float32)).to(out.dtype.element_ty)
    tl.store(out + place, x, mask=mask)
    unit = _unit(x.to(tl.float32), SIZE, EPS)
    _store_scaled(unit, column, mask, row, gain_0, gain_1, gain_2, out_0, out_1, out_2, SIZE, GAINS)


@triton.jit(do_not_specialize=["parts"])
def _join_branches(
    residual, dense, parts, slots, dense_gain, sparse_gain, both_gain, scalar, out, gain_0, out_0,
    SIZE: tl.constexpr, EPS: tl.constexpr, WIDTH: tl.constexpr, TOP_K: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, WIDTH)
    mask = column < SIZE
    place = row * SIZE + column
    sparse = tl.zeros((WIDTH,), dtype=tl.float32)
    for choice in range(TOP_K):
        sparse += tl.load(slots + (row * TOP_K + choice) * SIZE + column, mask=mask, other=0.0).to(tl.float32)
    x = _sum_of_parts(dense, parts, place, mask, WIDTH, SIZE)
    both = _unit(x, SIZE, EPS) * tl.load(dense_gain + column, mask=mask, other=0.0).to(tl.float32)
    both += _unit(sparse, SIZE, EPS) * tl.load(sparse_gain + column, mask=mask, other=0.0).to(tl.float32)
    both = _unit(both, SIZE, EPS) * tl.load(both_gain + column, mask=mask, other=0.0).to(tl.float32)
    x = tl.load(residual + place, mask=mask, other=0.0).to(tl.float32) + both
    x = (x * tl.load(scalar).to(tl.float32)).to(out.dtype.element_ty)
    tl.store(out + place, x, mask=mask)
    unit = _unit(x.to(tl.float32), SIZE, EPS)
    _store_scaled(unit, column, mask, row, gain_0, gain_0, gain_0, out_0, out_0, out_0, SIZE, 1)


@triton.jit
def _gated(gate_up, out, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = column < SIZE
    gate = tl.load(gate_up + row * 2 * SIZE + column, mask=mask, other=0.0).to(tl.float32)
    up = tl.load(gate_up + (row * 2 + 1) * SIZE + column, mask=mask, other=0.0).to(tl.float32)
    tl.store(out + row * SIZE + column, (gelu_tanh(gate) * up).to(out.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["length"])
def _heads(
    projected, cos, sin, q_gain, k_gain, query, key, value,
    q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row, length,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, PROJECTED: tl.constexpr, HAS_VALUE: tl.constexpr,
    D: tl.constexpr, EPS: tl.constexpr,
):  # fmt: skip
    """One program per position and head; without a value projection, the program of a key head also writes its value
    head."""
    position = tl.program_id(0)
    head = tl.program_id(1)
    batch = (position // length).to(tl.int64)
    row = position % length
    half = tl.arange(0, D // 2)
    source = projected + (position.to(tl.int64) * PROJECTED + head) * D + half
    first = tl.load(source).to(tl.float32)
    second = tl.load(source + D // 2).to(tl.float32)
    inverse = tl.rsqrt((tl.sum(first * first, axis=0) + tl.sum(second * second, axis=0)) / D + EPS)
    first *= inverse
    second *= inverse
    is_value = head >= HEADS + KV_HEADS
    if is_value or (not HAS_VALUE and head >= HEADS):
        value_head = head - HEADS - KV_HEADS if HAS_VALUE else head - HEADS
        to = value + batch * v_batch + value_head * v_head + row * v_row + half
        tl.store(to, first.to(value.dtype.element_ty))
        tl.store(to + D // 2, second.to(value.dtype.element_ty))
    if head < HEADS + KV_HEADS:
        is_query = head < HEADS
        gain = q_gain if is_query else k_gain
        first *= tl.load(gain + half).to(tl.float32)
        second *= tl.load(gain + D // 2 + half).to(tl.float32)
        angle = position.to(tl.int64) * (D // 2) + half
        c = tl.load(cos + angle).to(tl.float32)
        s = tl.load(sin + angle).to(tl.float32)
        if is_query:
            to = query + batch * q_batch + head * q_head + row * q_row + half
        else:
            to = key + batch * k_batch + (head - HEADS) * k_head + row * k_row + half
        tl.store(to, (first * c - second * s).to(query.dtype.element_ty))
        tl.store(to + D // 2, (second * c + first * s).to(query.dtype.element_ty))


def add_normed(
    residual: Tensor, product: Tensor, product_gain: Tensor, eps: float, gains: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """x = residual + norm(product) * product_gain, and norm(x) times each of up to three `gains`.

    residual [..., size], product the same or parts that are added, [parts, ..., size]; gains [size]. The results have
    the type of `residual`.
    """
    size = residual.shape[-1]
    out, scaled = torch.empty_like(residual), [torch.empty_like(residual) for _ in gains]
    three = [gains[min(index, len(gains) - 1)] if gains else product_gain for index in range(3)]
    outs = [scaled[min(index, len(gains) - 1)] if gains else out for index in range(3)]
    _add_normed[(residual.numel() // size,)](
        residual, product, product.numel() // residual.numel(), product_gain, out, *three, *outs,
        SIZE=size, EPS=eps, WIDTH=triton.next_power_of_2(size), GAINS=len(gains), num_warps=8,
    )  # fmt: skip
    return out, scaled


def join_branches(
    residual: Tensor, dense: Tensor, slots: Tensor, gains: tuple[Tensor, Tensor, Tensor], scalar: Tensor, eps: float,
    next_gain: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The end of a layer: x = (residual + norm(norm(dense) * a + norm(sum of slots) * b) * c) * scalar, with gains a,
    b, c; and norm(x) * next_gain.

    residual [tokens, size], dense the same or parts that are added, [parts, tokens, size]; slots [tokens, top_k, size],
    gains [size], scalar [1].
    """
    size = residual.shape[-1]
    out, normed = torch.empty_like(residual), torch.empty_like(residual)
    _join_branches[(residual.numel() // size,)](
        residual, dense, dense.numel() // residual.numel(), slots, *gains, scalar, out, next_gain, normed,
        SIZE=size, EPS=eps, WIDTH=triton.next_power_of_2(size), TOP_K=slots.shape[-2], num_warps=8,
    )  # fmt: skip
    return out, normed


def gated(gate_up: Tensor) -> Tensor:
    """gelu(gate) * up in float32, for `gate_up` [..., 2 * size] with the gate first: see `engine.ops.experts`."""
    size = gate_up.shape[-1] // 2
    out = torch.empty(*gate_up.shape[:-1], size, dtype=gate_up.dtype, device=gate_up.device)
    block = min(1024, triton.next_power_of_2(size))
    _gated[(out.numel() // size, triton.cdiv(size, block))](gate_up, out, SIZE=size, BLOCK=block)
    return out


def split_heads(
    projected: Tensor, rope: tuple[Tensor, Tensor], q_gain: Tensor, k_gain: Tensor, eps: float,
    key: Tensor, value: Tensor, heads: int,
) -> Tensor:  # fmt: skip
    """Norms and rotates the projected heads, and writes keys and values to the cache.

    projected [batch, length, heads + kv_heads (+ kv_heads), head_dim]; rope: cosine and sine of each angle, [batch,
    length, head_dim / 2] each; key and value [batch, kv_heads, length, head_dim], slices of a cache. Without value
    heads the values are the normed raw keys. Returns the queries [batch, heads, length, head_dim].
    """
    batch, length, count, dim = projected.shape
    kv_heads = key.shape[1]
    query = torch.empty(batch, length, heads, dim, dtype=key.dtype, device=key.device).transpose(1, 2)
    _heads[(batch * length, count)](
        projected, rope[0].contiguous(), rope[1].contiguous(), q_gain, k_gain, query, key, value,
        *query.stride()[:3], *key.stride()[:3], *value.stride()[:3], length,
        HEADS=heads, KV_HEADS=kv_heads, PROJECTED=count, HAS_VALUE=count > heads + kv_heads, D=dim, EPS=eps,
        num_warps=1,
    )  # fmt: skip
    return query
