"""Keeps the memory of a long-lived process flat: limits what libraries cache, and frees memory when idle.

Must not know the model, nor requests. Without glibc only the environment variables are set.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import sys
import time
from collections.abc import Callable
from functools import cache

ARENAS = 2  # of glibc's allocator; its default of eight per core keeps memory that ended threads have freed
KERNELS = "192"  # that oneDNN caches, some 0.7 MiB each; its default is 1024
TRIM_S, FORGET_S = 5.0, 600.0  # idle time before freed memory goes back to the system, and before prompts are dropped
BUSY_TRIM_S = 60.0  # between two trims without idle time
_ARENA_MAX = -8  # M_ARENA_MAX of malloc.h


def limit_memory() -> None:
    """For a long-lived process, before PyTorch is imported and threads start. Existing environment variables win."""
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", KERNELS)
    if (libc := _glibc()) is not None and "MALLOC_ARENA_MAX" not in os.environ:
        libc.mallopt(_ARENA_MAX, ARENAS)


def trim() -> None:
    """Frees what only cycles of references hold, and returns freed memory to the system; glibc itself returns only the
    end of its heap. Takes some milliseconds."""
    gc.collect()
    if (libc := _glibc()) is not None:
        libc.malloc_trim(0)


class Housekeeping:
    """Trims after TRIM_S of idle time and calls `forget` after FORGET_S, then sleeps until the next request.
    Without idle time it trims every BUSY_TRIM_S.

    For an event loop. clock: seconds.
    """

    def __init__(self, forget: Callable[[], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._forget, self._clock = forget, clock
        self._timer: asyncio.TimerHandle | None = None
        self._last_trim = clock()

    def request_started(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def request_ended(self, pending: int) -> None:
        """pending: requests that are left."""
        if self._clock() - self._last_trim > BUSY_TRIM_S:
            self._trim()
        if not pending:
            self.request_started()
            self._timer = asyncio.get_running_loop().call_later(TRIM_S, self._idle)

    def _idle(self) -> None:
        self._trim()
        self._timer = asyncio.get_running_loop().call_later(FORGET_S - TRIM_S, self._idle_for_long)

    def _idle_for_long(self) -> None:
        self._forget()
        self._timer = asyncio.get_running_loop().call_later(TRIM_S, self._trim)

    def _trim(self) -> None:
        """On another thread, since it takes some milliseconds."""
        self._last_trim = self._clock()
        asyncio.get_running_loop().run_in_executor(None, trim)


@cache
def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        libc = ctypes.CDLL("libc.so.6")
        return libc if libc.malloc_trim and libc.mallopt else None
    except (OSError, AttributeError):  # another libc
        return None
