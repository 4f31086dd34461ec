"""Decoding of continuations compared with transformers' greedy search on a tiny random model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.decoding import ROWS, Continuation, Limits, decode
from engine.guesses import Guesses
from engine.models.packed_qwen2 import PackedQwen2
from engine.prefix_cache import PrefixCache
from engine.token_tree import TokenTree
from tests.engine.tiny_qwen2 import packed, reference

PROMPT = [7 * n % 151 for n in range(1, 30)]
LENGTH = 12
TOKENS = st.integers(0, 159)


@cache
def model() -> PackedQwen2:
    return packed(reference())


@torch.inference_mode()
def greedy(prompt: Sequence[int] = PROMPT, length: int = LENGTH, banned: Sequence[int] = ()) -> list[int]:
    """The tokens that transformers generates after `prompt`."""
    tokens = torch.tensor([prompt])
    found = reference().generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        do_sample=False,
        min_new_tokens=length,
        max_new_tokens=length,
        suppress_tokens=[*banned] or None,
        pad_token_id=0,
    )
    return found[0, len(prompt) :].tolist()


@cache
def likeliest() -> tuple[int, ...]:
    return tuple(greedy())


def limits(
    tokens: int = LENGTH,
    allowed: Callable[[Sequence[int]], Sequence[int] | None] = lambda tokens: None,
    done: Callable[[Sequence[int]], bool] = lambda tokens: False,
    banned: Sequence[int] = (),
    stop: Callable[[], bool] = lambda: False,
) -> Limits:
    return Limits(tokens, allowed, done, torch.tensor(banned, dtype=torch.long), stop)


@contextmanager
def tree() -> Iterator[TokenTree]:
    cache = PrefixCache(model())
    with cache.encoded(PROMPT[:-1]) as lease, TokenTree(model(), lease.kv, PROMPT[-1:]) as opened:
        yield opened


def decoded(chosen: Limits | None = None, **options: Any) -> list[Continuation]:
    with tree() as opened:
        return decode(opened, chosen or limits(), **options)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of tokens of every pass after the prompt."""
    counted: list[int] = []
    encode = model().encode

    def counting(tokens: Tensor, *rest: Any) -> Tensor:
        counted.append(tokens.shape[1])
        return encode(tokens, *rest)

    monkeypatch.setattr(model(), "encode", counting)
    return counted


def test_the_first_continuation_is_what_transformers_generates() -> None:
    (found,) = decoded()
    assert found.tokens == [*likeliest()] and not found.done


@torch.inference_mode()
def test_log_probabilities_are_those_of_transformers() -> None:
    (found,) = decoded()
    logits = reference()(torch.tensor([[*PROMPT, *likeliest()]])).logits[0, len(PROMPT) - 1 : -1]
    expected = logits.log_softmax(-1).gather(1, torch.tensor(likeliest())[:, None])[:, 0]
    torch.testing.assert_close(torch.tensor(found.log_probabilities), expected, atol=1e-4, rtol=0)


def test_the_second_likeliest_tokens_are_named_if_asked_for() -> None:
    (one,), (with_seconds,) = decoded(), decoded(seconds=True)
    assert one.seconds == [] and with_seconds.tokens == one.tokens
    assert len(with_seconds.seconds) == LENGTH
    with tree() as opened:
        for index, (second, margin) in enumerate(with_seconds.seconds):
            values, tokens = opened.logits(one.tokens[:index]).sort(descending=True)
            assert second == int(tokens[1])
            assert margin == pytest.approx(float(values[0] - values[1]), abs=1e-4)


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(st.integers(0, LENGTH), st.lists(TOKENS, max_size=6)).map(
            lambda parts: [*likeliest()[: parts[0]], *parts[1]]
        ),
        max_size=4,
    )
)
def test_guesses_do_not_change_the_result(guesses: list[list[int]]) -> None:
    assert decoded(guesses=Guesses(drafts=guesses))[0].tokens == [*likeliest()]


def test_a_right_guess_saves_passes(passes: list[int]) -> None:
    decoded()
    assert passes == [len(PROMPT) - 1, *[1] * LENGTH]
    passes.clear()
    decoded(guesses=Guesses(drafts=[likeliest()]))
    assert passes == [len(PROMPT) - 1, 1 + ROWS // 2, LENGTH - ROWS // 2]


def test_a_guess_that_is_right_at_first_saves_passes_until_it_is_wrong(passes: list[int]) -> None:
    wrong = (likeliest()[5] + 1) % 160
    decoded(guesses=Guesses(drafts=[[*likeliest()[:5], wrong, wrong]]))
    assert passes == [len(PROMPT) - 1, 8, *[1] * (LENGTH - 6)]


def test_no_pass_is_larger_than_the_limit_however_many_guesses_there_are(passes: list[int]) -> None:
    guesses = [[*likeliest()[:2], *(token for _ in range(40))] for token in range(5)]
    decoded(branches=3, margin=math.inf, guesses=Guesses(drafts=guesses))
    assert max(passes[1:]) <= ROWS


def test_branches_begin_with_the_likeliest_tokens() -> None:
    with tree() as opened:
        first = opened.logits([]).topk(4).indices.tolist()
    found = decoded(branches=4, margin=math.inf)
    assert [one.tokens[0] for one in found] == first
    for one in found:
        assert one.tokens == [one.tokens[0], *greedy([*PROMPT, one.tokens[0]], LENGTH - 1)]


@pytest.mark.parametrize("margin", [0.0, 0.5, 1.0, 2.0])
def test_branches_begin_within_the_margin(margin: float) -> None:
    found = decoded(limits(1), branches=160, margin=margin)
    with tree() as opened:
        logits = opened.logits([])
    likely = (logits >= logits.max() - margin).nonzero()[:, 0].tolist()
    assert sorted(one.tokens[0] for one in found) == likely
    scores = [one.log_probabilities[0] for one in found]
    assert scores == sorted(scores, reverse=True)


def test_guesses_serve_the_first_of_several_branches(passes: list[int]) -> None:
    alone = decoded(branches=3, margin=math.inf)
    without = len(passes)
    passes.clear()
    assert [one.tokens for one in decoded(branches=3, margin=math.inf, guesses=Guesses(drafts=[likeliest()]))] == [
        one.tokens for one in alone
    ]
    assert len(passes) == without and sum(passes[3:]) < 3 * LENGTH, "the first branch is read at once"


def test_only_allowed_tokens_are_decoded() -> None:
    def allowed(tokens: Sequence[int]) -> list[int] | None:
        return [11, 12, 13] if len(tokens) < 2 else None

    (found,) = decoded(limits(5, allowed))
    assert set(found.tokens[:2]) <= {11, 12, 13}
    assert found.tokens[2:] == greedy([*PROMPT, *found.tokens[:2]], 3)
    with tree() as opened:
        assert found.tokens[0] == max([11, 12, 13], key=lambda token: float(opened.logits([])[token]))


def test_there_are_at_most_as_many_branches_as_allowed_first_tokens() -> None:
    found = decoded(limits(3, lambda tokens: [5, 9] if not tokens else None), branches=4, margin=math.inf)
    assert sorted(one.tokens[0] for one in found) == [5, 9]


def test_banned_tokens_are_never_decoded() -> None:
    banned = [*likeliest()[:6]]
    (found,) = decoded(limits(banned=banned))
    assert found.tokens == greedy(banned=banned) and not set(banned) & set(found.tokens)


def test_a_continuation_ends_when_it_is_done() -> None:
    end = likeliest()[4]
    length = likeliest().index(end) + 1
    (found,) = decoded(limits(done=lambda tokens: tokens[-1] == end))
    assert found.tokens == [*likeliest()[:length]] and found.done


def test_other_branches_continue_after_one_is_done() -> None:
    free = decoded(branches=3, margin=math.inf)
    second = free[1].tokens[0]
    found = decoded(limits(done=lambda tokens: tokens == [second]), branches=3, margin=math.inf)
    assert [one.done for one in found] == [False, True, False]
    assert [one.tokens for one in found] == [free[0].tokens, [second], free[2].tokens]


@pytest.mark.parametrize("most", [1, 2, 7])
def test_no_continuation_is_longer_than_the_limit(most: int) -> None:
    found = decoded(limits(most), branches=2, margin=math.inf, guesses=Guesses(drafts=[likeliest()]))
    assert [len(one.tokens) for one in found] == [most, most] and not any(one.done for one in found)
    assert found[0].tokens == [*likeliest()[:most]]


def test_stop_ends_decoding_before_the_next_pass(passes: list[int]) -> None:
    answers = iter([False, False, True])
    (found,) = decoded(limits(stop=lambda: next(answers)))
    assert found.tokens == [*likeliest()[:3]] and not found.done
    assert len(passes) == 1 + 3 and next(answers, None) is None


def test_on_token_sees_the_first_continuation_and_may_end_decoding() -> None:
    seen: list[list[int]] = []

    def on_token(one: Continuation) -> bool:
        seen.append([*one.tokens])
        return len(one.tokens) < 4

    found = decoded(branches=2, margin=math.inf, on_token=on_token)
    assert seen == [[*likeliest()[:length]] for length in (1, 2, 3, 4)]
    assert [len(one.tokens) for one in found] == [4, 4]


@settings(max_examples=25)
@given(st.lists(TOKENS, max_size=40), st.integers(1, 3))
def test_what_the_prompt_repeats_does_not_change_the_result(more: list[int], branches: int) -> None:
    without = decoded(branches=branches, margin=math.inf)
    repeating = Guesses([*likeliest(), *more, *likeliest()[2:9], *more])
    found = decoded(branches=branches, margin=math.inf, guesses=repeating)
    assert [one.tokens for one in found] == [one.tokens for one in without]
