"""How long to wait after a key before the model is asked: from how fast the user types and the model answers.

A pause in typing is a gap clearly longer than the usual one; asking sooner wastes a run, later wastes the user's time.
Ideas: Tabby (typing speed), Cody (response time), Copilot (after refusals). Must not know the protocol.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Callable

BURST_S = 1.0  # a longer gap is no typing
GAPS, ANSWERS = 20, 20  # remembered
USUAL_GAP_S = 0.15
LONGEST_S = 0.4
SHARE_OF_GAP = {"calm": 1.0, "balanced": 0.6, "eager": 0.3}
QUICK_MS = 60.0  # a model that answers as fast may be asked at every key
REFUSED_FACTOR, TAKEN_FACTOR = 1.3, 0.7
LEAST_FACTOR, MOST_FACTOR = 0.5, 2.5


class Pace:
    """Of one session. `clock` in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last: float | None = None
        self._gaps: deque[float] = deque(maxlen=GAPS)
        self._answers: deque[float] = deque(maxlen=ANSWERS)
        self._factor = 1.0

    def typed(self) -> None:
        """A document changed just now."""
        now = self._clock()
        if self._last is not None and 0.0 < now - self._last < BURST_S:
            self._gaps.append(now - self._last)
        self._last = now

    def answered(self, milliseconds: float) -> None:
        """The model took this long, waiting for a pause not counted by whoever asks for nothing else."""
        self._answers.append(milliseconds)

    def accepted(self) -> None:
        self._factor = max(LEAST_FACTOR, self._factor * TAKEN_FACTOR)

    def rejected(self) -> None:
        self._factor = min(MOST_FACTOR, self._factor * REFUSED_FACTOR)

    def delay_s(self, eagerness: str, override_ms: int | None, at_line_start: bool) -> float:
        """Seconds from now. A number that the user set is taken as it is; at the start of a line there is no wait."""
        if override_ms is not None:
            return override_ms / 1000
        if at_line_start:
            return 0.0
        gap = statistics.median(self._gaps) if len(self._gaps) >= 3 else USUAL_GAP_S
        answer = statistics.median(self._answers) if self._answers else QUICK_MS
        slowness = min(2.0, max(0.3, answer / QUICK_MS / 2))
        return min(LONGEST_S, SHARE_OF_GAP[eagerness] * gap * slowness * self._factor)
