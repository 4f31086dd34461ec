"""The loop around denoising steps, whatever the model's kind of noise: starts canvases, advances any set of them by one
step, and returns filled canvases.

`step` takes whatever runs it is given, so a scheduler may let canvases join and leave between steps. Must not know how
a step is made, or text.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from typing import Any, Generic, TypeVar

import torch

from engine.canvas_run import CanvasRun, CanvasShape, DenoiseRequest, DenoiseResult, StepCallback, Timings
from engine.decoder import CausalDecoder, Decoder
from engine.errors import Stop, is_memory_error, leave_if
from engine.memory import CausalModel
from engine.prefix_cache import PrefixCache
from engine.scorer import HoleScorer

R = TypeVar("R", bound=CanvasRun)
MOST_TOGETHER = 4096  # canvases of a step
STEPS_TO_GROW = 256  # after memory ran out, until twice as many canvases are stepped together again
UnitOfWork = Callable[[Callable[[Stop], Any]], Any]
"""Does some work for the model without interruption, and returns its result."""


class CanvasLoop(Decoder, ABC, Generic[R]):
    """A `CanvasDenoiser`. Not thread-safe: one caller at a time.

    step_limit: bytes that a step of several canvases may take.
    """

    def __init__(self, model: CausalModel, cache: PrefixCache | None = None) -> None:
        super().__init__(model, cache)
        self.step_limit = 0
        self.timings = Timings()
        self._most_together, self._good_steps = MOST_TOGETHER, 0  # canvases of a step; steps since that was found
        self._rows = count()

    @property
    @abstractmethod
    def config(self) -> CanvasShape: ...

    @abstractmethod
    def _lay_out(self, request: DenoiseRequest) -> R:
        """A run with what it needs for its first step."""

    @abstractmethod
    def _step(self, runs: Sequence[R]) -> None:
        """One step for every run; sets `finished` of those that are done. Raises NotFiniteError."""

    def _step_for(self, runs: Sequence[R]) -> Callable[[Sequence[R]], None]:
        """The fastest form of `_step` that takes these runs."""
        return self._step

    @abstractmethod
    def _bytes_of(self, runs: Sequence[R]) -> int:
        """What a step of these runs takes beside weights and prompts."""

    @abstractmethod
    def result(self, run: R) -> DenoiseResult:
        """The likeliest canvas in its present state."""

    @abstractmethod
    def close(self, run: R) -> None:
        """Frees what `run` holds."""

    @abstractmethod
    def read_ahead(self, request: DenoiseRequest) -> int:
        """See `CanvasDenoiser.read_ahead`."""

    @abstractmethod
    def scorer_for(self, view: CausalDecoder, call: UnitOfWork) -> HoleScorer:
        """A scorer that uses the model as `view` does."""

    def scorer(self) -> HoleScorer:
        return self.scorer_for(self, lambda work: work(lambda: False))

    def run(self, requests: Sequence[DenoiseRequest], on_step: StepCallback | None = None) -> list[DenoiseResult]:
        """Denoises all requests in one batch. If `on_step` returns False, all end with their present result.

        Raises Cancelled if the `stop` of one of them returns True.
        """
        self.timings = Timings()
        runs: list[R] = []
        try:
            for request in requests:
                runs.append(self.start(request))
            active = runs
            while active:
                for run in active:
                    leave_if(run.request.stop)
                self.step(active)
                if on_step is not None and on_step(runs) is False:
                    for run in active:
                        run.finished = run.finished or "cancelled"
                active = [run for run in active if run.finished is None]
            return [self.result(run) for run in runs]
        finally:
            for run in runs:
                self.close(run)

    @torch.inference_mode()
    def start(self, request: DenoiseRequest) -> R:
        """Reads the prompt and lays out the canvas with noise in its holes. Call `close` at the end."""
        started = time.perf_counter()
        run = self._lay_out(request)
        self.timings.encode += 1000 * (time.perf_counter() - started)
        return run

    @torch.inference_mode()
    def step(self, runs: Sequence[R]) -> None:
        """One denoising step for every run; sets `finished` of those that are done. Raises NotFiniteError.

        Runs that memory does not suffice for together are stepped in parts: by the account of `engine.memory_use`, or
        because memory ran out, after which unused prompts are dropped and the parts are halved.
        """
        started = time.perf_counter()
        waiting = [runs]
        while waiting:
            part = waiting.pop()
            half = len(part) // 2
            if half and (len(part) > self._most_together or self._bytes_of(part) > self.step_limit):
                waiting += [part[half:], part[:half]]
                continue
            try:
                self.retry_without_cache(partial(self._step_for(part), part))
            except Exception as error:
                if not half or not is_memory_error(error):
                    raise
                self._most_together, self._good_steps = half, 0
                waiting.append(part)
            else:
                self._good_steps += 1
                if self._good_steps >= STEPS_TO_GROW:
                    self._most_together, self._good_steps = min(MOST_TOGETHER, 2 * self._most_together), 0
        now = time.monotonic()
        for run in runs:
            deadline = run.request.deadline
            if run.finished is None and deadline is not None and now >= deadline:
                run.finished = "deadline"
        self.timings.denoise += 1000 * (time.perf_counter() - started)
