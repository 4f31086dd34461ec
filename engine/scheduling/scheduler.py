"""Schedules the requests of many clients on one model: unit by unit on one thread, with canvases stepped together.

A request is ordinary code that is given a denoiser. The first one runs on the engine's own thread: while it waits for
its turn, the engine serves others from inside its call, so a single request never waits for another thread to wake up.
Each of the others has a thread, but only one thread runs at a time: it hands the engine thread an operation and waits
for its next turn. So no lock is held, the model is never used twice at once, and Python code never takes the
interpreter from a running pass. Must not know what requests are for, or who sends them.

A request that runs long code of its own, such as a search through a syntax tree, calls `decoder.stop` often: that lets
more urgent requests go first. Requests start only if they can end before their deadlines (`admission.py`).

Within a priority the client that has used the engine least goes first (start-time fair queueing, Goyal et al., SIGCOMM
1996), and of one client's requests the one with the nearest deadline. Canvases join and leave between steps
(iteration-level scheduling, Orca, OSDI 2022).

If memory runs out, unused prompts are dropped first, then batches and passes are halved, then the request waits until
others have ended; requests that wait for memory continue one by one. A request fails if that did not help either.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import count
from typing import Any, TypeVar, cast

import torch

from engine.canvas_loop import CanvasLoop
from engine.canvas_run import CanvasRun
from engine.decoder import Decoder
from engine.errors import Cancelled, GessoError, Stop, drop_locals, is_memory_error
from engine.joined_pass import MOST_ROWS, Pass, run_together
from engine.scheduling.admission import MOST_RUNNING, Admission, Durations
from engine.scheduling.denoiser import Call, CanvasBatch, Operation, Perform, pass_alone, scheduled, with_stop
from engine.scheduling.request import Closed, Load, Order, Priority, Task, TooLate

T = TypeVar("T")
log = logging.getLogger(__name__)
BATCH = 8  # canvases per step
STEPS_TO_GROW = 256  # after memory ran out, until twice as many canvases are stepped together again
URGENT_S = 0.005  # until a request's own code lets a more urgent request go first
SLICE_S = 0.1  # until it lets another one of its priority go first
MEMORY_ATTEMPTS = 3  # beside others, alone, and alone after the others have tried
MOST_CLIENTS = 1024  # whose use of the engine is remembered


class Scheduler:
    """The only user of `denoiser` from now on.

    batch: most canvases of one step. clock: seconds, by which clients are charged and turns end.
    """

    def __init__(self, decoder: Decoder, batch: int = BATCH, clock: Callable[[], float] = time.perf_counter) -> None:
        self.decoder, self.batch, self.clock = decoder, batch, clock
        self.load = Load()
        self._max_rows, self._good_steps = batch, 0  # canvases that fit into a step; steps since that was found
        self._numbers = count()
        self._tasks: list[Task[Any]] = []
        self._engine_task: Task[Any] | None = None  # the request that runs on the engine's own thread
        self._turn_at = 0.0  # when the last unit of work began, by `clock`
        self._durations = Durations()
        self._used: dict[tuple[Priority, str], float] = {}  # by client, in virtual time
        self._virtual_time: dict[Priority, float] = dict.fromkeys(Priority, 0.0)
        self._changed = threading.Condition()
        self._turn_over = threading.Semaphore(0)
        self._closed = False
        self._threads = ThreadPoolExecutor(MOST_RUNNING * len(Priority), "request")
        self._engine = threading.Thread(target=self._serve, name="engine", daemon=True)
        self._engine.start()

    @property
    def _denoiser(self) -> CanvasLoop[Any]:
        """The decoder of requests with canvases."""
        assert isinstance(self.decoder, CanvasLoop)
        return self.decoder

    def submit(self, body: Callable[[Any], T], order: Order) -> Future[T]:
        """Schedules `body`, which is called with a `CanvasDenoiser` on a thread of the scheduler.

        The future fails with what `body` raises, or with Cancelled, TooLate or Closed.
        """
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()  # only `stop` cancels it
        with self._changed:
            if self._closed:
                raise Closed("The engine has been closed; start the service again.")
            self._tasks.append(Task(order, next(self._numbers), body, future))
            self._changed.notify()
        return future

    def until_answer(self, priority: Priority) -> float:
        """Expected seconds until one more request of this priority ends; 0 if it is the only one, or if unknown."""
        return self._durations.until_answer(priority, list(self._tasks))

    def close(self) -> None:
        """Ends all requests with Closed. Returns when the engine thread has ended."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._engine.join()
        self._threads.shutdown()

    @torch.inference_mode()
    def _serve(self) -> None:
        while not self._closed:
            self._serve_once()
        for task in list(self._tasks):
            self._end(task, _closed())

    def _serve_once(self) -> None:
        """One unit of work for the next request; waits until there is one."""
        with self._changed:
            self._changed.wait_for(lambda: self._tasks or self._closed)
            tasks = [task for task in self._tasks if not task.ended]
        admission = Admission(tasks, self._durations, time.monotonic())
        for task in tasks:
            if task.is_cancelled():
                self._end(task, Cancelled())
            elif not task.started and admission.is_hopeless(task):
                self._end(task, TooLate("The engine was too busy to answer before the deadline; allow more time."))
        if ready := [task for task in tasks if not task.ended and self._may_continue(task, tasks, admission)]:
            self._advance(min(ready, key=self._sort_key), ready)
        if any(task.ended for task in tasks):
            self._memory_was_freed()
        with self._changed:
            for task in self._tasks:
                if task.ended:
                    self._durations.learn(task, time.monotonic())
            self._tasks = [task for task in self._tasks if not task.ended]
            self.load.waiting = sum(not task.started for task in self._tasks)
            self.load.running = len(self._tasks) - self.load.waiting

    def _may_continue(self, task: Task[Any], tasks: Sequence[Task[Any]], admission: Admission) -> bool:
        return not self._waits_for_memory(task, tasks) if task.started else admission.may_start(task)

    def _sort_key(self, task: Task[Any]) -> tuple[int, float, float, int]:
        """The least goes first."""
        priority, deadline = task.order.priority, task.order.deadline
        used = max(self._virtual_time[priority], self._used.get((priority, task.order.client), 0.0))
        return priority, used, math.inf if deadline is None else deadline, task.number

    def _advance(self, task: Task[Any], ready: Sequence[Task[Any]]) -> None:
        """One unit of work for `task`; a step also advances other requests of its priority that wait for one."""
        self._virtual_time[task.order.priority] = self._sort_key(task)[1]
        if not task.started and self._engine_task is None:
            self._run_on_engine_thread(task)
            return
        started, together = self.clock(), [task]
        self._turn_at = started
        if isinstance(task.operation, CanvasBatch) and task.operation.started:
            together = self._step_partners(task, ready)
            self._step(together)
        elif isinstance(task.operation, CanvasBatch):
            self._start_next_canvas(task, task.operation)
        elif isinstance(task.operation, Pass):
            together = self._pass_partners(task, ready)
            self._pass(together)
        else:
            self._continue(task)
        spent = (self.clock() - started) / len(together)
        for one in together:
            self._charge(one, spent)

    def _charge(self, task: Task[Any], spent: float) -> None:
        task.used += spent
        priority = task.order.priority
        key, now = (priority, task.order.client), self._virtual_time[priority]
        self._used[key] = max(now, self._used.get(key, 0.0)) + spent
        if len(self._used) > MOST_CLIENTS:  # a client that used less counts from the virtual time in any case
            self._used = {key: used for key, used in self._used.items() if used > self._virtual_time[key[0]]}

    def _step_partners(self, task: Task[Any], ready: Sequence[Task[Any]]) -> list[Task[Any]]:
        """`task`, and others whose canvases fit into the same step."""
        together, rows = [task], len(cast(CanvasBatch, task.operation).active)
        for other in sorted(ready, key=self._sort_key):
            batch = other.operation
            if other is task or other.order.priority is not task.order.priority:
                continue
            if isinstance(batch, CanvasBatch) and batch.started and rows + len(batch.active) <= self._max_rows:
                together.append(other)
                rows += len(batch.active)
        return together

    def _pass_partners(self, task: Task[Any], ready: Sequence[Task[Any]]) -> list[Task[Any]]:
        """`task`, and others of its priority whose pass may be joined to its own."""
        together, rows = [task], cast(Pass, task.operation).rows
        for other in sorted(ready, key=self._sort_key):
            if other is task or other.order.priority is not task.order.priority:
                continue
            if isinstance(other.operation, Pass) and rows + other.operation.rows <= MOST_ROWS:
                together.append(other)
                rows += other.operation.rows
        return together

    def _pass(self, tasks: Sequence[Task[Any]]) -> None:
        """Their passes as one, after which all continue; one by one if that fails."""
        passes = [cast(Pass, task.operation) for task in tasks]
        for task, one in zip(tasks, passes, strict=True):
            task.operation = pass_alone(one, self.decoder.model)
        if len(tasks) > 1:
            try:
                results = run_together(self.decoder.model, passes)
            except Exception as error:
                log.warning("A joined pass failed (%s); its requests continue one by one.", error)
            else:
                for task, result in zip(tasks, results, strict=True):
                    task.operation, task.result = None, result
                    self.load.calls += 1
                    self._continue(task)
                return
        self._continue(tasks[0])

    def _step(self, tasks: Sequence[Task[Any]]) -> None:
        batches = [cast(CanvasBatch, task.operation) for task in tasks]
        started = time.perf_counter()
        errors = self._step_runs([run for batch in batches for run in batch.active])
        spent = 1000 * (time.perf_counter() - started)
        for task, batch in zip(tasks, batches, strict=True):
            error = next((errors[run.row] for run in batch.active if run.row in errors), None)
            if error is not None:
                self._fail_or_wait(task, error)
                continue
            batch.timings.denoise += spent
            self._after_step(task, batch)

    def _step_runs(self, runs: Sequence[CanvasRun]) -> dict[int, Exception]:
        """One step for all; returns by row the error of each run that fails even alone. A step that is too large or
        fails is made in halves; if memory ran out, batches stay smaller for a while."""
        half = len(runs) // 2
        if len(runs) <= max(1, self._max_rows):
            try:
                self._denoiser.step(runs)
                self._count_step(len(runs))
                return {}
            except Exception as error:
                if not half:
                    return {runs[0].row: error}
                if is_memory_error(error):
                    self._max_rows, self._good_steps = min(self._max_rows, half), 0
        return self._step_runs(runs[:half]) | self._step_runs(runs[half:])

    def _count_step(self, rows: int) -> None:
        self.load.steps += 1
        self.load.stepped += rows
        self._good_steps += 1
        if self._good_steps >= STEPS_TO_GROW and self._max_rows < self.batch:
            self._max_rows, self._good_steps = min(self.batch, 2 * self._max_rows), 0

    def _after_step(self, task: Task[Any], batch: CanvasBatch) -> None:
        try:
            if batch.on_step is not None and batch.on_step(batch.runs) is False:
                for run in batch.active:
                    run.finished = "cancelled"
            if not batch.active:
                task.result = [self._denoiser.result(run) for run in batch.runs], batch.timings
                self._close_runs(batch)
                self._memory_was_freed()
                task.operation = None
        except Exception as error:
            self._fail(task, error)

    def _start_next_canvas(self, task: Task[Any], batch: CanvasBatch) -> None:
        """Encodes the prompt of its next canvas; more urgent work may interrupt it, and the next turn resumes it."""
        request = batch.requests[len(batch.runs)]
        started = time.perf_counter()
        try:
            run = self._denoiser.start(with_stop(request, self._interrupt(task)))
        except Cancelled:
            if not task.is_cancelled():
                return
            self._fail(task, Cancelled())
        except Exception as error:
            self._fail_or_wait(task, error)
        else:
            run.request = request
            batch.runs.append(run)
            batch.timings.encode += 1000 * (time.perf_counter() - started)

    def _continue(self, task: Task[Any]) -> None:
        """Makes its pending call, if any, and lets it run until its next operation."""
        if isinstance(task.operation, Call):
            if not self._call(task, task.operation):
                return
        while True:
            self._resume(task)
            call = task.operation
            if not (isinstance(call, Call) and call.at_once and self._call(task, call)):
                return

    def _call(self, task: Task[Any], call: Call) -> bool:
        """Makes the call; False if more urgent work interrupted it, or if it waits for memory."""
        self.load.calls += 1
        try:
            task.result = self.decoder.retry_without_cache(partial(call.work, self._interrupt(task)))
        except Cancelled as error:
            if task.is_cancelled():
                self._fail(task, error)
        except Exception as error:
            self._fail(task, error) if call.divisible else self._fail_or_wait(task, error)
        else:
            task.operation = None
        return task.operation is None

    def _interrupt(self, task: Task[Any]) -> Stop:
        """Whether to interrupt the work for `task`: it is cancelled, or something more urgent is waiting."""

        return lambda: self._is_preceded(task) or task.is_cancelled()

    def _is_preceded(self, task: Task[Any], spent: float = 0.0) -> bool:
        """Whether a more urgent request may continue, or after SLICE_S one of its priority that goes before it.

        spent: seconds of the turn of `task`, which are not charged yet.
        """
        tasks, least = list(self._tasks), task.order.priority - (spent < SLICE_S)
        _, used, *rest = self._sort_key(task)
        mine = task.order.priority, used + spent, *rest
        before = [one for one in tasks if one.order.priority <= least and not one.ended and self._sort_key(one) < mine]
        if not before:
            return False
        admission = Admission(tasks, self._durations, time.monotonic())
        return any(self._may_continue(one, tasks, admission) for one in before)

    def _stop(self, task: Task[Any], perform: Perform) -> bool:
        """`ScheduledDecoder.stop` of `task`. While an operation of the task runs, it only says whether it is cancelled.

        Never raises: it may be called from within a parser.
        """
        if task.operation is None:
            spent = self.clock() - task.resumed_at
            if spent >= URGENT_S and self._is_preceded(task, spent):
                try:
                    perform(None)
                except GessoError:
                    return True
        return task.is_cancelled()

    def _resume(self, task: Task[Any]) -> None:
        """Its thread runs and this one waits; a request on this thread continues when `_perform_here` returns."""
        if task is self._engine_task:
            task.has_turn = True
            return
        task.resumed_at = self._turn_at
        if task.started:
            task.resume.release()
        else:
            task.start(time.monotonic())
            self._threads.submit(self._run_body, task, partial(self._perform, task), self._turn_over.release)
        self._turn_over.acquire()

    def _run_body(self, task: Task[Any], perform: Perform, end_turn: Callable[[], object]) -> None:
        """A request from its start to its end."""
        try:
            result = task.body(scheduled(self.decoder, perform, lambda: self._stop(task, perform)))
        except BaseException as error:
            task.ended = task.failed = True
            drop_locals(error)
            end_turn()
            task.take_future().set_exception(error)
        else:
            task.ended = True
            end_turn()
            task.future.set_result(result)

    def _run_on_engine_thread(self, task: Task[Any]) -> None:
        """The same on this thread, which serves other requests while this one waits."""
        task.start(time.monotonic())
        self._engine_task, task.resumed_at = task, self.clock()
        with torch.inference_mode(False):
            self._run_body(task, partial(self._perform_here, task), self._leave_engine_thread)

    def _leave_engine_thread(self) -> None:
        assert (task := self._engine_task) is not None
        self._charge(task, self.clock() - task.resumed_at)
        self._engine_task = None

    def _perform(self, task: Task[Any], operation: Operation | None) -> Any:
        """On the thread of `task`, which has its turn: ends the turn, and returns once the operation is done."""
        task.operation = operation
        self._turn_over.release()
        task.resume.acquire()
        return task.take_result()

    @torch.inference_mode()
    def _perform_here(self, task: Task[Any], operation: Operation | None) -> Any:
        """The same on the engine's thread: serves the next requests until the operation of `task` is done."""
        now = self.clock()
        self._charge(task, now - task.resumed_at)
        task.operation, task.has_turn, task.resumed_at = operation, False, now
        if isinstance(operation, Call) and operation.at_once and self._call(task, operation):
            return task.take_result()
        while not task.has_turn:
            if self._closed:
                self._end(task, _closed())
            else:
                self._serve_once()
        task.resumed_at = self.clock()
        return task.take_result()

    def _fail_or_wait(self, task: Task[Any], error: Exception) -> None:
        """If memory did not suffice beside other requests, its operation is retried from its beginning later, and
        nothing is held for it until then; otherwise it fails."""
        others = any(other.started and not other.ended and other is not task for other in self._tasks)
        if not is_memory_error(error) or not others or task.memory_failures + 1 == MEMORY_ATTEMPTS:
            self._fail(task, error)
            return
        task.memory_failures += 1
        if isinstance(task.operation, CanvasBatch):
            self._close_runs(task.operation)

    def _waits_for_memory(self, task: Task[Any], tasks: Sequence[Task[Any]]) -> bool:
        """Whether another request goes before it: first those with enough memory, then the others one by one."""
        if not task.memory_failures or task.is_late():
            return False
        mine = task.memory_failures, task.number
        return any((other.memory_failures, other.number) < mine for other in tasks if other.started and not other.ended)

    def _memory_was_freed(self) -> None:
        """One request that waits for memory may continue; if all did at once, memory would run out again."""
        if waiting := [task for task in self._tasks if task.memory_failures and not task.ended]:
            min(waiting, key=self._sort_key).memory_failures = 0

    def _fail(self, task: Task[Any], error: BaseException) -> None:
        """Its operation raises `error` at its next turn."""
        if isinstance(task.operation, CanvasBatch):
            self._close_runs(task.operation)
        task.operation, task.error = None, error

    def _end(self, task: Task[Any], error: GessoError) -> None:
        if not task.started:
            task.ended = task.failed = True
            task.future.set_exception(error)
            return
        while not task.ended:
            self._fail(task, error)
            self._resume(task)
            if task is self._engine_task:
                return

    def _close_runs(self, batch: CanvasBatch) -> None:
        for run in batch.runs:
            self._denoiser.close(run)
        batch.runs = []


def _closed() -> Closed:
    return Closed("The engine was closed before it answered; start the service again.")
