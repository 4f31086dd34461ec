"""The order of requests on a tiny model, with the engine blocked while they queue up."""

from __future__ import annotations

import gc
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count

import pytest
import torch

from engine.canvas_run import CanvasRun, DenoiseRequest, DenoiseResult
from engine.decoder import Decoder
from engine.denoiser import Denoiser
from engine.errors import Cancelled, InputError
from engine.models.diffusion_gemma import DiffusionGemma
from engine.scheduling.admission import MOST_RUNNING, RUNNING
from engine.scheduling.request import Closed, Order, Priority, TooLate
from engine.scheduling.scheduler import Scheduler
from engine.scorer import causal_log_probabilities
from engine.token_tree import TokenTree
from tests.engine.test_denoiser import CANVAS, PROMPT, RESTLESS, assert_identical
from tests.engine.tiny import ours, reference
from tests.waiting import PATIENCE_S

Body = Callable[[Denoiser], list[DenoiseResult]]


@pytest.fixture(scope="module")
def model() -> DiffusionGemma:
    model = ours(reference(feedback=0.02))
    model.embed_tokens.weight[0] = model.embed_tokens.weight[1]
    return model


def counting(decoder: Decoder, batch: int = 8) -> Scheduler:
    """Every reading of its clock is a second later, so turns depend on their number and not on the machine's load."""
    ticks = count()
    return Scheduler(decoder, batch, clock=lambda: next(ticks))


@pytest.fixture
def scheduler(model: DiffusionGemma) -> Iterator[Scheduler]:
    scheduler = counting(Denoiser(model))
    yield scheduler
    scheduler.close()


@contextmanager
def held(scheduler: Scheduler) -> Iterator[None]:
    """Requests submitted within it wait until its end."""
    running, release = threading.Event(), threading.Event()

    def hold(_: Denoiser) -> None:
        running.set()
        release.wait(PATIENCE_S)

    holding = scheduler.submit(hold, Order())
    assert running.wait(PATIENCE_S)
    yield
    release.set()
    holding.result(PATIENCE_S)


def request_of(seed: int, prompt: Sequence[int] = PROMPT, steps: int = 8) -> DenoiseRequest:
    return DenoiseRequest(prompt, CANVAS, replace(RESTLESS, max_steps=steps), seed=seed)


def denoising(*requests: DenoiseRequest) -> Body:
    return lambda denoiser: denoiser.run(requests)


def test_a_request_gets_what_the_denoiser_alone_would_give_it(scheduler: Scheduler, model: DiffusionGemma) -> None:
    alone = Denoiser(model).run([request_of(3)])[0]
    assert_identical(scheduler.submit(denoising(request_of(3)), Order()).result(PATIENCE_S)[0], alone)


def test_the_answer_is_the_same_alone_and_in_a_batch(scheduler: Scheduler) -> None:
    prompts = [PROMPT[: 9 + n] for n in range(6)]
    alone = [
        scheduler.submit(denoising(request_of(n, prompt)), Order()).result(PATIENCE_S)[0]
        for n, prompt in enumerate(prompts)
    ]
    before = replace(scheduler.load)
    with held(scheduler):
        asked = [
            scheduler.submit(denoising(request_of(n, prompt)), Order(client=str(n))) for n, prompt in enumerate(prompts)
        ]
    for one, future in zip(alone, asked, strict=True):
        together = future.result(PATIENCE_S)[0]
        assert torch.equal(one.tokens, together.tokens) and one.steps == together.steps
        torch.testing.assert_close(one.log_probabilities, together.log_probabilities, atol=1e-4, rtol=1e-4)
    assert scheduler.load.stepped - before.stepped == sum(one.steps for one in alone)
    assert scheduler.load.steps - before.steps < sum(one.steps for one in alone) / 3, "they were stepped together"


def test_a_request_joins_a_batch_that_is_under_way_and_one_leaves_before_the_others(scheduler: Scheduler) -> None:
    seen: list[int] = []
    joined = threading.Event()
    later = []

    def watched(denoiser: Denoiser) -> list[DenoiseResult]:
        def on_step(runs: Sequence[CanvasRun]) -> None:
            if runs[0].steps == 3:
                later.append(scheduler.submit(denoising(request_of(1, steps=2)), Order(client="later")))
                joined.set()
            seen.append(scheduler.load.stepped)

        return denoiser.run([request_of(0)], on_step)

    result = scheduler.submit(watched, Order(client="first")).result(PATIENCE_S)[0]
    assert joined.is_set() and later[0].result(PATIENCE_S)[0].steps == 2
    sizes = [now - before for before, now in zip(seen, seen[1:], strict=False)]
    assert sizes.count(2) == 2 and sizes[-1] == 1 and result.steps == 8


def test_inline_goes_before_lint_before_batch(scheduler: Scheduler) -> None:
    order: list[str] = []
    with held(scheduler):
        futures = [
            scheduler.submit(_noting(order, priority.name, denoising(request_of(0))), Order(priority))
            for priority in reversed(Priority)
        ]
    for future in futures:
        future.result(PATIENCE_S)
    assert order == ["INLINE", "LINT", "BATCH"]


def test_what_is_urgent_passes_what_is_under_way(scheduler: Scheduler) -> None:
    order: list[str] = []
    urgent = []

    def slow(denoiser: Denoiser) -> list[DenoiseResult]:
        def on_step(runs: Sequence[CanvasRun]) -> None:
            if runs[0].steps == 2:
                body = _noting(order, "inline", denoising(request_of(1)))
                urgent.append(scheduler.submit(body, Order(client="editor")))

        return denoiser.run([request_of(0)], on_step)

    scheduler.submit(_noting(order, "batch", slow), Order(Priority.BATCH)).result(PATIENCE_S)
    urgent[0].result(PATIENCE_S)
    assert order == ["inline", "batch"]


def test_a_client_with_many_requests_does_not_keep_another_waiting(scheduler: Scheduler) -> None:
    order: list[str] = []
    scheduler.batch = 1
    with held(scheduler):
        futures = [
            scheduler.submit(_noting(order, "many", denoising(request_of(n))), Order(client="many"))
            for n in range(RUNNING + 4)
        ]
        futures.append(scheduler.submit(_noting(order, "one", denoising(request_of(99))), Order(client="one")))
    for future in futures:
        future.result(PATIENCE_S)
    assert order.index("one") < 2


def test_of_one_clients_requests_the_nearest_deadline_goes_first(scheduler: Scheduler) -> None:
    order: list[str] = []
    now = time.monotonic()
    scheduler.batch = 1
    with held(scheduler):
        futures = [
            scheduler.submit(_noting(order, str(left), denoising(request_of(0))), Order(deadline=now + left))
            for left in (300, 100, 200)
        ]
    for future in futures:
        future.result(PATIENCE_S)
    assert order == ["100", "200", "300"]


def test_a_deadline_that_passes_in_line_ends_the_request_before_it_begins(scheduler: Scheduler) -> None:
    begun: list[str] = []
    with held(scheduler):
        late = scheduler.submit(_noting(begun, "late", denoising(request_of(0))), Order(deadline=time.monotonic()))
    with pytest.raises(TooLate):
        late.result(PATIENCE_S)
    assert begun == []


def test_a_request_whose_client_has_gone_takes_no_further_step(scheduler: Scheduler) -> None:
    gone, steps = threading.Event(), []

    def leaving(denoiser: Denoiser) -> list[DenoiseResult]:
        def on_step(runs: Sequence[CanvasRun]) -> None:
            steps.append(runs[0].steps)
            if runs[0].steps == 3:
                gone.set()

        return denoiser.run([request_of(0)], on_step)

    with pytest.raises(Cancelled):
        scheduler.submit(leaving, Order(stop=gone.is_set)).result(PATIENCE_S)
    assert steps == [1, 2, 3]
    assert all(entry.users == 0 for entry in scheduler.decoder.cache.entries), "its prompt is free again"


def test_what_is_cancelled_in_line_never_begins(scheduler: Scheduler) -> None:
    begun: list[str] = []
    with held(scheduler):
        unwanted = scheduler.submit(_noting(begun, "unwanted", denoising(request_of(0))), Order(stop=lambda: True))
        other = scheduler.submit(_noting(begun, "other", denoising(request_of(1))), Order())
    with pytest.raises(Cancelled):
        unwanted.result(PATIENCE_S)
    assert other.result(PATIENCE_S)[0].steps == 8 and begun == ["other"]


def test_one_request_alone_changes_no_thread_and_others_are_served_from_there(scheduler: Scheduler) -> None:
    threads: dict[str, set[str]] = {"first": set(), "second": set()}
    later = []

    def watched(name: str) -> Body:
        def body(denoiser: Denoiser) -> list[DenoiseResult]:
            threads[name].add(threading.current_thread().name)
            results = denoiser.run([request_of(0)], lambda runs: threads[name].add(threading.current_thread().name))
            if name == "first":
                later.append(scheduler.submit(watched("second"), Order(client="second")))
                results += denoiser.run([request_of(1)])
            threads[name].add(threading.current_thread().name)
            return results

        return body

    scheduler.submit(watched("first"), Order(client="first")).result(PATIENCE_S)
    later[0].result(PATIENCE_S)
    assert threads["first"] == {"engine"}
    assert threads["second"] > {"engine"}, "a thread of its own, but its steps are made by the engine"


def test_a_request_on_the_engines_thread_is_charged_for_all_its_work(model: DiffusionGemma) -> None:
    """But not for what others do in the meantime."""
    now = [0.0]
    scheduler = Scheduler(Denoiser(model), clock=lambda: now[0])
    later = []

    def busy(seconds: float) -> Callable[[Denoiser], None]:
        def body(denoiser: Denoiser) -> None:
            for _ in range(2):
                now[0] += seconds
                denoiser.model.logits(torch.zeros(1, model.config.hidden_size))
            if not later:
                later.append(scheduler.submit(busy(50.0), Order(client="other")))
                for _ in range(4):
                    denoiser.run([request_of(0)])

        return body

    scheduler.submit(busy(1.0), Order(client="first")).result(PATIENCE_S)
    later[0].result(PATIENCE_S)
    scheduler.close()
    assert scheduler._used[Priority.INLINE, "first"] == 2.0
    assert scheduler._used[Priority.INLINE, "other"] >= 100.0


def test_an_error_of_one_request_is_its_own(scheduler: Scheduler) -> None:
    with held(scheduler):
        wrong = scheduler.submit(denoising(DenoiseRequest([], CANVAS)), Order(client="wrong"))
        right = scheduler.submit(denoising(request_of(3)), Order(client="right"))
    with pytest.raises(InputError):
        wrong.result(PATIENCE_S)
    assert right.result(PATIENCE_S)[0].steps == 8


def test_what_is_too_much_together_is_stepped_alone(
    scheduler: Scheduler, model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = [Denoiser(model).run([request_of(n)])[0] for n in range(3)]
    step = scheduler.decoder.step

    def short_of_memory(runs: Sequence[CanvasRun]) -> None:
        if len(runs) > 1:
            raise MemoryError
        step(runs)

    monkeypatch.setattr(scheduler.decoder, "step", short_of_memory)
    with held(scheduler):
        futures = [scheduler.submit(denoising(request_of(n)), Order(client=str(n))) for n in range(3)]
    for one, future in zip(alone, futures, strict=True):
        assert_identical(one, future.result(PATIENCE_S)[0])


def test_where_the_memory_ran_out_batches_are_halved_and_grow_again(
    scheduler: Scheduler, model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.scheduling.scheduler.STEPS_TO_GROW", 6)
    alone = [Denoiser(model).run([request_of(n)])[0] for n in range(8)]
    step, tried = scheduler.decoder.step, list[int]()

    def short_of_memory(runs: Sequence[CanvasRun]) -> None:
        tried.append(len(runs))
        if len(runs) > 3:
            raise torch.OutOfMemoryError
        step(runs)

    monkeypatch.setattr(scheduler.decoder, "step", short_of_memory)
    with held(scheduler):
        futures = [scheduler.submit(denoising(request_of(n)), Order(client=str(n))) for n in range(8)]
    for one, future in zip(alone, futures, strict=True):
        together = future.result(PATIENCE_S)[0]
        assert torch.equal(one.tokens, together.tokens) and one.steps == together.steps
    assert tried[:4] == [8, 4, 2, 2], "halves are tried at once, and nothing is lost"
    refused = [at for at, size in enumerate(tried) if size > 3]
    assert refused[:2] == [0, 1] and len(refused) < len(tried) / 4
    assert all(size <= 2 for size in tried[2:8]) and 4 in tried[8:], "later twice as many are tried again"


def test_a_request_of_many_canvases_is_stepped_in_batches_too(
    scheduler: Scheduler, model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = [Denoiser(model).run([request_of(n, steps=2)])[0] for n in range(20)]
    step, sizes = scheduler.decoder.step, list[int]()

    def noted(runs: Sequence[CanvasRun]) -> None:
        sizes.append(len(runs))
        step(runs)

    monkeypatch.setattr(scheduler.decoder, "step", noted)
    found = scheduler.submit(denoising(*(request_of(n, steps=2) for n in range(20))), Order()).result(PATIENCE_S)
    assert all(torch.equal(one.tokens, other.tokens) for one, other in zip(alone, found, strict=True))
    assert sum(sizes) == 40 and max(sizes) <= scheduler.batch


def test_a_failed_canvas_fails_only_its_own_request(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    step = scheduler.decoder.step

    def broken(runs: Sequence[CanvasRun]) -> None:
        if any(run.request.seed == 2 for run in runs):
            raise ValueError("not a number")
        step(runs)

    monkeypatch.setattr(scheduler.decoder, "step", broken)
    with held(scheduler):
        pair = scheduler.submit(denoising(request_of(1), request_of(2)), Order(client="pair"))
        other = scheduler.submit(denoising(request_of(3)), Order(client="other"))
    with pytest.raises(ValueError, match="not a number"):
        pair.result(PATIENCE_S)
    assert other.result(PATIENCE_S)[0].steps == 8


def test_trees_behind_the_same_prompt_do_not_meet(scheduler: Scheduler, model: DiffusionGemma) -> None:
    """Two requests score and denoise behind one prompt in turns; each gets the result it would get alone."""
    cache = Denoiser(model).cache
    scores = {n: causal_log_probabilities(model, cache, PROMPT, [1], [[n, n + 1, n + 2]])[0] for n in range(2, 8)}
    alone = Denoiser(model).run([request_of(3)])[0]

    def body(n: int) -> Callable[[Denoiser], tuple[torch.Tensor, DenoiseResult]]:
        def score(denoiser: Denoiser) -> tuple[torch.Tensor, DenoiseResult]:
            with denoiser.cache.encoded(PROMPT) as lease, TokenTree(denoiser.model, lease.kv, [1]) as tree:
                for end in (1, 2, 3):
                    tree.read([[n, n + 1, n + 2][:end]])
                between = denoiser.run([request_of(3)])[0]
                return tree.log_probabilities([n, n + 1, n + 2]), between

        return score

    with held(scheduler):
        futures = {n: scheduler.submit(body(n), Order(client=str(n))) for n in scores}
    for n, future in futures.items():
        found, between = future.result(PATIENCE_S)
        torch.testing.assert_close(found, scores[n], atol=1e-4, rtol=1e-4)
        assert torch.equal(between.tokens, alone.tokens)
    assert all(entry.users == 0 and entry.kv.length == len(entry.tokens) for entry in scheduler.decoder.cache.entries)


def test_more_requests_than_may_run_are_all_answered(scheduler: Scheduler) -> None:
    number = 2 * MOST_RUNNING
    with held(scheduler):
        futures = [
            scheduler.submit(denoising(request_of(n, steps=2)), Order(Priority(n % 3), client=str(n % 40)))
            for n in range(number)
        ]
        assert len(scheduler._tasks) == number + 1
    assert all(future.result(PATIENCE_S)[0].steps == 2 for future in futures)


def test_what_is_under_way_ends_when_the_scheduler_is_closed(model: DiffusionGemma) -> None:
    scheduler = Scheduler(Denoiser(model))
    stepping = threading.Event()

    def endless(denoiser: Denoiser) -> None:
        while True:
            denoiser.run([request_of(0)], lambda runs: stepping.set())

    future = scheduler.submit(endless, Order())
    assert stepping.wait(PATIENCE_S)
    scheduler.close()
    with pytest.raises(Closed):
        future.result(PATIENCE_S)
    with pytest.raises(Closed):
        scheduler.submit(endless, Order())


def _noting(order: list[str], name: str, body: Body) -> Body:
    """`body`, whose name is appended to `order` when it is done."""

    def noted(denoiser: Denoiser) -> list[DenoiseResult]:
        result = body(denoiser)
        order.append(name)
        return result

    return noted


class Large:
    """What a request keeps in a local variable."""


def test_what_a_failed_request_kept_is_freed_without_a_garbage_collection(scheduler: Scheduler) -> None:
    freed = list[weakref.ref[Large]]()

    def fails(denoiser: Denoiser) -> None:
        try:
            inner()
        except KeyError as error:
            raise Cancelled from error

    def inner() -> None:
        kept = Large()
        freed.append(weakref.ref(kept))
        raise KeyError

    gc.collect()
    gc.disable()
    try:
        with held(scheduler):
            futures = [scheduler.submit(fails, Order(client=str(index))) for index in range(3)]
        errors = [future.exception(10) for future in futures]
        assert [type(error) for error in errors] == [Cancelled] * 3
        assert [one() for one in freed] == [None] * 3, "although the errors are still referred to"
        names = [frame.name for error in errors for frame in traceback.extract_tb(error.__traceback__)]  # type: ignore
        assert names.count("fails") == 3, "where they were raised is still known"
        tasks = [weakref.ref(future) for future in futures]
        del futures, errors
        end = time.monotonic() + 10
        while any(one() for one in tasks) and time.monotonic() < end:
            time.sleep(0.01)
        assert [one() for one in tasks] == [None] * 3, "the error refers to no frame that refers to it"
    finally:
        gc.enable()
