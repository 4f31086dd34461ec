"""A request to denoise a canvas, its state from step to step, its result, and the interface of whatever denoises it.

Must not know how a step is made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from engine.canvas import Canvas
from engine.config import ModelConfig, SamplingConfig
from engine.errors import Stop
from engine.logit_bias import LogitBias
from engine.memory import CausalPass
from engine.prefix_cache import Lease, PromptCache

Finish = Literal["stable", "steps", "deadline", "cancelled"]


@dataclass(frozen=True)
class DenoiseRequest:
    """A prompt (token ids) and the canvas that follows it.

    banned [n]: token ids that no hole may take, unless the canvas restricts the column.
    deadline: time.monotonic() after which the best canvas so far is returned; at least one step is made.
    stop: called between steps and while the prompt is encoded; if it returns True, Cancelled is raised.
    """

    prompt: Sequence[int]
    canvas: Canvas
    sampling: SamplingConfig = SamplingConfig()
    seed: int = 0
    banned: Tensor | None = None
    deadline: float | None = None
    stop: Stop | None = None


@dataclass
class CanvasRun:
    """A canvas being denoised. `tokens`, `belief`, `argmax` cover the holes only."""

    request: DenoiseRequest
    lease: Lease
    row: int
    columns: Tensor  # [holes]
    known_belief: Tensor  # [width, hidden]: embeddings of pinned tokens, zeros in holes
    canvas: Tensor  # [width]
    tokens: Tensor  # [holes], the current tokens
    argmax: Tensor  # [holes], the likeliest tokens of the last step
    belief: Tensor  # [holes, hidden]
    accepted: Tensor  # [holes] bool
    entropy: Tensor  # [holes]
    bias: LogitBias | None  # of the holes
    read_logits: Callable[[], Tensor] | None = None
    log_probability: Tensor | None = None  # [holes] of `argmax` at temperature 1, if the step computed it
    draws_ahead: tuple[int, Tensor, Tensor] | None = None  # a step, and the uniform numbers and noise from it on
    steps: int = 0
    unchanged: int = 0
    finished: Finish | None = None

    @property
    def logits(self) -> Tensor | None:
        """[holes, vocab] of the last step, computed on demand if the step did not need them."""
        return None if self.read_logits is None else self.read_logits()

    @property
    def remaining(self) -> int:
        """How many steps are left."""
        return self.request.sampling.max_steps - self.steps


@dataclass(frozen=True)
class DenoiseResult:
    """tokens [width] with pinned tokens unchanged; columns [holes]; for the tokens in them, log probabilities at
    temperature 1 and the entropy of the last step at its temperature, [holes] each, in nats.

    encoded_tokens: prompt tokens that were encoded for this run; the others came from the cache.
    """

    tokens: Tensor
    columns: Tensor
    log_probabilities: Tensor
    entropy: Tensor
    steps: int
    finish: Finish
    prompt_tokens: int
    encoded_tokens: int


@dataclass
class Timings:
    """Milliseconds spent, summed over a call."""

    encode: float = 0.0
    denoise: float = 0.0


StepCallback = Callable[[Sequence[CanvasRun]], bool | None]
"""Called after every step; returns False to end all runs with their present result."""


class CanvasDenoiser(Protocol):
    """Denoises canvases: `engine.denoiser.Denoiser`, or one request's share of it.

    `run` does all the work. `start`, `step`, `result` and `close` do it step by step.
    """

    timings: Timings

    @property
    def device(self) -> torch.device: ...

    @property
    def config(self) -> ModelConfig: ...

    @property
    def model(self) -> CausalPass: ...

    @property
    def cache(self) -> PromptCache: ...

    def run(self, requests: Sequence[DenoiseRequest], on_step: StepCallback | None = None) -> list[DenoiseResult]: ...

    def start(self, request: DenoiseRequest) -> CanvasRun: ...

    def step(self, runs: Sequence[CanvasRun]) -> None: ...

    def result(self, run: CanvasRun) -> DenoiseResult: ...

    def close(self, run: CanvasRun) -> None: ...
