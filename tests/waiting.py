"""Waiting for what must happen, on a machine of any speed: a test says what, and the limit only ends a broken test."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE_S = 120.0
POLL_S = 0.02
Value = TypeVar("Value")


def until(condition: Callable[[], Value], what: Callable[[], object] = lambda: "") -> Value:
    """Waits for a true value of `condition` and returns it. what: describes the state if there is none."""
    end = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        assert time.monotonic() < end, f"the condition did not become true: {what()}"
        time.sleep(POLL_S)
    return value


async def until_async(condition: Callable[[], Value], what: Callable[[], object] = lambda: "") -> Value:
    """The same on an event loop, by the clock of that loop."""
    loop = asyncio.get_running_loop()
    end = loop.time() + PATIENCE_S
    while not (value := condition()):
        assert loop.time() < end, f"the condition did not become true: {what()}"
        await asyncio.sleep(POLL_S)
    return value
