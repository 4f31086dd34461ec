"""Root-mean-square norm (arXiv 1910.07467), computed in fp32 and returned in the input's type."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RMSNorm(nn.Module):
    """Norm over the last dimension; `scaled=False` has no weight (V norm, router norm)."""

    weight: Tensor | None

    def __init__(self, size: int, eps: float, scaled: bool = True) -> None:
        super().__init__()
        self.size, self.eps = (size,), eps
        self.weight = nn.Parameter(torch.ones(size)) if scaled else None

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.size, self.weight, self.eps)
