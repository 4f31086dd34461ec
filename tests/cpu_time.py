"""The limit on a calculation that a user waits for. What it usually takes is measured in `bench/`."""

from __future__ import annotations

import time
from collections.abc import Callable

ATTEMPTS = 5


def takes_less(limit_s: float, work: Callable[[int], object]) -> bool:
    """Whether `work` takes less CPU time of this thread than `limit_s`, in one of a few attempts: a busy machine may
    disturb some of them. work: called with the number of the attempt, so that nothing cached helps a later one."""
    for attempt in range(ATTEMPTS):
        started = time.thread_time()
        work(attempt)
        if time.thread_time() - started < limit_s:
            return True
    return False
