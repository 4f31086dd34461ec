"""How likely the causal encoder finds a continuation: the second opinion on what the denoiser wrote.

Knows nothing of text. The prompt's keys come from the prefix cache and are left as they were.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.key_values import PromptMemory
from engine.model import DiffusionGemma
from engine.prefix_cache import PrefixCache


@torch.inference_mode()
def causal_log_probabilities(
    model: DiffusionGemma,
    cache: PrefixCache,
    prompt: Sequence[int],
    known: Sequence[int],
    tokens: Sequence[int],
) -> Tensor:
    """log p(token | prompt, known, tokens before it) for `tokens`, [len(tokens)] on the CPU.

    Where `known` is empty the first token has nothing to be predicted from here, and its entry is 0.
    """
    with cache.encoded(prompt) as lease:
        sequence = torch.tensor([*known, *tokens], device=cache.device)
        memory = PromptMemory(lease.kv, len(sequence))
        hidden = model.encode(sequence[None], memory.positions(), memory.masks(), memory)[0]
    first = max(len(known), 1)
    predicted = torch.log_softmax(model.logits(hidden[first - 1 : -1]), dim=-1)
    scores = predicted.gather(1, sequence[first:, None]).squeeze(1).cpu()
    return torch.cat((torch.zeros(len(tokens) - len(scores)), scores))
