"""What one step needs to know of the hole positions' hidden states, in tensors alone: no number travels to the host.

`full` multiplies all probabilities with the embedding and is the reference; `few` takes the likeliest TOP tokens, in
one pass over the vocabulary where the model has kernels for it. Knows nothing of canvases.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from engine.models.text_model import TextModel
from engine.ops.vocabulary import logit_stats, mean_of_rows
from engine.sampler import choose, measured

if TYPE_CHECKING:
    from engine.models.fused import FusedModel

TOP = 32  # tokens that self-conditioning looks at
SEEDS = 2**24  # as many as a uniform float32 number tells apart


@dataclass(frozen=True)
class Seen:
    """Of each row: argmax, a sampled token, entropy at the row's temperature and log probability of the argmax at
    temperature 1, in nats [rows]; belief [rows, hidden]: the mean embedding."""

    argmax: Tensor
    sample: Tensor
    entropy: Tensor
    log_probability: Tensor
    belief: Tensor


Read = Callable[[TextModel, Tensor, Tensor, Tensor, "Tensor | None"], Seen]
"""From model, hidden [rows, hidden], temperature and uniform numbers [rows], and a bias [n, vocab] on the logits, each
row of which serves rows / n rows."""


def full(model: TextModel, hidden: Tensor, temperature: Tensor, uniform: Tensor, bias: Tensor | None) -> Seen:
    """By the whole product; the sample is where the cumulative probability passes the uniform number."""
    logits = _biased(model.logits(hidden), bias)
    probabilities, entropy, argmax = measured((logits / temperature[:, None])[None])
    return Seen(
        argmax=argmax[0],
        sample=choose(probabilities[0], uniform),
        entropy=entropy[0],
        log_probability=torch.log_softmax(logits, dim=-1).gather(1, argmax[0][:, None]).squeeze(1),
        belief=model.embed_mean(probabilities[0]),
    )


def few(model: TextModel, hidden: Tensor, temperature: Tensor, uniform: Tensor, bias: Tensor | None) -> Seen:
    """By the likeliest TOP tokens; the sample is by Gumbel noise, whose seeds come of the uniform numbers."""
    if model.has_kernels:
        fused = cast("FusedModel", model)
        seen = fused.logit_stats(hidden, temperature, min(TOP, model.config.vocab_size), (uniform * SEEDS).int(), bias)
        belief = fused.embed_few(seen.top_tokens, seen.top_probabilities)
        return Seen(seen.argmax, seen.sample, seen.entropy, seen.log_probability, belief)
    logits = _biased(model.logits(hidden), bias)
    seen = logit_stats(logits, temperature, min(TOP, logits.shape[-1]))
    sample = choose(torch.softmax(logits / temperature[:, None], dim=-1), uniform)
    belief = mean_of_rows(model.embed_tokens.weight, seen.top_tokens, seen.top_probabilities) * model.embed_scale
    return Seen(seen.argmax, sample, seen.entropy, seen.log_probability, belief)


def _biased(logits: Tensor, bias: Tensor | None) -> Tensor:
    if bias is None:
        return logits
    return (logits.unflatten(0, (len(bias), -1)) + bias[:, None]).flatten(0, 1)
