"""What the user did not want, and where, so that it is not offered there again.

A place is known by its line and the nearest lines above and below that are not blank, never by its number: edits
elsewhere, and small ones in the line itself, leave it where it was. Must not know the protocol nor how suggestions are
made.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from os.path import commonprefix

from lsp.suggestion_cache import AUTO_CLOSED, may_close

SEEN_S = 0.4  # what stood for less was hardly read, so that typing something else refuses nothing
KEPT = 200  # rejections remembered
KEPT_S = 1_800.0
RATE_S = 120.0  # how far back the recent rate looks
NEAR = 400  # characters on either side that are looked at
EDITED = 0.4  # of a line: changes in one spot up to this leave it the same line


@dataclass(frozen=True)
class _Place:
    """A cursor's surroundings without indentation; above, below: the nearest lines that are not blank, or ""."""

    above: str
    left: str
    right: str
    below: str


@dataclass(frozen=True)
class _Rejection:
    uri: str
    place: _Place
    text: str
    at: float


class Rejections:
    """Remembers the last rejections for some time. clock: seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._kept: deque[_Rejection] = deque(maxlen=KEPT)

    def rejected(self, uri: str, before: str, after: str, text: str) -> None:
        """The user dismissed `text`, offered between `before` and `after`."""
        self._kept.append(_Rejection(uri, _place(before, after), _plain(text), self._clock()))

    def typed_over(self, uri: str, before: str, after: str, text: str, typed: str, seen_s: float) -> bool:
        """The user typed `typed` where `text` was on the screen for `seen_s` seconds. Returns whether that rejects it:
        not if it was too short to be read, nor if what was typed begins it or is but space, nor if nothing was.

        typed: with what the editor closed behind it by itself.
        """
        offered, written = _plain(text), typed.replace("\r\n", "\n")
        if seen_s < SEEN_S or not written.strip(" \t") or written.startswith(offered) or _begins(offered, written):
            return False
        self.rejected(uri, before, after, text)
        return True

    def is_rejected(self, uri: str, before: str, after: str, text: str) -> bool:
        """Whether the user rejected this text here, or the whole of which it is what is left after typing on."""
        left = _place(before, "").left
        return _comparable(text, left) in {_comparable(one, left) for one in self.texts(uri, before, after)}

    def texts(self, uri: str, before: str, after: str) -> tuple[str, ...]:
        """What was rejected at this place, as it would be inserted there now; the latest first, each once."""
        self._forget_old()
        here = _place(before, after)
        found = (_as_of(one, here) for one in reversed(self._kept) if one.uri == uri)
        return tuple(dict.fromkeys(text for text in found if text))

    def recent_rate(self) -> float:
        """Rejections a minute over the last two minutes."""
        since = self._clock() - RATE_S
        return sum(one.at > since for one in self._kept) / (RATE_S / 60)

    def _forget_old(self) -> None:
        oldest = self._clock() - KEPT_S
        while self._kept and self._kept[0].at < oldest:
            self._kept.popleft()


def _begins(offered: str, written: str) -> bool:
    """Whether `offered` begins with `written`, but for the brackets and quotes at its end that an editor closed."""
    ends = range(len(written), max(0, len(written) - AUTO_CLOSED) - 1, -1)
    return any(offered.startswith(written[:end]) and may_close(written[end:], written[:end]) for end in ends)


def _plain(text: str) -> str:
    return text.replace("\r\n", "\n").rstrip()


def _comparable(text: str, left: str) -> str:
    """Without the indentation that is a matter of where in an empty line the cursor stands."""
    return _plain(text) if left else _plain(text).lstrip()


def _place(before: str, after: str) -> _Place:
    *above, left = before[-NEAR:].split("\n")
    right, *below = after[:NEAR].split("\n")
    return _Place(
        above=next((line.strip() for line in reversed(above) if line.strip()), ""),
        left=left.lstrip(),
        right=right.rstrip(),
        below=next((line.strip() for line in below if line.strip()), ""),
    )


def _as_of(rejection: _Rejection, here: _Place) -> str | None:
    """The rejected text as it would be inserted here, or None where this is another place.

    In the same line as it was, typed on or taken back, one neighbouring line must be the same; in a line that says
    nothing by itself, or one that was edited a little, both.
    """
    place = rejection.place
    neighbours = (place.above == here.above) + (place.below == here.below)
    if neighbours == 0:
        return None
    text: str | None = None
    if here.left.startswith(place.left) and rejection.text.startswith(typed := here.left[len(place.left) :]):
        text = rejection.text[len(typed) :]
    elif place.left.startswith(here.left):
        text = place.left[len(here.left) :] + rejection.text
    common = min(place.left, here.left, key=len) + here.right
    if text is not None and place.right == here.right and any(map(str.isalnum, common)):
        return text
    if neighbours < 2:
        return None
    if text is not None:
        return text
    return rejection.text if edited_a_little(f"{place.left}\n{place.right}", f"{here.left}\n{here.right}") else None


def edited_a_little(before: str, now: str) -> bool:
    """Whether one spot of a line changed, and not too much of the line."""
    same = len(commonprefix([before, now]))
    same += len(commonprefix([before[same:][::-1], now[same:][::-1]]))
    longer = max(len(before), len(now))
    return longer - same <= EDITED * longer
