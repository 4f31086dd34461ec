"""One tile of a product with a quantized weight: what all kernels that read weights share.

A tile is [rows of the weight, tokens]: the weight stands left, because it has many rows and there are few tokens, which
is how tensor cores waste least (wgmma takes 64 rows of its left side, and 16 tokens on the right are enough). Two
columns in a byte are two products, one with the even and one with the odd columns, so nothing is shuffled in
registers: the input then has to come in halves (`in_halves`), all its even columns before all its odd ones.

Bits become numbers in registers, exactly as `engine.quantized` says: float32, times the scale of the group, rounded to
the type of the input. Row scales are for the caller to apply to the finished sum.
"""

# mypy: allow-untyped-defs
# (Triton reads the signatures of its kernels itself.)

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.quantized import PACKED, QuantizedWeight

PLAIN, FP8, INT4, NVFP4 = (tl.constexpr(number) for number in range(4))
CODES = {"plain": PLAIN.value, "fp8": FP8.value, "int4": INT4.value, "nvfp4": NVFP4.value}
E2M1_UNIT = tl.constexpr(16384.0)  # 2^14: float16's exponent bias is 15, that of e2m1 is 1


def is_roomy(device: torch.device) -> bool:
    """Whether a multiprocessor has some 228 KiB of shared memory (Hopper, Blackwell for data centers), not some 100."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] in (9, 10)


def halves_needed(weight: QuantizedWeight) -> bool:
    """Whether the input of a product with `weight` has to come in halves."""
    return weight.format in PACKED


def in_halves(x: Tensor) -> Tensor:
    """x [..., columns] with its even columns first, then its odd ones."""
    return torch.cat((x[..., ::2], x[..., 1::2]), dim=-1)


@triton.jit
def load_input(x, rows, row_mask, k, K: tl.constexpr, PACKED: tl.constexpr, BLOCK: tl.constexpr):
    """Columns k.. of the input [rows, K] as two tiles [tokens, BLOCK] of even and odd columns; the same twice where the
    format is not packed. k counts bytes of a row in packed formats."""
    columns = k + tl.arange(0, BLOCK)
    WIDTH: tl.constexpr = K // 2 if PACKED else K
    mask = row_mask[:, None] & (columns < WIDTH)[None, :]
    pointers = x + rows.to(tl.int64)[:, None] * K + columns[None, :]
    first = tl.load(pointers, mask=mask, other=0.0)
    if PACKED:
        return first, tl.load(pointers + WIDTH, mask=mask, other=0.0)
    else:
        return first, first


@triton.jit
def group_scaled(
    values, scales, rows, row_mask, k,
    WIDTH: tl.constexpr, SPAN: tl.constexpr, BLOCK: tl.constexpr, UNIT: tl.constexpr,
):  # fmt: skip
    """`values` [rows, BLOCK] times the scales [rows, ceil(WIDTH / SPAN)] of groups of SPAN stored columns, in float32.

    UNIT: what a value of one is worth.
    """
    GROUPS: tl.constexpr = (WIDTH + SPAN - 1) // SPAN
    PER_TILE: tl.constexpr = (BLOCK + SPAN - 1) // SPAN
    groups = k // SPAN + tl.arange(0, PER_TILE)
    mask = row_mask[:, None] & (groups < GROUPS)[None, :]
    found = tl.load(scales + rows.to(tl.int64)[:, None] * GROUPS + groups[None, :], mask=mask, other=0.0)
    scale = found.to(tl.float32) * UNIT
    if PER_TILE == 1:
        return values * scale
    else:
        grouped = tl.reshape(values, (values.shape[0], PER_TILE, SPAN)) * scale[:, :, None]
        return tl.reshape(grouped, (values.shape[0], BLOCK))


@triton.jit
def four_bits(codes, FORMAT: tl.constexpr):
    """float32 of codes 0 to 15 in int32, without the slow conversion from int to float; e2m1 in units of 2^14."""
    if FORMAT == INT4:
        return (codes | 0x4B000000).to(tl.float32, bitcast=True) - 8388616.0  # 2^23 + code, less 2^23 + 8
    else:
        bits = ((codes & 8) << 12) | ((codes & 7) << 9)
        return bits.to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)


@triton.jit
def add_product(
    total, numbers, scales, rows, row_mask, k, first, second,
    K: tl.constexpr, FORMAT: tl.constexpr, GROUP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """total [rows, tokens] plus the product of BLOCK stored columns from k on with `load_input`'s tiles."""
    PACKED: tl.constexpr = FORMAT >= INT4
    WIDTH: tl.constexpr = K // 2 if PACKED else K
    columns = k + tl.arange(0, BLOCK)
    mask = row_mask[:, None] & (columns < WIDTH)[None, :]
    stored = tl.load(numbers + rows.to(tl.int64)[:, None] * WIDTH + columns[None, :], mask=mask, other=0.0)
    if PACKED:
        UNIT: tl.constexpr = E2M1_UNIT if FORMAT == NVFP4 else 1.0
        SPAN: tl.constexpr = GROUP // 2
        codes = stored.to(tl.int32)
        even = group_scaled(four_bits(codes & 15, FORMAT), scales, rows, row_mask, k, WIDTH, SPAN, BLOCK, UNIT)
        odd = group_scaled(four_bits(codes >> 4, FORMAT), scales, rows, row_mask, k, WIDTH, SPAN, BLOCK, UNIT)
        total = tl.dot(even.to(first.dtype), tl.trans(first), total, input_precision="ieee")
        return tl.dot(odd.to(first.dtype), tl.trans(second), total, input_precision="ieee")
    else:
        if GROUP > 0:
            weight = group_scaled(stored.to(tl.float32), scales, rows, row_mask, k, WIDTH, GROUP, BLOCK, 1.0)
        else:
            weight = stored.to(tl.float32) if FORMAT == FP8 else stored  # straight to bfloat16 is a slow instruction
        return tl.dot(weight.to(first.dtype), tl.trans(first), total, input_precision="ieee")


@triton.jit
def gelu_tanh(x):
    """x * Phi(x) by the tanh approximation, as torch's gelu(approximate="tanh")."""
    return x * tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))


@triton.jit
def softcapped(x, cap):
    """cap * tanh(x / cap)."""
    return cap * (2 * tl.sigmoid(2 * x / cap) - 1)
