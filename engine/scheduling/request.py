"""A request that waits for the scheduler or is under way: its order, its state, and what it needs next.

Must not know who has the next turn.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Generic, TypeVar

from engine.errors import GessoError, Stop
from engine.scheduling.denoiser import Operation

T = TypeVar("T")


class Priority(IntEnum):
    """A lower value always goes first."""

    INLINE = 0
    LINT = 1
    BATCH = 2


class TooLate(GessoError):
    """The request cannot end before its deadline."""


class Closed(GessoError):
    """The scheduler no longer takes requests."""


@dataclass(frozen=True)
class Order:
    """How a request is scheduled. client: any name; requests with the same name share one share of the engine.

    deadline: time.monotonic() after which the request need not start. stop: called before every unit of work, so it
    must be cheap; once it returns True the request ends with Cancelled.
    """

    priority: Priority = Priority.INLINE
    client: str = ""
    deadline: float | None = None
    stop: Stop | None = None


@dataclass
class Load:
    """Requests waiting and running now; totals since the start. steps: passes over canvases; stepped: canvases in them;
    calls: all other work of the model."""

    waiting: int = 0
    running: int = 0
    steps: int = 0
    stepped: int = 0
    calls: int = 0


@dataclass
class Task(Generic[T]):
    """A request. operation: what it waits for, None if it only waits for its turn. memory_failures: how often memory
    did not suffice for it since others freed some. has_turn: whether it may continue, if it runs on the engine's own
    thread; resume: the same for a request on a thread of its own. used: seconds of the engine. started_at:
    time.monotonic() when its own code first continued; resumed_at: when its last turn began, by the scheduler's clock.
    failed: it has ended without a result."""

    order: Order
    number: int
    body: Callable[[Any], T]
    future: Future[T]
    started: bool = False
    ended: bool = False
    failed: bool = False
    started_at: float | None = None
    resumed_at: float = 0.0
    used: float = 0.0
    memory_failures: int = 0
    operation: Operation | None = None
    result: Any = None
    error: BaseException | None = None
    has_turn: bool = False
    resume: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def start(self, now: float) -> None:
        self.started, self.started_at = True, now

    def is_cancelled(self) -> bool:
        return self.order.stop is not None and self.order.stop()

    def is_late(self) -> bool:
        return self.order.deadline is not None and time.monotonic() >= self.order.deadline

    def take_future(self) -> Future[T]:
        """The future, which the task no longer refers to: an error refers to frames that refer to the task, and if they
        led back to the error, all would stay in memory."""
        future = self.future
        del self.future
        return future

    def take_result(self) -> Any:
        """The result of its last operation; raises the error that the operation failed with."""
        error, result = self.error, self.result
        self.error = self.result = None
        if error is not None:
            raise error
        return result
