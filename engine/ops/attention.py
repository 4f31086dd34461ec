"""Attention over keys and values in one buffer, and the masks of both passes.

Scores are not scaled: DiffusionGemma norms queries and keys instead. A mask is True where a query may look.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from engine.kernels import FAST_TYPES, usable

# Replaces `causal_mask(new, 0, None, device)` if all keys are new: PyTorch then skips the masked half, and its fastest
# GPU kernel takes no mask. Compared by identity; it is empty.
CAUSAL = torch.empty(0, dtype=torch.bool)

# PyTorch's 16-bit kernel on a CPU (2.11 to 2.13) compiles its products for every size of the last block of queries (of
# 32 rows) and of keys, at 0.1 ms and 0.1 MiB each, and every thread keeps them. So sizes are rounded up.
COMPILED_ROWS = 64  # least rows and keys for which it is compiled
ROW_BLOCK, KEY_BLOCK = 16, 64


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """query [batch, heads, length, head_dim], key and value [batch, kv_heads, keys, head_dim].

    Keys and values may be in E4M3. mask: bool, broadcastable to [batch, heads, length, keys]; None for no mask; CAUSAL
    if there are as many keys as queries. Returns [batch, length, heads * head_dim].
    """
    if _library_is_slow(query, mask) and query.dtype in FAST_TYPES and usable(query):
        from engine.kernels import attention

        if attention.takes(query, mask):
            return attention.attend(query, key, value, mask)
    if key.dtype == torch.float8_e4m3fn:
        key, value = key.to(query.dtype), value.to(query.dtype)
    causal, groups, rows = mask is CAUSAL, query.shape[1] // key.shape[1], query.shape[2]
    if causal:
        mask = None
    elif should_come_in_blocks(key) and min(rows, key.shape[2]) >= COMPILED_ROWS:
        query, key, value, mask = _in_blocks(query, key, value, mask)
    if groups > 1 and mask is not None and query.is_cuda:
        # for groups and a mask PyTorch has only the kernel that keeps all scores in fp32
        key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
        groups = 1
    out = F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=causal, scale=1.0, enable_gqa=groups > 1
    )
    return out[:, :, :rows].transpose(1, 2).flatten(2)


def should_come_in_blocks(key: Tensor) -> bool:
    """Whether keys should come in a multiple of KEY_BLOCK, with those behind the last one masked."""
    return key.device.type == "cpu" and key.dtype in FAST_TYPES


def _in_blocks(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Pads rows and keys to whole blocks; added rows see every key, and no row sees an added key."""
    rows, keys = query.shape[2], key.shape[2]
    more_rows, more_keys = -rows % ROW_BLOCK, -keys % KEY_BLOCK
    if more_keys:
        key, value = (F.pad(x, (0, 0, 0, more_keys)) for x in (key, value))
        seen = torch.ones(1, keys, dtype=torch.bool) if mask is None else mask
        mask = F.pad(seen, (0, more_keys))
    if more_rows:
        query = F.pad(query, (0, 0, 0, more_rows))
        if mask is not None and mask.shape[-2] == rows:
            mask = F.pad(mask, (0, 0, 0, more_rows), value=True)
    return query, key, value, mask


def _library_is_slow(query: Tensor, mask: Tensor | None) -> bool:
    """Whether PyTorch has no flash kernel for this on a GPU: head_dim above 256, or a mask."""
    return query.shape[-1] > 256 or (mask is not None and mask is not CAUSAL)


def causal_mask(new: int, past: int, window: int | None, device: torch.device) -> Tensor:
    """[new, past + new]: position past + i sees itself and the positions before it, at most `window` in total."""
    query = torch.arange(past, past + new, device=device)[:, None]
    key = torch.arange(past + new, device=device)[None, :]
    mask = key <= query
    return mask if window is None else mask & (key > query - window)
