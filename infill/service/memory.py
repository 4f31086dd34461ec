"""What keeps the memory of a long-lived process flat: what libraries may keep, and what is given back when nobody asks.

Must not know the model, nor requests. Without glibc nothing is done but what the libraries are told.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import time
from collections.abc import Callable
from functools import cache

ARENAS = 2  # of glibc's allocator: its usual eight a core keep what threads that are long gone have freed
KERNELS = "192"  # that oneDNN keeps, some 0.7 MiB each; without a word of ours 1024
TRIM_S, FORGET_S = 5.0, 600.0  # of quiet, until free memory goes back to the system, and until prompts are given up
BUSY_TRIM_S = 60.0  # between two trims while somebody asks all the time
_ARENA_MAX = -8  # M_ARENA_MAX of malloc.h


def be_sparing() -> None:
    """For a process that lives long, before PyTorch is imported and a thread begun. The environment comes first."""
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", KERNELS)
    if (libc := _glibc()) is not None and "MALLOC_ARENA_MAX" not in os.environ:
        libc.mallopt(_ARENA_MAX, ARENAS)


def trim() -> None:
    """Gives memory that is free back to the system, which glibc does only at the end of its heap. Some milliseconds."""
    if (libc := _glibc()) is not None:
        libc.malloc_trim(0)


class Housekeeping:
    """Trims after TRIM_S of quiet, and calls `forget` after FORGET_S; then it sleeps until there was a request again.
    Where there is no quiet, it trims every BUSY_TRIM_S.

    For an event loop. clock: seconds.
    """

    def __init__(self, forget: Callable[[], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._forget, self._clock = forget, clock
        self._timer: asyncio.TimerHandle | None = None
        self._trimmed = clock()

    def asked(self) -> None:
        """Somebody waits for an answer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def answered(self, others: int) -> None:
        """`others` still wait for theirs."""
        if not others:
            self.asked()
            self._timer = asyncio.get_running_loop().call_later(TRIM_S, self._quiet)
        elif self._clock() - self._trimmed > BUSY_TRIM_S:
            self._trim()

    def _quiet(self) -> None:
        self._trim()
        self._timer = asyncio.get_running_loop().call_later(FORGET_S - TRIM_S, self._quiet_for_long)

    def _quiet_for_long(self) -> None:
        self._forget()
        self._timer = asyncio.get_running_loop().call_later(TRIM_S, self._trim)

    def _trim(self) -> None:
        """On another thread, as it takes some milliseconds."""
        self._trimmed = self._clock()
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
