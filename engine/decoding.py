"""Decoding of several continuations of one prompt at once, each token the likeliest one that is allowed.

Every pass reads the next token of each continuation, and guesses of what may follow: a pass over 16 tokens costs what
one token costs, since reading the weights dominates. What is decoded does not depend on the guesses (speculative
decoding, arXiv 2211.17192). Knows nothing of text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from engine.token_tree import TokenTree

ROWS = 16  # tokens of a pass
Allowed = Callable[[Sequence[int]], Sequence[int] | None]
Done = Callable[[Sequence[int]], bool]


@dataclass
class Continuation:
    """tokens and the log-probability of each, in nats. done: whether it ended by itself."""

    tokens: list[int] = field(default_factory=list)
    log_probabilities: list[float] = field(default_factory=list)
    done: bool = False


@dataclass(frozen=True)
class Limits:
    """tokens: most of one continuation. allowed: the tokens that may follow some tokens; None for all but `banned`.

    done: whether a continuation ends with its last token. stop: called before every pass; once it returns True, what
    has been decoded is the result.
    """

    tokens: int
    allowed: Allowed
    done: Done
    banned: Tensor
    stop: Callable[[], bool] = lambda: False


def decode(
    tree: TokenTree,
    limits: Limits,
    branches: int = 1,
    margin: float = 0.0,
    guesses: Sequence[Sequence[int]] = (),
    on_token: Callable[[Sequence[int]], bool] | None = None,
) -> list[Continuation]:
    """The likeliest continuation of what `tree` has read, then up to `branches` - 1 that begin otherwise.

    Those begin with the next likeliest first tokens, at most `margin` nats less likely than the first. guesses: token
    sequences that the first continuation may follow. on_token: called with the tokens of the first after each pass;
    decoding ends once it returns False.
    """
    first = _choices(tree, [], limits)
    order = torch.topk(first, min(branches, int((first > -torch.inf).sum()) or 1))
    likely = order.values >= order.values[0] - margin
    starts = order.indices[likely].tolist()
    found = [Continuation() for _ in starts]
    for one, token in zip(found, starts, strict=True):
        _append(tree, one, token, limits)
    while active := [one for one in found if not one.done and len(one.tokens) < limits.tokens]:
        if limits.stop():
            break
        wanted = [one.tokens for one in active if not tree.has_read(one.tokens)]
        if wanted:
            ahead = [] if found[0].done else _ahead(found[0].tokens, guesses, ROWS - len(wanted))
            tree.read([*wanted, *ahead])
        for one in active:
            _append(tree, one, int(_choices(tree, one.tokens, limits).argmax()), limits)
        if on_token is not None and not on_token(found[0].tokens):
            break
    return found


def _choices(tree: TokenTree, tokens: Sequence[int], limits: Limits) -> Tensor:
    """Logits [vocab] of the next token; those of tokens that are not allowed are -inf."""
    logits, allowed = tree.logits(tokens), limits.allowed(tokens)
    if allowed is None:
        return logits.index_fill(0, limits.banned.to(logits.device), -torch.inf)
    indices = torch.tensor(allowed, dtype=torch.long, device=logits.device)
    return torch.full_like(logits, -torch.inf).index_copy(0, indices, logits[indices])


def _append(tree: TokenTree, one: Continuation, token: int, limits: Limits) -> None:
    one.log_probabilities.append(tree.log_probability(one.tokens, token))
    one.tokens.append(token)
    one.done = limits.done(one.tokens)


def _ahead(tokens: Sequence[int], guesses: Sequence[Sequence[int]], room: int) -> list[Sequence[int]]:
    """The beginnings of the guesses that continue `tokens`, which have at most `room` more tokens in all."""
    length = len(tokens)
    fitting = [guess for guess in guesses if len(guess) > length and list(guess[:length]) == list(tokens)]
    share = max(0, room) // max(1, len(fitting))
    return [guess[: length + share] for guess in fitting] if share else []
