"""Attention of a canvas over the prompt's keys and its own, in place. Reference: `engine.ops.attention.attend`.

The queries of all heads that share a key head are stacked, so that each key is read once for all of them. Keys and
values are read with their strides: a slice of the cache, never a copy. If queries are few and keys many, the keys are
split among programs and a second kernel merges the parts (Flash-Decoding). There is no causal mask: a canvas sees in
both directions, and the caller slices what a sliding layer may see. A mask marks the valid keys of each row; keys
before the first valid one and after the last are not read, and the splits share the rest.
"""

# mypy: allow-untyped-defs
# (Triton reads the signatures of its kernels itself.)

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.kernels import tiles
from engine.kernels.tiles import has_large_shared_memory

LEAST_KEYS, MOST_SPLITS = 256, 16  # keys per program, parts of the keys
MASK_AT_ONCE = 1024
LOG2_E = tl.constexpr(1.4426950408889634)
LOWEST = tl.constexpr(-1.0e30)


@dataclass(frozen=True)
class Cut:
    """Queries and keys of a tile, warps, stages of the pipeline."""

    queries: int
    keys: int
    warps: int
    stages: int


# chosen by what the compiler reports for sm_90 and sm_89: few or no spilled registers; not yet tuned by time
LARGE_SMEM = {256: Cut(64, 32, 8, 2), 512: Cut(32, 32, 8, 2)}
SMALL_SMEM = {256: Cut(32, 32, 4, 2), 512: Cut(32, 32, 8, 1)}


@triton.jit
def _as(x, dtype: tl.constexpr):
    """Converts keys or values to the type of the queries; E4M3 goes through float32, because a direct conversion to
    bfloat16 is slow."""
    if x.dtype == tl.float8e4nv:
        return x.to(tl.float32).to(dtype)
    else:
        return x.to(dtype)


@triton.jit
def _seen_span(mask, keys, CHUNK: tl.constexpr):
    """The first valid position of the mask [keys], and the position after the last; if none is valid, the end is not
    above the start."""
    first, end = tl.zeros((), tl.int32) + keys, tl.zeros((), tl.int32)
    for start in range(0, keys, CHUNK):
        place = start + tl.arange(0, CHUNK)
        seen = tl.load(mask + place, mask=place < keys, other=0) != 0
        first = tl.minimum(first, tl.min(tl.where(seen, place, keys), axis=0))
        end = tl.maximum(end, tl.max(tl.where(seen, place + 1, 0), axis=0))
    return first, end


@triton.jit(do_not_specialize=["mask_batch", "rows", "keys", "kv_heads", "splits"])
def _attend(
    query, key, value, mask, parts, sums, out,
    q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row, mask_batch,
    rows, keys, kv_heads, splits,
    GROUPS: tl.constexpr, D: tl.constexpr, HAS_MASK: tl.constexpr, IS_SPLIT: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """rows: queries times GROUPS. parts [batch, kv_heads, rows, splits, D] and sums [..., splits, 2] in float32, or out
    [batch, queries, heads, D] where there is one split."""
    row = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    batch = (tl.program_id(1) // kv_heads).to(tl.int64)
    kv_head = tl.program_id(1) % kv_heads
    split = tl.program_id(2)
    row_mask = row < rows
    head = kv_head * GROUPS + row % GROUPS
    dim = tl.arange(0, D)
    q_pointers = query + batch * q_batch + head[:, None] * q_head + (row // GROUPS)[:, None] * q_row + dim[None, :]
    q = tl.load(q_pointers, mask=row_mask[:, None], other=0.0)
    key += batch * k_batch + kv_head * k_head
    value += batch * v_batch + kv_head * v_head
    largest = tl.full((QUERIES,), LOWEST, dtype=tl.float32)
    total = tl.zeros((QUERIES,), dtype=tl.float32)
    mean = tl.zeros((QUERIES, D), dtype=tl.float32)
    first, last = 0, keys
    if HAS_MASK:
        first, last = _seen_span(mask + batch * mask_batch, keys, CHUNK)
        first = first // KEYS * KEYS
    share_of_keys = tl.cdiv(tl.cdiv(last - first, splits), KEYS) * KEYS
    first += split * share_of_keys
    end = tl.minimum(first + share_of_keys, last)
    for start in range(first, end, KEYS):
        place = start + tl.arange(0, KEYS)
        seen = place < end
        k = tl.load(key + place[:, None] * k_row + dim[None, :], mask=seen[:, None], other=0.0)
        if HAS_MASK:
            seen = seen & (tl.load(mask + batch * mask_batch + place, mask=seen, other=0) != 0)
        scores = tl.dot(q, tl.trans(_as(k, q.dtype)), input_precision="ieee") * LOG2_E
        scores = tl.where(seen[None, :], scores, LOWEST)
        raised = tl.maximum(largest, tl.max(scores, axis=1))
        shrink = tl.exp2(largest - raised)
        share = tl.where(seen[None, :], tl.exp2(scores - raised[:, None]), 0.0)
        total = total * shrink + tl.sum(share, axis=1)
        v = tl.load(value + place[:, None] * v_row + dim[None, :], mask=(place < end)[:, None], other=0.0)
        mean = tl.dot(share.to(q.dtype), _as(v, q.dtype), mean * shrink[:, None], input_precision="ieee")
        largest = raised
    if not IS_SPLIT:
        heads = kv_heads * GROUPS
        place = (batch * (rows // GROUPS) + row // GROUPS)[:, None] * heads + head[:, None]
        result = mean / tl.where(total > 0, total, 1.0)[:, None]
        tl.store(out + place * D + dim[None, :], result.to(out.dtype.element_ty), mask=row_mask[:, None])
    else:
        place = ((batch * kv_heads + kv_head) * rows + row) * splits + split
        tl.store(parts + place[:, None] * D + dim[None, :], mean, mask=row_mask[:, None])
        tl.store(sums + place * 2, largest, mask=row_mask)
        tl.store(sums + place * 2 + 1, total, mask=row_mask)


@triton.jit(do_not_specialize=["rows", "kv_heads", "splits"])
def _merge(parts, sums, out, rows, kv_heads, splits, GROUPS: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr):
    row = tl.program_id(0)
    batch = (tl.program_id(1) // kv_heads).to(tl.int64)
    kv_head = tl.program_id(1) % kv_heads
    dim = tl.arange(0, D)
    split = tl.arange(0, WIDTH)
    present = split < splits
    place = ((batch * kv_heads + kv_head) * rows + row) * splits + split
    largest = tl.load(sums + place * 2, mask=present, other=LOWEST)
    share = tl.where(present, tl.exp2(largest - tl.max(largest, axis=0)), 0.0)
    total = tl.sum(share * tl.load(sums + place * 2 + 1, mask=present, other=0.0), axis=0)
    means = tl.load(parts + place[:, None] * D + dim[None, :], mask=present[:, None], other=0.0)
    mean = tl.sum(means * share[:, None], axis=0)
    head = kv_head * GROUPS + row % GROUPS
    to = (batch * (rows // GROUPS) + row // GROUPS) * (kv_heads * GROUPS) + head
    tl.store(out + to * D + dim, (mean / tl.where(total > 0, total, 1.0)).to(out.dtype.element_ty))


def attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, cut: Cut | None = None, splits: int = 0
) -> Tensor:
    """query [batch, heads, length, head_dim], key and value [batch, kv_heads, keys, head_dim], each contiguous in its
    last dimension only, keys and values in the type of the queries or in E4M3; mask bool [batch, 1, 1, keys], or None.
    Returns [batch, length, heads * head_dim].

    head_dim must be a power of two. splits: up to MOST_SPLITS, 0 for as many as fill the GPU. A query that sees no key
    gives zeros.
    """
    batch, heads, length, dim = query.shape
    kv_heads, keys = key.shape[1:3]
    cut = cut or best_cut(query.device, dim)
    rows = length * (heads // kv_heads)
    row_blocks = triton.cdiv(rows, cut.queries)
    splits = splits or best_splits(query.device, row_blocks * batch * kv_heads, keys)
    out = torch.empty(batch, length, heads, dim, dtype=query.dtype, device=query.device)
    parts = sums = out
    if splits > 1:
        parts = torch.empty(batch, kv_heads, rows, splits, dim, dtype=torch.float32, device=query.device)
        sums = torch.empty(batch, kv_heads, rows, splits, 2, dtype=torch.float32, device=query.device)
    shared = {"GROUPS": heads // kv_heads, "D": dim}
    _attend[(row_blocks, batch * kv_heads, splits)](
        query, key, value, query if mask is None else mask.view(torch.uint8), parts, sums, out,
        *query.stride()[:3], *key.stride()[:3], *value.stride()[:3],
        0 if mask is None or len(mask) == 1 else mask.stride(0),
        rows, keys, kv_heads, splits,
        **shared, HAS_MASK=mask is not None, IS_SPLIT=splits > 1, QUERIES=cut.queries, KEYS=cut.keys,
        CHUNK=MASK_AT_ONCE, num_warps=cut.warps, num_stages=cut.stages,
    )  # fmt: skip
    if splits > 1:
        _merge[(rows, batch * kv_heads)](parts, sums, out, rows, kv_heads, splits, **shared, WIDTH=MOST_SPLITS)
    return out.flatten(2)


def takes(query: Tensor, mask: Tensor | None) -> bool:
    """Whether `attend` supports this: no mask, or one that is the same for all heads and queries of a row."""
    dim = query.shape[-1]
    plain = mask is None or (mask.dim() == 4 and mask.shape[1:3] == (1, 1) and mask.dtype == torch.bool)
    return plain and dim >= 16 and dim & (dim - 1) == 0


def best_cut(device: torch.device, dim: int) -> Cut:
    """The tile for this head size on this GPU; heads smaller than 256 use that of 256."""
    return (LARGE_SMEM if has_large_shared_memory(device) else SMALL_SMEM)[512 if dim > 256 else 256]


def best_splits(device: torch.device, programs: int, keys: int) -> int:
    """How many splits of the keys, a power of two, give all multiprocessors work."""
    needed = min(MOST_SPLITS, tiles.multiprocessors(device) // max(1, programs))
    splits = 1
    while splits * 2 <= needed and keys // (splits * 2) >= LEAST_KEYS:
        splits *= 2
    return splits
