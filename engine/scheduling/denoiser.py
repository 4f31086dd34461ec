"""The denoiser as one of several requests sees it: each use of the model becomes an operation that waits for its turn.

Must not know who has the next turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from engine.canvas_loop import CanvasLoop
from engine.canvas_run import CanvasRun, CanvasShape, DenoiseRequest, DenoiseResult, StepCallback, Timings
from engine.decoder import Decoder
from engine.errors import Stop, leave_if
from engine.joined_pass import Pass
from engine.memory import CausalPass, Masks, Memory, Shape
from engine.prefix_cache import Lease, PrefixCache
from engine.scorer import HoleScorer

T = TypeVar("T")


@dataclass
class Call:
    """Work for the engine thread, which raises Cancelled once the `stop` it is given returns True.

    at_once: continues the operation before it, without a turn of its own. divisible: the request itself retries it in
    parts if memory does not suffice.
    """

    work: Callable[[Stop], Any]
    at_once: bool = False
    divisible: bool = False


@dataclass
class CanvasBatch:
    """The canvases of one request that are denoised together. `runs` grows until all have started."""

    requests: Sequence[DenoiseRequest]
    on_step: StepCallback | None
    timings: Timings = field(default_factory=Timings)
    runs: list[CanvasRun] = field(default_factory=list)

    @property
    def started(self) -> bool:
        return len(self.runs) == len(self.requests)

    @property
    def active(self) -> list[CanvasRun]:
        return [run for run in self.runs if run.finished is None]


Operation = Call | CanvasBatch | Pass
Perform = Callable[[Operation | None], Any]
"""Waits for the turn of the operation and returns its result; with None it only waits for the next turn."""


class ScheduledDecoder:
    """A `CausalDecoder` that uses `shared`, one operation at a time.

    stop: whether the request is cancelled; called by the request's own code, it lets more urgent requests go first.
    """

    def __init__(self, shared: Decoder, perform: Perform, stop: Stop) -> None:
        self.stop = stop
        self.model, self.cache = _ScheduledModel(shared.model, perform), _ScheduledCache(shared.cache, perform)
        self.device = shared.device


class ScheduledDenoiser(ScheduledDecoder):
    """A `CanvasDenoiser` that uses `shared`, one operation at a time."""

    def __init__(self, shared: CanvasLoop[Any], perform: Perform, stop: Stop) -> None:
        super().__init__(shared, perform, stop)
        self._shared, self._perform = shared, perform
        self.config: CanvasShape = shared.config
        self.timings = Timings()

    def run(self, requests: Sequence[DenoiseRequest], on_step: StepCallback | None = None) -> list[DenoiseResult]:
        self.timings = Timings()
        if not requests:
            return []
        results, self.timings = self._perform(CanvasBatch(requests, on_step))
        return results

    def start(self, request: DenoiseRequest) -> CanvasRun:
        return self._perform(Call(lambda stop: self._shared.start(with_stop(request, stop))))

    def step(self, runs: Sequence[CanvasRun]) -> None:
        self._perform(Call(lambda _: self._shared.step(runs)))

    def result(self, run: CanvasRun) -> DenoiseResult:
        return self._shared.result(run)

    def close(self, run: CanvasRun) -> None:
        self._shared.close(run)

    def read_ahead(self, request: DenoiseRequest) -> int:
        leave_if(request.stop)
        return self._perform(Call(lambda stop: self._shared.read_ahead(with_stop(request, stop))))

    def scorer(self) -> HoleScorer:
        return self._shared.scorer_for(self, lambda work: self._perform(Call(work)))


class _ScheduledModel:
    """A `CausalPass`: small passes of several requests may share a turn, and the head belongs to the pass before it."""

    def __init__(self, model: CausalPass, perform: Perform) -> None:
        self._model, self._perform = model, perform

    @property
    def config(self) -> Shape:
        return self._model.config

    def encode(self, tokens: Tensor, positions: Tensor, masks: Masks, memory: Memory) -> Tensor:
        one = Pass(tokens, positions, masks, memory)
        return self._perform(one if one.can_be_joined(self._model) else pass_alone(one, self._model))

    def logits(self, hidden: Tensor) -> Tensor:
        return self._perform(Call(lambda _: self._model.logits(hidden), at_once=True, divisible=len(hidden) > 1))


class _ScheduledCache:
    """A `PromptCache`."""

    def __init__(self, cache: PrefixCache, perform: Perform) -> None:
        self._cache, self._perform = cache, perform

    @property
    def device(self) -> torch.device:
        return self._cache.device

    @property
    def dtype(self) -> torch.dtype:
        return self._cache.dtype

    @contextmanager
    def encoded(self, tokens: Sequence[int], stop: Stop | None = None, chunk: int | None = None) -> Iterator[Lease]:
        leave_if(stop)
        call = Call(lambda watch: self._cache.acquire(tokens, _either(stop, watch), exclusive=True, chunk=chunk))
        lease: Lease = self._perform(call)
        try:
            yield lease
        finally:
            lease.release()


def scheduled(shared: Decoder, perform: Perform, stop: Stop) -> ScheduledDecoder:
    """One request's view of `shared`."""
    if isinstance(shared, CanvasLoop):
        return ScheduledDenoiser(shared, perform, stop)
    return ScheduledDecoder(shared, perform, stop)


def pass_alone(one: Pass, model: CausalPass) -> Call:
    """The pass with a turn of its own."""
    return Call(lambda _: one.run(model), divisible=one.rows > 1)


def _either(first: Stop | None, second: Stop) -> Stop:
    return second if first is None else lambda: first() or second()


def with_stop(request: DenoiseRequest, stop: Stop) -> DenoiseRequest:
    """The request, which `stop` ends too."""
    return replace(request, stop=_either(request.stop, stop))
