"""One tile of a product with a quantized weight, shared by all kernels that read weights.

A tile is [rows of the weight, tokens]: the weight is the left factor, because it has many rows and there are few
tokens, which uses tensor cores best (wgmma takes 64 rows of its left side, and 16 tokens on the right are enough).

Four-bit weights are read as words of eight columns. Masked, the halves of a word are two columns that are four apart,
in the position of a pair of bfloat16, so one instruction handles two weights and nothing is shuffled. A word gives four
pairs, each for a separate product, and the input must come in quarters to match (`in_quarters`).

Weights are dequantized in registers exactly as in `engine.quantized`: multiplied by the scale of the group and rounded
once to the type of the input. The caller applies row scales to the finished sum (`finished`).
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
PER_WORD = tl.constexpr(8)  # columns
QUARTERS = tl.constexpr(4)
INTERPRETED = tl.constexpr(bool(triton.knobs.runtime.interpret))
# Pairs of bfloat16 in an int32. Up to 255 the bits of a bfloat16 are worth 2^-133 each, so a code needs no exponent.
CODES_LOW, CODES_HIGH = tl.constexpr(0x000F000F), tl.constexpr(0x00F000F0)
LOW_FACTOR, HIGH_FACTOR = tl.constexpr(0x7F007F00), tl.constexpr(0x7D007D00)  # 2^127, 2^123
MINUS_EIGHTH = tl.constexpr(-0x41FF4200)  # turns code / 64 into step / 64
INT4_UNIT = tl.constexpr(64.0)
# e2m1 read as bfloat16 is 2^126 too small; its scale is enlarged, but only so far that a scale of 448 does not overflow
E2M1_BITS = tl.constexpr(-0x7E3F7E40)
NVFP4_SCALE, NVFP4_UNIT = tl.constexpr(2.0**116), tl.constexpr(2.0**10)


def multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def has_large_shared_memory(device: torch.device) -> bool:
    """Whether a multiprocessor has about 228 KiB of shared memory (Hopper, data center Blackwell) rather than about
    100."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] in (9, 10)


def quarters_needed(weight: QuantizedWeight) -> bool:
    """Whether the input of a product with `weight` must come in quarters."""
    return weight.format in PACKED


def in_quarters(x: Tensor) -> Tensor:
    """x [..., columns] with columns c and c + 4 of every eight next to each other: those of c = 0 first, of c = 3
    last."""
    return x.unflatten(-1, (-1, 2, 4)).movedim(-1, -3).flatten(-3)


@triton.jit
def place_in_quarters(column, K: tl.constexpr):
    """The position to which `in_quarters` moves a column of K."""
    return column % 4 * (K // 4) + column // 8 * 2 + column // 4 % 2


@triton.jit
def load_input(x, rows, row_mask, k, K: tl.constexpr, FORMAT: tl.constexpr, BLOCK: tl.constexpr):
    """The part of the input [rows, K] that is multiplied with stored numbers k.. of a weight's row: for packed formats
    four tiles [tokens, 2 * BLOCK], otherwise the same tile [tokens, BLOCK] four times."""
    PACKED: tl.constexpr = FORMAT >= INT4
    PARTS: tl.constexpr = QUARTERS if PACKED else 1
    EACH: tl.constexpr = K // PARTS
    WIDE: tl.constexpr = 2 * BLOCK if PACKED else BLOCK
    columns = (2 * k if PACKED else k) + tl.arange(0, WIDE)
    mask = row_mask[:, None] & (columns < EACH)[None, :]
    pointers = x + rows.to(tl.int64)[:, None] * K + columns[None, :]
    first = tl.load(pointers, mask=mask, other=0.0)
    if PACKED:
        second = tl.load(pointers + EACH, mask=mask, other=0.0)
        third = tl.load(pointers + 2 * EACH, mask=mask, other=0.0)
        return first, second, third, tl.load(pointers + 3 * EACH, mask=mask, other=0.0)
    else:
        return first, first, first, first


@triton.jit
def load_scales(
    scales, rows, row_mask, k, STORED: tl.constexpr, SPAN: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """[rows, groups] for BLOCK stored numbers from k on, where groups of SPAN share one of the scales [rows,
    ceil(STORED / SPAN)]."""
    GROUPS: tl.constexpr = (STORED + SPAN - 1) // SPAN
    PER_TILE: tl.constexpr = (BLOCK + SPAN - 1) // SPAN
    groups = k // SPAN + tl.arange(0, PER_TILE)
    mask = row_mask[:, None] & (groups < GROUPS)[None, :]
    loaded = tl.load(scales + rows.to(tl.int64)[:, None] * GROUPS + groups[None, :], mask=mask, other=0.0)
    return loaded


@triton.jit
def spread(scales, SPAN: tl.constexpr, BLOCK: tl.constexpr):
    """Repeats scales [rows, groups] for each of BLOCK stored numbers, unless one applies to all."""
    if scales.shape[1] == 1:
        return scales
    else:
        wide = tl.broadcast_to(scales[:, :, None], (scales.shape[0], scales.shape[1], SPAN))
        return tl.reshape(wide, (scales.shape[0], BLOCK))


@triton.jit
def _bits(x):
    """The bits of the bfloat16 nearest to a finite float32, in the low half of an int32, rounded as `twice` does."""
    bits = x.to(tl.int32, bitcast=True)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) & 0xFFFF


@triton.jit
def twice(x):
    """The bfloat16 nearest to a finite float32, in both halves of an int32."""
    if INTERPRETED:
        return _bits(x) | (_bits(x) << 16)
    else:
        return tl.inline_asm_elementwise("cvt.rn.bf16x2.f32 $0, $1, $1;", "=r,r", [x], tl.int32, is_pure=True, pack=1)


@triton.jit
def fma_pairs(a, b, c):
    """a * b + c of two bfloat16 in the halves of an int32, each rounded once."""
    if INTERPRETED:
        high = _high(a) * _high(b) + _high(c)
        low = _high(a << 16) * _high(b << 16) + _high(c << 16)
        return (_bits(high) << 16) | _bits(low)
    else:
        return tl.inline_asm_elementwise(
            "fma.rn.bf16x2 $0, $1, $2, $3;", "=r,r,r,r", [a, b, c], tl.int32, is_pure=True, pack=1
        )


@triton.jit
def _high(pairs):
    """float32 of the bfloat16 in the high half."""
    return (pairs & -65536).to(tl.float32, bitcast=True)


@triton.jit
def side_by_side(pairs):
    """bfloat16 [rows, 2 * words] of pairs [rows, words], the low half first."""
    low = (pairs & 0xFFFF).to(tl.int16).to(tl.bfloat16, bitcast=True)
    high = ((pairs >> 16) & 0xFFFF).to(tl.int16).to(tl.bfloat16, bitcast=True)
    return tl.reshape(tl.join(low, high), (pairs.shape[0], 2 * pairs.shape[1]))


@triton.jit
def quarter_of(words, scale, rest, QUARTER: tl.constexpr, FORMAT: tl.constexpr, HAS_REST: tl.constexpr):
    """bfloat16 [rows, 2 * words]: the columns QUARTER and QUARTER + 4 of every word times their scale (pairs), which is
    `scale` + `rest`."""
    if FORMAT == INT4:
        moved = words >> 8 if QUARTER >= 2 else words
        codes = moved & (CODES_LOW if QUARTER % 2 == 0 else CODES_HIGH)
        factor = tl.full(words.shape, LOW_FACTOR if QUARTER % 2 == 0 else HIGH_FACTOR, tl.int32)
        steps = fma_pairs(codes, factor, tl.full(words.shape, MINUS_EIGHTH, tl.int32))
        if HAS_REST:  # exact: steps have 4 bits, and the rest of a float16 scale has 3
            small = fma_pairs(steps, rest, tl.full(words.shape, 0, tl.int32))
            return side_by_side(fma_pairs(steps, scale, small))
        else:
            return side_by_side(fma_pairs(steps, scale, tl.full(words.shape, 0, tl.int32)))
    else:
        moved = words >> 8 if QUARTER >= 2 else words
        code = moved & (CODES_LOW if QUARTER % 2 == 0 else CODES_HIGH)
        # two shifts in one product, which do not overlap: the sign to the top, the rest to the low end of the exponent
        codes = (code * (4160 if QUARTER % 2 == 0 else 260)) & E2M1_BITS
        return side_by_side(fma_pairs(codes, scale, tl.full(words.shape, 0, tl.int32)))


@triton.jit
def add_product(
    total, numbers, scales, rows, row_mask, k, x_0, x_1, x_2, x_3,
    K: tl.constexpr, FORMAT: tl.constexpr, GROUP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """total [rows, tokens] plus the product of BLOCK stored numbers from k on with the tiles of `load_input`; for
    packed formats divided by their unit."""
    PACKED: tl.constexpr = FORMAT >= INT4
    STORED: tl.constexpr = K // PER_WORD if PACKED else K
    SPAN: tl.constexpr = GROUP // PER_WORD if PACKED else GROUP
    columns = k + tl.arange(0, BLOCK)
    mask = row_mask[:, None] & (columns < STORED)[None, :]
    stored = tl.load(numbers + rows.to(tl.int64)[:, None] * STORED + columns[None, :], mask=mask, other=0.0)
    if PACKED:
        HAS_REST: tl.constexpr = FORMAT == INT4 and scales.dtype.element_ty != tl.bfloat16
        loaded = load_scales(scales, rows, row_mask, k, STORED, SPAN, BLOCK)
        if scales.dtype.element_ty == tl.bfloat16:
            bits = loaded.to(tl.int16, bitcast=True).to(tl.int32) & 0xFFFF
            scale = bits | (bits << 16)
        else:
            scale = twice(loaded.to(tl.float32) * (NVFP4_SCALE if FORMAT == NVFP4 else 1.0))
        rest = scale
        if HAS_REST:
            rest = spread(twice(loaded.to(tl.float32) - _high(scale)), SPAN, BLOCK)
        scale = spread(scale, SPAN, BLOCK)
        total = dot(quarter_of(stored, scale, rest, 0, FORMAT, HAS_REST), x_0, total)
        total = dot(quarter_of(stored, scale, rest, 1, FORMAT, HAS_REST), x_1, total)
        total = dot(quarter_of(stored, scale, rest, 2, FORMAT, HAS_REST), x_2, total)
        return dot(quarter_of(stored, scale, rest, 3, FORMAT, HAS_REST), x_3, total)
    else:
        weight = stored.to(tl.float32) if FORMAT == FP8 else stored  # a direct conversion to bfloat16 is slow
        if GROUP > 0:
            weight *= spread(load_scales(scales, rows, row_mask, k, STORED, SPAN, BLOCK), SPAN, BLOCK).to(tl.float32)
        return dot(weight.to(x_0.dtype), x_0, total)


@triton.jit
def dot(weight, x, total):
    """total [rows, tokens] + weight [rows, columns] times x [tokens, columns] in float32."""
    if INTERPRETED or weight.dtype != x.dtype:  # the interpreter computes wrong bfloat16 products
        return tl.dot(weight.to(tl.float32), tl.trans(x.to(tl.float32)), total, input_precision="ieee")
    else:
        return tl.dot(weight, tl.trans(x), total, input_precision="ieee")


@triton.jit
def finished(total, row_scales, rows, row_mask, FORMAT: tl.constexpr, HAS_ROW_SCALES: tl.constexpr):
    """The sum [rows, tokens] of all `add_product`, times the scales of its rows."""
    if FORMAT == INT4:
        total *= INT4_UNIT
    if FORMAT == NVFP4:
        total *= NVFP4_UNIT
    if HAS_ROW_SCALES:
        total *= tl.load(row_scales + rows, mask=row_mask, other=0.0)[:, None]
    return total


@triton.jit
def product(
    x, tokens, present, numbers, scales, row_scales, rows, row_mask,
    K: tl.constexpr, FORMAT: tl.constexpr, GROUP: tl.constexpr, HAS_ROW_SCALES: tl.constexpr,
    TOKENS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, split=0, splits=1,
):  # fmt: skip
    """[rows, tokens] in float32: these rows of a weight [.., K] times these tokens of the input [.., K], or of one of
    `splits` parts of K what it adds to that."""
    STORED: tl.constexpr = K // PER_WORD if FORMAT >= INT4 else K
    total = tl.zeros((ROWS, TOKENS), dtype=tl.float32)
    share = tl.cdiv(tl.cdiv(STORED, BLOCK), splits) * BLOCK
    for k in range(split * share, tl.minimum(split * share + share, STORED), BLOCK):
        x_0, x_1, x_2, x_3 = load_input(x, tokens, present, k, K, FORMAT, BLOCK)
        total = add_product(total, numbers, scales, rows, row_mask, k, x_0, x_1, x_2, x_3, K, FORMAT, GROUP, BLOCK)
    return finished(total, row_scales, rows, row_mask, FORMAT, HAS_ROW_SCALES)


@triton.jit
def gelu_tanh(x):
    """x * Phi(x) by the tanh approximation, as torch's gelu(approximate="tanh")."""
    return x * tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))


@triton.jit
def softcapped(x, cap):
    """cap * tanh(x / cap)."""
    return cap * (2 * tl.sigmoid(2 * x / cap) - 1)
