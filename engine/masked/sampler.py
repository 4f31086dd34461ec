"""One sampling decision for the masks of a canvas: a token for each, and which of them are filled now.

Source: the generation utilities of DreamLM/Dream (`sample_tokens`), and of pengzhangzhi/Open-dLLM for `p2`. Must not
know the model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.masked.config import MaskedSampling
from engine.sampler import choose

Uniform = Callable[[int], Tensor]
"""From a count to as many uniform random numbers between 0 and 1."""

NUCLEUS = 256  # likeliest tokens among which those of top_p are looked for first
SMALLEST = 1e-10  # probability, in logarithms


@dataclass(frozen=True)
class Choices:
    """Per mask [masks]: a token, the confidence that orders the masks, and the entropy in nats of what it was drawn
    from."""

    tokens: Tensor
    confidence: Tensor
    entropy: Tensor


def choose_tokens(logits: Tensor, sampling: MaskedSampling, uniform: Uniform) -> Choices:
    """For logits [masks, vocab]."""
    probabilities = filtered(logits, sampling)
    largest, tokens = probabilities.max(dim=-1)
    if sampling.temperature > 0:
        tokens = choose(probabilities, uniform(len(logits)).to(logits.device))
    entropy = -(probabilities * (probabilities + SMALLEST).log()).sum(dim=-1)
    if sampling.order == "entropy":
        return Choices(tokens, -entropy, entropy)
    if sampling.order == "topk_margin":
        first, second = probabilities.topk(2, dim=-1).values.unbind(dim=-1)
        return Choices(tokens, first - second, entropy)
    chosen = largest if sampling.temperature == 0 else probabilities.gather(-1, tokens[:, None]).squeeze(-1)
    return Choices(tokens, chosen, entropy)


def filtered(logits: Tensor, sampling: MaskedSampling) -> Tensor:
    """Probabilities [masks, vocab] at the temperature, of the likeliest tokens by top_p and top_k alone."""
    if sampling.temperature > 0:
        logits = logits / sampling.temperature
    if sampling.top_p is not None and sampling.top_p < 1:
        logits = _nucleus(logits, sampling.top_p)
    if sampling.top_k is not None and sampling.top_k < logits.shape[-1]:
        least = logits.topk(sampling.top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    return logits.softmax(dim=-1)


def select(confidence: Tensor, count: int, sampling: MaskedSampling, likely: Tensor, uniform: Uniform) -> Tensor:
    """[masks] bool: the `count` masks of the highest confidence [masks], and those whose token is at least as likely
    [masks] as the threshold."""
    scores = confidence
    if sampling.order_temperature > 0:  # without replacement (Gumbel top-k, arXiv 1903.06059)
        noise = uniform(len(confidence)).to(confidence.device).clamp(1e-20, 1 - 1e-7)
        scores = confidence / sampling.order_temperature - (-noise.log()).log()
    selected = torch.zeros_like(confidence, dtype=torch.bool)
    selected[scores.topk(min(count, len(scores))).indices] = True
    return selected if sampling.threshold is None else selected | (likely >= sampling.threshold)


def _nucleus(logits: Tensor, share: float) -> Tensor:
    """The logits of the likeliest tokens up to the first that brings their probability above `share`; others -inf."""
    size = min(NUCLEUS, logits.shape[-1])
    values, tokens = logits.topk(size, dim=-1)
    sums = (values - logits.logsumexp(dim=-1, keepdim=True)).exp().cumsum(dim=-1)
    if size < logits.shape[-1] and not bool((sums[:, -1] > share).all()):
        values, tokens = logits.sort(dim=-1, descending=True)
        sums = values.softmax(dim=-1).cumsum(dim=-1)
    dropped = torch.zeros_like(sums, dtype=torch.bool)
    dropped[:, 1:] = sums[:, :-1] > share
    return torch.full_like(logits, -torch.inf).scatter(-1, tokens, values.masked_fill(dropped, -torch.inf))
