"""What keeps the memory of a long-lived process flat: what libraries may keep, and what is given back when nobody asks.

Must not know the model, nor requests. Without glibc nothing is done but what the libraries are told.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
from collections.abc import Callable
from functools import cache

ARENAS = 2  # of glibc's allocator: its usual eight a core keep what threads that are long gone have freed
KERNELS = "256"  # that oneDNN keeps, some 0.2 MiB each; without a word of ours 1024
TRIM_S, FORGET_S = 5.0, 600.0  # of quiet, until free memory goes back to the system, and until prompts are given up
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


class Quiet:
    """Trims after TRIM_S of quiet, and calls `forget` after FORGET_S; then it sleeps until there was a request again.

    For an event loop.
    """

    def __init__(self, forget: Callable[[], None]) -> None:
        self._forget = forget
        self._timer: asyncio.TimerHandle | None = None

    def begins(self) -> None:
        """Nobody waits for an answer any more."""
        self.ends()
        loop = asyncio.get_running_loop()

        def first() -> None:
            self._timer = loop.call_later(FORGET_S - TRIM_S, second)
            loop.run_in_executor(None, trim)

        def second() -> None:
            self._forget()
            self._timer = loop.call_later(TRIM_S, loop.run_in_executor, None, trim)

        self._timer = loop.call_later(TRIM_S, first)

    def ends(self) -> None:
        """Somebody asks."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


@cache
def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        libc = ctypes.CDLL("libc.so.6")
        return libc if libc.malloc_trim and libc.mallopt else None
    except (OSError, AttributeError):  # another libc
        return None
