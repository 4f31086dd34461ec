"""Greedy decoding compared with a pass over the whole sequence for every token."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from engine.autoregressive import _guess, decode_greedily, follow_greedily
from engine.errors import InputError
from engine.key_values import KeyValues, PromptMemory
from engine.models.diffusion_gemma import DiffusionGemma
from engine.prefix_cache import PrefixCache
from engine.token_tree import TokenTree
from tests.engine.tiny import count_passes, ours, reference

PROMPT = [5, 17, 9, 40, 3, 22, 8, 31, 12, 6, 25, 14]


@pytest.fixture(scope="module")
def model() -> DiffusionGemma:
    return ours(reference())


@torch.inference_mode()
def last_logits(model: DiffusionGemma, tokens: Sequence[int]) -> torch.Tensor:
    memory = PromptMemory(KeyValues(model.config, torch.device("cpu"), torch.float32), len(tokens))
    hidden = model.encode(torch.tensor([tokens]), memory.positions(), memory.masks(), memory)
    return model.logits(hidden[0, -1])


def never(tokens: list[int]) -> bool:
    return False


@pytest.mark.parametrize("length", [1, 2, len(PROMPT)])
def test_each_token_is_the_likeliest_after_those_before_it(model: DiffusionGemma, length: int) -> None:
    prompt = PROMPT[:length]
    tokens, scores = decode_greedily(model, PrefixCache(model), prompt, 6, never)
    for index, (token, score) in enumerate(zip(tokens, scores, strict=True)):
        expected = last_logits(model, [*prompt, *tokens[:index]]).log_softmax(-1)
        assert token == int(expected.argmax())
        assert score == pytest.approx(float(expected[token]), abs=1e-4)
    assert len(tokens) == 6


def test_the_cached_prompt_is_left_as_it_was(model: DiffusionGemma) -> None:
    cache = PrefixCache(model)
    first = decode_greedily(model, cache, PROMPT, 4, never)
    read = cache.encoded_tokens
    assert decode_greedily(model, cache, PROMPT, 4, never) == first
    assert cache.encoded_tokens == read == len(PROMPT) - 1
    longer = [*PROMPT, 7, 19]
    assert (
        decode_greedily(model, cache, longer, 4, never)[0]
        == decode_greedily(model, PrefixCache(model), longer, 4, never)[0]
    )
    assert cache.encoded_tokens == read + 2


def test_it_stops_once_stop_returns_true_and_keeps_that_token(model: DiffusionGemma) -> None:
    free, _ = decode_greedily(model, PrefixCache(model), PROMPT, 8, never)
    seen: list[list[int]] = []

    def stop(tokens: list[int]) -> bool:
        seen.append([*tokens])
        return len(tokens) == 3

    assert decode_greedily(model, PrefixCache(model), PROMPT, 8, stop)[0] == free[:3]
    assert seen == [free[:1], free[:2], free[:3]]
    assert decode_greedily(model, PrefixCache(model), PROMPT, 2, never)[0] == free[:2]
    assert decode_greedily(model, PrefixCache(model), PROMPT, 0, never) == ([], [])


def test_banned_tokens_are_not_taken_and_the_first_is_one_of_those_allowed(model: DiffusionGemma) -> None:
    free, scores = decode_greedily(model, PrefixCache(model), PROMPT, 4, never)
    other, _ = decode_greedily(model, PrefixCache(model), PROMPT, 4, never, banned=torch.tensor(free))
    assert not set(free) & set(other)
    allowed = torch.tensor([token for token in (2, 3, 4) if token != free[0]])
    tokens, restricted = decode_greedily(model, PrefixCache(model), PROMPT, 4, never, first=allowed)
    assert tokens[0] in allowed.tolist() and restricted[0] < scores[0], (
        "the probability is that without the restriction"
    )


def test_an_empty_prompt_is_refused(model: DiffusionGemma) -> None:
    with pytest.raises(InputError, match="at least one token"):
        decode_greedily(model, PrefixCache(model), [], 4, never)


@pytest.mark.parametrize("right", [0, 3, 6])
def test_a_guess_saves_passes_and_changes_nothing(
    model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch, right: int
) -> None:
    free, scores = decode_greedily(model, PrefixCache(model), PROMPT, 6, never)
    cache = PrefixCache(model)
    with cache.encoded(PROMPT[:-1]) as lease, TokenTree(model, lease.kv, PROMPT[-1:]) as tree:
        passes = count_passes(model, monkeypatch)
        tree.read([[*free[:right], (free[right] + 1) % 120] if right < 6 else free])
        tokens, found = follow_greedily(tree, PROMPT, 6, never)
    assert tokens == free and found == pytest.approx(scores, abs=1e-4)
    assert len(passes) == 6 - right or (right == 6 and len(passes) == 1)


def test_what_followed_the_same_tokens_before_is_guessed(
    model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch
) -> None:
    free, scores = decode_greedily(model, PrefixCache(model), PROMPT, 12, never)
    monkeypatch.setattr("engine.autoregressive._guess", lambda tokens: [])
    slow = count_passes(model, monkeypatch)
    assert decode_greedily(model, PrefixCache(model), PROMPT, 12, never)[0] == free
    assert len(slow) == 1 + 12
    monkeypatch.setattr(
        "engine.autoregressive._guess", lambda tokens: free[len(tokens) - len(PROMPT) :][:3] if tokens else []
    )
    slow.clear()
    tokens, found = decode_greedily(model, PrefixCache(model), PROMPT, 12, never)
    assert tokens == free and found == pytest.approx(scores, abs=1e-4)
    assert len(slow) == 1 + 12 / 4


@pytest.mark.parametrize(
    ("tokens", "guess"),
    [
        ([1, 2, 3, 4, 1, 2], [3, 4, 1, 2]),
        ([1, 2, 3, 1, 2, 4, 1, 2], [4, 1, 2]),
        ([7, 7, 7], [7]),
        ([1, 2, 3], []),
        ([2], []),
        ([1, 2, *range(10, 40), 1, 2], list(range(10, 25))),
    ],
)
def test_a_guess_is_what_followed_the_last_two_tokens(tokens: list[int], guess: list[int]) -> None:
    assert list(_guess(tokens)) == guess
