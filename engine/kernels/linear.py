"""A product with a quantized weight, and the choice between this kernel and the library's product.

Plain weights use the library's product. Must not know models.
"""

# mypy: allow-untyped-defs
# (Triton reads the signatures of its kernels itself.)

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

from engine.kernels import tiles
from engine.kernels.mixture import Tiling, constants, parts
from engine.kernels.tiles import in_quarters, product, quarters_needed
from engine.quantized import QuantizedWeight

FEW, FEW_PACKED = Tiling(tokens=16), Tiling(tokens=16, columns=32)
MANY, MANY_PACKED = Tiling(tokens=64, columns=64), Tiling(tokens=64, columns=16)
MOST, MOST_PACKED = Tiling(tokens=128, columns=64), Tiling(tokens=128, columns=16)
MANY_TOKENS, MOST_TOKENS = 48, 192
ENOUGH_PROGRAMS = 128  # about the number of multiprocessors
MOST_SPLITS, LEAST_BLOCKS = 4, 4  # parts of a product's columns, and blocks of columns of a part


@triton.jit(do_not_specialize=["tokens", "splits"])
def _linear(
    x, numbers, group_scales, row_scales, out, tokens, size, splits,
    K: tl.constexpr, FORMAT: tl.constexpr, GROUP: tl.constexpr, GROUPS: tl.constexpr,
    HAS_ROW_SCALES: tl.constexpr, TOKENS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
    IS_SPLIT: tl.constexpr,
):  # fmt: skip
    """out [tokens, size] = x [tokens, K] times the weight [size, K], transposed; if split, out [splits, tokens, size]
    has what each part of K adds."""
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    present = token < tokens
    rows = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    row_mask = rows < size
    if IS_SPLIT:
        total = product(
            x, token, present, numbers, group_scales, row_scales, rows, row_mask, K, FORMAT, GROUP, HAS_ROW_SCALES,
            TOKENS, ROWS, BLOCK, tl.program_id(2), splits,
        )  # fmt: skip
        out += tl.program_id(2).to(tl.int64) * tokens * size
    else:
        total = product(
            x, token, present, numbers, group_scales, row_scales, rows, row_mask, K, FORMAT, GROUP, HAS_ROW_SCALES,
            TOKENS, ROWS, BLOCK,
        )  # fmt: skip
    pointers = out + token.to(tl.int64)[None, :] * size + rows[:, None]
    tl.store(pointers, total.to(out.dtype.element_ty), mask=row_mask[:, None] & present[None, :])


def linear(x: Tensor, weight: QuantizedWeight) -> Tensor:
    """x [..., columns] times the weight [rows, columns], transposed: [..., rows], in the type of x."""
    if weight.format == "plain":
        return F.linear(x, weight.numbers)
    return quantized_linear(x, weight)


def partial_linear(x: Tensor, weight: QuantizedWeight) -> Tensor:
    """The same as [splits, ..., rows], which the caller adds: parts of the product in float32 if there are too few rows
    and tokens to use the whole GPU, otherwise the product alone."""
    if weight.format == "plain":
        return F.linear(x, weight.numbers)[None]
    tiling = best_tiling(weight, tokens := x.numel() // x.shape[-1])
    splits = best_splits(x.device, weight, tokens, tiling)
    return quantized_linear(x, weight, tiling, splits).view(splits, *x.shape[:-1], weight.rows)


def quantized_linear(x: Tensor, weight: QuantizedWeight, tiling: Tiling | None = None, splits: int = 1) -> Tensor:
    """The same with the kernel, for any format; with several splits [splits, ..., rows] in float32."""
    flat = x.reshape(-1, x.shape[-1])
    flat = in_quarters(flat) if quarters_needed(weight) else flat.contiguous()
    tokens = len(flat)
    tiling = tiling or best_tiling(weight, tokens)
    shape = (*x.shape[:-1], weight.rows) if splits == 1 else (splits, *x.shape[:-1], weight.rows)
    out = torch.empty(shape, dtype=x.dtype if splits == 1 else torch.float32, device=x.device)
    _linear[(triton.cdiv(tokens, tiling.tokens), triton.cdiv(weight.rows, tiling.rows), splits)](
        flat, *parts(weight), out, tokens, weight.rows, splits,
        K=weight.columns, **constants(weight),
        TOKENS=tiling.tokens, ROWS=tiling.rows, BLOCK=tiling.columns, IS_SPLIT=splits > 1,
        num_warps=tiling.warps, num_stages=tiling.stages,
    )  # fmt: skip
    return out


def best_tiling(weight: QuantizedWeight, tokens: int) -> Tiling:
    """The tiling for this number of tokens and this format: each tile dequantizes its weights, so tiles with many
    tokens are best as long as there are enough programs."""
    few, many, most = (FEW_PACKED, MANY_PACKED, MOST_PACKED) if quarters_needed(weight) else (FEW, MANY, MOST)
    programs = triton.cdiv(tokens, most.tokens) * triton.cdiv(weight.rows, most.rows)
    if tokens >= MOST_TOKENS and programs >= ENOUGH_PROGRAMS:
        return most
    return many if tokens >= MANY_TOKENS else few


def best_splits(device: torch.device, weight: QuantizedWeight, tokens: int, tiling: Tiling) -> int:
    """Into how many parts the columns are split, a power of two, so that all multiprocessors have work."""
    programs = triton.cdiv(tokens, tiling.tokens) * triton.cdiv(weight.rows, tiling.rows)
    blocks = weight.columns // (8 if quarters_needed(weight) else 1) // tiling.columns
    splits = 1
    while splits < MOST_SPLITS and programs * splits < tiles.multiprocessors(device):
        if blocks // (2 * splits) < LEAST_BLOCKS:
            break
        splits *= 2
    return splits
