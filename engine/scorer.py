"""How likely the causal encoder finds continuations: the second opinion on what the denoiser wrote.

Knows nothing of text. The prompt's keys come from the prefix cache and are left as they were.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.key_values import KeyValues
from engine.model import DiffusionGemma, Masks
from engine.ops.attention import causal_mask
from engine.prefix_cache import PrefixCache


class _Branches:
    """Memory of an encoder pass over several continuations of one prompt, `new` tokens each; nothing is kept."""

    def __init__(self, kv: KeyValues, count: int, new: int) -> None:
        self.kv, self.count, self.new = kv, count, new

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        past = (buffer[layer][:, :, : self.kv.length] for buffer in (self.kv.keys, self.kv.values))
        past_key, past_value = (buffer.expand(self.count, -1, -1, -1) for buffer in past)
        return torch.cat((past_key, key), dim=2), torch.cat((past_value, value), dim=2)

    def positions(self) -> Tensor:
        return torch.arange(self.kv.length, self.kv.length + self.new, device=self.kv.device)[None]

    def masks(self) -> Masks:
        past, window, device = self.kv.length, self.kv.config.sliding_window, self.kv.device
        return {
            "full_attention": causal_mask(self.new, past, None, device),
            "sliding_attention": causal_mask(self.new, past, window, device),
        }


@torch.inference_mode()
def causal_log_probabilities(
    model: DiffusionGemma,
    cache: PrefixCache,
    prompt: Sequence[int],
    known: Sequence[int],
    continuations: Sequence[Sequence[int]],
) -> list[Tensor]:
    """log p(token | prompt, known, tokens before it) for each of `continuations`, in one pass: [its length] on the CPU.

    Where `known` is empty the first token has nothing to be predicted from here, and its entry is 0.
    """
    longest = max(map(len, continuations), default=0)
    if not longest:
        return [torch.zeros(0) for _ in continuations]
    rows = [[*known, *tokens, *[0] * (longest - len(tokens))] for tokens in continuations]
    with cache.encoded(prompt) as lease:
        sequences = torch.tensor(rows, device=cache.device)
        memory = _Branches(lease.kv, len(rows), sequences.shape[1])
        hidden = model.encode(sequences, memory.positions(), memory.masks(), memory)
    first = max(len(known), 1)
    predicted = torch.log_softmax(model.logits(hidden[:, first - 1 : -1]), dim=-1)
    scores = predicted.gather(2, sequences[:, first:, None]).squeeze(2).cpu()
    if not known:
        scores = torch.cat((torch.zeros(len(rows), 1), scores), dim=1)
    return [row[: len(tokens)] for row, tokens in zip(scores, continuations, strict=True)]
