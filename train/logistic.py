"""Logistic regression, used for the confidence of candidates and of findings.

Must not know what the evidence means.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def fit_logistic(
    x: Tensor,
    y: Tensor,
    penalty: float,
    weight: Tensor | None = None,
    offset: Tensor | None = None,
    spread: Tensor | None = None,
) -> tuple[list[float], float]:
    """(weights, intercept) for evidence in its original units; fitted by LBFGS on standardized evidence.

    x: [rows, evidence] and y: [rows] of 0 and 1, in float64. weight: [rows], weight of each row, 1 if None. offset:
    [rows], log-odds that the result is added to; the squared intercept is then added to the loss. spread: [evidence],
    the standard deviations, those of `x` if None. penalty: factor of the squared standardized weights, added to a
    summed loss. Constant evidence gets weight 0.
    """
    spread, mean = x.std(0) if spread is None else spread, x.mean(0)
    scale = spread.clamp(min=1e-6)
    standard = (x - mean) / scale
    weights = torch.zeros(x.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        score = standard @ weights[1:] + weights[0]
        score = score if offset is None else score + offset
        loss = F.binary_cross_entropy_with_logits(score, y, weight=weight, reduction="sum")
        loss = loss + penalty * (weights[1:] ** 2).sum() + (weights[0] ** 2 if offset is not None else 0.0)
        loss.backward()
        return loss

    optimizer.step(closure)
    found = weights.detach()
    raw = torch.where(spread > 1e-6, found[1:] / scale, torch.zeros_like(scale))
    return raw.tolist(), float(found[0] - (raw * mean).sum())
