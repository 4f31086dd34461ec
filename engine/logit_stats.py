"""Statistics of the logits that a denoising step needs. Must not know how they are computed."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class LogitStats:
    """Per row [rows]: argmax, a sampled token, entropy in nats at the row's temperature, log probability of the argmax
    at temperature 1. top_tokens and top_probabilities [rows, top], at the row's temperature, likeliest first.
    """

    argmax: Tensor
    sample: Tensor
    entropy: Tensor
    log_probability: Tensor
    top_tokens: Tensor
    top_probabilities: Tensor
