"""Greedy decoding, token by token, through the causal encoder: the draft that denoising is compared with.

DiffusionGemma's encoder is the autoregressive model it was made from, with the same weights. Knows nothing of
text. The prompt's keys come from the prefix cache and are left as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from engine.errors import InputError
from engine.key_values import KeyValues
from engine.models.text_model import TextModel
from engine.prefix_cache import PrefixCache
from engine.token_tree import TokenTree

Done = Callable[[list[int]], bool]
MATCH = 2  # tokens that a guess has in common with what was written
AHEAD = 15  # tokens of a guess; with the one that has to be read anyway, as many rows as a product takes at once


def decode_greedily(
    model: TextModel,
    cache: PrefixCache,
    prompt: Sequence[int],
    limit: int,
    stop: Done,
    banned: Tensor | None = None,
    first: Tensor | None = None,
) -> tuple[list[int], list[float]]:
    """At most `limit` tokens after `prompt` and the log-probability of each, up to the one for which `stop` is true.

    stop: asked with the tokens so far after each one, which is part of the answer. banned: token ids never taken.
    first: token ids that the first token must be one of. Raises InputError for an empty prompt.
    """
    if not prompt:
        raise InputError("There is no prompt to continue; give it at least one token.")
    if len(prompt) == 1:
        with TokenTree(model, KeyValues(model.config, cache.device, cache.dtype), prompt) as tree:
            return follow_greedily(tree, prompt, limit, stop, banned, first)
    with cache.encoded(prompt[:-1]) as lease, TokenTree(model, lease.kv, prompt[-1:]) as tree:
        return follow_greedily(tree, prompt, limit, stop, banned, first)


@torch.inference_mode()
def follow_greedily(
    tree: TokenTree,
    prompt: Sequence[int],
    limit: int,
    done: Done,
    banned: Tensor | None = None,
    first: Tensor | None = None,
) -> tuple[list[int], list[float]]:
    """See `decode_greedily`; `prompt` ends with the trunk of `tree`.

    What the tree has read costs no pass. So the caller may let it read what is likely to be written, and every pass
    reads a guess as well: what followed the last tokens where they stood before. The answer is the same, each token the
    likeliest (speculative decoding, arXiv 2211.17192; with the guesses of prompt lookup decoding).
    """
    tokens: list[int] = []
    scores: list[float] = []
    while len(tokens) < limit:
        if not tree.has_read(tokens):
            tree.read([[*tokens, *_guess([*prompt, *tokens])[: limit - len(tokens)]]])
        logits = tree.logits(tokens)
        choices = logits if banned is None else logits.index_fill(0, banned.to(logits.device), -torch.inf)
        if first is not None and not tokens:
            allowed = torch.full_like(logits, -torch.inf)
            allowed[first.to(logits.device)] = 0.0
            choices = choices + allowed
        token = int(choices.argmax())
        scores.append(tree.log_probability(tokens, token))
        tokens.append(token)
        if done(tokens):
            break
    return tokens, scores


def _guess(tokens: Sequence[int]) -> Sequence[int]:
    """At most AHEAD tokens that followed the last MATCH of `tokens` where they stood last; none where they did not."""
    end = list(tokens[-MATCH:])
    for start in range(len(tokens) - MATCH - 1, -1, -1):
        if tokens[start] == end[0] and tokens[start : start + MATCH] == end:
            return tokens[start + MATCH : start + MATCH + AHEAD]
    return []
