"""The statistics of logits that a step needs: likeliest token, a sample, entropy, and the few likeliest tokens.

The plain reference of `engine.kernels.vocabulary`, which never writes the logits. Must not know canvases.
"""

from __future__ import annotations

import torch
from torch import Tensor

from engine.logit_stats import LogitStats


def logit_stats(logits: Tensor, temperature: Tensor, top: int, noise: Tensor | None = None) -> LogitStats:
    """logits [rows, vocab] in float32, soft-capped, with banned tokens already lowered; temperature [rows].

    noise [rows, vocab]: standard Gumbel noise; the sample is the argmax of scaled logits plus noise, so without noise
    it is the argmax.
    """
    scaled = logits / temperature[:, None]
    log_probabilities = torch.log_softmax(scaled, dim=-1)
    probabilities = log_probabilities.exp()
    best = torch.topk(scaled, top, dim=-1).indices
    argmax = scaled.argmax(dim=-1)
    at_one = torch.log_softmax(logits, dim=-1).gather(1, argmax[:, None]).squeeze(1)
    return LogitStats(
        argmax=argmax,
        sample=argmax if noise is None else (scaled + noise).argmax(dim=-1),
        entropy=-(probabilities * log_probabilities).sum(dim=-1),
        log_probability=at_one,
        top_tokens=best,
        top_probabilities=probabilities.gather(1, best),
    )


def mean_of_rows(table: Tensor, tokens: Tensor, weights: Tensor) -> Tensor:
    """Sum over the last dimension of weights * table[tokens]: [rows, hidden] in the table's type.

    table [vocab, hidden], tokens and weights [rows, top].
    """
    return torch.einsum("rt,rth->rh", weights.float(), table[tokens.long()].float()).to(table.dtype)
