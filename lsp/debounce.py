"""How long to wait after a key before asking the model, from the user's typing speed and the model's response time.

Waiting as long as the model takes wastes little, whether or not another key comes. Waiting longer than the gap between
two keys gains nothing, because the user has paused. And suggestions must come soon enough to be read: if wait and
response together exceed `SOON_S`, the wait shrinks, down to a fraction of the gap between two keys. A model that takes
longer than several keys therefore runs while the user types, and its run goes on while the keys agree with its draft.
Ideas: Tabby (typing speed), Cody (response time), Copilot (after rejections). Must not know the protocol.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Callable

from lsp.settings import Eagerness

BURST_S = 1.0  # a longer gap between keys is a pause
GAPS, RESPONSES = 20, 20  # how many are remembered
LEAST_GAPS = 3  # fewer say nothing about the user
USUAL_GAP_S, USUAL_RESPONSE_S = 0.15, 0.06  # before anything was measured
PAUSE_GAPS = 2.0  # a gap this many times the median is a pause
LONGEST_S = 0.4
SOON_S = 0.2  # most time from the key to the suggestion, except for calm
LEAST_SHARE = 0.15  # of the gap between two keys: the wait is never shorter, however slow the model
SHARE: dict[Eagerness, float] = {"calm": 1.0, "balanced": 0.6, "eager": 0.3}
REJECTED_FACTOR, ACCEPTED_FACTOR = 1.3, 0.7
LEAST_FACTOR, MOST_FACTOR = 0.5, 2.5


class Debounce:
    """The wait of one session. `clock` returns seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last_key: float | None = None
        self._gaps: deque[float] = deque(maxlen=GAPS)
        self._responses: deque[float] = deque(maxlen=RESPONSES)
        self._factor = 1.0

    def typed(self) -> None:
        """A document changed just now."""
        now = self._clock()
        if self._last_key is not None and 0.0 < now - self._last_key < BURST_S:
            self._gaps.append(now - self._last_key)
        self._last_key = now

    def responded(self, milliseconds: float) -> None:
        """The model took this long, without the wait before it: otherwise each wait would lengthen the next."""
        self._responses.append(milliseconds / 1000)

    def accepted(self) -> None:
        """A suggestion was accepted, whole or in part: wait a little less."""
        self._factor = max(LEAST_FACTOR, self._factor * ACCEPTED_FACTOR)

    def rejected(self) -> None:
        """A suggestion was rejected: wait a little longer."""
        self._factor = min(MOST_FACTOR, self._factor * REJECTED_FACTOR)

    def delay_s(self, eagerness: Eagerness, override_ms: int | None, at_line_start: bool) -> float:
        """Seconds to wait from now: the user's own number if set, and nothing at the start of a line."""
        if override_ms is not None:
            return override_ms / 1000
        if at_line_start:
            return 0.0
        gap = statistics.median(self._gaps) if len(self._gaps) >= LEAST_GAPS else USUAL_GAP_S
        response = statistics.median(self._responses) if self._responses else USUAL_RESPONSE_S
        delay = min(LONGEST_S, SHARE[eagerness] * self._factor * min(response, PAUSE_GAPS * gap))
        return delay if eagerness == "calm" else min(delay, max(SOON_S - response, LEAST_SHARE * gap))
