"""A plain product with a quantized weight, and the choice between it and the library's.

The library's product is kept for weights that are plain. Knows nothing of models.
"""

# mypy: allow-untyped-defs
# (Triton reads the signatures of its kernels itself.)

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

from engine.kernels.mixture import Tiling, constants, parts
from engine.kernels.tiles import add_product, halves_needed, in_halves, load_input
from engine.quantized import QuantizedWeight

FEW = Tiling(tokens=16)
MANY = Tiling(tokens=64, columns=64)
MANY_TOKENS = 48


@triton.jit
def _linear(
    x, numbers, group_scales, row_scales, out, tokens,
    K: tl.constexpr, N: tl.constexpr, FORMAT: tl.constexpr, GROUP: tl.constexpr, GROUPS: tl.constexpr,
    HAS_ROW_SCALES: tl.constexpr, TOKENS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    present = token < tokens
    rows = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    row_mask = rows < N
    WIDTH: tl.constexpr = K // 2 if FORMAT >= 2 else K
    total = tl.zeros((ROWS, TOKENS), dtype=tl.float32)
    for k in range(0, WIDTH, BLOCK):
        first, second = load_input(x, token, present, k, K, FORMAT >= 2, BLOCK)
        total = add_product(total, numbers, group_scales, rows, row_mask, k, first, second, K, FORMAT, GROUP, BLOCK)
    if HAS_ROW_SCALES:
        total *= tl.load(row_scales + rows, mask=row_mask, other=0.0)[:, None]
    pointers = out + token.to(tl.int64)[None, :] * N + rows[:, None]
    tl.store(pointers, total.to(out.dtype.element_ty), mask=row_mask[:, None] & present[None, :])


def linear(x: Tensor, weight: QuantizedWeight) -> Tensor:
    """x [..., columns] times the weight [rows, columns], transposed: [..., rows], in the type of x."""
    if weight.format == "plain":
        return F.linear(x, weight.numbers)
    return quantized_linear(x, weight)


def quantized_linear(x: Tensor, weight: QuantizedWeight, tiling: Tiling | None = None) -> Tensor:
    """The same by the kernel, whatever the format."""
    flat = x.reshape(-1, x.shape[-1])
    flat = in_halves(flat) if halves_needed(weight) else flat.contiguous()
    tokens = len(flat)
    tiling = tiling or (MANY if tokens >= MANY_TOKENS else FEW)
    out = torch.empty(tokens, weight.rows, dtype=x.dtype, device=x.device)
    _linear[(triton.cdiv(tokens, tiling.tokens), triton.cdiv(weight.rows, tiling.rows))](
        flat, *parts(weight), out, tokens,
        K=weight.columns, N=weight.rows, **constants(weight),
        TOKENS=tiling.tokens, ROWS=tiling.rows, BLOCK=tiling.columns,
        num_warps=tiling.warps, num_stages=tiling.stages,
    )  # fmt: skip
    return out.view(*x.shape[:-1], weight.rows)
