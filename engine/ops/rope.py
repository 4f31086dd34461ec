"""Rotary position embedding (arXiv 2104.09864) of whole heads or of a leading share of them.

Source of both kinds: transformers, `modeling_rope_utils.py` (`default`, `proportional`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from engine.config import RopeConfig


def inverse_frequencies(rope: RopeConfig, head_dim: int) -> Tensor:
    """[head_dim / 2] in fp32; `proportional` sets the trailing frequencies to zero, so they do not rotate."""
    if rope.kind == "default":
        size = int(head_dim * rope.partial_factor)
        return 1.0 / rope.theta ** (torch.arange(0, size, 2, dtype=torch.float) / size)
    angles = int(rope.partial_factor * head_dim // 2)
    rotated = 1.0 / rope.theta ** (torch.arange(0, 2 * angles, 2, dtype=torch.float) / head_dim)
    return torch.cat((rotated, torch.zeros(head_dim // 2 - angles))) / rope.factor


def rotation(positions: Tensor, frequencies: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosine and sine for `positions` [batch, length]: each [batch, length, 1, head_dim].

    The first half of the sines is negative, because `rotate` subtracts there.
    """
    angles = (positions[..., None].float() * frequencies).unsqueeze(-2)
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates the heads of `x` [batch, length, heads, head_dim]."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((second, first), dim=-1) * sin
