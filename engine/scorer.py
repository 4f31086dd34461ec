"""Scores continuations with the causal encoder: a second opinion on the denoiser's result.

Must not know text. The prompt's keys come from the prefix cache and are left unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.errors import Stop
from engine.memory import CausalModel
from engine.prefix_cache import PromptCache
from engine.token_tree import TokenTree


def causal_log_probabilities(
    model: CausalModel,
    cache: PromptCache,
    prompt: Sequence[int],
    known: Sequence[int],
    continuations: Sequence[Sequence[int]],
    stop: Stop | None = None,
) -> list[Tensor]:
    """log p(token | prompt, known, tokens before it) for each of `continuations`, in one pass: [its length] on the CPU.

    If `known` is empty, nothing here predicts the first token, and its entry is 0. stop: called between passes; if it
    returns True, Cancelled is raised.
    """
    if not any(continuations):
        return [torch.zeros(0) for _ in continuations]
    with cache.encoded(prompt, stop) as lease, TokenTree(model, lease.kv, known, stop) as tree:
        tree.read(continuations)
        return [tree.log_probabilities(tokens) for tokens in continuations]
