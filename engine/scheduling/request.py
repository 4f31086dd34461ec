"""A request in the scheduler's line: how it stands there, whose it is, and what it waits for.

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

from engine.denoiser import Denoiser
from engine.errors import GessoError, Stop
from engine.scheduling.denoiser import Call, Canvases

Answer = TypeVar("Answer")


class Priority(IntEnum):
    """The lower one goes first, always."""

    INLINE = 0
    LINT = 1
    BATCH = 2


class TooLate(GessoError):
    """The deadline passed before there was a turn."""


class Closed(GessoError):
    """The scheduler takes no requests any more."""


@dataclass(frozen=True)
class Order:
    """How a request stands in line. client: any name; those of one name share one share of the engine.

    deadline: time.monotonic() after which it need not begin. stop: asked before every unit of work, so it must be
    cheap; once it answers True the request ends with Cancelled.
    """

    priority: Priority = Priority.INLINE
    client: str = ""
    deadline: float | None = None
    stop: Stop | None = None


@dataclass
class Load:
    """What stands in line now, and what was done since the start. steps: passes over canvases; stepped: canvases in
    them; calls: all other work of the model."""

    waiting: int = 0
    running: int = 0
    steps: int = 0
    stepped: int = 0
    calls: int = 0


@dataclass
class Task(Generic[Answer]):
    """A request. wish: what it waits for, None while it waits for nothing but its turn; short: how often there was
    not enough memory for it since others gave some back; has_turn: whether it may go on, where it stands on the
    engine's own thread; go: the same where it stands on a thread of its own."""

    order: Order
    number: int
    body: Callable[[Denoiser], Answer]
    future: Future[Answer]
    begun: bool = False
    ended: bool = False
    short: int = 0
    wish: Call | Canvases | None = None
    answer: Any = None
    error: BaseException | None = None
    has_turn: bool = False
    go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def is_unwanted(self) -> bool:
        return self.order.stop is not None and self.order.stop()

    def is_late(self) -> bool:
        return self.order.deadline is not None and time.monotonic() >= self.order.deadline

    def take(self) -> Any:
        """What its last wish was answered with; raises what it failed with."""
        error, answer = self.error, self.answer
        self.error = self.answer = None
        if error is not None:
            raise error
        return answer
