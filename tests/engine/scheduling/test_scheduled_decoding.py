"""Requests that decode token by token on one model of a scheduler."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.decoder import CausalDecoder, Decoder
from engine.decoding import Continuation, Limits, decode
from engine.errors import Cancelled
from engine.models.packed_qwen2 import PackedQwen2
from engine.scheduling.request import Order
from engine.scheduling.scheduler import Scheduler
from engine.token_tree import TokenTree
from tests.engine.scheduling.test_scheduler import counting, held
from tests.engine.tiny_qwen2 import packed, reference
from tests.waiting import PATIENCE_S

PROMPTS = [[(7 + number) * n % 151 for n in range(1, 26)] for number in range(4)]
LENGTH = 10
OnToken = Callable[[Continuation], bool]


@dataclass
class Answer:
    tokens: list[list[int]]
    encoded: int


@pytest.fixture(scope="module")
def model() -> PackedQwen2:
    return packed(reference())


@pytest.fixture
def scheduler(model: PackedQwen2) -> Iterator[Scheduler]:
    scheduler = counting(Decoder(model))
    yield scheduler
    scheduler.close()


def decoding(
    prompt: Sequence[int], on_token: OnToken | None = None, length: int = LENGTH
) -> Callable[[CausalDecoder], Answer]:
    limits = Limits(length, lambda tokens: None, lambda tokens: False, torch.tensor([], dtype=torch.long))

    def body(decoder: CausalDecoder) -> Answer:
        with (
            decoder.cache.encoded(prompt[:-1]) as lease,
            TokenTree(decoder.model, lease.kv, prompt[-1:]) as tree,
        ):
            found = decode(tree, limits, branches=2, margin=100.0, on_token=on_token)
        return Answer([one.tokens for one in found], lease.encoded)

    return body


def alone(model: PackedQwen2, prompt: Sequence[int]) -> list[list[int]]:
    return decoding(prompt)(Decoder(model)).tokens


def test_clients_at_once_get_what_each_gets_alone(scheduler: Scheduler, model: PackedQwen2) -> None:
    with held(scheduler):
        futures = [
            scheduler.submit(decoding(prompt), Order(client=str(number))) for number, prompt in enumerate(PROMPTS)
        ]
    assert [future.result(PATIENCE_S).tokens for future in futures] == [alone(model, prompt) for prompt in PROMPTS]


def test_passes_of_clients_are_joined(
    scheduler: Scheduler, model: PackedQwen2, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    encode = model.encode

    def counting(tokens: Tensor, *rest: Any) -> Tensor:
        sizes.append(tokens.shape[1])
        return encode(tokens, *rest)

    monkeypatch.setattr(model, "encode", counting)
    with held(scheduler):
        futures = [
            scheduler.submit(decoding(prompt), Order(client=str(number))) for number, prompt in enumerate(PROMPTS)
        ]
    for future in futures:
        future.result(PATIENCE_S)
    passes = [size for size in sizes if size < len(PROMPTS[0]) - 1]
    assert max(passes) > 2 * 2, "two continuations of each client, of more than two clients"
    assert len(passes) < 0.75 * LENGTH * len(PROMPTS), "fewer passes than all need alone"


def test_a_joined_pass_that_fails_is_made_one_by_one(
    scheduler: Scheduler, model: PackedQwen2, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [alone(model, prompt) for prompt in PROMPTS]
    failed = fail_passes(model, monkeypatch, lambda number, tokens: 2 < tokens < len(PROMPTS[0]) - 1)
    with held(scheduler):
        futures = [
            scheduler.submit(decoding(prompt), Order(client=str(number))) for number, prompt in enumerate(PROMPTS)
        ]
    assert [future.result(PATIENCE_S).tokens for future in futures] == expected
    assert failed


def test_clients_take_turns_token_by_token(scheduler: Scheduler) -> None:
    order: list[int] = []

    def noting(number: int) -> OnToken:
        return lambda tokens: order.append(number) is None

    with held(scheduler):
        futures = [
            scheduler.submit(decoding(PROMPTS[number], noting(number)), Order(client=str(number))) for number in (0, 1)
        ]
    for future in futures:
        future.result(PATIENCE_S)
    assert order.count(0) == order.count(1) == LENGTH - 1
    assert 1 in order[: LENGTH - 2] and 0 in order[: LENGTH - 2], "neither waits until the other has ended"


def test_requests_with_the_same_prompt_do_not_disturb_each_other(scheduler: Scheduler, model: PackedQwen2) -> None:
    with held(scheduler):
        futures = [scheduler.submit(decoding(PROMPTS[0]), Order(client=str(number))) for number in range(3)]
    assert [future.result(PATIENCE_S).tokens for future in futures] == [alone(model, PROMPTS[0])] * 3


def test_a_cancelled_request_ends_and_the_others_continue(scheduler: Scheduler, model: PackedQwen2) -> None:
    cancelled, seen = threading.Event(), list[int]()

    def cancel_after_three(one: Continuation) -> bool:
        seen.append(len(one.tokens))
        if len(one.tokens) == 3:
            cancelled.set()
        return True

    with held(scheduler):
        first = scheduler.submit(decoding(PROMPTS[0], cancel_after_three), Order(client="a", stop=cancelled.is_set))
        second = scheduler.submit(decoding(PROMPTS[1]), Order(client="b"))
    with pytest.raises(Cancelled):
        first.result(PATIENCE_S)
    assert seen == [1, 2, 3]
    assert second.result(PATIENCE_S).tokens == alone(model, PROMPTS[1])
    assert not any(entry.users for entry in scheduler.decoder.cache.entries)


def test_a_longer_prompt_encodes_only_its_new_tokens(scheduler: Scheduler, model: PackedQwen2) -> None:
    prompt, longer = PROMPTS[0], [*PROMPTS[0], 3, 5, 8, 13]
    assert scheduler.submit(decoding(prompt), Order()).result(PATIENCE_S).encoded == len(prompt) - 1
    answer = scheduler.submit(decoding(longer), Order()).result(PATIENCE_S)
    assert answer.encoded == 4 and answer.tokens == alone(model, longer)
    assert scheduler.submit(decoding(prompt), Order()).result(PATIENCE_S).encoded == 0


def fail_passes(
    model: PackedQwen2, monkeypatch: pytest.MonkeyPatch, fails: Callable[[int, int], bool]
) -> list[tuple[int, int]]:
    """Passes for which fails(number, tokens) run out of memory; returns those that did."""
    failed: list[tuple[int, int]] = []
    encode, numbers = model.encode, iter(range(10_000))

    def limited(tokens: Tensor, *rest: Any) -> Tensor:
        number = next(numbers)
        if fails(number, tokens.shape[1]):
            failed.append((number, tokens.shape[1]))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(tokens, *rest)

    monkeypatch.setattr(model, "encode", limited)
    return failed


@pytest.mark.parametrize("number", [0, 1, 4])
def test_a_pass_that_runs_out_of_memory_once_is_repeated(
    scheduler: Scheduler, model: PackedQwen2, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The prompt, the first token, and a later one."""
    expected = alone(model, PROMPTS[0])
    scheduler.submit(decoding(PROMPTS[1]), Order()).result(PATIENCE_S)
    failed = fail_passes(model, monkeypatch, lambda at, tokens: at == number)
    assert scheduler.submit(decoding(PROMPTS[0]), Order()).result(PATIENCE_S).tokens == expected
    assert len(failed) == 1
    kept = [entry.tokens.tolist() for entry in scheduler.decoder.cache.entries]
    assert kept == [PROMPTS[0][:-1]], "the unused prompt was dropped"


def test_a_request_fails_alone_if_memory_never_suffices(
    scheduler: Scheduler, model: PackedQwen2, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as limited:
        fail_passes(model, limited, lambda at, tokens: True)
        with pytest.raises(torch.OutOfMemoryError):
            scheduler.submit(decoding(PROMPTS[0]), Order()).result(PATIENCE_S)
    assert scheduler.submit(decoding(PROMPTS[0]), Order()).result(PATIENCE_S).tokens == alone(model, PROMPTS[0])
