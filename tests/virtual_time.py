"""An event loop whose clock moves only while the loop has nothing to do, so that pauses are exact and take no time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar

from tests.waiting import PATIENCE_S

Result = TypeVar("Result")


class _Selector(selectors.DefaultSelector):
    """Moves the loop's clock instead of waiting for a timer. While a thread works for the loop, the clock stands."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.working = 0.0, 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self.working:
            return super().select(timeout if timeout is not None and timeout <= 0 else None)
        ready = super().select(None if timeout is None else 0)
        if not ready and timeout is not None and timeout > 0:
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """`time()` begins at 0. Work in executors is awaited before the clock moves; other threads are not known to it."""

    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., Result], *args: Any
    ) -> asyncio.Future[Result]:
        future = super().run_in_executor(executor, func, *args)
        self._clock.working += 1
        future.add_done_callback(self._worked)
        return future

    def _worked(self, future: asyncio.Future[Any]) -> None:
        self._clock.working -= 1


def run(play: Coroutine[Any, Any, Result], limit_s: float = PATIENCE_S) -> Result:
    """Runs `play`, which fails after `limit_s` of virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(asyncio.wait_for(play, limit_s))
