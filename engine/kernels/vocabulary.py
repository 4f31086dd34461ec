"""One pass over the vocabulary, with or without the product of the head. Reference: `engine.ops.vocabulary`.

`stats_from_hidden` multiplies hidden states with the head block by block and keeps a few numbers per block and row, so
the logits [rows, vocab] are never written. `stats_from_logits` reads logits that a library's product has written, in
any float type, once. Both merge the blocks in a second, small kernel.

The top tokens are the likeliest `top` among the likeliest PER_BLOCK of every block of VOCAB tokens. That is exact
unless a block holds more than PER_BLOCK of them; the argmax is always exact.
"""

# mypy: allow-untyped-defs
# (Triton reads the signatures of its kernels itself.)

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.kernels.mixture import constants, parts
from engine.kernels.tiles import in_quarters, product, quarters_needed, softcapped
from engine.logit_bias import LogitBias
from engine.logit_stats import LogitStats
from engine.quantized import QuantizedWeight

VOCAB = 128  # tokens per block
PER_BLOCK = 4
NUMBERS = 6  # per block and row: largest, sums at its temperature (two) and at 1, largest with noise, its token
ROUNDS = tl.constexpr(7)  # Philox passes BigCrush from 7 rounds on (Salmon et al., 2011)
LOWEST = tl.constexpr(-3.0e38)


@triton.jit
def gumbel(seed, token):
    """Standard Gumbel noise for a row's seed [.., rows] and a token [tokens, ..]; fine-grained where it is large."""
    zero = (token + seed) * 0
    bits, _, _, _ = tl.philox(0, token + zero, seed + zero, zero, zero, ROUNDS)
    share = (bits.to(tl.float32, bitcast=False) + 0.5) * 2.3283064365386963e-10
    exponential = tl.where(share < 1e-3, share * (1 + share * (0.5 + share / 3)), -tl.log(1 - share))
    return -tl.log(exponential)


@triton.jit
def _note_block(
    logits, rows, row_mask, tokens, block, blocks, bias, bias_rows, temperature, seeds, numbers, candidates, ids,
    CAP: tl.constexpr, V: tl.constexpr, HAS_BIAS: tl.constexpr, SAMPLE: tl.constexpr, KEPT: tl.constexpr,
):  # fmt: skip
    """Stores the numbers kept for the uncapped `logits` [tokens, rows] of one block."""
    present = (tokens < V)[:, None]
    if CAP > 0:
        logits = softcapped(logits, CAP)
    if HAS_BIAS:
        bias_row = tl.load(bias_rows + rows, mask=row_mask, other=0).to(tl.int64)
        where = bias_row[None, :] * V + tokens[:, None]
        logits += tl.load(bias + where, mask=present & row_mask[None, :], other=0.0).to(tl.float32)
    row_temperature = tl.load(temperature + rows, mask=row_mask, other=1.0)
    scaled = tl.where(present, logits / row_temperature[None, :], LOWEST)
    largest = tl.max(scaled, axis=0)
    below = tl.where(present, scaled - largest[None, :], 0.0)
    share = tl.where(present, tl.exp(below), 0.0)
    at_one = tl.where(present, tl.exp(below * row_temperature[None, :]), 0.0)
    place = rows.to(tl.int64) * blocks + block
    out = numbers + place * 6
    tl.store(out, largest, mask=row_mask)
    tl.store(out + 1, tl.sum(share, axis=0), mask=row_mask)
    tl.store(out + 2, tl.sum(share * below, axis=0), mask=row_mask)
    tl.store(out + 3, tl.sum(at_one, axis=0), mask=row_mask)
    if SAMPLE:
        seed = tl.load(seeds + rows, mask=row_mask, other=0)
        noisy = tl.where(present, scaled + gumbel(seed[None, :], tokens[:, None]), LOWEST)
        tl.store(out + 4, tl.max(noisy, axis=0), mask=row_mask)
        tl.store(out + 5, (block * tokens.shape[0] + tl.argmax(noisy, axis=0)).to(tl.float32), mask=row_mask)
    index = tl.arange(0, tokens.shape[0])
    for number in range(KEPT):
        best = tl.argmax(scaled, axis=0)
        tl.store(candidates + place * KEPT + number, tl.max(scaled, axis=0), mask=row_mask)
        tl.store(ids + place * KEPT + number, (block * tokens.shape[0] + best).to(tl.int32), mask=row_mask)
        scaled = tl.where(index[:, None] == best[None, :], LOWEST, scaled)


@triton.jit(do_not_specialize=["count"])
def _from_hidden(
    hidden, weights, group_scales, row_scales, bias, bias_rows, temperature, seeds, numbers, candidates, ids,
    count, blocks,
    K: tl.constexpr, V: tl.constexpr, CAP: tl.constexpr, FORMAT: tl.constexpr, GROUP: tl.constexpr,
    GROUPS: tl.constexpr, HAS_ROW_SCALES: tl.constexpr, HAS_BIAS: tl.constexpr, SAMPLE: tl.constexpr,
    KEPT: tl.constexpr, TOKENS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    row_mask = rows < count
    block = tl.program_id(1)
    tokens = block * TOKENS + tl.arange(0, TOKENS)
    logits = product(
        hidden, rows, row_mask, weights, group_scales, row_scales, tokens, tokens < V, K, FORMAT, GROUP, HAS_ROW_SCALES,
        ROWS, TOKENS, BLOCK,
    )  # fmt: skip
    _note_block(
        logits, rows, row_mask, tokens, block, blocks, bias, bias_rows, temperature, seeds, numbers, candidates, ids,
        CAP, V, HAS_BIAS, SAMPLE, KEPT,
    )  # fmt: skip


@triton.jit(do_not_specialize=["count"])
def _from_logits(
    logits, bias, bias_rows, temperature, seeds, numbers, candidates, ids, count, blocks,
    V: tl.constexpr, CAP: tl.constexpr, HAS_BIAS: tl.constexpr, SAMPLE: tl.constexpr, KEPT: tl.constexpr,
    TOKENS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    row_mask = rows < count
    block = tl.program_id(0)
    tokens = block * TOKENS + tl.arange(0, TOKENS)
    mask = (tokens < V)[:, None] & row_mask[None, :]
    tile = tl.load(logits + rows.to(tl.int64)[None, :] * V + tokens[:, None], mask=mask, other=0.0).to(tl.float32)
    _note_block(
        tile, rows, row_mask, tokens, block, blocks, bias, bias_rows, temperature, seeds, numbers, candidates, ids,
        CAP, V, HAS_BIAS, SAMPLE, KEPT,
    )  # fmt: skip


@triton.jit
def _merge(
    numbers, candidates, ids, argmax, sample, entropy, log_probability, top_tokens, top_probabilities,
    temperature, blocks,
    SAMPLE: tl.constexpr, KEPT: tl.constexpr, TOP: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    block = tl.arange(0, WIDTH)
    mask = block < blocks
    mine = numbers + (row * blocks + block) * 6
    largest = tl.load(mine, mask=mask, other=LOWEST)
    most = tl.max(largest, axis=0)
    below = tl.where(mask, largest - most, 0.0)
    share = tl.where(mask, tl.exp(below), 0.0)
    sums = tl.load(mine + 1, mask=mask, other=0.0)
    weighted = tl.load(mine + 2, mask=mask, other=0.0)
    total = tl.sum(share * sums, axis=0)
    tl.store(entropy + row, tl.log(total) - tl.sum(share * (weighted + below * sums), axis=0) / total)
    at_one = tl.where(mask, tl.exp(below * tl.load(temperature + row)), 0.0) * tl.load(mine + 3, mask=mask, other=0.0)
    tl.store(log_probability + row, -tl.log(tl.sum(at_one, axis=0)))
    if SAMPLE:
        noisy = tl.load(mine + 4, mask=mask, other=LOWEST)
        chosen = tl.argmax(noisy, axis=0)
        tl.store(sample + row, tl.load(numbers + (row * blocks + chosen) * 6 + 5).to(tl.int64))

    place = tl.arange(0, WIDTH * KEPT)
    found = tl.load(candidates + row * blocks * KEPT + place, mask=place < blocks * KEPT, other=LOWEST)
    for number in range(TOP):
        best = tl.argmax(found, axis=0)
        token = tl.load(ids + row * blocks * KEPT + best)
        if number == 0:
            tl.store(argmax + row, token.to(tl.int64))
            if not SAMPLE:
                tl.store(sample + row, token.to(tl.int64))
        tl.store(top_tokens + row * TOP + number, token)
        tl.store(top_probabilities + row * TOP + number, tl.exp(tl.max(found, axis=0) - most) / total)
        found = tl.where(place == best, LOWEST, found)


@triton.jit
def _probabilities(
    logits, bias, bias_rows, temperature, argmax, largest, out,
    V: tl.constexpr, CAP: tl.constexpr, HAS_BIAS: tl.constexpr, TOKENS: tl.constexpr,
):  # fmt: skip
    """One row and block of tokens: probabilities relative to `largest`, that of the token `argmax`."""
    row = tl.program_id(1).to(tl.int64)
    tokens = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    present = tokens < V
    best = tl.load(argmax + row)
    tile = tl.load(logits + row * V + tokens, mask=present, other=0.0).to(tl.float32)
    most = tl.load(logits + row * V + best).to(tl.float32)
    if CAP > 0:
        tile, most = softcapped(tile, CAP), softcapped(most, CAP)
    if HAS_BIAS:
        values = bias + tl.load(bias_rows + row).to(tl.int64) * V
        tile += tl.load(values + tokens, mask=present, other=0.0).to(tl.float32)
        most += tl.load(values + best).to(tl.float32)
    share = tl.exp((tile - most) / tl.load(temperature + row)) * tl.load(largest + row)
    tl.store(out + row * V + tokens, share.to(out.dtype.element_ty), mask=present)


@triton.jit
def _mean(
    table, tokens, weights, out, scale, HIDDEN: tl.constexpr, TOP: tl.constexpr, COLUMNS: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    mask = columns < HIDDEN
    total = tl.zeros((COLUMNS,), dtype=tl.float32)
    for number in range(TOP):
        token = tl.load(tokens + row * TOP + number).to(tl.int64)
        weight = tl.load(weights + row * TOP + number)
        total += weight * tl.load(table + token * HIDDEN + columns, mask=mask, other=0.0).to(tl.float32)
    tl.store(out + row.to(tl.int64) * HIDDEN + columns, (total * scale).to(out.dtype.element_ty), mask=mask)


@triton.jit
def _noise(seeds, out, V: tl.constexpr, TOKENS: tl.constexpr):
    row = tl.program_id(1)
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    tl.store(out + row.to(tl.int64) * V + token, gumbel(tl.load(seeds + row), token), mask=token < V)


def stats_from_hidden(
    hidden: Tensor, head: QuantizedWeight, cap: float, temperature: Tensor, top: int,
    seeds: Tensor | None = None, bias: LogitBias | None = None, rows: int = 64, columns: int = 64,
) -> LogitStats:  # fmt: skip
    """`logit_stats` of the logits of normed `hidden` states [rows, hidden] with the head [vocab, hidden].

    cap: of the soft cap. temperature [rows] float32. seeds [rows] int32: of the noise; None samples nothing and gives
    the argmax. bias: added to the capped logits. rows, columns: size of a tile.
    """
    count, vocab, temperature = len(hidden), head.rows, temperature.contiguous()
    block_stats = _BlockStats(count, vocab, hidden.device)
    rows = min(rows, max(16, triton.next_power_of_2(count)))
    packed = quarters_needed(head)
    _from_hidden[(triton.cdiv(count, rows), block_stats.blocks)](
        in_quarters(hidden) if packed else hidden.contiguous(), *parts(head),
        *_extras(bias, temperature, seeds), *block_stats.buffers, count, block_stats.blocks,
        K=hidden.shape[-1], V=vocab, CAP=cap, **constants(head), HAS_BIAS=bias is not None,
        SAMPLE=seeds is not None, KEPT=PER_BLOCK, TOKENS=VOCAB, ROWS=rows,
        BLOCK=columns // 4 if packed else columns, num_warps=8, num_stages=3,
    )  # fmt: skip
    return block_stats.merged(top, temperature, seeds is not None)


def stats_from_logits(
    logits: Tensor,
    cap: float,
    temperature: Tensor,
    top: int,
    seeds: Tensor | None = None,
    bias: LogitBias | None = None,
) -> LogitStats:
    """The same for `logits` [rows, vocab]; cap 0 if they are already capped."""
    (count, vocab), temperature = logits.shape, temperature.contiguous()
    block_stats = _BlockStats(count, vocab, logits.device)
    _from_logits[(block_stats.blocks, triton.cdiv(count, 16))](
        logits.contiguous(), *_extras(bias, temperature, seeds), *block_stats.buffers, count, block_stats.blocks,
        V=vocab, CAP=cap, HAS_BIAS=bias is not None, SAMPLE=seeds is not None, KEPT=PER_BLOCK,
        TOKENS=VOCAB, ROWS=16,
    )  # fmt: skip
    return block_stats.merged(top, temperature, seeds is not None)


def probabilities(
    logits: Tensor, cap: float, temperature: Tensor, stats: LogitStats, bias: LogitBias | None = None
) -> Tensor:
    """[rows, vocab] in the type of `logits`, which `stats_from_logits` gave `stats` for with the same arguments."""
    (count, vocab), out = logits.shape, torch.empty_like(logits)
    values, rows, temperature, _ = _extras(bias, temperature.contiguous(), None)
    _probabilities[(triton.cdiv(vocab, 1024), count)](
        logits, values, rows, temperature, stats.argmax, stats.top_probabilities[:, 0].contiguous(), out,
        V=vocab, CAP=cap, HAS_BIAS=bias is not None, TOKENS=1024,
    )  # fmt: skip
    return out


def mean_of_rows(table: Tensor, tokens: Tensor, weights: Tensor, scale: float = 1.0) -> Tensor:
    """See `engine.ops.vocabulary.mean_of_rows`; the mean is multiplied by `scale`."""
    rows, hidden = len(tokens), table.shape[1]
    out = torch.empty(rows, hidden, dtype=table.dtype, device=table.device)
    columns = min(1024, triton.next_power_of_2(hidden))
    _mean[(rows, triton.cdiv(hidden, columns))](
        table, tokens, weights, out, scale, HIDDEN=hidden, TOP=tokens.shape[1], COLUMNS=columns
    )
    return out


def gumbel_noise(seeds: Tensor, vocab: int) -> Tensor:
    """The noise [rows, vocab] that sampling with `seeds` [rows] adds; for tests and benchmarks."""
    out = torch.empty(len(seeds), vocab, dtype=torch.float32, device=seeds.device)
    _noise[(triton.cdiv(vocab, 1024), len(seeds))](seeds, out, V=vocab, TOKENS=1024)
    return out


class _BlockStats:
    """Buffers between the first kernel and the second."""

    def __init__(self, rows: int, vocab: int, device: torch.device) -> None:
        self.rows, self.blocks, self.device = rows, triton.cdiv(vocab, VOCAB), device
        numbers = torch.empty(rows, self.blocks, NUMBERS, dtype=torch.float32, device=device)
        candidates = torch.empty(rows, self.blocks, PER_BLOCK, dtype=torch.float32, device=device)
        self.buffers = numbers, candidates, torch.empty_like(candidates, dtype=torch.int32)

    def merged(self, top: int, temperature: Tensor, sample: bool) -> LogitStats:
        argmax, sampled = torch.empty(2, self.rows, dtype=torch.long, device=self.device)
        entropy, log_probability = torch.empty(2, self.rows, dtype=torch.float32, device=self.device)
        tokens = torch.empty(self.rows, top, dtype=torch.int32, device=self.device)
        probabilities = torch.empty(self.rows, top, dtype=torch.float32, device=self.device)
        _merge[(self.rows,)](
            *self.buffers, argmax, sampled, entropy, log_probability, tokens, probabilities, temperature, self.blocks,
            SAMPLE=sample, KEPT=PER_BLOCK, TOP=top, WIDTH=triton.next_power_of_2(self.blocks), num_warps=8,
        )  # fmt: skip
        return LogitStats(argmax, sampled, entropy, log_probability, tokens, probabilities)


def _extras(bias: LogitBias | None, temperature: Tensor, seeds: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The values and rows of the bias, temperature, seeds; the temperature is passed in place of missing tensors."""
    seeds = temperature if seeds is None else seeds.contiguous()
    if bias is None:
        return temperature, temperature, temperature, seeds
    return bias.values.contiguous(), bias.rows.contiguous(), temperature, seeds
