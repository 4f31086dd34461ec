"""The mixture of experts for few tokens per expert: two grouped products and a sum, with weights read once.

Reference: `engine.ops.experts.experts`, for weights in any format of `engine.quantized`. The bottleneck is reading the
weights, so a program takes one block of an expert's tokens and some rows of its weight, and blocks of one expert run
side by side, so that the second finds the weight in the cache. Must not know models.
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
from engine.kernels.tiles import (
    CODES,
    INT4,
    PER_WORD,
    add_product,
    finished,
    gelu_tanh,
    has_large_shared_memory,
    in_quarters,
    load_input,
    place_in_quarters,
    product,
    quarters_needed,
)
from engine.quantized import QuantizedWeight

TOKEN_BLOCKS = (16, 32, 64)


@dataclass(frozen=True)
class Tiling:
    """The size of a tile: tokens (a schedule has its own), rows and stored numbers (for packed formats words of eight
    columns), warps, stages of the pipeline."""

    tokens: int = 16
    rows: int = 64
    columns: int = 128
    warps: int = 4
    stages: int = 3


# for gate_up and down; chosen by what the compiler reports, not yet by time
LARGE_SMEM = Tiling(), Tiling(rows=128, columns=64)
SMALL_SMEM = Tiling(stages=2), Tiling(columns=64)
LARGE_SMEM_PACKED = Tiling(columns=32), Tiling(rows=128, columns=16)
SMALL_SMEM_PACKED = Tiling(columns=32, stages=2), Tiling(rows=128, columns=16)
SMALL_SMEM_PACKED_MANY = Tiling(columns=16, stages=2), Tiling(columns=16)  # for blocks of 64 tokens


@triton.jit
def _my_slots(blocks, TOKENS: tl.constexpr):
    """For the program's block: its expert, -1 if there is nothing to do; its positions in the order of slots, and which
    of them are used."""
    block = blocks + tl.program_id(0) * 3
    place = tl.load(block + 1) + tl.arange(0, TOKENS)
    return tl.load(block), place, place < tl.load(block + 2)


@triton.jit
def _gate_up(
    x, numbers, group_scales, row_scales, order, blocks, out,
    K: tl.constexpr, SIZE: tl.constexpr, TOP_K: tl.constexpr, FORMAT: tl.constexpr, GROUP: tl.constexpr,
    GROUPS: tl.constexpr, HAS_ROW_SCALES: tl.constexpr, OUT_IN_QUARTERS: tl.constexpr,
    TOKENS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """out [slots in order, SIZE] = gelu(gate x) * up x, for the weight [experts, 2 * SIZE, K]."""
    expert, place, present = _my_slots(blocks, TOKENS)
    if expert < 0:
        return
    tokens = tl.load(order + place, mask=present, other=0) // TOP_K
    gate_rows = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    row_mask = gate_rows < SIZE
    up_rows = gate_rows + SIZE
    STORED: tl.constexpr = K // PER_WORD if FORMAT >= INT4 else K
    matrix = expert.to(tl.int64)
    numbers += matrix * (2 * SIZE * STORED)
    group_scales += matrix * (2 * SIZE * GROUPS)
    row_scales += matrix * (2 * SIZE)
    gate = tl.zeros((ROWS, TOKENS), dtype=tl.float32)
    up = tl.zeros((ROWS, TOKENS), dtype=tl.float32)
    for k in range(0, STORED, BLOCK):
        x_0, x_1, x_2, x_3 = load_input(x, tokens, present, k, K, FORMAT, BLOCK)
        gate = add_product(
            gate, numbers, group_scales, gate_rows, row_mask, k, x_0, x_1, x_2, x_3, K, FORMAT, GROUP, BLOCK
        )
        up = add_product(up, numbers, group_scales, up_rows, row_mask, k, x_0, x_1, x_2, x_3, K, FORMAT, GROUP, BLOCK)
    gate = finished(gate, row_scales, gate_rows, row_mask, FORMAT, HAS_ROW_SCALES)
    up = finished(up, row_scales, up_rows, row_mask, FORMAT, HAS_ROW_SCALES)
    column = place_in_quarters(gate_rows, SIZE) if OUT_IN_QUARTERS else gate_rows
    pointers = out + place.to(tl.int64)[None, :] * SIZE + column[:, None]
    result = gelu_tanh(gate) * up
    tl.store(pointers, result.to(out.dtype.element_ty), mask=row_mask[:, None] & present[None, :])


@triton.jit
def _down(
    x, numbers, group_scales, row_scales, order, blocks, weights, out,
    K: tl.constexpr, HIDDEN: tl.constexpr, FORMAT: tl.constexpr, GROUP: tl.constexpr,
    GROUPS: tl.constexpr, HAS_ROW_SCALES: tl.constexpr,
    TOKENS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """out [slots, HIDDEN] = routing weight * down x, for x [slots in order, K] and the weight [experts, HIDDEN, K]."""
    expert, place, present = _my_slots(blocks, TOKENS)
    if expert < 0:
        return
    slots = tl.load(order + place, mask=present, other=0)
    rows = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    row_mask = rows < HIDDEN
    STORED: tl.constexpr = K // PER_WORD if FORMAT >= INT4 else K
    matrix = expert.to(tl.int64)
    total = product(
        x, place, present, numbers + matrix * (HIDDEN * STORED), group_scales + matrix * (HIDDEN * GROUPS),
        row_scales + matrix * HIDDEN, rows, row_mask, K, FORMAT, GROUP, HAS_ROW_SCALES, TOKENS, ROWS, BLOCK,
    )  # fmt: skip
    total *= tl.load(weights + slots, mask=present, other=0.0).to(tl.float32)[None, :]
    pointers = out + slots.to(tl.int64)[None, :] * HIDDEN + rows[:, None]
    tl.store(pointers, total.to(out.dtype.element_ty), mask=row_mask[:, None] & present[None, :])


def by_slot(
    x: Tensor, weights: Tensor, plan: Schedule, gate_up: QuantizedWeight, down: QuantizedWeight,
    tilings: tuple[Tiling, Tiling] | None = None,
) -> Tensor:  # fmt: skip
    """The result of each chosen expert times its routing weight: [tokens, top_k, hidden], in the type of x.

    x [tokens, hidden], weights [tokens, top_k] in float32, `plan` the schedule of their indices; gate_up [experts, 2 *
    size, hidden], down [experts, hidden, size].
    """
    first, second = tilings or (best_tilings(x.device, part, plan.block)[i] for i, part in enumerate((gate_up, down)))
    slots, (tokens, hidden), size = weights.numel(), x.shape, gate_up.rows // 2
    x = in_quarters(x) if quarters_needed(gate_up) else x.contiguous()
    inner = torch.empty(slots, size, dtype=x.dtype, device=x.device)
    out = torch.empty(tokens, weights.shape[-1], hidden, dtype=x.dtype, device=x.device)
    _gate_up[(len(plan.blocks), triton.cdiv(size, first.rows))](
        x, *parts(gate_up), plan.order, plan.blocks, inner,
        K=hidden, SIZE=size, TOP_K=weights.shape[-1], **constants(gate_up), OUT_IN_QUARTERS=quarters_needed(down),
        TOKENS=plan.block, ROWS=first.rows, BLOCK=first.columns, num_warps=first.warps, num_stages=first.stages,
    )  # fmt: skip
    _down[(len(plan.blocks), triton.cdiv(hidden, second.rows))](
        inner, *parts(down), plan.order, plan.blocks, weights.contiguous(), out,
        K=size, HIDDEN=hidden, **constants(down),
        TOKENS=plan.block, ROWS=second.rows, BLOCK=second.columns, num_warps=second.warps, num_stages=second.stages,
    )  # fmt: skip
    return out


def best_tilings(device: torch.device, weight: QuantizedWeight, tokens: int) -> tuple[Tiling, Tiling]:
    """The tilings of gate_up and down, for a weight in this format on this GPU and this number of tokens per block."""
    if not quarters_needed(weight):
        return LARGE_SMEM if has_large_shared_memory(device) else SMALL_SMEM
    if has_large_shared_memory(device):
        return LARGE_SMEM_PACKED
    return SMALL_SMEM_PACKED if tokens < TOKEN_BLOCKS[-1] else SMALL_SMEM_PACKED_MANY


def tokens_a_block(slots: int, experts: int) -> int:
    """How many slots of an expert one program takes, so that most experts need one program per tile."""
    return next((block for block in TOKEN_BLOCKS if slots <= block * experts), TOKEN_BLOCKS[-1])


def mixture(x: Tensor, weights: Tensor, indices: Tensor, gate_up: QuantizedWeight, down: QuantizedWeight) -> Tensor:
    """See `engine.ops.experts.experts`; the sum over a token's experts is in float32."""
    count = len(gate_up.numbers)
    plan = schedule(indices, count, tokens_a_block(indices.numel(), count))
    return by_slot(x, weights, plan, gate_up, down).sum(dim=1, dtype=torch.float32).to(x.dtype)


def parts(weight: QuantizedWeight) -> tuple[Tensor, Tensor, Tensor]:
    """Numbers (packed ones as words of eight columns), group scales and row scales for a kernel; the numbers are passed
    in place of missing scales."""
    numbers = weight.numbers.view(torch.int32) if quarters_needed(weight) else weight.numbers
    group, row = weight.group_scales, weight.row_scales
    return numbers, numbers if group is None else group, numbers if row is None else row


def constants(weight: QuantizedWeight) -> dict[str, int | bool]:
    """The compile-time constants of a kernel for this weight."""
    return {
        "FORMAT": CODES[weight.format],
        "GROUP": weight.group,
        "GROUPS": 0 if weight.group_scales is None else weight.group_scales.shape[-1],
        "HAS_ROW_SCALES": weight.row_scales is not None,
    }
