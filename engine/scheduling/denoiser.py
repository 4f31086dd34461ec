"""The denoiser as one request of several sees it: what it wants of the model becomes a wish, fulfilled in its turn.

Prompts are kept apart here, so that requests which take turns never write where another one reads. Must not know who
has the next turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast

from torch import Tensor

from engine.canvas_run import CanvasRun, DenoiseRequest
from engine.denoiser import Denoiser, DenoiseResult, StepCallback, Timings
from engine.errors import Stop, leave_if
from engine.models.text_model import TextModel
from engine.prefix_cache import CachedPrompt, Lease, PrefixCache

Answer = TypeVar("Answer")


@dataclass
class Call:
    """Work for the engine thread; it may raise Cancelled where the stop that it is handed answers True.

    divisible: where the memory does not suffice for it, whoever asked does it in parts.
    """

    work: Callable[[Stop], Any]
    at_once: bool = False
    divisible: bool = False


@dataclass
class Canvases:
    """A batch of one request. `runs` grows until all have begun."""

    requests: Sequence[DenoiseRequest]
    on_step: StepCallback | None
    timings: Timings = field(default_factory=Timings)
    runs: list[CanvasRun] = field(default_factory=list)

    @property
    def begun(self) -> bool:
        return len(self.runs) == len(self.requests)

    @property
    def active(self) -> list[CanvasRun]:
        return [run for run in self.runs if run.finished is None]


Ask = Callable[[Call | Canvases], Any]


class ScheduledDenoiser(Denoiser):
    """The same calls and answers as of `shared`. ask: returns what fulfils the wish, once its turn has come."""

    def __init__(self, shared: Denoiser, ask: Ask) -> None:
        self._shared, self._ask = shared, ask
        self.model = cast(TextModel, _Passes(shared.model, self._now))
        self.cache = cast(PrefixCache, _Prompts(cast(SharedPrompts, shared.cache), self._call))
        self.device, self.timings = shared.device, Timings()

    def run(self, requests: Sequence[DenoiseRequest], on_step: StepCallback | None = None) -> list[DenoiseResult]:
        self.timings = Timings()
        if not requests:
            return []
        results, self.timings = self._ask(Canvases(requests, on_step))
        return results

    def start(self, request: DenoiseRequest) -> CanvasRun:
        return self._call(lambda stop: self._shared.start(with_stop(request, stop)))

    def step(self, runs: Sequence[CanvasRun]) -> None:
        self._call(lambda _: self._shared.step(runs))

    def result(self, run: CanvasRun) -> DenoiseResult:
        return self._shared.result(run)

    def close(self, run: CanvasRun) -> None:
        self._shared.close(run)

    def _call(self, work: Callable[[Stop], Answer]) -> Answer:
        return self._ask(Call(work))

    def _now(self, work: Callable[[], Answer], at_once: bool, divisible: bool) -> Answer:
        return self._ask(Call(lambda _: work(), at_once, divisible))


class _Passes:
    """The model's causal passes, each a turn of its own; the head belongs to the pass before it."""

    def __init__(self, model: TextModel, now: Callable[[Callable[[], Any], bool, bool], Any]) -> None:
        self._model, self._now = model, now
        self.config = model.config

    def encode(self, tokens: Tensor, *arguments: Any) -> Tensor:
        return self._now(lambda: self._model.encode(tokens, *arguments), False, tokens.shape[1] > 1)

    def logits(self, hidden: Tensor) -> Tensor:
        return self._now(lambda: self._model.logits(hidden), True, len(hidden) > 1)


class SharedPrompts(PrefixCache):
    """A prompt cache for several users at a time: who takes a prompt by `encoded` may write behind it, as a
    `TokenTree` does, and so has it alone; canvases, which only read it, share."""

    def __init__(self, model: TextModel, limit_bytes: int | None = None) -> None:
        super().__init__(model, limit_bytes)
        self._alone: list[CachedPrompt] = []
        self._wants_alone = False

    def acquire_alone(self, tokens: Sequence[int], stop: Stop | None = None) -> Lease:
        """`acquire`, and until the release nobody else gets this entry."""
        self._wants_alone = True
        try:
            lease = self.acquire(tokens, stop)
        finally:
            self._wants_alone = False
        self._alone.append(lease.prompt)
        return Lease(lease.prompt, lease.encoded, lambda: self._give_back(lease))

    def _give_back(self, lease: Lease) -> None:
        self._alone = [entry for entry in self._alone if entry is not lease.prompt]
        lease.release()

    def _entry_for(self, wanted: Any) -> CachedPrompt:
        entry = super()._entry_for(wanted)
        if entry.users and (self._wants_alone or any(entry is held for held in self._alone)):
            entry = self._add(CachedPrompt(entry.tokens, entry.kv.copy(len(entry.tokens))))
        return entry


class _Prompts:
    """The prompt cache as one request sees it."""

    def __init__(self, shared: SharedPrompts, call: Callable[[Callable[[Stop], Lease]], Lease]) -> None:
        self._shared, self._call = shared, call
        self.device, self.dtype = shared.device, shared.dtype

    def acquire(self, tokens: Sequence[int], stop: Stop | None = None) -> Lease:
        return self._call(lambda watch: self._shared.acquire(tokens, _either(stop, watch)))

    @contextmanager
    def encoded(self, tokens: Sequence[int], stop: Stop | None = None) -> Iterator[Lease]:
        leave_if(stop)
        lease = self._call(lambda watch: self._shared.acquire_alone(tokens, _either(stop, watch)))
        try:
            yield lease
        finally:
            lease.release()


def _either(first: Stop | None, second: Stop) -> Stop:
    return second if first is None else lambda: first() or second()


def with_stop(request: DenoiseRequest, stop: Stop) -> DenoiseRequest:
    """The request, which `stop` ends too."""
    return replace(request, stop=_either(request.stop, stop))
