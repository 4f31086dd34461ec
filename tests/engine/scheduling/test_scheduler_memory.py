"""The scheduler when memory runs out: nothing fails that a smaller batch or a later turn can serve.

Memory is simulated: a limit on the tokens of all prompts in use and of a pass.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.canvas_run import CanvasRun, DenoiseResult
from engine.denoiser import Denoiser
from engine.errors import Cancelled, is_memory_error
from engine.models.diffusion_gemma import DiffusionGemma
from engine.prefix_cache import PrefixCache
from engine.scheduling.request import Order, Priority
from engine.scheduling.scheduler import Scheduler
from engine.scorer import causal_log_probabilities
from tests.engine.scheduling.test_scheduler import counting, denoising, held, request_of
from tests.engine.tiny import ours, reference
from tests.waiting import PATIENCE_S

LONG = 40


@pytest.fixture(scope="module")
def model() -> DiffusionGemma:
    model = ours(reference(feedback=0.02))
    model.embed_tokens.weight[0] = model.embed_tokens.weight[1]
    return model


@pytest.fixture
def scheduler(model: DiffusionGemma) -> Iterator[Scheduler]:
    scheduler = counting(Denoiser(model))
    yield scheduler
    scheduler.close()


class Memory:
    """A limit of this many tokens. refused: by how many tokens each refused pass was too large."""

    def __init__(self, cache: PrefixCache, tokens: int) -> None:
        self.cache, self.tokens, self.refused = cache, tokens, list[int]()

    def take(self, tokens: int) -> None:
        """Raises OutOfMemoryError if a pass over `tokens` more tokens does not fit."""
        missing = sum(entry.kv.length for entry in self.cache.entries) + tokens - self.tokens
        if missing > 0:
            self.refused.append(missing)
            raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.fixture
def memory_of(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Memory]:
    def limit(tokens: int) -> Memory:
        memory = Memory(scheduler.decoder.cache, tokens)
        encode, step = scheduler.decoder.model.encode, scheduler.decoder._step

        def limited_encode(tokens: Tensor, *rest: Any) -> Tensor:
            memory.take(tokens.shape[1])
            return encode(tokens, *rest)

        def limited_step(runs: Sequence[CanvasRun]) -> None:
            memory.take(sum(len(run.canvas) for run in runs))
            step(runs)

        monkeypatch.setattr(scheduler.decoder.model, "encode", limited_encode)
        monkeypatch.setattr(scheduler.decoder, "_step", limited_step)
        return memory

    return limit


def prompt(number: int, length: int = LONG) -> list[int]:
    return [(number + 7 * place) % 113 for place in range(length)]


def alone(model: DiffusionGemma, number: int, length: int = LONG) -> DenoiseResult:
    return Denoiser(model).run([request_of(number, prompt(number, length))])[0]


def same(one: DenoiseResult, other: DenoiseResult) -> bool:
    return torch.equal(one.tokens, other.tokens) and one.steps == other.steps


def test_prompts_that_nobody_uses_are_given_up(
    scheduler: Scheduler, model: DiffusionGemma, memory_of: Callable[[int], Memory]
) -> None:
    expected = [alone(model, number) for number in range(3)]
    memory = memory_of(LONG + 20)
    for number, one in enumerate(expected):
        body = denoising(request_of(number, prompt(number)))
        assert same(scheduler.submit(body, Order()).result(PATIENCE_S)[0], one)
    assert memory.refused and len(scheduler.decoder.cache.entries) == 1


def test_what_is_scored_is_read_in_smaller_passes(
    scheduler: Scheduler, model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [prompt(5, 30), prompt(6, 24)]
    expected = causal_log_probabilities(model, PrefixCache(model), prompt(1), [3], texts)
    encode, logits, sizes = model.encode, model.logits, list[int]()

    def small_encode(tokens: Tensor, *rest: Any) -> Tensor:
        if tokens.shape[1] > 20:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(tokens.shape[1])
        return encode(tokens, *rest)

    def smaller_logits(hidden: Tensor) -> Tensor:
        if len(hidden) > 10:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return logits(hidden)

    monkeypatch.setattr(model, "encode", small_encode)
    monkeypatch.setattr(model, "logits", smaller_logits)
    found = scheduler.submit(
        lambda denoiser: causal_log_probabilities(denoiser.model, denoiser.cache, prompt(1), [3], texts), Order()
    ).result(PATIENCE_S)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    assert max(sizes) <= 20 and sum(sizes) >= LONG + 1 + 54
    assert all(entry.users == 0 and entry.kv.length == len(entry.tokens) for entry in scheduler.decoder.cache.entries)


def test_requests_wait_until_others_have_given_their_memory_back(
    scheduler: Scheduler, model: DiffusionGemma, memory_of: Callable[[int], Memory]
) -> None:
    """Six requests, of whose prompts two fit; prompts in use cannot be dropped."""
    expected = [alone(model, number) for number in range(6)]
    memory = memory_of(2 * LONG + 30)
    with held(scheduler):
        bodies = [denoising(request_of(number, prompt(number))) for number in range(6)]
        asked = [scheduler.submit(body, Order(client=str(number))) for number, body in enumerate(bodies)]
    assert all(same(future.result(PATIENCE_S)[0], one) for future, one in zip(asked, expected, strict=True))
    assert memory.refused
    assert all(entry.users == 0 for entry in scheduler.decoder.cache.entries)


def test_only_what_is_too_large_for_all_of_the_memory_fails(
    scheduler: Scheduler, model: DiffusionGemma, memory_of: Callable[[int], Memory]
) -> None:
    expected = [alone(model, number) for number in range(3)]
    memory_of(2 * LONG + 30)
    with held(scheduler):
        large = scheduler.submit(denoising(request_of(9, prompt(9, 200))), Order(client="large"))
        bodies = [denoising(request_of(number, prompt(number))) for number in range(3)]
        asked = [scheduler.submit(body, Order(client=str(number))) for number, body in enumerate(bodies)]
    assert all(same(future.result(PATIENCE_S)[0], one) for future, one in zip(asked, expected, strict=True))
    failed = large.exception(PATIENCE_S)
    assert failed is not None and is_memory_error(failed)


@pytest.mark.parametrize("priority", [Priority.INLINE, Priority.LINT])
def test_one_that_waits_for_memory_does_not_stop_the_one_that_holds_it(
    scheduler: Scheduler, model: DiffusionGemma, memory_of: Callable[[int], Memory], priority: Priority
) -> None:
    """Not even a more urgent one, which would otherwise interrupt the encoding of prompts."""
    first, second, later = request_of(1, prompt(1)), request_of(2, prompt(2)), []
    expected = Denoiser(model).run([first])[0], Denoiser(model).run([second])[0], alone(model, 3, 60)
    memory = memory_of(2 * LONG + 20)

    def holding(denoiser: Denoiser) -> tuple[DenoiseResult, DenoiseResult]:
        with denoiser.cache.encoded(prompt(8)):
            later.append(scheduler.submit(denoising(request_of(3, prompt(3, 60))), Order(priority, "later")))
            return denoiser.run([first])[0], denoiser.run([second])[0]

    found = scheduler.submit(holding, Order(Priority.LINT, "first")).result(PATIENCE_S)
    assert same(found[0], expected[0]) and same(found[1], expected[1])
    assert same(later[0].result(PATIENCE_S)[0], expected[2]) and memory.refused


def test_one_that_waits_for_memory_can_be_cancelled(scheduler: Scheduler, memory_of: Callable[[int], Memory]) -> None:
    memory, gone, holds, release = memory_of(LONG + 30), threading.Event(), threading.Event(), threading.Event()

    def holding(denoiser: Denoiser) -> None:
        def on_step(_: object) -> bool:
            holds.set()
            return not release.is_set()

        denoiser.run([request_of(1, prompt(8), steps=10**6)], on_step)

    other = scheduler.submit(holding, Order(client="holding"))
    assert holds.wait(PATIENCE_S)
    waiting = scheduler.submit(denoising(request_of(3, prompt(3))), Order(client="waiting", stop=gone.is_set))
    while not memory.refused:
        assert not other.done()
    gone.set()
    with pytest.raises(Cancelled):
        waiting.result(PATIENCE_S)
    release.set()
    other.result(PATIENCE_S)


def test_a_pass_over_few_tokens_takes_the_memory_of_idle_prompts(
    scheduler: Scheduler, model: DiffusionGemma, memory_of: Callable[[int], Memory]
) -> None:
    text = prompt(5, 20)
    (expected,) = causal_log_probabilities(model, PrefixCache(model), prompt(1), [3], [text])
    scheduler.submit(lambda denoiser: denoiser.run([request_of(2, prompt(2, 10))]), Order()).result(PATIENCE_S)
    memory = memory_of(LONG + 22)

    def score(denoiser: Denoiser) -> list[Tensor]:
        return causal_log_probabilities(denoiser.model, denoiser.cache, prompt(1), [3], [text])

    (found,) = scheduler.submit(score, Order()).result(PATIENCE_S)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert memory.refused


def test_memory_comes_back_with_every_canvas_not_only_at_the_end_of_a_request(
    scheduler: Scheduler, memory_of: Callable[[int], Memory]
) -> None:
    """And a later request does not start before the one that waits."""
    memory, begun = memory_of(100), list[str]()
    waiting, last, seen = [], [], []

    def holding(denoiser: Denoiser) -> None:
        waiting.append(scheduler.submit(noting("waiting", prompt(3, 60)), Order(client="waiting")))

        def on_step(_: object) -> None:
            if last:
                seen.append([*begun])
            elif memory.refused:
                last.append(scheduler.submit(noting("last", prompt(4, 5)), Order(client="last")))

        denoiser.run([request_of(1, prompt(1), steps=20)], on_step)
        assert memory.refused and last and not waiting[0].done()
        while not waiting[0].done():
            denoiser.run([request_of(1, prompt(1, 8), steps=1)])

    def noting(name: str, tokens: Sequence[int]) -> Callable[[Denoiser], object]:
        def body(denoiser: Denoiser) -> object:
            begun.append(name)
            return denoiser.run([request_of(2, tokens)])

        return body

    scheduler.submit(holding, Order(client="holding")).result(PATIENCE_S)
    waiting[0].result(PATIENCE_S)
    last[0].result(PATIENCE_S)
    assert len(seen) > 9 and all(names == ["waiting"] for names in seen) and begun == ["waiting", "last"]


def test_those_that_wait_for_memory_do_not_all_ask_for_it_again_at_once(
    scheduler: Scheduler, model: DiffusionGemma, memory_of: Callable[[int], Memory]
) -> None:
    """Eight requests, of which one fits: each is refused when it arrives, and rarely after that."""
    expected = [alone(model, number) for number in range(8)]
    memory = memory_of(LONG + 30)
    with held(scheduler):
        bodies = [denoising(request_of(number, prompt(number))) for number in range(8)]
        asked = [scheduler.submit(body, Order(client=str(number))) for number, body in enumerate(bodies)]
    assert all(same(future.result(PATIENCE_S)[0], one) for future, one in zip(asked, expected, strict=True))
    assert len(memory.refused) < 150  # out of 92; 300 if all retry whenever one has ended
