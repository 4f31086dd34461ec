"""Log probabilities of continuations compared with a pass over each whole sequence."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from engine.key_values import KeyValues, PromptMemory
from engine.models.diffusion_gemma import DiffusionGemma
from engine.prefix_cache import PrefixCache
from engine.scorer import Scorer, causal_log_probabilities
from tests.engine.tiny import ours, reference

PROMPT = [5, 17, 9, 40, 3, 22, 8, 31, 12, 6, 25, 14]
CONTINUATIONS = [[7, 9, 11, 30, 2], [7], [50, 51, 52], []]


@pytest.fixture(scope="module")
def model() -> DiffusionGemma:
    return ours(reference())


@torch.inference_mode()
def whole(model: DiffusionGemma, tokens: Sequence[int]) -> torch.Tensor:
    """log p of each token of `tokens` but the first, given those before it."""
    memory = PromptMemory(KeyValues(model.config, torch.device("cpu"), torch.float32), len(tokens))
    hidden = model.encode(torch.tensor([tokens]), memory.positions(), memory.masks(), memory)[0]
    return torch.log_softmax(model.logits(hidden[:-1]), -1).gather(1, torch.tensor(tokens[1:])[:, None])[:, 0]


@pytest.mark.parametrize("known", [[33], [33, 4, 18]])
def test_all_continuations_are_scored_as_if_each_stood_alone(model: DiffusionGemma, known: list[int]) -> None:
    cache = PrefixCache(model)
    scores = causal_log_probabilities(model, cache, PROMPT, known, CONTINUATIONS)
    for found, tokens in zip(scores, CONTINUATIONS, strict=True):
        assert found.shape == (len(tokens),)
        expected = whole(model, [*PROMPT, *known, *tokens])[len(PROMPT) + len(known) - 1 :]
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_without_known_tokens_the_first_has_no_score(model: DiffusionGemma) -> None:
    scores = causal_log_probabilities(model, PrefixCache(model), PROMPT, [], CONTINUATIONS)
    assert [float(one[0]) for one in scores if len(one)] == [0.0, 0.0, 0.0]
    expected = whole(model, [*PROMPT, *CONTINUATIONS[0]])[len(PROMPT) :]
    torch.testing.assert_close(scores[0][1:], expected, atol=1e-4, rtol=0)


def test_the_prompt_is_read_once_and_left_as_it_was(model: DiffusionGemma) -> None:
    cache = PrefixCache(model)
    first = causal_log_probabilities(model, cache, PROMPT, [33], CONTINUATIONS)
    again = causal_log_probabilities(model, cache, PROMPT, [33], CONTINUATIONS)
    assert cache.encoded_tokens == len(PROMPT)
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


@pytest.mark.parametrize("continuations", [[], [[]], [[], []]])
def test_nothing_to_score_takes_nothing(model: DiffusionGemma, continuations: list[list[int]]) -> None:
    cache = PrefixCache(model)
    assert [len(one) for one in causal_log_probabilities(model, cache, PROMPT, [33], continuations)] == [
        0 for _ in continuations
    ]
    assert cache.encoded_tokens == 0


def test_a_text_that_begins_a_scored_one_needs_no_pass(model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = []
    encode = model.encode
    monkeypatch.setattr(model, "encode", lambda tokens, *rest: passes.append(tokens) or encode(tokens, *rest))
    scorer = Scorer(model, PrefixCache(model))
    expected = causal_log_probabilities(model, PrefixCache(model), PROMPT, [33], [[5, 6, 7, 8], [5, 6], [5, 9]])
    passes.clear()
    long, short = scorer.scores(PROMPT, [33], [[5, 6, 7, 8], [5, 6]])
    count = len(passes)
    again, other = scorer.scores(PROMPT, [33], [[5, 6], [5, 9]])
    assert len(passes) == count + 1
    for found, wanted in zip((long, short, again, other), (*expected[:2], expected[1], expected[2]), strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    scorer.scores(PROMPT, [34], [[5, 6]])
    assert len(passes) == count + 2, "after other known tokens"
