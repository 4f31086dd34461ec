"""The model of a service: loaded once, with progress; requests handed to the scheduler, and counted.

Must not know HTTP, sockets or the shapes of requests on the wire.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from engine.errors import Cancelled, GessoError, is_memory_error, leave_if
from infill.findings import Finding, LintRequest
from infill.request import InfillRequest, InfillResult, OnStep
from infill.service.memory import Housekeeping
from infill.settings import Settings

if TYPE_CHECKING:
    from engine.denoiser import Denoiser
    from engine.scheduling.scheduler import Scheduler
    from infill.complete.completion import Completer
    from infill.complete.loaded_model import LoadedModel
    from infill.lint.evidence import Bars
    from infill.prompts.text_tokens import TextTokens

logger = logging.getLogger(__name__)
Answer = TypeVar("Answer")
Work = Callable[["Completer", float], Answer]  # until when: time.monotonic()
Shows = Callable[[Answer], bool]
PriorityName = Literal["inline", "lint", "batch"]
WAITING = 512  # requests, of all clients
LONGEST_S = 120.0  # that an infill may take, waiting included
LONGEST_LINT_S = 600.0  # the same of a lint, which may be about a whole file
PAUSE_S = 0.02
CLIENTS = 64  # whose last draft is remembered
BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class NotReady(GessoError):
    """The model is loading, or could not be loaded."""


class Busy(GessoError):
    """The engine has more to do than it can in time."""


@dataclass(frozen=True)
class State:
    """done, total: bytes of the weights while loading, total 0 while not known. message: what went wrong.

    can_lint: whether the model that is ready has findings; lints: whether they are good enough to be shown unasked.
    meanwhile: the smaller model that answers while this one is not ready.
    """

    kind: Literal["loading", "ready", "failed"]
    model: str
    done: int = 0
    total: int = 0
    message: str | None = None
    can_lint: bool = False
    lints: bool = False
    meanwhile: str | None = None


@dataclass
class Counts:
    """Since the start. outcomes: by priority and what became of the request; seconds: by bucket, of answered ones;
    backends: by backend and what became of the request there."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    seconds: Counter[float] = field(default_factory=Counter)
    backends: Counter[tuple[str, str]] = field(default_factory=Counter)
    total_s: float = 0.0
    encoded_tokens: int = 0
    denoise_steps: int = 0


@dataclass(frozen=True)
class Asked:
    """A request, whose it is and how urgent; gone: set once nobody waits for the answer.

    settings: those that stand for this request in place of the service's own, by their names in `Settings`. local:
    whether it must be answered by the model here. any_model: whether a smaller model may answer while that one loads.
    """

    request: InfillRequest | LintRequest
    priority: PriorityName = "inline"
    client: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    local: bool = False
    any_model: bool = False
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
        self._model: LoadedModel | None = None
        self._bars: Bars | None = None
        self._housekeeping = Housekeeping(self.forget)
        self._written: dict[str, str] = {}  # the last draft of each client: who types what it says asks for the rest

    def load(self) -> None:
        """Loads the model; afterwards the state says whether it could be."""
        try:
            from engine.scheduling.scheduler import BATCH, Scheduler
            from infill.complete.loaded_model import LoadedModel

            model = LoadedModel.load(self.settings, self._progress)
            bars = self._bars = _bars(self.settings.model)
            self.scheduler = Scheduler(model.denoiser, self.batch or BATCH)
        except Exception as error:
            self.state = State("failed", self.settings.model, message=_told(error, "The model could not be loaded"))
            return
        self._model = model
        lints = bars is not None and bars.unasked
        self.state = State("ready", self.settings.model, can_lint=bars is not None, lints=lints)

    @property
    def told_state(self) -> State:
        """What clients are told of it."""
        return self.state

    def unload(self) -> None:
        """Gives the model's memory back, after what is under way was answered. For a thread that may wait."""
        self.state = State("loading", self.settings.model)
        end = time.monotonic() + LONGEST_S
        while self.pending and time.monotonic() < end:
            time.sleep(PAUSE_S)
        scheduler, self.scheduler, self._model = self.scheduler, None, None
        if scheduler is not None:
            scheduler.close()

    def close(self) -> None:
        if self.scheduler is not None:
            self.scheduler.close()

    def forget(self) -> None:
        """Gives up the prompts that are kept, in a turn of its own: nothing of the model may be touched meanwhile."""
        from engine.scheduling.request import Order

        scheduler = self.scheduler
        if scheduler is not None:
            scheduler.submit(lambda _: scheduler.denoiser.forget(), Order())

    async def complete(self, asked: Asked, on_step: OnStep | None = None) -> InfillResult:
        """The result. Raises NotReady, Busy, or the engine's own GessoError for this request.

        on_step: called on the engine's thread; must return at once. Cancelling this call cancels down to the model.
        """
        request = asked.request
        assert isinstance(request, InfillRequest)

        def work(completer: Completer, deadline: float) -> InfillResult:
            left_ms = max(1.0, 1000 * (deadline - time.monotonic()))
            completer.proposals.last_draft = self._written.get(asked.client, "")
            result = completer.complete(replace(request, deadline_ms=left_ms), on_step, asked.gone.is_set)
            self._remember(asked.client, completer.proposals.last_draft)
            return result

        started = time.monotonic()
        longest_s = LONGEST_S if request.deadline_ms is None else min(LONGEST_S, request.deadline_ms / 1000)
        result = await self._answered(asked, work, started + longest_s, is_shown)
        self._count(result, time.monotonic() - started)
        return result

    async def lint(self, asked: Asked) -> tuple[Finding, ...]:
        """What looks wrong; otherwise as `complete`."""
        request = asked.request
        assert isinstance(request, LintRequest)

        def work(completer: Completer, deadline: float) -> tuple[Finding, ...]:
            from infill.lint.linter import Linter

            def stop() -> bool:
                return asked.gone.is_set() or time.monotonic() >= deadline

            try:
                return tuple(Linter(completer, self._bars).lint(request, stop))
            except Cancelled:
                leave_if(asked.gone.is_set)
                raise Busy("The lint took too long; ask about fewer lines at a time.") from None

        return await self._answered(asked, work, time.monotonic() + LONGEST_LINT_S, bool)

    def tokens(self, text: str) -> list[int]:
        """As the model reads it."""
        return self._tokens().encode(text)

    def text(self, tokens: list[int]) -> str:
        return self._tokens().decode(tokens)

    def _tokens(self) -> TextTokens:
        if self._model is None:
            raise NotReady(f"The model {self.state.model} is still loading; ask again in a moment.")
        return self._model.family.tokens

    def check(self, asked: Asked | None = None) -> None:
        """Raises NotReady or Busy where a request (or this one) would be refused now."""
        if self.state.kind == "loading":
            raise NotReady(f"The model {self.state.model} is still loading; ask again in a moment.")
        if self.state.kind == "failed":
            raise NotReady(self.state.message or "The model could not be loaded.")
        if self.pending >= WAITING:
            raise Busy("Too many requests wait already; ask again in a moment.")

    async def _answered(self, asked: Asked, work: Work[Answer], deadline: float, shows: Shows[Answer]) -> Answer:
        """What comes of `work`, counted; what was not meant for users becomes a sentence. deadline: monotonic."""
        outcome = "failed"
        try:
            self.check()
            self.pending += 1
            self._housekeeping.asked()
            try:
                answer = await self._scheduled(asked, work, deadline)
            finally:
                self.pending -= 1
                self._housekeeping.answered(self.pending)
            outcome = "shown" if shows(answer) else "quiet"
            return answer
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

    async def _scheduled(self, asked: Asked, work: Work[Answer], deadline: float) -> Answer:
        """What `work` makes of it with a completer of its own, in its turns."""
        from engine.scheduling.request import Order, Priority, TooLate

        if self.scheduler is None:
            raise NotReady(f"The model {self.state.model} is not loaded just now; ask again in a moment.")
        order = Order(Priority[asked.priority.upper()], asked.client, deadline, asked.gone.is_set)
        future = self.scheduler.submit(lambda denoiser: work(self._completer(denoiser, asked), deadline), order)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            asked.gone.set()
            raise
        except TooLate as late:
            raise Busy(str(late)) from late

    def _completer(self, denoiser: Denoiser, asked: Asked) -> Completer:
        from infill.complete.completion import Completer

        assert self._model is not None
        return Completer(replace(self._model, denoiser=denoiser), replace(self.settings, **asked.settings))

    def _remember(self, client: str, written: str) -> None:
        """In its turn, so that no two are here at once."""
        self._written.pop(client, None)
        self._written[client] = written
        if len(self._written) > CLIENTS:
            del self._written[next(iter(self._written))]

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


def is_shown(result: InfillResult) -> bool:
    """Whether there is something good enough for every hole."""
    return all(one.shown for one in result.completions)


def _bars(model: str) -> Bars | None:
    """For the findings of the model; without those it completes all the same."""
    from infill.lint.evidence import Bars
    from infill.model_store import resolve

    try:
        return Bars.read(resolve(model))
    except Exception as error:
        logger.error("%s", _told(error, "The model cannot be used for findings"))
        return None


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
    if is_memory_error(error):
        return f"{trouble}, as the memory ran out; close other programs, or choose a smaller model."
    return f"{trouble} ({type(error).__name__}); this is a fault in Gesso, please report it with the log."
