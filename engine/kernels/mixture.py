"""The mixture of experts for few tokens an expert: two grouped products and a sum, weights read once.

The twin of `engine.ops.experts.experts` for weights in any format of `engine.quantized`. What bounds it is reading the
weights, so a program takes one block of an expert's tokens and some rows of its weight, and blocks of one expert run
side by side, so that the second finds the weight in the cache. Knows nothing of models.
"""

# mypy: allow-untyped-defs
# (Triton reads the signatures of its kernels itself.)

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.kernels.routing import Schedule, schedule
from engine.kernels.tiles import CODES, add_product, gelu_tanh, halves_needed, in_halves, is_roomy, load_input
from engine.quantized import QuantizedWeight

TOKEN_BLOCKS = (16, 32, 64)


@dataclass(frozen=True)
class Tiling:
    """How a product is cut: tokens (a schedule has its own), rows and stored columns of a tile, warps, stages of the
    pipeline."""

    tokens: int = 16
    rows: int = 64
    columns: int = 128
    warps: int = 4
    stages: int = 3


ROOMY = Tiling(), Tiling(columns=64)  # of gate_up and of down
TIGHT = Tiling(stages=2), Tiling(columns=64)


@triton.jit
def _gate_up(
    x, numbers, group_scales, row_scales, order, blocks, out,
    K: tl.constexpr, SIZE: tl.constexpr, TOP_K: tl.constexpr, FORMAT: tl.constexpr, GROUP: tl.constexpr,
    GROUPS: tl.constexpr, HAS_ROW_SCALES: tl.constexpr, OUT_IN_HALVES: tl.constexpr,
    TOKENS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """out [slots in order, SIZE] = gelu(gate x) * up x, for the weight [experts, 2 * SIZE, K]."""
    block = blocks + tl.program_id(0) * 3
    expert = tl.load(block)
    if expert < 0:
        return
    place = tl.load(block + 1) + tl.arange(0, TOKENS)
    present = place < tl.load(block + 2)
    tokens = tl.load(order + place, mask=present, other=0) // TOP_K
    gate_rows = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    row_mask = gate_rows < SIZE
    up_rows = gate_rows + SIZE
    WIDTH: tl.constexpr = K // 2 if FORMAT >= 2 else K
    matrix = expert.to(tl.int64)
    numbers += matrix * (2 * SIZE * WIDTH)
    group_scales += matrix * (2 * SIZE * GROUPS)
    gate = tl.zeros((ROWS, TOKENS), dtype=tl.float32)
    up = tl.zeros((ROWS, TOKENS), dtype=tl.float32)
    for k in range(0, WIDTH, BLOCK):
        first, second = load_input(x, tokens, present, k, K, FORMAT >= 2, BLOCK)
        gate = add_product(gate, numbers, group_scales, gate_rows, row_mask, k, first, second, K, FORMAT, GROUP, BLOCK)
        up = add_product(up, numbers, group_scales, up_rows, row_mask, k, first, second, K, FORMAT, GROUP, BLOCK)
    if HAS_ROW_SCALES:
        row_scales += matrix * (2 * SIZE)
        gate *= tl.load(row_scales + gate_rows, mask=row_mask, other=0.0)[:, None]
        up *= tl.load(row_scales + up_rows, mask=row_mask, other=0.0)[:, None]
    result = gelu_tanh(gate) * up
    column = gate_rows
    if OUT_IN_HALVES:
        column = (gate_rows % 2) * (SIZE // 2) + gate_rows // 2
    pointers = out + place.to(tl.int64)[None, :] * SIZE + column[:, None]
    tl.store(pointers, result.to(out.dtype.element_ty), mask=row_mask[:, None] & present[None, :])


@triton.jit
def _down(
    x, numbers, group_scales, row_scales, order, blocks, weights, out,
    K: tl.constexpr, HIDDEN: tl.constexpr, FORMAT: tl.constexpr, GROUP: tl.constexpr,
    GROUPS: tl.constexpr, HAS_ROW_SCALES: tl.constexpr,
    TOKENS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """out [slots, HIDDEN] = routing weight * down x, for x [slots in order, K] and the weight [experts, HIDDEN, K]."""
    block = blocks + tl.program_id(0) * 3
    expert = tl.load(block)
    if expert < 0:
        return
    place = tl.load(block + 1) + tl.arange(0, TOKENS)
    present = place < tl.load(block + 2)
    slots = tl.load(order + place, mask=present, other=0)
    rows = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    row_mask = rows < HIDDEN
    WIDTH: tl.constexpr = K // 2 if FORMAT >= 2 else K
    matrix = expert.to(tl.int64)
    numbers += matrix * (HIDDEN * WIDTH)
    group_scales += matrix * (HIDDEN * GROUPS)
    total = tl.zeros((ROWS, TOKENS), dtype=tl.float32)
    for k in range(0, WIDTH, BLOCK):
        first, second = load_input(x, place, present, k, K, FORMAT >= 2, BLOCK)
        total = add_product(total, numbers, group_scales, rows, row_mask, k, first, second, K, FORMAT, GROUP, BLOCK)
    if HAS_ROW_SCALES:
        total *= tl.load(row_scales + matrix * HIDDEN + rows, mask=row_mask, other=0.0)[:, None]
    total *= tl.load(weights + slots, mask=present, other=0.0).to(tl.float32)[None, :]
    pointers = out + slots.to(tl.int64)[None, :] * HIDDEN + rows[:, None]
    tl.store(pointers, total.to(out.dtype.element_ty), mask=row_mask[:, None] & present[None, :])


def by_slot(
    x: Tensor, weights: Tensor, plan: Schedule, gate_up: QuantizedWeight, down: QuantizedWeight,
    tilings: tuple[Tiling, Tiling] | None = None,
) -> Tensor:  # fmt: skip
    """What each chosen expert gives, times its routing weight: [tokens, top_k, hidden], in the type of x.

    x [tokens, hidden], weights [tokens, top_k] in float32, `plan` the schedule of their indices; gate_up [experts,
    2 * size, hidden], down [experts, hidden, size].
    """
    first, second = tilings or (ROOMY if is_roomy(x.device) else TIGHT)
    slots, (tokens, hidden), size = weights.numel(), x.shape, gate_up.rows // 2
    x = in_halves(x) if halves_needed(gate_up) else x.contiguous()
    inner = torch.empty(slots, size, dtype=x.dtype, device=x.device)
    out = torch.empty(tokens, weights.shape[-1], hidden, dtype=x.dtype, device=x.device)
    _gate_up[(len(plan.blocks), triton.cdiv(size, first.rows))](
        x, *parts(gate_up), plan.order, plan.blocks, inner,
        K=hidden, SIZE=size, TOP_K=weights.shape[-1], **constants(gate_up), OUT_IN_HALVES=halves_needed(down),
        TOKENS=plan.block, ROWS=first.rows, BLOCK=first.columns, num_warps=first.warps, num_stages=first.stages,
    )  # fmt: skip
    _down[(len(plan.blocks), triton.cdiv(hidden, second.rows))](
        inner, *parts(down), plan.order, plan.blocks, weights.contiguous(), out,
        K=size, HIDDEN=hidden, **constants(down),
        TOKENS=plan.block, ROWS=second.rows, BLOCK=second.columns, num_warps=second.warps, num_stages=second.stages,
    )  # fmt: skip
    return out


def tokens_a_block(slots: int, experts: int) -> int:
    """How many slots of an expert one program takes, so that most experts need one program a tile."""
    return next((block for block in TOKEN_BLOCKS if slots <= block * experts), TOKEN_BLOCKS[-1])


def mixture(x: Tensor, weights: Tensor, indices: Tensor, gate_up: QuantizedWeight, down: QuantizedWeight) -> Tensor:
    """See `engine.ops.experts.experts`, whose twin this is; the sum over a token's experts is in float32."""
    count = len(gate_up.numbers)
    plan = schedule(indices, count, tokens_a_block(indices.numel(), count))
    return by_slot(x, weights, plan, gate_up, down).sum(dim=1, dtype=torch.float32).to(x.dtype)


def parts(weight: QuantizedWeight) -> tuple[Tensor, Tensor, Tensor]:
    """Numbers, group scales and row scales for a kernel; the numbers stand in for scales that there are not."""
    numbers = weight.numbers
    group, row = weight.group_scales, weight.row_scales
    return numbers, numbers if group is None else group, numbers if row is None else row


def constants(weight: QuantizedWeight) -> dict[str, int | bool]:
    """What a kernel is compiled for."""
    return {
        "FORMAT": CODES[weight.format],
        "GROUP": weight.group,
        "GROUPS": 0 if weight.group_scales is None else weight.group_scales.shape[-1],
        "HAS_ROW_SCALES": weight.row_scales is not None,
    }
