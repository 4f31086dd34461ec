"""Greedy decoding, token by token, through the causal encoder: the draft that denoising is compared with.

DiffusionGemma's encoder is the autoregressive model it was made from, with the same weights. Knows nothing of
text. The prompt's keys come from the prefix cache and are left as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from engine.errors import InputError
from engine.key_values import KeyValues, PromptMemory
from engine.model import DiffusionGemma
from engine.prefix_cache import PrefixCache

Stop = Callable[[list[int]], bool]


@torch.inference_mode()
def decode_greedily(
    model: DiffusionGemma,
    cache: PrefixCache,
    prompt: Sequence[int],
    limit: int,
    stop: Stop,
    banned: Tensor | None = None,
    first: Tensor | None = None,
) -> tuple[list[int], list[float]]:
    """At most `limit` tokens after `prompt` and the log-probability of each, up to the one for which `stop` is true.

    stop: asked with the tokens so far after each one, which is part of the answer. banned: token ids never taken.
    first: token ids that the first token must be one of. Raises InputError for an empty prompt.
    """
    if not prompt:
        raise InputError("There is no prompt to continue; give it at least one token.")
    tokens: list[int] = []
    scores: list[float] = []
    if len(prompt) == 1:
        kv = KeyValues(model.config, cache.device, cache.dtype)
        _decode(model, kv, prompt[-1], limit, stop, banned, first, tokens, scores)
        return tokens, scores
    with cache.encoded(prompt[:-1]) as lease:
        length = lease.kv.length
        try:
            _decode(model, lease.kv, prompt[-1], limit, stop, banned, first, tokens, scores)
        finally:
            lease.kv.truncate(length)
    return tokens, scores


def _decode(
    model: DiffusionGemma,
    kv: KeyValues,
    token: int,
    limit: int,
    stop: Stop,
    banned: Tensor | None,
    first: Tensor | None,
    tokens: list[int],
    scores: list[float],
) -> None:
    while len(tokens) < limit:
        memory = PromptMemory(kv, 1)
        entry = torch.tensor([[token]], device=kv.device)
        logits = model.logits(model.encode(entry, memory.positions(), memory.masks(), memory)[0, -1])
        memory.commit()
        probabilities = torch.log_softmax(logits, dim=-1)
        if banned is not None:
            logits[banned.to(logits.device)] = -torch.inf
        if first is not None and not tokens:
            allowed = torch.full_like(logits, -torch.inf)
            allowed[first.to(logits.device)] = 0.0
            logits = logits + allowed
        token = int(logits.argmax())
        tokens.append(token)
        scores.append(float(probabilities[token]))
        if stop(tokens):
            return
