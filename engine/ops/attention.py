"""Attention over keys and values that already stand in one buffer, and the masks of the two passes.

Scaling is 1: DiffusionGemma norms queries and keys instead. A mask is True where a query may look.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from engine.kernels import FAST_TYPES, usable

# Stands for `causal_mask(new, 0, None, device)` where all keys are new: kernels then skip the half that nobody sees,
# and on a GPU the fastest one takes no mask. Known by identity; it holds nothing.
CAUSAL = torch.empty(0, dtype=torch.bool)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """query [batch, heads, length, head_dim], key and value [batch, kv_heads, keys, head_dim].

    Keys and values may be in E4M3. mask: bool, broadcastable to [batch, heads, length, keys], or None for all, or
    CAUSAL for as many keys as queries. Returns [batch, length, heads * head_dim].
    """
    if _library_is_slow(query, mask) and query.dtype in FAST_TYPES and usable(query):
        from engine.kernels import attention

        if attention.takes(query, mask):
            return attention.attend(query, key, value, mask)
    if key.dtype == torch.float8_e4m3fn:
        key, value = key.to(query.dtype), value.to(query.dtype)
    causal, groups = mask is CAUSAL, query.shape[1] // key.shape[1]
    if causal:
        mask = None
    if groups > 1 and mask is not None and query.is_cuda:
        # with groups and a mask only the kernel is left that keeps all scores in fp32
        key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
        groups = 1
    out = F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=causal, scale=1.0, enable_gqa=groups > 1
    )
    return out.transpose(1, 2).flatten(2)


def _library_is_slow(query: Tensor, mask: Tensor | None) -> bool:
    """Whether PyTorch has no flash kernel for this on a GPU: heads of more than 256, or a mask."""
    return query.shape[-1] > 256 or (mask is not None and mask is not CAUSAL)


def causal_mask(new: int, past: int, window: int | None, device: torch.device) -> Tensor:
    """[new, past + new]: position past + i sees itself and those before it, at most `window` in all."""
    query = torch.arange(past, past + new, device=device)[:, None]
    key = torch.arange(past + new, device=device)[None, :]
    mask = key <= query
    return mask if window is None else mask & (key > query - window)
