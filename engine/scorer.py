"""How likely the causal encoder finds continuations: the second opinion on what the denoiser wrote.

Knows nothing of text. The prompt's keys come from the prefix cache and are left as they were.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.errors import Stop
from engine.models.text_model import TextModel
from engine.prefix_cache import PrefixCache
from engine.token_tree import TokenTree


def causal_log_probabilities(
    model: TextModel,
    cache: PrefixCache,
    prompt: Sequence[int],
    known: Sequence[int],
    continuations: Sequence[Sequence[int]],
    stop: Stop | None = None,
) -> list[Tensor]:
    """log p(token | prompt, known, tokens before it) for each of `continuations`, in one pass: [its length] on the CPU.

    Where `known` is empty the first token has nothing to be predicted from here, and its entry is 0. stop: asked
    between passes; where it answers True, Cancelled is raised.
    """
    if not any(continuations):
        return [torch.zeros(0) for _ in continuations]
    with cache.encoded(prompt, stop) as lease, TokenTree(model, lease.kv, known, stop) as tree:
        tree.read(continuations)
        return [tree.log_probabilities(tokens) for tokens in continuations]
