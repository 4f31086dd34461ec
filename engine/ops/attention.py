"""Attention over keys and values that already stand in one buffer, and the masks of the two passes.

Scaling is 1: DiffusionGemma norms queries and keys instead. A mask is True where a query may look.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """query [batch, heads, length, head_dim], key and value [batch, kv_heads, keys, head_dim].

    mask: bool, broadcastable to [batch, heads, length, keys], or None for all.
    Returns [batch, length, heads * head_dim].
    """
    grouped = query.shape[1] != key.shape[1]
    out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=1.0, enable_gqa=grouped)
    return out.transpose(1, 2).flatten(2)


def causal_mask(new: int, past: int, window: int | None, device: torch.device) -> Tensor:
    """[new, past + new]: position past + i sees itself and those before it, at most `window` in all."""
    query = torch.arange(past, past + new, device=device)[:, None]
    key = torch.arange(past + new, device=device)[None, :]
    mask = key <= query
    return mask if window is None else mask & (key > query - window)
