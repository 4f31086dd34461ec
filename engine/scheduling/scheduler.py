"""Who has the engine next: requests of many clients, unit by unit on one thread, their canvases stepped together.

A request is ordinary code that is handed a `Denoiser`. The first one stands on the engine's own thread: while it waits
for its turn, the engine serves others from there. So one request alone never waits for another thread to wake up. Each
of the others has a thread to stand on, but only one runs at a time: it asks the engine thread for what it wants of the
model, and waits for its next turn. No lock is held, nothing of the model is ever touched twice at once, and Python code
never takes the interpreter from a running pass. Must not know what requests are for, nor who sends them.

Within a priority the client goes first that had least of the engine so far (start-time fair queueing, Goyal et al.,
SIGCOMM 1996), of one client's requests the one with the nearest deadline. Canvases join and leave between steps
(iteration-level scheduling, Orca, OSDI 2022).

Where the memory runs out, prompts that nobody uses are given up first, then batches and passes are halved, then the
request waits until others have ended, and those that wait go one by one. It fails when that was of no use either.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import count
from typing import Any, TypeVar, cast

import torch

from engine.canvas_run import CanvasRun
from engine.denoiser import Denoiser
from engine.errors import Cancelled, GessoError, Stop, is_memory_error
from engine.scheduling.denoiser import Call, Canvases, ScheduledDenoiser, SharedPrompts, with_stop
from engine.scheduling.request import Closed, Load, Order, Priority, Task, TooLate

Answer = TypeVar("Answer")
BATCH = 8  # canvases of a step
RUNNING = 16  # requests of a priority that are at work, each with a thread and its share of the prompts
STEPS_TO_GROW = 256  # after the memory ran out, until twice as many canvases are tried again
MOST_RUNNING = 32  # the same with those whose client would have none at work otherwise
TRIES = 3  # of what the memory does not suffice for: beside others, alone, and alone once the others have tried


class Scheduler:
    """The only user of `denoiser` from now on, whose cache is replaced by one that keeps requests apart.

    batch: most canvases of one step. clock: seconds, by which clients are charged.
    """

    def __init__(self, denoiser: Denoiser, batch: int = BATCH, clock: Callable[[], float] = time.perf_counter) -> None:
        self.denoiser, self.batch, self.clock = denoiser, batch, clock
        denoiser.cache = SharedPrompts(denoiser.model, denoiser.cache.limit_bytes)
        self.load = Load()
        self._room, self._good_steps = batch, 0  # canvases that fit into a step now; steps since that was found
        self._numbers = count()
        self._tasks: list[Task[Any]] = []
        self._here: Task[Any] | None = None  # the request on the engine's own thread
        self._resumed_at = 0.0  # when it was
        self._had: dict[tuple[Priority, str], float] = {}
        self._now: dict[Priority, float] = dict.fromkeys(Priority, 0.0)
        self._news = threading.Condition()
        self._handed_back = threading.Semaphore(0)
        self._closed = False
        self._threads = ThreadPoolExecutor(MOST_RUNNING * len(Priority), "request")
        self._engine = threading.Thread(target=self._serve, name="engine", daemon=True)
        self._engine.start()

    def submit(self, body: Callable[[Denoiser], Answer], order: Order) -> Future[Answer]:
        """What `body` returns, which is called with a denoiser of its own on a thread of the scheduler.

        The future fails with what `body` raises, or with Cancelled, TooLate or Closed.
        """
        future: Future[Answer] = Future()
        future.set_running_or_notify_cancel()  # it is ended by `stop` alone
        with self._news:
            if self._closed:
                raise Closed("The engine has been closed; start the service again.")
            self._tasks.append(Task(order, next(self._numbers), body, future))
            self._news.notify()
        return future

    def close(self) -> None:
        """What is under way ends with Closed. Returns when the engine thread has ended."""
        with self._news:
            self._closed = True
            self._news.notify()
        self._engine.join()
        self._threads.shutdown()

    @torch.inference_mode()
    def _serve(self) -> None:
        while not self._closed:
            self._serve_once()
        for task in list(self._tasks):
            self._end(task, _closed())

    def _serve_once(self) -> None:
        """One unit of work, for whoever is next; waits until there is one."""
        with self._news:
            self._news.wait_for(lambda: self._tasks or self._closed)
            tasks = [task for task in self._tasks if not task.ended]
        for task in tasks:
            if task.is_unwanted():
                self._end(task, Cancelled("The request was cancelled; ask again if it is still wanted."))
            elif not task.begun and task.is_late():
                self._end(task, TooLate("The engine was busy until the deadline; allow more time."))
        if ready := [task for task in tasks if not task.ended and self._may_go(task, tasks)]:
            self._advance(min(ready, key=self._place), ready)
        if any(task.ended for task in tasks):
            self._memory_is_back()
        with self._news:
            self._tasks = [task for task in self._tasks if not task.ended]
            self.load.waiting = sum(not task.begun for task in self._tasks)
            self.load.running = len(self._tasks) - self.load.waiting

    def _may_go(self, task: Task[Any], tasks: Sequence[Task[Any]]) -> bool:
        """Whether it is under way or there is room for one more, or its client has none under way."""
        if task.begun:
            return not self._waits_for_memory(task, tasks)
        if any(one.short and one.order.priority <= task.order.priority for one in tasks):
            return False
        running = [one for one in tasks if one.begun and not one.ended and one.order.priority is task.order.priority]
        its_first = all(one.order.client != task.order.client for one in running)
        return len(running) < (MOST_RUNNING if its_first else RUNNING)

    def _place(self, task: Task[Any]) -> tuple[int, float, float, int]:
        """In line; the least goes first."""
        priority, deadline = task.order.priority, task.order.deadline
        had = max(self._now[priority], self._had.get((priority, task.order.client), 0.0))
        return priority, had, math.inf if deadline is None else deadline, task.number

    def _advance(self, task: Task[Any], ready: Sequence[Task[Any]]) -> None:
        """One unit of work for `task`, and the same step for others of its priority that have come as far."""
        self._now[task.order.priority] = self._place(task)[1]
        if not task.begun and self._here is None:
            self._live_here(task)
            return
        started, together = self.clock(), [task]
        if isinstance(task.wish, Canvases) and task.wish.begun:
            together = self._stepped_with(task, ready)
            self._step(together)
        elif isinstance(task.wish, Canvases):
            self._start_next(task, task.wish)
        else:
            self._go_on(task)
        spent = (self.clock() - started) / len(together)
        for one in together:
            self._charge(one, spent)

    def _charge(self, task: Task[Any], spent: float) -> None:
        priority = task.order.priority
        key, now = (priority, task.order.client), self._now[priority]
        self._had[key] = max(now, self._had.get(key, 0.0)) + spent
        if len(self._had) > 1024:  # clients that are behind stand at `now` anyway
            self._had = {key: had for key, had in self._had.items() if had > self._now[key[0]]}

    def _stepped_with(self, task: Task[Any], ready: Sequence[Task[Any]]) -> list[Task[Any]]:
        together, rows = [task], len(cast(Canvases, task.wish).active)
        for other in sorted(ready, key=self._place):
            wish = other.wish
            if other is task or other.order.priority is not task.order.priority:
                continue
            if isinstance(wish, Canvases) and wish.begun and rows + len(wish.active) <= self._room:
                together.append(other)
                rows += len(wish.active)
        return together

    def _step(self, tasks: Sequence[Task[Any]]) -> None:
        wishes = [cast(Canvases, task.wish) for task in tasks]
        started = time.perf_counter()
        trouble = self._stepped([run for wish in wishes for run in wish.active])
        spent = 1000 * (time.perf_counter() - started)
        for task, wish in zip(tasks, wishes, strict=True):
            error = next((trouble[run.row] for run in wish.active if run.row in trouble), None)
            if error is not None:
                self._fail_or_wait(task, error)
                continue
            wish.timings.denoise += spent
            self._after_step(task, wish)

    def _stepped(self, runs: Sequence[CanvasRun]) -> dict[int, Exception]:
        """One step for all; the error of each (by its row) that fails alone. What is too many or too much together is
        done in halves, and where it was the memory, batches stay smaller for a while."""
        half = len(runs) // 2
        if len(runs) <= max(1, self._room):
            try:
                self.denoiser.step(runs)
                self._count_step(len(runs))
                return {}
            except Exception as error:
                if not half:
                    return {runs[0].row: error}
                if is_memory_error(error):
                    self._room, self._good_steps = min(self._room, half), 0
        return self._stepped(runs[:half]) | self._stepped(runs[half:])

    def _count_step(self, rows: int) -> None:
        self.load.steps += 1
        self.load.stepped += rows
        self._good_steps += 1
        if self._good_steps >= STEPS_TO_GROW and self._room < self.batch:
            self._room, self._good_steps = min(self.batch, 2 * self._room), 0

    def _after_step(self, task: Task[Any], wish: Canvases) -> None:
        try:
            if wish.on_step is not None and wish.on_step(wish.runs) is False:
                for run in wish.active:
                    run.finished = "cancelled"
            if not wish.active:
                task.answer = [self.denoiser.result(run) for run in wish.runs], wish.timings
                self._close_runs(wish)
                self._memory_is_back()
                task.wish = None
        except Exception as error:
            self._fail(task, error)

    def _start_next(self, task: Task[Any], wish: Canvases) -> None:
        """Reads the prompt of its next canvas; may be left for what is more urgent, and goes on from there."""
        request = wish.requests[len(wish.runs)]
        started = time.perf_counter()
        try:
            watched = with_stop(request, self._watch(task))
            run = self.denoiser.start(watched)
        except Cancelled:
            if not task.is_unwanted():
                return
            self._fail(task, Cancelled("The request was cancelled; ask again if it is still wanted."))
        except Exception as error:
            self._fail_or_wait(task, error)
        else:
            run.request = request
            wish.runs.append(run)
            wish.timings.encode += 1000 * (time.perf_counter() - started)

    def _go_on(self, task: Task[Any]) -> None:
        """Does what it wishes, if anything, and lets it run until its next wish."""
        if isinstance(task.wish, Call):
            if not self._answered(task, task.wish):
                return
        while True:
            self._resume(task)
            if not (isinstance(task.wish, Call) and task.wish.at_once and self._answered(task, task.wish)):
                return

    def _answered(self, task: Task[Any], call: Call) -> bool:
        """False where it made way for what is more urgent, or waits for memory."""
        self.load.calls += 1
        try:
            task.answer = self.denoiser.with_room(partial(call.work, self._watch(task)))
        except Cancelled as error:
            if task.is_unwanted():
                self._fail(task, error)
        except Exception as error:
            self._fail(task, error) if call.divisible else self._fail_or_wait(task, error)
        else:
            task.wish = None
        return task.wish is None

    def _watch(self, task: Task[Any]) -> Stop:
        """Whether to leave what is done for `task`: it is unwanted, or something more urgent has come."""

        def stop() -> bool:
            tasks, mine = list(self._tasks), task.order.priority
            return any(one.order.priority < mine and self._may_go(one, tasks) for one in tasks) or task.is_unwanted()

        return stop

    def _resume(self, task: Task[Any]) -> None:
        """Its thread runs, this one waits; one that stands on this thread goes on when `_ask` returns."""
        if task is self._here:
            task.has_turn = True
            return
        if task.begun:
            task.go.release()
        else:
            task.begun = True
            self._threads.submit(self._live, task, partial(self._ask, task), self._handed_back.release)
        self._handed_back.acquire()

    def _live(self, task: Task[Any], ask: Callable[[Call | Canvases], Any], give_back: Callable[[], object]) -> None:
        """A request from its beginning to its end."""
        try:
            answer = task.body(ScheduledDenoiser(self.denoiser, ask))
        except BaseException as error:
            task.ended = True
            give_back()
            task.future.set_exception(error)
        else:
            task.ended = True
            give_back()
            task.future.set_result(answer)

    def _live_here(self, task: Task[Any]) -> None:
        """The same on this thread, from where others are served meanwhile."""
        task.begun, self._here, self._resumed_at = True, task, self.clock()
        with torch.inference_mode(False):
            self._live(task, partial(self._ask_here, task), self._leave_here)

    def _leave_here(self) -> None:
        assert self._here is not None
        self._charge(self._here, self.clock() - self._resumed_at)
        self._here = None

    def _ask(self, task: Task[Any], wish: Call | Canvases) -> Any:
        """On the thread of `task`, which has its turn: gives it back until the wish is fulfilled."""
        task.wish = wish
        self._handed_back.release()
        task.go.acquire()
        return task.take()

    @torch.inference_mode()
    def _ask_here(self, task: Task[Any], wish: Call | Canvases) -> Any:
        """The same on the engine's thread: serves whoever is next until the wish of `task` is fulfilled."""
        now = self.clock()
        self._charge(task, now - self._resumed_at)
        task.wish, task.has_turn, self._resumed_at = wish, False, now
        if isinstance(wish, Call) and wish.at_once and self._answered(task, wish):
            return task.take()
        while not task.has_turn:
            if self._closed:
                self._end(task, _closed())
            else:
                self._serve_once()
        self._resumed_at = self.clock()
        return task.take()

    def _fail_or_wait(self, task: Task[Any], error: Exception) -> None:
        """Where its wish was too much for the memory that others have left, it will be tried again from its beginning,
        and nothing is held for it until then."""
        others = any(one.begun and not one.ended and one is not task for one in self._tasks)
        if not is_memory_error(error) or not others or task.short + 1 == TRIES:
            self._fail(task, error)
            return
        task.short += 1
        if isinstance(task.wish, Canvases):
            self._close_runs(task.wish)

    def _waits_for_memory(self, task: Task[Any], tasks: Sequence[Task[Any]]) -> bool:
        """Whether there is one that goes before it: first those that lack none, then one by one."""
        if not task.short or task.is_late():
            return False
        mine = task.short, task.number
        return any((one.short, one.number) < mine for one in tasks if one.begun and not one.ended)

    def _memory_is_back(self) -> None:
        """One of those that lacked it may go on; if all did at once, they would lack it again."""
        if waiting := [task for task in self._tasks if task.short and not task.ended]:
            min(waiting, key=self._place).short = 0

    def _fail(self, task: Task[Any], error: BaseException) -> None:
        """It will be told at its next turn."""
        if isinstance(task.wish, Canvases):
            self._close_runs(task.wish)
        task.wish, task.error = None, error

    def _end(self, task: Task[Any], error: GessoError) -> None:
        if not task.begun:
            task.ended = True
            task.future.set_exception(error)
            return
        while not task.ended:
            self._fail(task, error)
            self._resume(task)
            if task is self._here:
                return

    def _close_runs(self, wish: Canvases) -> None:
        for run in wish.runs:
            self.denoiser.close(run)
        wish.runs = []


def _closed() -> Closed:
    return Closed("The engine was closed before it answered; start the service again.")
