"""Statistics of a step from the hidden states of its holes, in tensors alone: nothing is copied to the host.

`all_stats` multiplies all probabilities with the embedding, as the release does; `top_stats` uses the likeliest TOP
tokens, in one pass over the vocabulary if the model has kernels for it. `exact_stats` is the reference, without
kernels. Must not know canvases.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from engine.logit_bias import LogitBias
from engine.models.text_model import TextModel
from engine.ops.vocabulary import logit_stats, mean_of_rows
from engine.sampler import choose, probabilities_and_entropy

if TYPE_CHECKING:
    from engine.models.fused import FusedModel

TOP = 32  # tokens that self-conditioning uses
SEEDS = 2**24  # distinct values of a uniform float32 number


@dataclass(frozen=True)
class StepStats:
    """Per row: argmax, a sampled token, entropy at the row's temperature and log probability of the argmax at
    temperature 1, in nats [rows]; belief [rows, hidden]: the mean embedding."""

    argmax: Tensor
    sample: Tensor
    entropy: Tensor
    log_probability: Tensor
    belief: Tensor


ComputeStats = Callable[[TextModel, Tensor, Tensor, Tensor, LogitBias | None], StepStats]
"""From model, hidden [rows, hidden], temperature and uniform numbers [rows], and the bias of the logits."""


def exact_stats(
    model: TextModel, hidden: Tensor, temperature: Tensor, uniform: Tensor, bias: LogitBias | None
) -> StepStats:
    """Uses all tokens; the sample is where the cumulative probability exceeds the uniform number."""
    logits = model.logits(hidden) if bias is None else bias.added(model.logits(hidden))
    probabilities, entropy, argmax = probabilities_and_entropy((logits / temperature[:, None])[None])
    return StepStats(
        argmax=argmax[0],
        sample=choose(probabilities[0], uniform),
        entropy=entropy[0],
        log_probability=torch.log_softmax(logits, dim=-1).gather(1, argmax[0][:, None]).squeeze(1),
        belief=model.embed_mean(probabilities[0]),
    )


def all_stats(
    model: TextModel, hidden: Tensor, temperature: Tensor, uniform: Tensor, bias: LogitBias | None
) -> StepStats:
    """Uses all tokens; kernels sample with Gumbel noise, seeded by the uniform numbers."""
    if not model.has_kernels:
        return exact_stats(model, hidden, temperature, uniform, bias)
    stats, belief = cast("FusedModel", model).stats_and_mean(hidden, temperature, _seeds(uniform), bias)
    return StepStats(stats.argmax, stats.sample, stats.entropy, stats.log_probability, belief)


def top_stats(
    model: TextModel, hidden: Tensor, temperature: Tensor, uniform: Tensor, bias: LogitBias | None
) -> StepStats:
    """Uses the likeliest TOP tokens; kernels sample with Gumbel noise, seeded by the uniform numbers."""
    if model.has_kernels:
        fused = cast("FusedModel", model)
        stats = fused.logit_stats(hidden, temperature, min(TOP, model.config.vocab_size), _seeds(uniform), bias)
        belief = fused.embed_few(stats.top_tokens, stats.top_probabilities)
        return StepStats(stats.argmax, stats.sample, stats.entropy, stats.log_probability, belief)
    logits = model.logits(hidden) if bias is None else bias.added(model.logits(hidden))
    stats = logit_stats(logits, temperature, min(TOP, logits.shape[-1]))
    sample = choose(torch.softmax(logits / temperature[:, None], dim=-1), uniform)
    belief = mean_of_rows(model.embed_tokens.weight, stats.top_tokens, stats.top_probabilities) * model.embed_scale
    return StepStats(stats.argmax, sample, stats.entropy, stats.log_probability, belief)


def _seeds(uniform: Tensor) -> Tensor:
    return (uniform * SEEDS).int()
