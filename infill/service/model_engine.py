"""One model in memory: loaded with progress, its requests scheduled and counted.

Must not know HTTP, sockets or the JSON of requests.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from engine.errors import Cancelled, GessoError, Stop, is_memory_error, leave_if
from infill.edit_request import EditRequest, EditResult
from infill.engine_protocol import (
    BUCKETS_S,
    INFILL_LIMIT_S,
    LATE_S,
    READ_AHEAD_LIMIT_S,
    Busy,
    EngineRequest,
    EngineState,
    NotReady,
    RequestCounts,
    Usage,
    infill_limit_s,
    is_shown,
    lint_limit_s,
)
from infill.findings import Finding, LintRequest
from infill.request import InfillRequest, InfillResult, OnStep
from infill.service.memory import Housekeeping
from infill.settings import Settings

if TYPE_CHECKING:
    from engine.scheduling.scheduler import Scheduler
    from infill.complete.last_draft import LastDraft
    from infill.complete.pipeline import AnyCompleter, AnyModel
    from infill.lint.thresholds import Thresholds

logger = logging.getLogger(__name__)
Result = TypeVar("Result")
Work = Callable[["AnyCompleter", Stop], Result]
MAX_PENDING = 512  # requests of all clients
POLL_S = 0.02
SETTLE_S = 0.1  # before a request is refused, since its client may just have cancelled an earlier one
STALL_S = 600.0  # without progress, after which loading counts as failed; compiling kernels takes a few minutes
MAX_CLIENTS = 64  # whose last draft is remembered


class ModelEngine:
    """The `Engine` of one loaded model behind a scheduler.

    batch: most canvases in one step; None leaves it to the scheduler. counts: shared by the engines of a service.
    """

    def __init__(self, settings: Settings, batch: int | None = None, counts: RequestCounts | None = None) -> None:
        self.settings, self.batch = settings, batch
        self.state = EngineState("loading", settings.model)
        self.counts = counts if counts is not None else RequestCounts()
        self.pending = 0
        self.weight_bytes = 0
        self._progressed = 0.0  # when loading last made progress, time.monotonic()
        self.scheduler: Scheduler | None = None
        self._model: AnyModel | None = None
        self._thresholds: Thresholds | None = None
        self._gpu: int | None = None
        self._housekeeping = Housekeeping(self.forget)
        self._drafts: dict[str, LastDraft] = {}  # of each client; typing along it requests the rest
        self._reading: dict[str, threading.Event] = {}  # by client, what cancels its reading ahead

    def load(self) -> None:
        """Returns once the model is loaded, or the state is `failed`: also if loading crashes, or makes no progress."""
        self._progressed = time.monotonic()
        thread = threading.Thread(target=self._load, name="load model", daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(max(POLL_S, self._progressed + STALL_S - time.monotonic()))
            if thread.is_alive() and time.monotonic() >= self._progressed + STALL_S:
                message = (
                    f"Loading the model {self.settings.model} made no progress for {STALL_S:g} s; check it with "
                    "`gesso model verify`, or choose another model."
                )
                self.state = EngineState("failed", self.settings.model, message=message)
                return

    def _load(self) -> None:
        try:
            from engine.scheduling.scheduler import BATCH, Scheduler
            from infill.complete.pipeline import load_model, make_completer

            model = load_model(self.settings, self._report_progress)
            thresholds = self._thresholds = _read_thresholds(make_completer(model, self.settings))
            decoder = model.decoder
            self.scheduler = Scheduler(decoder, self.batch or BATCH)
        except BaseException as error:  # a panic of a library in Rust is not an Exception
            message = _sentence(error, "The model could not be loaded")
            self.state = EngineState("failed", self.settings.model, message=message)
            return
        self._model = model
        if decoder.device.type == "cuda":
            self._gpu = decoder.device.index or 0
            self.weight_bytes = decoder.model.weight_bytes
        lints = thresholds is not None and thresholds.on_by_default
        self.state = EngineState("ready", self.settings.model, can_lint=thresholds is not None, lints=lints)

    def unload(self) -> None:
        """Frees the model's memory once pending requests are answered. Blocks until then."""
        self.state = EngineState("loading", self.settings.model)
        end = time.monotonic() + INFILL_LIMIT_S
        while self.pending and time.monotonic() < end:
            time.sleep(POLL_S)
        scheduler, self.scheduler, self._model = self.scheduler, None, None
        if scheduler is not None:
            scheduler.close()

    def close(self) -> None:
        if self.scheduler is not None:
            self.scheduler.close()

    def forget(self) -> None:
        """Drops cached prompts, as a task of the scheduler, so that no request uses the model at the same time."""
        from engine.scheduling.request import Order

        scheduler = self.scheduler
        if scheduler is not None:
            scheduler.submit(lambda _: scheduler.decoder.forget(), Order())

    async def maintain(self) -> None:
        return

    def free_memory(self) -> int | None:
        """Free bytes of the model's GPU; None on a CPU, or before the model was loaded."""
        if self._gpu is None:
            return None
        import torch

        return int(torch.cuda.mem_get_info(self._gpu)[0])

    @property
    def usage(self) -> Usage | None:
        if self.scheduler is None:
            return None
        load, cache = self.scheduler.load, self.scheduler.decoder.cache
        return Usage(load.steps, load.stepped, sum(entry.kv.bytes for entry in list(cache.entries)))

    async def complete(self, request: EngineRequest[InfillRequest], on_step: OnStep | None = None) -> InfillResult:
        started = time.monotonic()
        infill_request = request.request
        deadline = started + infill_limit_s(infill_request)

        def work(completer: AnyCompleter, stop: Stop) -> InfillResult:
            left_ms = max(1.0, 1000 * (deadline - time.monotonic()))
            completer.last_draft = self._drafts.get(request.client, completer.last_draft)
            result = completer.complete(replace(infill_request, deadline_ms=left_ms), on_step, stop)
            self._remember_draft(request.client, completer.last_draft)
            return result

        result = await self._run(request, work, deadline, is_shown)
        self._count(result, time.monotonic() - started)
        return result

    async def edit(self, request: EngineRequest[EditRequest], on_step: OnStep | None = None) -> EditResult:
        edit_request = request.request
        deadline = time.monotonic() + infill_limit_s(edit_request)

        def work(completer: AnyCompleter, stop: Stop) -> EditResult:
            from infill.edit.rewriter import Rewriter

            left_ms = max(1.0, 1000 * (deadline - time.monotonic()))
            rewriter = Rewriter(completer.model)
            return rewriter.rewrite(replace(edit_request, deadline_ms=left_ms), on_step, stop)

        return await self._run(request, work, deadline, lambda result: result.shown)

    async def lint(self, request: EngineRequest[LintRequest]) -> tuple[Finding, ...]:
        deadline = time.monotonic() + lint_limit_s(request.request)

        def work(completer: AnyCompleter, stop: Stop) -> tuple[Finding, ...]:
            from infill.lint.linter import Linter

            try:
                return tuple(Linter(completer, self._thresholds).lint(request.request, _or_late(stop, deadline)))
            except Cancelled:
                leave_if(request.cancelled.is_set)
                raise Busy("The lint request took too long; lint fewer lines at a time.") from None

        return await self._run(request, work, deadline, bool)

    async def read_ahead(self, request: EngineRequest[InfillRequest]) -> int:
        deadline = time.monotonic() + READ_AHEAD_LIMIT_S
        if (earlier := self._reading.get(request.client)) is not None:
            earlier.set()
        self._reading[request.client] = request.cancelled

        def work(completer: AnyCompleter, stop: Stop) -> int:
            return completer.read_ahead(request.request, _or_late(stop, deadline))

        try:
            read = await self._run(request, work, deadline, lambda _: False)
        except Cancelled:  # by a newer call or the deadline; what was encoded is cached
            return 0
        finally:
            if self._reading.get(request.client) is request.cancelled:
                del self._reading[request.client]
        self.counts.encoded_tokens += read
        return read

    def tokens(self, text: str) -> list[int]:
        return self._loaded().family.tokens.encode(text)

    def text(self, tokens: list[int]) -> str:
        return self._loaded().family.tokens.decode(tokens)

    def check(self, request: EngineRequest[Any]) -> None:
        if self.state.kind == "loading":
            raise NotReady(f"The model {self.state.model} is still loading; try again in a moment.")
        if self.state.kind == "failed":
            raise NotReady(self.state.message or "The model could not be loaded.")
        if self.pending >= MAX_PENDING:
            raise Busy("Too many requests are waiting; try again in a moment.")

    async def _run(
        self, request: EngineRequest[Any], work: Work[Result], deadline: float, is_shown: Callable[[Result], bool]
    ) -> Result:
        """The result of `work`, counted; an unexpected error becomes a sentence. deadline: time.monotonic()."""
        outcome = "failed"
        try:
            self.check(request)
            await self._refuse_if_busy(request, deadline)
            self.pending += 1
            self._housekeeping.request_started()
            try:
                result = await self._schedule(request, work, deadline)
            finally:
                self.pending -= 1
                self._housekeeping.request_ended(self.pending)
            outcome = "shown" if is_shown(result) else "quiet"
            return result
        except (asyncio.CancelledError, Cancelled):
            outcome = "cancelled"
            raise
        except (Busy, NotReady):
            outcome = "refused"
            raise
        except GessoError:
            raise
        except Exception as error:
            raise GessoError(_sentence(error, "The engine failed on this request")) from error
        finally:
            self.counts.outcomes[request.priority, outcome] += 1

    async def _refuse_if_busy(self, request: EngineRequest[Any], deadline: float) -> None:
        """Raises Busy if other requests probably take the time until the deadline."""
        from engine.scheduling.request import Priority

        for pause_s in (SETTLE_S, 0.0):
            if self.scheduler is None:
                return
            late_s = time.monotonic() + self.scheduler.until_answer(Priority[request.priority.upper()]) - deadline
            if late_s <= 0:
                return
            await asyncio.sleep(pause_s)
        retry_s = min(max(1.0, late_s), INFILL_LIMIT_S)
        raise Busy(f"The engine is too busy to answer before the deadline; try again in {retry_s:.0f} s.", retry_s)

    async def _schedule(self, request: EngineRequest[Any], work: Work[Result], deadline: float) -> Result:
        from engine.scheduling.request import Order, Priority, TooLate

        if self.scheduler is None:
            raise NotReady(f"The model {self.state.model} is not loaded right now; try again in a moment.")
        order = Order(Priority[request.priority.upper()], request.client, deadline, request.cancelled.is_set)
        future = self.scheduler.submit(lambda decoder: work(self._completer_for(decoder, request), decoder.stop), order)
        try:
            async with asyncio.timeout(deadline + LATE_S - time.monotonic()):
                return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            request.cancelled.set()
            raise
        except TimeoutError as late:
            request.cancelled.set()
            raise Busy("The engine did not answer before the deadline; allow more time, or try again later.") from late
        except TooLate as late:
            raise Busy(str(late)) from late

    def _completer_for(self, decoder: Any, request: EngineRequest[Any]) -> AnyCompleter:
        """A completer with the settings of this request."""
        from infill.complete.pipeline import make_completer

        return make_completer(self._loaded().with_decoder(decoder), replace(self.settings, **request.settings))

    def _loaded(self) -> AnyModel:
        if self._model is None:
            raise NotReady(f"The model {self.state.model} is still loading; try again in a moment.")
        return self._model

    def _remember_draft(self, client: str, draft: LastDraft) -> None:
        """Called within a scheduled task, so never by two threads at once."""
        self._drafts.pop(client, None)
        self._drafts[client] = draft
        if len(self._drafts) > MAX_CLIENTS:
            del self._drafts[next(iter(self._drafts))]

    def _report_progress(self, done: int, total: int) -> None:
        self._progressed = time.monotonic()
        if self.state.kind == "loading":
            self.state = EngineState("loading", self.settings.model, done, total)

    def _count(self, result: InfillResult, seconds: float) -> None:
        counts = self.counts
        for bucket in (*BUCKETS_S, float("inf")):
            if seconds <= bucket:
                counts.seconds[bucket] += 1
        counts.total_s += seconds
        counts.encoded_tokens += result.encoded_tokens
        counts.denoise_steps += result.steps


def _or_late(stop: Stop, deadline: float) -> Stop:
    """`stop`, or that the deadline has passed (time.monotonic())."""
    return lambda: stop() or time.monotonic() >= deadline


def _read_thresholds(completer: AnyCompleter) -> Thresholds | None:
    """For the model's findings; a model without them still completes."""
    from infill.lint.linter import Linter

    try:
        return Linter(completer).thresholds
    except Exception as error:
        logger.error("%s", _sentence(error, "The model cannot produce findings"))
        return None


def _sentence(error: BaseException, problem: str) -> str:
    """For the user. The log gets the traceback without the error's message, which may quote the user's code."""
    if isinstance(error, GessoError):
        return str(error)
    frames = []
    trace = error.__traceback__
    while trace is not None:
        frames.append(f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}")
        trace = trace.tb_next
    logger.error("%s: %s at %s", problem, type(error).__name__, " < ".join(reversed(frames)))
    if is_memory_error(error):
        return f"{problem} because the memory ran out; close other programs, or choose a smaller model."
    return f"{problem} ({type(error).__name__}); this is a bug in Gesso, please report it with the log."
