"""Texts that the user rejected or deleted, so that they are not offered at the same position again.

Must not know the protocol nor how suggestions are made.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from lsp.line_context import LineContext
from lsp.suggestion_cache import AUTO_CLOSED, may_close

SEEN_S = 0.4  # a suggestion shown for less was hardly read, so typing over it does not reject it
REMEMBERED = 200
REMEMBERED_S = 1_800.0
MOST_DELETED = 2_000  # characters of a deleted text
WORDY = 4  # least characters of a deleted text for which a suggestion that only begins with it counts as the same
NEAR = 400  # characters on either side that identify a position


@dataclass(frozen=True)
class _Rejection:
    """deleted: whether the user deleted the text, rather than rejected a suggestion."""

    uri: str
    context: LineContext
    text: str
    at: float
    deleted: bool = False


class Rejections:
    """Remembers the last rejections for some time. `clock` returns seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._rejections: deque[_Rejection] = deque(maxlen=REMEMBERED)

    def rejected(self, uri: str, before: str, after: str, text: str) -> None:
        """The user rejected `text`, which was offered between `before` and `after`."""
        self._rejections.append(_Rejection(uri, _context(before, after), _plain(text), self._clock()))

    def deleted(self, uri: str, before: str, after: str, text: str) -> None:
        """The user deleted `text` between `before` and `after`; keys that delete one by one add up."""
        context = _context(before, after)
        last = self._rejections[-1] if self._rejections else None
        if last is not None and last.deleted and last.uri == uri and last.context.above == context.above:
            if last.context.left == (context.left + text.replace("\r\n", "\n")).lstrip():
                text += last.text  # backwards
                self._rejections.pop()
            elif last.context.left == context.left and last.context.right == (text + context.right).rstrip():
                text = last.text + text
                self._rejections.pop()
        if len(text) <= MOST_DELETED:
            plain = text.replace("\r\n", "\n")
            self._rejections.append(_Rejection(uri, context, plain, self._clock(), True))

    def typed(self, uri: str, before: str, after: str) -> None:
        """The user typed or pasted up to the end of `before`: a deleted text that is there again may come again."""
        written, now = before[-NEAR - MOST_DELETED :].replace("\r\n", "\n"), _context(before, after)

        def is_back(one: _Rejection) -> bool:
            if not (one.deleted and one.uri == uri and written.endswith(one.context.left + one.text)):
                return False
            return "\n" in one.text or one.context.same_neighbours(now) > 0

        for one in [one for one in self._rejections if is_back(one)]:
            self._rejections.remove(one)

    def typed_over(self, uri: str, before: str, after: str, text: str, typed: str, seen_s: float) -> bool:
        """The user typed `typed` while `text` was on the screen for `seen_s` seconds. Returns whether that rejects it.

        It does not if there was too little time to read it, or if `typed` is blank or agrees with it. `typed` includes
        what the editor closed automatically.
        """
        offered, written = _plain(text), typed.replace("\r\n", "\n")
        if seen_s < SEEN_S or not written.strip(" \t") or written.startswith(offered) or _begins(offered, written):
            return False
        self.rejected(uri, before, after, text)
        return True

    def is_rejected(self, uri: str, before: str, after: str, text: str) -> bool:
        """Whether the user rejected or deleted this text here, or a longer one whose beginning was typed since."""
        left = _context(before, "").left
        offered = _comparable(text, left)
        return any(
            offered == _comparable(other, left) or (deleted and _begins_alike(offered, _comparable(other, left)))
            for other, deleted in self._at(uri, before, after)
        )

    def texts(self, uri: str, before: str, after: str) -> tuple[str, ...]:
        """The distinct texts rejected or deleted at this position, as they would be inserted now; the latest first."""
        return tuple(dict.fromkeys(_plain(text) for text, _ in self._at(uri, before, after) if text.strip()))

    def _at(self, uri: str, before: str, after: str) -> list[tuple[str, bool]]:
        """The texts at this position, and whether they were deleted."""
        oldest = self._clock() - REMEMBERED_S
        while self._rejections and self._rejections[0].at < oldest:
            self._rejections.popleft()
        now = _context(before, after)
        found = ((_text_at(one, now), one.deleted) for one in reversed(self._rejections) if one.uri == uri)
        return [(text, deleted) for text, deleted in found if text and text.strip()]


def _begins(offered: str, written: str) -> bool:
    """Whether `offered` begins with `written`, ignoring closing brackets and quotes that an editor may have added."""
    ends = range(len(written), max(0, len(written) - AUTO_CLOSED) - 1, -1)
    return any(offered.startswith(written[:end]) and may_close(written[end:], written[:end]) for end in ends)


def _begins_alike(offered: str, deleted: str) -> bool:
    """Whether one goes on where the other ends: the deleted text and more, or its first lines."""
    if len("".join(deleted.split())) < WORDY:
        return False
    if offered.startswith(deleted):
        return not ("x" + offered[len(deleted) :][:1]).isidentifier()
    if not deleted.startswith(offered):
        return False
    left = deleted[len(offered) :]
    return left.startswith("\n") or not any(map(str.isalnum, left))


def _plain(text: str) -> str:
    return text.replace("\r\n", "\n").rstrip()


def _comparable(text: str, left: str) -> str:
    """On a blank line the text without indentation, which depends on the cursor's column."""
    return _plain(text) if left else _plain(text).lstrip()


def _context(before: str, after: str) -> LineContext:
    *above, left = before[-NEAR:].split("\n")
    right, *below = after[:NEAR].split("\n")
    return LineContext.of(reversed(above), left, right, below)


def _text_at(rejection: _Rejection, now: LineContext) -> str | None:
    """The rejected text as it would be inserted at `now`, or None if that is a different position.

    The same line, further typed or deleted, needs one unchanged neighbour. A slightly edited line, or one without
    letters and digits, needs both.
    """
    then = rejection.context
    neighbours = then.same_neighbours(now)
    if neighbours == 0:
        return None
    text: str | None = None
    if now.left.startswith(then.left) and rejection.text.startswith(typed := now.left[len(then.left) :]):
        text = rejection.text[len(typed) :]
    elif then.left.startswith(now.left):
        text = then.left[len(now.left) :] + rejection.text
    common = min(then.left, now.left, key=len) + now.right
    if text is not None and then.right == now.right and any(map(str.isalnum, common)):
        return text
    if neighbours < 2:
        return None
    if text is not None:
        return text
    return rejection.text if then.is_edited(now) else None
