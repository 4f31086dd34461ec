"""Decoding of several continuations of one prompt at once, each token the likeliest one that is allowed.

Every pass reads the next token of each continuation, and guesses at what may follow: a pass over 16 tokens costs what
one token costs, since reading the weights dominates. What is decoded does not depend on the guesses (speculative
decoding, arXiv 2211.17192). Knows nothing of text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from engine.guesses import Guesses
from engine.token_tree import TokenTree

ROWS = 16  # tokens of a pass
NO_GUESSES = Guesses()
Allowed = Callable[[Sequence[int]], Sequence[int] | None]
Done = Callable[[Sequence[int]], bool]


@dataclass
class Continuation:
    """tokens and the log-probability of each, in nats. done: whether it ended by itself. seconds: for each token, if
    asked for, the second likeliest one of all, and by how many nats the likeliest is likelier."""

    tokens: list[int] = field(default_factory=list)
    log_probabilities: list[float] = field(default_factory=list)
    done: bool = False
    seconds: list[tuple[int, float]] = field(default_factory=list)

    @property
    def score(self) -> float:
        return sum(self.log_probabilities)


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
    guesses: Guesses = NO_GUESSES,
    on_token: Callable[[Continuation], bool] | None = None,
    seconds: bool = False,
) -> list[Continuation]:
    """The likeliest continuation of what `tree` has read, then up to `branches` - 1 that begin otherwise.

    Those begin with the next likeliest first tokens, at most `margin` nats less likely than the first, and are dropped
    once they are twice as much less likely than one that is done. on_token: called with the first one before each
    further pass; decoding ends once it returns False. seconds: whether to return `Continuation.seconds`.
    """
    tree.read(guesses.after([], ROWS // 2))
    first = _choices(tree, [], limits)
    order = torch.topk(first, min(branches, int((first > -torch.inf).sum()) or 1))
    likely = order.values >= order.values[0] - margin
    starts = order.indices[likely].tolist()
    found = [Continuation() for _ in starts]
    for one, token in zip(found, starts, strict=True):
        _append(tree, one, token, limits, seconds)
    while active := [one for one in found if not one.done and len(one.tokens) < limits.tokens]:
        if on_token is not None and not on_token(found[0]) or limits.stop():
            break
        wanted = [one.tokens for one in active if not tree.has_read(one.tokens)]
        if wanted:
            tree.read([*wanted, *_ahead([one.tokens for one in active], guesses, ROWS - len(wanted))])
        for one in active:
            _append(tree, one, int(_choices(tree, one.tokens, limits).argmax()), limits, seconds)
        least = max((one.score for one in found if one.done), default=-math.inf) - 2 * margin
        found = [found[0], *(one for one in found[1:] if one.done or one.score >= least)]
    return found


def _choices(tree: TokenTree, tokens: Sequence[int], limits: Limits) -> Tensor:
    """Logits [vocab] of the next token; those of tokens that are not allowed are -inf."""
    logits, allowed = tree.logits(tokens), limits.allowed(tokens)
    if allowed is None:
        return logits.index_fill(0, limits.banned.to(logits.device), -torch.inf)
    indices = torch.tensor(allowed, dtype=torch.long, device=logits.device)
    return torch.full_like(logits, -torch.inf).index_copy(0, indices, logits[indices])


def _append(tree: TokenTree, one: Continuation, token: int, limits: Limits, seconds: bool) -> None:
    if seconds:
        values, order = tree.logits(one.tokens).topk(2)
        one.seconds.append((int(order[1]), float(values[0] - values[1])))
    one.log_probabilities.append(tree.log_probability(one.tokens, token))
    one.tokens.append(token)
    one.done = limits.done(one.tokens)


def _ahead(active: Sequence[Sequence[int]], guesses: Guesses, room: int) -> list[list[int]]:
    """Guesses at what follows the continuations, of `room` new tokens in all; the first gets half of them."""
    found = []
    for index, tokens in enumerate(active):
        left = len(active) - index
        share = room if left == 1 else room // 2 if index == 0 else room // left
        for guess in guesses.after(tokens, share):
            found.append([*tokens, *guess])
            room -= len(guess)
    return found
