"""How long to wait after a key before the model is asked: from how fast the user types and the model answers.

To wait as long as an answer takes wastes little, whether the next key comes or not; to wait longer than a burst of keys
leaves between two of them gains nothing, because the burst is over. And what is read while one types must come soon:
where wait and answer together would take longer than `SOON_S`, the wait gives way, down to a part of the answer's time.
Ideas: Tabby (typing speed), Cody (response time), Copilot (after refusals). Must not know the protocol.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Callable

from lsp.settings import Eagerness

BURST_S = 1.0  # a longer gap is no typing
GAPS, ANSWERS = 20, 20  # remembered
LEAST_GAPS = 3  # to go by
USUAL_GAP_S, USUAL_ANSWER_S = 0.15, 0.06  # until something was measured
PAUSE_GAPS = 2.0  # a gap so many times the usual one is a pause
LONGEST_S = 0.4
SOON_S = 0.2  # from the key to the suggestion, unless calm
LEAST_SHARE = 0.3  # of an answer, which the wait keeps however slow the answers are
SHARE: dict[Eagerness, float] = {"calm": 1.0, "balanced": 0.6, "eager": 0.3}
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
        """The model took this long; the wait before it must not be counted, or each wait would make the next longer."""
        self._answers.append(milliseconds / 1000)

    def accepted(self) -> None:
        """A suggestion was taken, whole or in part: ask a little sooner."""
        self._factor = max(LEAST_FACTOR, self._factor * TAKEN_FACTOR)

    def rejected(self) -> None:
        """A suggestion was refused: ask a little later."""
        self._factor = min(MOST_FACTOR, self._factor * REFUSED_FACTOR)

    def delay_s(self, eagerness: Eagerness, override_ms: int | None, at_line_start: bool) -> float:
        """Seconds from now. A number that the user set is taken as it is; at the start of a line there is no wait."""
        if override_ms is not None:
            return override_ms / 1000
        if at_line_start:
            return 0.0
        gap = statistics.median(self._gaps) if len(self._gaps) >= LEAST_GAPS else USUAL_GAP_S
        answer = statistics.median(self._answers) if self._answers else USUAL_ANSWER_S
        delay = min(LONGEST_S, SHARE[eagerness] * self._factor * min(answer, PAUSE_GAPS * gap))
        return delay if eagerness == "calm" else min(delay, max(SOON_S - answer, LEAST_SHARE * answer))
