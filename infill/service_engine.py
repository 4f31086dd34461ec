"""The model of a service: loaded once, with progress; requests handed to the scheduler, and counted.

Must not know HTTP, sockets or the shapes of requests on the wire.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from engine.errors import Cancelled, GessoError
from infill.request import InfillRequest, InfillResult, OnStep
from infill.settings import Settings

if TYPE_CHECKING:
    from engine.denoiser import Denoiser
    from engine.scheduler import Scheduler
    from infill.completion import Completer

logger = logging.getLogger(__name__)
PriorityName = Literal["inline", "lint", "batch"]
WAITING = 512  # requests, of all clients
LONGEST_S = 120.0  # that a request may take, waiting included
BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class NotReady(GessoError):
    """The model is loading, or could not be loaded."""


class Busy(GessoError):
    """The engine has more to do than it can in time."""


@dataclass(frozen=True)
class State:
    """done, total: bytes of the weights while loading, total 0 while not known. message: what went wrong."""

    kind: Literal["loading", "ready", "failed"]
    model: str
    done: int = 0
    total: int = 0
    message: str | None = None


@dataclass
class Counts:
    """Since the start. outcomes: by priority and what became of the request; seconds: by bucket, of answered ones."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    seconds: Counter[float] = field(default_factory=Counter)
    total_s: float = 0.0
    encoded_tokens: int = 0
    denoise_steps: int = 0


@dataclass(frozen=True)
class Asked:
    """A request, whose it is and how urgent; gone: set once nobody waits for the answer."""

    request: InfillRequest
    priority: PriorityName = "inline"
    client: str = ""
    gone: threading.Event = field(default_factory=threading.Event)


class ServiceEngine:
    """One loaded model behind a scheduler. All methods but `load` and `close` belong to the event loop.

    batch: most canvases of one step; None leaves it to the scheduler.
    """

    def __init__(self, settings: Settings, batch: int | None = None) -> None:
        self.settings, self.batch = settings, batch
        self.state = State("loading", settings.model)
        self.counts = Counts()
        self.pending = 0
        self.scheduler: Scheduler | None = None
        self._completer: Completer | None = None

    def load(self) -> None:
        """Loads the model; afterwards the state says whether it could be."""
        try:
            from engine.scheduler import BATCH, Scheduler
            from infill.completion import Completer

            completer = Completer.load(self.settings, self._progress)
            self.scheduler = Scheduler(completer.denoiser, self.batch or BATCH)
        except Exception as error:
            self.state = State("failed", self.settings.model, message=_told(error, "The model could not be loaded"))
            return
        self._completer = completer
        self.state = State("ready", self.settings.model)

    def close(self) -> None:
        if self.scheduler is not None:
            self.scheduler.close()

    async def complete(self, asked: Asked, on_step: OnStep | None = None) -> InfillResult:
        """The result. Raises NotReady, Busy, or the engine's own GessoError for this request.

        on_step: called on the engine's thread; must return at once. Cancelling this call cancels down to the model.
        """
        started = time.monotonic()
        outcome = "failed"
        try:
            self.check()
            self.pending += 1
            try:
                result = await self._scheduled(asked, on_step, started)
            finally:
                self.pending -= 1
            outcome = "shown" if all(one.shown for one in result.completions) else "quiet"
            self._count(result, time.monotonic() - started)
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
            raise GessoError(_told(error, "The engine failed on this request")) from error
        finally:
            self.counts.outcomes[asked.priority, outcome] += 1

    def tokens(self, text: str) -> list[int]:
        """As the model reads it."""
        assert self._completer is not None, "asked of a model that answered"
        return self._completer.family.tokens.encode(text)

    def text(self, tokens: list[int]) -> str:
        assert self._completer is not None, "asked of a model that answered"
        return self._completer.family.tokens.decode(tokens)

    def check(self) -> None:
        """Raises NotReady or Busy where a request would be refused now."""
        if self.state.kind == "loading":
            raise NotReady(f"The model {self.state.model} is still loading; ask again in a moment.")
        if self.state.kind == "failed":
            raise NotReady(self.state.message or "The model could not be loaded.")
        if self.pending >= WAITING:
            raise Busy("Too many requests wait already; ask again in a moment.")

    async def _scheduled(self, asked: Asked, on_step: OnStep | None, started: float) -> InfillResult:
        from engine.scheduler import Order, Priority, TooLate

        assert self.scheduler is not None
        least_s = LONGEST_S if asked.request.deadline_ms is None else min(LONGEST_S, asked.request.deadline_ms / 1000)
        deadline = started + least_s
        order = Order(Priority[asked.priority.upper()], asked.client, deadline, asked.gone.is_set)
        future = self.scheduler.submit(lambda denoiser: self._complete(denoiser, asked, on_step, deadline), order)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            asked.gone.set()
            raise
        except TooLate as late:
            raise Busy(str(late)) from late

    def _complete(self, denoiser: Denoiser, asked: Asked, on_step: OnStep | None, deadline: float) -> InfillResult:
        from infill.completion import Completer

        shared = self._completer
        assert shared is not None
        own = Completer(denoiser, shared.family, shared.sampling, shared.settings, shared.calibration)
        left_ms = max(1.0, 1000 * (deadline - time.monotonic()))
        return own.complete(replace(asked.request, deadline_ms=left_ms), on_step, asked.gone.is_set)

    def _progress(self, done: int, total: int) -> None:
        self.state = State("loading", self.settings.model, done, total)

    def _count(self, result: InfillResult, seconds: float) -> None:
        counts = self.counts
        for bucket in BUCKETS_S:
            if seconds <= bucket:
                counts.seconds[bucket] += 1
        counts.seconds[float("inf")] += 1
        counts.total_s += seconds
        counts.encoded_tokens += result.encoded_tokens
        counts.denoise_steps += result.steps


def _told(error: Exception, trouble: str) -> str:
    """A sentence for the user; the log has where it happened, but not what the error says, which may quote code."""
    if isinstance(error, GessoError):
        return str(error)
    frames = []
    trace = error.__traceback__
    while trace is not None:
        frames.append(f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}")
        trace = trace.tb_next
    logger.error("%s: %s at %s", trouble, type(error).__name__, " < ".join(reversed(frames)))
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return f"{trouble}, as the memory ran out; close other programs, or choose a smaller model."
    return f"{trouble} ({type(error).__name__}); this is a fault in Gesso, please report it with the log."
