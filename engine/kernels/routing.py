"""Routes tokens to experts on the device: no count is copied to the host.

Reference of `choose`: `engine.ops.experts.route`. `schedule` orders the chosen slots by expert and cuts each expert's
slots into blocks, one per program of a grouped product. A slot is a (token, choice) pair: token * top_k + choice.
"""

# mypy: allow-untyped-defs
# (Triton reads the signatures of its kernels itself.)

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

SLOTS_AT_ONCE, BLOCKS_AT_ONCE = 1024, 64  # the same for any number of tokens, so that it is compiled once


@dataclass(frozen=True)
class Schedule:
    """order [slots]: the slots by expert, in ascending order within one. blocks [at most, 3]: expert, first and end
    position in `order` for one program; expert -1 if the block is unused. All int32."""

    order: Tensor
    blocks: Tensor
    block: int


@triton.jit
def _choose(scores, scale, weights, indices, E: tl.constexpr, K: tl.constexpr, WIDTH: tl.constexpr):
    token = tl.program_id(0)
    expert = tl.arange(0, WIDTH)
    raw = tl.load(scores + token * E + expert, mask=expert < E, other=float("-inf")).to(tl.float32)
    left = tl.exp(raw - tl.max(raw, axis=0))
    choices = tl.arange(0, K)
    chosen = tl.zeros((K,), dtype=tl.int32)
    masses = tl.zeros((K,), dtype=tl.float32)
    for choice in range(K):
        best = tl.argmax(left, axis=0).to(tl.int32)
        masses = tl.where(choices == choice, tl.max(left, axis=0), masses)
        chosen = tl.where(choices == choice, best, chosen)
        left = tl.where(expert == best, -1.0, left)
    tl.store(indices + token * K + choices, chosen)
    factor = tl.load(scale + chosen).to(tl.float32)
    tl.store(weights + token * K + choices, masses / tl.sum(masses, axis=0) * factor)


@triton.jit(do_not_specialize=["slots", "most_blocks"])
def _schedule(
    indices, order, blocks, slots, most_blocks,
    E: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr, CHUNK: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    """One program per expert. Each counts all slots itself, which is cheaper than exchanging counts."""
    me = tl.program_id(0)
    expert = tl.arange(0, WIDTH)
    counts = tl.zeros((WIDTH,), dtype=tl.int32)
    for start in range(0, slots, CHUNK):
        slot = start + tl.arange(0, CHUNK)
        chosen = tl.load(indices + slot, mask=slot < slots, other=E).to(tl.int32)
        counts += tl.histogram(chosen, WIDTH)
    counts = tl.where(expert < E, counts, 0)
    needed = (counts + BLOCK - 1) // BLOCK
    first = tl.sum(tl.where(expert < me, counts, 0), axis=0)
    end = first + tl.sum(tl.where(expert == me, counts, 0), axis=0)
    first_block = tl.sum(tl.where(expert < me, needed, 0), axis=0)
    my_blocks = tl.sum(tl.where(expert == me, needed, 0), axis=0)

    place = first
    for start in range(0, slots, CHUNK):
        slot = start + tl.arange(0, CHUNK)
        mine = tl.load(indices + slot, mask=slot < slots, other=E).to(tl.int32) == me
        before = tl.cumsum(mine.to(tl.int32), axis=0) - 1
        tl.store(order + place + before, slot, mask=mine)
        place += tl.sum(mine.to(tl.int32), axis=0)

    for start in range(0, my_blocks, BLOCKS):
        number = start + tl.arange(0, BLOCKS)
        to = blocks + (first_block + number) * 3
        begin = first + number * BLOCK
        tl.store(to, me, mask=number < my_blocks)
        tl.store(to + 1, begin, mask=number < my_blocks)
        tl.store(to + 2, tl.minimum(begin + BLOCK, end), mask=number < my_blocks)
    if me == E - 1:
        for start in range(first_block + my_blocks, most_blocks, BLOCKS):
            number = start + tl.arange(0, BLOCKS)
            tl.store(blocks + number * 3, -1, mask=number < most_blocks)


def choose(scores: Tensor, per_expert_scale: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """Weights (float32) and indices (int32), each [tokens, top_k], for router scores [tokens, experts].

    top_k must be a power of two. Among equal scores the first expert is taken.
    """
    tokens, count = scores.shape
    weights = torch.empty(tokens, top_k, dtype=torch.float32, device=scores.device)
    indices = torch.empty(tokens, top_k, dtype=torch.int32, device=scores.device)
    width = triton.next_power_of_2(count)
    _choose[(tokens,)](
        scores.contiguous(), per_expert_scale, weights, indices, E=count, K=top_k, WIDTH=width, num_warps=1
    )
    return weights, indices


def schedule(indices: Tensor, experts: int, block: int) -> Schedule:
    """The schedule of `indices` [tokens, top_k], with at most `block` slots per program."""
    slots = indices.numel()
    most = slots // block + min(experts, slots)
    order = torch.empty(slots, dtype=torch.int32, device=indices.device)
    blocks = torch.empty(most, 3, dtype=torch.int32, device=indices.device)
    _schedule[(experts,)](
        indices.contiguous(), order, blocks, slots, most,
        E=experts, WIDTH=triton.next_power_of_2(experts + 1), BLOCK=block,
        CHUNK=SLOTS_AT_ONCE, BLOCKS=BLOCKS_AT_ONCE,
    )  # fmt: skip
    return Schedule(order, blocks, block)
