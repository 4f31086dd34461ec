"""The pass over the vocabulary compared with `engine.ops.vocabulary`."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from engine.kernels.vocabulary import (
    gumbel_noise,
    mean_of_rows,
    probabilities,
    stats_from_hidden,
    stats_from_logits,
)
from engine.logit_bias import LogitBias
from engine.logit_stats import LogitStats
from engine.ops import vocabulary as reference
from engine.quantized import FORMATS, quantize_weight

CAP, HIDDEN = 30.0, 64


def logits_of(hidden: Tensor, head: Tensor) -> Tensor:
    return torch.tanh(hidden.float() @ head.float().T / CAP) * CAP


def same(found: LogitStats, wanted: LogitStats) -> None:
    assert torch.equal(found.argmax, wanted.argmax) and torch.equal(found.sample, wanted.sample)
    torch.testing.assert_close(found.entropy, wanted.entropy, atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(found.log_probability, wanted.log_probability, atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(found.top_probabilities, wanted.top_probabilities, atol=2e-3, rtol=2e-3)
    assert torch.equal(found.top_tokens.long(), wanted.top_tokens)


@pytest.mark.parametrize(("rows", "vocab"), [(1, 128), (5, 700), (19, 1000)])
@pytest.mark.parametrize("biased", [False, True])
def test_one_pass_over_logits_equals_the_reference(rows: int, vocab: int, biased: bool) -> None:
    torch.manual_seed(rows)
    raw, temperature = torch.randn(rows, vocab) * 8, torch.rand(rows) * 0.4 + 0.4
    values, order = torch.where(torch.rand(rows, vocab) < 0.3, -1e4, 0.0), torch.randperm(rows)
    bias = LogitBias(values, order.int()) if biased else None
    seeds = torch.arange(7, 7 + rows, dtype=torch.int32)
    found = stats_from_logits(raw, CAP, temperature, 4, seeds, bias)
    capped = torch.tanh(raw / CAP) * CAP
    wanted = capped if bias is None else capped + values[order]
    same(found, reference.logit_stats(wanted, temperature, 4, gumbel_noise(seeds, vocab)))
    shares = torch.softmax(wanted / temperature[:, None], dim=-1)
    torch.testing.assert_close(probabilities(raw, CAP, temperature, found, bias), shares, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("kind", FORMATS)
def test_the_head_may_be_multiplied_inside(kind: str) -> None:
    torch.manual_seed(0)
    head, hidden = torch.randn(300, HIDDEN), torch.randn(17, HIDDEN).half()
    weight = quantize_weight(head.half() if kind == "plain" else head, kind)  # type: ignore[arg-type]
    temperature, seeds = torch.full((17,), 0.6), torch.arange(17, dtype=torch.int32)
    bias = LogitBias(torch.zeros(1, 300), torch.zeros(17, dtype=torch.int32))
    bias.values[0, :40] = -1e4
    found = stats_from_hidden(hidden, weight, CAP, temperature, 4, seeds, bias)
    logits = logits_of(hidden, weight.dequantize()) + bias.values
    wanted = reference.logit_stats(logits, temperature, 4, gumbel_noise(seeds, 300))
    assert (found.argmax >= 40).all() and (found.sample >= 40).all()
    torch.testing.assert_close(found.entropy, wanted.entropy, atol=0.02, rtol=0.02)
    assert (found.argmax == wanted.argmax).float().mean() > 0.9 and (found.sample == wanted.sample).float().mean() > 0.8


def test_a_certain_row_has_no_entropy_and_no_noise_gives_the_argmax() -> None:
    logits = torch.full((2, 257), -20.0)
    logits[0, 256] = 20.0
    found = stats_from_logits(logits, 0.0, torch.tensor([0.4, 0.8]), 4)
    assert found.sample.tolist()[0] == found.argmax.tolist()[0] == 256
    assert found.entropy[0] < 1e-4 and abs(found.entropy[1] - torch.tensor(257.0).log()) < 1e-4
    assert found.top_probabilities[0, 0] > 0.9999 and found.argmax[1] == 0


def test_samples_follow_the_probabilities_and_the_seed() -> None:
    logits, seeds = torch.tensor([1.0, 0.0, 2.0, -1.0]), torch.tensor([3, 4], dtype=torch.int32)
    noise = gumbel_noise(seeds, 16_000)
    shares = torch.bincount((logits + noise.view(-1, 4)).argmax(-1), minlength=4) / 8000
    assert (shares - torch.softmax(logits, -1)).abs().max() < 0.02
    assert torch.equal(noise, gumbel_noise(seeds, 16_000)) and noise.isfinite().all()
    assert abs(noise.mean() - 0.5772) < 0.03 and abs(noise.std() - 1.2825) < 0.03
    assert abs(torch.corrcoef(noise)[0, 1]) < 0.03


def test_the_mean_over_few_tokens_is_that_over_all_but_for_their_mass() -> None:
    torch.manual_seed(1)
    table, logits = torch.randn(400, 96), torch.randn(6, 400) * 9
    found = stats_from_logits(logits, 0.0, torch.ones(6), 16)
    few = mean_of_rows(table, found.top_tokens, found.top_probabilities, 3.0)
    torch.testing.assert_close(few, 3 * reference.mean_of_rows(table, found.top_tokens, found.top_probabilities))
    full = torch.softmax(logits, -1) @ table * 3
    missing = 1 - found.top_probabilities.sum(-1)
    assert missing.max() < 0.05
    assert ((few - full).norm(dim=-1) <= 3 * missing * table.norm(dim=-1).max() + 1e-4).all()
