"""Greedy decoding, token by token, with the causal encoder: the draft that denoising is compared with.

DiffusionGemma's encoder is the autoregressive model it was made from, with the same weights. Must not know text. The
prompt's keys come from the prefix cache and are left unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from engine.errors import InputError
from engine.key_values import KeyValues
from engine.memory import CausalModel
from engine.prefix_cache import PromptCache
from engine.token_tree import TokenTree

Done = Callable[[list[int]], bool]
MATCH = 2  # tokens that must occur before a guess
AHEAD = 15  # tokens of a guess; with the one that is encoded in any case, the number of rows of one product


def decode_greedily(
    model: CausalModel,
    cache: PromptCache,
    prompt: Sequence[int],
    limit: int,
    stop: Done,
    banned: Tensor | None = None,
    first: Tensor | None = None,
) -> tuple[list[int], list[float]]:
    """At most `limit` tokens after `prompt` and the log probability of each, ending with the first for which `stop` is
    true.

    stop: called with all tokens so far after each one. banned: token ids that are never taken. first: token ids that
    the first token must be one of. Raises InputError for an empty prompt.
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

    Tokens that the tree has already encoded cost no pass, so the caller may let it encode likely continuations first.
    Every pass also encodes a guess: the tokens that followed the last tokens at their previous occurrence. Each token
    is still the likeliest one (speculative decoding, arXiv 2211.17192; the guesses are those of prompt lookup
    decoding).
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
    """At most AHEAD tokens that followed the previous occurrence of the last MATCH of `tokens`; none if there is
    none."""
    end = list(tokens[-MATCH:])
    for start in range(len(tokens) - MATCH - 1, -1, -1):
        if tokens[start] == end[0] and tokens[start : start + MATCH] == end:
            return tokens[start + MATCH : start + MATCH + AHEAD]
    return []
