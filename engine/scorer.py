"""Scores continuations with the causal encoder: a second opinion on the denoiser's result.

`Scorer` remembers what it has scored, so that a text that is part of a scored canvas needs no pass. Must not know text.
The prompt's keys come from the prefix cache and are left unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from engine.errors import Stop
from engine.memory import CausalPass
from engine.prefix_cache import PromptCache
from engine.token_tree import TokenTree


def causal_log_probabilities(
    model: CausalPass,
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


class HoleScorer(Protocol):
    """Scores texts for a hole; they may come from any source."""

    def text_scores(
        self,
        prompt: Sequence[int],
        before: Sequence[int],
        texts: Sequence[Sequence[int]],
        after: Sequence[int],
        seam: int | None = None,
        stop: Stop | None = None,
    ) -> list[Tensor]:
        """For each of `texts` the log-probabilities of its tokens between `before` and `after`, on the CPU.

        A model that reads one way scores the first `seam` tokens of `after` with them (None: all), one that reads both
        ways takes all of `after` as given.
        """
        ...


class Scorer:
    """`causal_log_probabilities`, remembered as long as prompt and known tokens stay the same."""

    def __init__(self, model: CausalPass, cache: PromptCache) -> None:
        self.model, self.cache = model, cache
        self._after: tuple[list[int], list[int]] | None = None
        self._scored: list[tuple[list[int], Tensor]] = []

    def scores(
        self,
        prompt: Sequence[int],
        known: Sequence[int],
        continuations: Sequence[Sequence[int]],
        stop: Stop | None = None,
    ) -> list[Tensor]:
        """See `causal_log_probabilities`. Continuations that begin one that was scored cost nothing."""
        after = [*prompt], [*known]
        if after != self._after:
            self._after, self._scored = after, []
        missing = [[*tokens] for tokens in continuations if self._find(tokens) is None]
        found = causal_log_probabilities(self.model, self.cache, prompt, known, missing, stop)
        self._scored += zip(missing, found, strict=True)
        return [score for tokens in continuations if (score := self._find(tokens)) is not None]

    def text_scores(
        self,
        prompt: Sequence[int],
        before: Sequence[int],
        texts: Sequence[Sequence[int]],
        after: Sequence[int],
        seam: int | None = None,
        stop: Stop | None = None,
    ) -> list[Tensor]:
        """See `HoleScorer`."""
        return self.scores(prompt, before, [[*text, *after[:seam]] for text in texts], stop)

    def _find(self, tokens: Sequence[int]) -> Tensor | None:
        beginning = [*tokens]
        for scored, scores in self._scored:
            if scored[: len(beginning)] == beginning:
                return scores[: len(beginning)]
        return None
