"""What answers requests inside the service: the `Engine` protocol, its values, errors and time limits.

Engines wrap each other through this protocol, and the HTTP APIs know nothing else of them. Must not know HTTP, nor how
an engine answers.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeVar

from engine.errors import GessoError
from infill.edit_request import EditRequest, EditResult
from infill.findings import Finding, LintRequest
from infill.request import InfillRequest, InfillResult, OnStep

Request = TypeVar("Request", InfillRequest, EditRequest, LintRequest, covariant=True)
PriorityName = Literal["inline", "lint", "batch"]
INFILL_LIMIT_S = 120.0  # from the request to the response, waiting included; the same for an edit
LINT_LIMIT_S = 600.0  # the same for a lint request, which may cover a whole file
READ_AHEAD_LIMIT_S = 30.0  # the same for reading ahead
LATE_S = 0.4  # after the limit of a request, until it is given up
BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class NotReady(GessoError):
    """The model is loading or could not be loaded."""


class Busy(GessoError):
    """The engine has too much work to finish this request in time. retry_s: when it may have less."""

    def __init__(self, message: str, retry_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_s = retry_s


class BackendError(GessoError):
    """A server to which the request was sent is down or failed, or its response is invalid."""


@dataclass(frozen=True)
class EngineState:
    """done, total: bytes of the weights while loading; total is 0 while unknown. message: what went wrong.

    can_lint: whether the model produces findings; lints: whether they are good enough to be shown without being
    requested. fallback_model: the smaller model that answers while `model` is not ready. Only a client of the service
    sees "stopped": no service runs.
    """

    kind: Literal["stopped", "loading", "ready", "failed"]
    model: str = ""
    done: int = 0
    total: int = 0
    message: str | None = None
    can_lint: bool = False
    lints: bool = False
    fallback_model: str | None = None


@dataclass
class RequestCounts:
    """Since the start. outcomes: by priority and outcome; seconds: answered infills by bucket; backends: by backend and
    outcome; retries: by outcome. The other counts have a retried request twice, once for each model."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    seconds: Counter[float] = field(default_factory=Counter)
    backends: Counter[tuple[str, str]] = field(default_factory=Counter)
    retries: Counter[str] = field(default_factory=Counter)
    total_s: float = 0.0
    encoded_tokens: int = 0
    denoise_steps: int = 0


@dataclass(frozen=True)
class Usage:
    """Of a loaded model: forward passes over canvases, the canvases in them, and bytes of cached prompts."""

    passes: int
    canvases: int
    cache_bytes: int


@dataclass(frozen=True)
class EngineRequest(Generic[Request]):
    """A request with its client and its priority.

    settings: values that replace those of the service for this request, by their names in `Settings`. local: must be
    answered by the model of this service, not by a backend. any_model: a fallback model may answer while the model
    loads. cancelled: set once the client no longer waits.
    """

    request: Request
    priority: PriorityName = "inline"
    client: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    local: bool = False
    any_model: bool = False
    cancelled: threading.Event = field(default_factory=threading.Event)


class Engine(Protocol):
    """All methods but `load` and `close` belong to the event loop."""

    @property
    def state(self) -> EngineState: ...

    @property
    def counts(self) -> RequestCounts: ...

    @property
    def pending(self) -> int:
        """Requests that wait or run."""
        ...

    @property
    def usage(self) -> Usage | None:
        """None while no model is loaded."""
        ...

    def load(self) -> None:
        """Loads the models, and blocks until they are loaded or have failed, as `state` then says."""
        ...

    def close(self) -> None: ...

    async def maintain(self) -> None:
        """Work for as long as the service runs, such as watching the memory; returns if there is none."""
        ...

    def check(self, request: EngineRequest[Any]) -> None:
        """Raises NotReady or Busy if the engine would refuse this request now."""
        ...

    async def complete(self, request: EngineRequest[InfillRequest], on_step: OnStep | None = None) -> InfillResult:
        """Raises NotReady, Busy, or another GessoError about this request. Cancelling the call stops the model.

        on_step: called on another thread; must return at once.
        """
        ...

    async def edit(self, request: EngineRequest[EditRequest], on_step: OnStep | None = None) -> EditResult:
        """Raises InputError if the model cannot rewrite code; otherwise as `complete`. Only the model of this service
        answers."""
        ...

    async def lint(self, request: EngineRequest[LintRequest]) -> tuple[Finding, ...]:
        """Otherwise as `complete`."""
        ...

    async def read_ahead(self, request: EngineRequest[InfillRequest]) -> int:
        """Encodes the prompt of a completion that is likely to be requested soon; otherwise as `complete`.

        A newer call of the same client ends an earlier one. Returns the number of encoded tokens: 0 if the prompt is
        cached, or if a backend answers these requests.
        """
        ...

    def tokens(self, text: str) -> list[int]:
        """As the model reads the text; raises NotReady."""
        ...

    def text(self, tokens: list[int]) -> str:
        """The inverse of `tokens`."""
        ...


def infill_limit_s(request: InfillRequest | EditRequest) -> float:
    """Seconds that the request may take."""
    return INFILL_LIMIT_S if request.deadline_ms is None else min(INFILL_LIMIT_S, request.deadline_ms / 1000)


def lint_limit_s(request: LintRequest) -> float:
    """Seconds that the request may take."""
    return LINT_LIMIT_S if request.deadline_ms is None else min(LINT_LIMIT_S, request.deadline_ms / 1000)


def is_shown(result: InfillResult) -> bool:
    """Whether every hole has a candidate that is good enough to show."""
    return all(one.shown for one in result.completions)
