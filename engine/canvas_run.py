"""A request to denoise a canvas, its state from step to step, its result, and the interface of whatever denoises it.

Must not know how a step is made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from engine.canvas import Canvas
from engine.config import Sampling, SamplingConfig
from engine.errors import Stop
from engine.logit_bias import LogitBias
from engine.memory import CausalPass, Shape
from engine.prefix_cache import Lease, PromptCache
from engine.scorer import HoleScorer

Finish = Literal["stable", "steps", "deadline", "cancelled"]


@dataclass(frozen=True)
class DenoiseRequest:
    """A prompt (token ids) and the canvas that follows it.

    banned [n]: token ids that no hole may take, unless the canvas restricts the column.
    deadline: time.monotonic() after which the best canvas so far is returned; at least one step is made.
    stop: called between steps and while the prompt is encoded; if it returns True, Cancelled is raised.
    growth: per hole its slots on the canvas and the most that it may have, for a model that finds lengths itself; if it
    is empty, or with another model, no hole changes its length.
    """

    prompt: Sequence[int]
    canvas: Canvas
    sampling: Sampling = SamplingConfig()
    seed: int = 0
    banned: Tensor | None = None
    deadline: float | None = None
    stop: Stop | None = None
    growth: tuple[tuple[int, int], ...] = ()


@dataclass(kw_only=True)
class CanvasRun:
    """A canvas being denoised, as its caller may see it. The tensors of length [holes] cover the holes only."""

    request: DenoiseRequest
    row: int
    columns: Tensor  # [holes]
    canvas: Tensor  # [width]
    argmax: Tensor  # [holes], the likeliest tokens of the last step
    accepted: Tensor  # [holes] bool
    entropy: Tensor  # [holes]
    read_logits: Callable[[], Tensor] | None = None
    steps: int = 0
    finished: Finish | None = None

    @property
    def logits(self) -> Tensor | None:
        """[holes, vocab] of the last step, computed on demand if the step did not need them."""
        return None if self.read_logits is None else self.read_logits()

    @property
    def remaining(self) -> int:
        """How many steps are left."""
        return self.request.sampling.max_steps - self.steps


@dataclass(kw_only=True)
class BeliefRun(CanvasRun):
    """A canvas being denoised by a model with self-conditioning. `tokens` and `belief` cover the holes only."""

    lease: Lease
    known_belief: Tensor  # [width, hidden]: embeddings of pinned tokens, zeros in holes
    believes_pins: bool  # whether the first step gets `known_belief`; later steps do
    tokens: Tensor  # [holes], the current tokens
    belief: Tensor  # [holes, hidden]
    bias: LogitBias | None  # of the holes
    log_probability: Tensor | None = None  # [holes] of `argmax` at temperature 1, if the step computed it
    draws_ahead: tuple[int, Tensor, Tensor] | None = None  # a step, and the uniform numbers and noise from it on
    unchanged: int = 0

    @property
    def sampling(self) -> SamplingConfig:
        assert isinstance(self.request.sampling, SamplingConfig)
        return self.request.sampling


@dataclass(frozen=True)
class DenoiseResult:
    """tokens [width] with pinned tokens unchanged; columns [holes]; for the tokens in them, log probabilities at
    temperature 1 and the entropy of the last step at its temperature, [holes] each, in nats.

    encoded_tokens: prompt tokens that were encoded for this run; the others came from the cache. sizes: slots per hole
    at the end if the model changed them, and then `tokens` has the width of that canvas.
    """

    tokens: Tensor
    columns: Tensor
    log_probabilities: Tensor
    entropy: Tensor
    steps: int
    finish: Finish
    prompt_tokens: int
    encoded_tokens: int
    sizes: tuple[int, ...] | None = None


@dataclass
class Timings:
    """Milliseconds spent, summed over a call."""

    encode: float = 0.0
    denoise: float = 0.0


StepCallback = Callable[[Sequence[CanvasRun]], bool | None]
"""Called after every step; returns False to end all runs with their present result."""


class CanvasShape(Shape, Protocol):
    """The sizes of a model that its callers depend on."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def canvas_length(self) -> int: ...


class CanvasDenoiser(Protocol):
    """Denoises canvases: an `engine.canvas_loop.CanvasLoop`, or one request's share of it.

    `run` does all the work. `start`, `step`, `result` and `close` do it step by step.
    """

    timings: Timings

    @property
    def device(self) -> torch.device: ...

    @property
    def config(self) -> CanvasShape: ...

    @property
    def model(self) -> CausalPass: ...

    @property
    def cache(self) -> PromptCache: ...

    def run(self, requests: Sequence[DenoiseRequest], on_step: StepCallback | None = None) -> list[DenoiseResult]: ...

    def start(self, request: DenoiseRequest) -> CanvasRun: ...

    def step(self, runs: Sequence[Any]) -> None: ...

    def result(self, run: Any) -> DenoiseResult: ...

    def close(self, run: Any) -> None: ...

    def read_ahead(self, request: DenoiseRequest) -> int:
        """Reads what the request shows, so that denoising it soon need not; returns the number of tokens read."""
        ...

    def scorer(self) -> HoleScorer:
        """A judge of texts that were not denoised."""
        ...
