"""Requests start only if they can end before their deadlines, and long code of one request lets others go first."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from engine.denoiser import Denoiser
from engine.errors import Cancelled
from engine.scheduling.admission import RUNNING, Admission, Durations
from engine.scheduling.request import Order, Priority, Task, TooLate
from engine.scheduling.scheduler import SLICE_S, Scheduler
from tests.engine.scheduling.test_scheduler import request_of
from tests.engine.tiny import ours, reference
from tests.waiting import PATIENCE_S

NOW = 1_000.0


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    scheduler = Scheduler(Denoiser(ours(reference())))
    yield scheduler
    scheduler.close()


def task(deadline: float | None = None, client: str = "", priority: Priority = Priority.INLINE) -> Task[Any]:
    return Task(Order(priority, client, deadline), 0, lambda _: None, Future())


def started(used: float = 0.0, **order: Any) -> Task[Any]:
    found = task(**order)
    found.start(NOW)
    found.used = used
    return found


def durations(seconds: float, priority: Priority = Priority.INLINE) -> Durations:
    found = Durations()
    found.learn(started(seconds, priority=priority), NOW)
    return found


def test_the_average_follows_the_newest_requests() -> None:
    found = durations(1.0)
    for _ in range(30):
        found.learn(started(3.0), NOW)
    assert found.of(Priority.INLINE) == pytest.approx(3.0, abs=0.1) and found.of(Priority.LINT) is None


def test_a_request_that_ends_late_counts_with_all_its_time_and_a_cancelled_one_not_at_all() -> None:
    found, now = Durations(), time.monotonic()
    cancelled = task()
    cancelled.start(now)
    cancelled.failed = True
    found.learn(cancelled, now + 9.0)
    found.learn(task(), now)  # never started
    assert found.of(Priority.INLINE) is None
    late = task(deadline=now)
    late.start(now - 5.0)
    late.used = 0.1
    found.learn(late, now)
    assert found.of(Priority.INLINE) == pytest.approx(5.0)


def test_as_many_start_as_can_end_before_their_deadlines() -> None:
    known, running = durations(0.5), list[Task[Any]]()
    while Admission(running, known, NOW).may_start(task(deadline=NOW + 2.5, client=str(len(running)))):
        running.append(started(client=str(len(running))))
    assert len(running) == 4, "of 0.5 s each, in the usable 2 s"
    assert Admission(running, known, NOW).may_start(task(client="without a deadline"))


def test_the_first_request_of_a_priority_shows_how_long_they_take() -> None:
    unknown, first = Durations(), started(client="a")
    assert not Admission([first], unknown, NOW).may_start(task(deadline=NOW + 100, client="b"))
    assert Admission([first], unknown, NOW).may_start(task(deadline=NOW + 1, priority=Priority.LINT))
    assert Admission([], durations(9.0), NOW).may_start(task(deadline=NOW + 1)), "nothing else runs"


def test_less_urgent_requests_keep_no_one_from_starting() -> None:
    known = durations(0.5)
    lints = [started(priority=Priority.LINT, client=str(n)) for n in range(RUNNING)]
    assert Admission(lints, known, NOW).may_start(task(deadline=NOW + 0.6))
    assert not Admission(lints, known, NOW).may_start(task(priority=Priority.LINT, client="0"))


def test_a_cancelled_request_keeps_no_one_from_starting() -> None:
    """While a user types, each request cancels the one before it."""
    stopped = Task(Order(Priority.INLINE, "a", None, stop=lambda: True), 0, lambda _: None, Future())
    now = time.monotonic()
    stopped.start(now)
    newest = task(deadline=now + 30.0, client="a")
    after_stopped = Admission([stopped, newest], durations(60.0), now)
    assert after_stopped.may_start(newest) and not after_stopped.is_hopeless(newest)
    after_running = Admission([started(client="a"), newest], durations(60.0), now)
    assert not after_running.may_start(newest) and after_running.is_hopeless(newest)


def test_the_expected_answer_counts_what_goes_before_and_not_what_was_cancelled() -> None:
    known = durations(0.5)
    waiting, half, gone = task(), started(0.25), Task(Order(stop=lambda: True), 0, lambda _: None, Future[None]())
    assert known.until_answer(Priority.INLINE, []) == 0.0
    assert known.until_answer(Priority.INLINE, [gone]) == 0.0
    assert known.until_answer(Priority.INLINE, [waiting, half, gone]) == pytest.approx(0.5 + 0.25 + 0.5)
    assert known.until_answer(Priority.INLINE, [task(priority=Priority.BATCH)]) == 0.0


def test_a_waiting_request_that_cannot_end_in_time_is_refused_before_its_deadline(scheduler: Scheduler) -> None:
    scheduler.submit(lambda _: time.sleep(0.3), Order(deadline=time.monotonic() + 10)).result(PATIENCE_S)
    begun, release = threading.Event(), threading.Event()

    def run(denoiser: Denoiser) -> None:
        begun.set()
        while not release.is_set():
            denoiser.run([request_of(0)])

    running = scheduler.submit(run, Order(client="a"))
    try:
        assert begun.wait(PATIENCE_S)
        refused = scheduler.submit(lambda _: None, Order(client="b", deadline=time.monotonic() + 0.2))
        with pytest.raises(TooLate):
            refused.result(PATIENCE_S)
        assert not running.done()
    finally:
        release.set()
    running.result(PATIENCE_S)


def wait_for(event: threading.Event, decoder: Any) -> None:
    """Long code of a request's own, which never uses the model."""
    while not event.wait(0.001):
        if decoder.stop():
            raise Cancelled


@pytest.mark.parametrize("is_first", [True, False])
def test_long_code_lets_a_more_urgent_request_go_first(scheduler: Scheduler, is_first: bool) -> None:
    """Both on the engine's thread and on a thread of its own."""
    ended, begun = threading.Event(), threading.Event()

    def long(decoder: Any) -> str:
        begun.set()
        wait_for(ended, decoder)
        return "long"

    other = None if is_first else scheduler.submit(lambda decoder: wait_for(ended, decoder), Order(Priority.BATCH))
    slow = scheduler.submit(long, Order(Priority.LINT))
    assert begun.wait(PATIENCE_S)
    assert scheduler.submit(lambda _: "urgent", Order(Priority.INLINE)).result(PATIENCE_S) == "urgent"
    assert not slow.done()
    ended.set()
    assert slow.result(PATIENCE_S) == "long" and (other is None or other.result(PATIENCE_S) is None)


def test_after_a_while_it_lets_an_equal_request_go_first_and_never_a_less_urgent_one() -> None:
    now, order, others = [0.0], list[str](), list[Future[None]]()
    scheduler = Scheduler(Denoiser(ours(reference())), clock=lambda: now[0])

    def long(decoder: Any) -> None:
        for name, priority in (("batch", Priority.BATCH), ("equal", Priority.LINT)):
            others.append(scheduler.submit(lambda _, name=name: order.append(name), Order(priority, name)))  # type: ignore[misc]
        for spent in (SLICE_S / 2, SLICE_S, 3 * SLICE_S):
            now[0] = spent
            assert not decoder.stop()
            order.append(f"{spent / SLICE_S:g}")

    scheduler.submit(long, Order(Priority.LINT, "long")).result(PATIENCE_S)
    for other in others:
        other.result(PATIENCE_S)
    scheduler.close()
    assert order == ["0.5", "equal", "1", "3", "batch"]


def test_long_code_is_cancelled_while_it_waits_for_its_turn(scheduler: Scheduler) -> None:
    gone, held, begun = threading.Event(), threading.Event(), threading.Event()

    def long(decoder: Any) -> None:
        begun.set()
        wait_for(threading.Event(), decoder)

    slow = scheduler.submit(long, Order(Priority.LINT, stop=gone.is_set))
    assert begun.wait(PATIENCE_S)
    urgent = scheduler.submit(lambda decoder: wait_for(held, decoder), Order())
    gone.set()
    held.set()
    with pytest.raises(Cancelled):
        slow.result(PATIENCE_S)
    urgent.result(PATIENCE_S)
