"""A request to denoise a canvas, and the state of that canvas from step to step.

Must not know how a step is made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from engine.canvas import Canvas
from engine.config import SamplingConfig
from engine.errors import Stop
from engine.prefix_cache import Lease

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
    bias: Tensor | None  # [holes or 1, vocab], added to the logits
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
