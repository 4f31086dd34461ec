"""What is known already: suggestions that a keystroke can be answered with before anything else is asked.

Most keystrokes need no model: the user types what was suggested, comes back to a place by undoing, goes on to the next
line of an answer of several, or types on while a run is on its way. One rule holds for all of it: accepting what is
served here gives the very text that accepting the stored answer at its own place would have given, but for the
indentation that the user has typed. Must not know the protocol, the model, nor when it is good to be quiet.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from infill.request import Lines

ABOVE = 1_000  # characters before a line that tell it from others
AFTER = 400  # characters right of the cursor that must be the same
REACH = 2_000  # characters typed since an answer, at most
LINES = 30  # lines typed since an answer, at most
ANSWERS, CHARACTERS = 500, 2_000_000  # kept in all
FRESH_S = 600.0  # how long suggestions are kept
NOTHING_S = 10.0  # how long a place is left alone for which there was nothing good
AUTO_CLOSED = 8  # characters that an editor closes by itself, at most
OPENERS = {")": "(", "]": "[", "}": "{", ">": "<", '"': '"', "'": "'", "`": "`"}

_FIRST_LINE = re.compile(r"\s*[^\r\n]*")


@dataclass(frozen=True)
class Suggestion:
    """text: inserted at the cursor, in place of `swallow`, which stands right of the cursor on the same line.

    confidence: 0 to 1. created: seconds of the clock that the server uses.
    """

    id: str
    text: str
    swallow: str
    confidence: float
    source: str
    created: float


@dataclass(frozen=True)
class Served:
    """What a place is answered with, best first. Nothing in it: a moment ago there was nothing good here."""

    rung: Literal["typed", "cache", "remainder"]
    suggestions: tuple[Suggestion, ...]


class Origin:
    """A place in a text, kept short: what has been typed since then can be told from the text of a later moment."""

    def __init__(self, before: str, after: str) -> None:
        self.length = len(before)
        self.tail = before[-ABOVE:]
        self.head = after[:AFTER]
        self.indenting = not before[_line_start(before) :].strip()

    def typed(self, before: str) -> str | None:
        """What stands between this place and the end of `before`, or None where that is no typing on from here."""
        begin = self.length - len(self.tail)
        if len(before) > self.length + REACH or not before.startswith(self.tail, begin):
            return None
        return before[self.length :]

    def fitting(self, suggestions: Sequence[Suggestion], before: str, after: str) -> tuple[Suggestion, ...]:
        """What is left of those suggestions for this place that agree with what was typed since."""
        typed = self.typed(before)
        if typed is None:
            return ()
        rests = (_rest(suggestion, typed, self.indenting, self.head, after) for suggestion in suggestions)
        return tuple(rest for rest in rests if rest is not None)


class Running:
    """A run of the model that is on its way, for a place. started: seconds of the server's clock."""

    def __init__(self, uri: str, before: str, after: str, started: float) -> None:
        self.uri, self.started = uri, started
        self._origin = Origin(before, after)

    def agrees(self, before: str, after: str) -> bool:
        """Whether the user did nothing but type on since the run began, or nothing at all."""
        typed, head = self._origin.typed(before), self._origin.head
        if typed is None:
            return False
        closers = len(head[:AUTO_CLOSED]) - len(head[:AUTO_CLOSED].lstrip("".join(OPENERS)))
        return next(_changes_right(head, closers, typed, after), None) is not None

    def still_fits(self, suggestions: Sequence[Suggestion], before: str, after: str) -> tuple[Suggestion, ...]:
        """Of the run's answer, those that begin with what was typed meanwhile, cut to what is left of them."""
        return self._origin.fitting(suggestions, before, after)


@dataclass(frozen=True)
class _Shown:
    line: tuple[str, str]
    origin: Origin
    suggestion: Suggestion


@dataclass(frozen=True, eq=False)
class _Answer:
    """An answer for a place in a line; left: the line up to there."""

    left: str
    head: str
    suggestions: tuple[Suggestion, ...]
    lines: Lines
    stored: float
    size: int


class Ladder:
    """Remembers answers and what is on the screen of each document; the oldest are forgotten first.

    clock: seconds. capacity: answers kept. A call looks at some thousand characters, however long the text is.
    """

    def __init__(self, clock: Callable[[], float], capacity: int = ANSWERS) -> None:
        self._clock, self._capacity = clock, capacity
        self._shown: dict[str, _Shown] = {}
        self._by_line: OrderedDict[tuple[str, str], list[_Answer]] = OrderedDict()
        self._count = self._size = 0

    def __len__(self) -> int:
        """Answers kept."""
        return self._count

    def look_up(self, uri: str, before: str, after: str) -> Served | None:
        """What is known for the cursor between `before` and `after`; None: nothing is, so ask the model.

        What is on the screen and agrees with what was typed comes first, so that it never changes under the user.
        """
        if (shown := self._shown.get(uri)) is not None:
            if fitting := shown.origin.fitting((shown.suggestion,), before, after):
                return Served("typed", fitting)
        for start in _line_starts(before):
            if served := self._look_in_line(uri, before, after, start):
                return served
        start, now = _line_start(before), self._clock()
        for answer in self._by_line.get(_key(uri, before, start), ()):
            same_place = answer.left == before[start:] and answer.head == after[:AFTER]
            if not answer.suggestions and same_place and now - answer.stored < NOTHING_S:
                return Served("cache", ())
        return None

    def store(
        self, uri: str, before: str, after: str, suggestions: Sequence[Suggestion], lines: Lines
    ) -> tuple[Suggestion, ...]:
        """Keeps the model's answer for a place (none is an answer too); gives what of it to show there at once.

        lines: how much was asked for; of longer answers to "one" a line is served at a time.
        """
        start = _line_start(before)
        key, left, head = _key(uri, before, start), before[start:], after[:AFTER]
        size = len(key[1]) + len(left) + len(head) + sum(len(one.text) for one in suggestions)
        answer = _Answer(left, head, tuple(suggestions), lines, self._clock(), size)
        for other in [one for one in self._by_line.get(key, ()) if (one.left, one.head) == (left, head)]:
            self._drop(key, other)
        self._by_line.setdefault(key, []).append(answer)
        self._by_line.move_to_end(key)
        self._count, self._size = self._count + 1, self._size + size
        while self._count > self._capacity or self._size > CHARACTERS:
            oldest = next(iter(self._by_line))
            self._drop(oldest, self._by_line[oldest][0])
        return _to_show([(one, one) for one in suggestions], lines)

    def shown(self, uri: str, before: str, after: str, suggestion: Suggestion) -> None:
        """The editor shows this suggestion; what is left of one already shown keeps the place where that began."""
        shown = self._shown.get(uri)
        if shown is None or shown.origin.fitting((shown.suggestion,), before, after) != (suggestion,):
            line = _key(uri, before, _line_start(before))
            self._shown[uri] = _Shown(line, Origin(before, after), suggestion)

    def accepted(self, identifier: str) -> None:
        """The user took all that was shown of it. What its answer holds beyond that is kept, and served next."""
        for uri in self._touch(identifier):
            del self._shown[uri]

    def partly_accepted(self, identifier: str, length: int) -> None:
        """The user took its first `length` characters; the rest is served on as typed."""
        for uri in self._touch(identifier):
            if length >= len(self._shown[uri].suggestion.text):
                del self._shown[uri]

    def forget(self, uri: str) -> None:
        """The document was closed."""
        self._shown.pop(uri, None)
        for key in [key for key in self._by_line if key[0] == uri]:
            for answer in list(self._by_line[key]):
                self._drop(key, answer)

    def _touch(self, identifier: str) -> list[str]:
        """Keeps the answers of the line where it is shown from being forgotten next; the documents that show it."""
        uris = [uri for uri, shown in self._shown.items() if shown.suggestion.id == identifier]
        for uri in uris:
            if (line := self._shown[uri].line) in self._by_line:
                self._by_line.move_to_end(line)
        return uris

    def _look_in_line(self, uri: str, before: str, after: str, start: int) -> Served | None:
        """What fits of the answers for places in the line that begins at `start`; the nearest place first."""
        key = _key(uri, before, start)
        now = self._clock()
        for answer in [one for one in self._by_line.get(key, ()) if now - one.stored >= FRESH_S]:
            self._drop(key, answer)
        written = before[start:]
        for answer in sorted(self._by_line.get(key, ()), key=lambda one: len(one.left), reverse=True):
            if not written.startswith(answer.left):
                continue
            place = (written[len(answer.left) :], not answer.left.strip(), answer.head, after)
            pairs = [(whole, rest) for whole in answer.suggestions if (rest := _rest(whole, *place))]
            if pairs:
                self._by_line.move_to_end(key)
                rung: Literal["remainder", "cache"] = "remainder" if _lines_past(*pairs[0]) else "cache"
                return Served(rung, _to_show(pairs, answer.lines))
        return None

    def _drop(self, key: tuple[str, str], answer: _Answer) -> None:
        answers = self._by_line[key]
        answers.remove(answer)
        if not answers:
            del self._by_line[key]
        self._count, self._size = self._count - 1, self._size - answer.size


def _line_starts(before: str) -> Iterator[int]:
    """Where the line of the cursor begins, and the lines above it as far as typing is followed; offsets."""
    floor, end = max(0, len(before) - REACH), len(before)
    for number in range(LINES):
        start = max(before.rfind("\n", floor, end), before.rfind("\r", floor, end)) + 1
        if start == 0:
            if floor == 0:
                yield 0
            elif number == 0:  # a line longer than that: cut where it stays the same for some time
                yield len(before) - len(before) % REACH
            return
        yield start
        end = start - (2 if before.endswith("\r\n", floor, start) else 1)


def _line_start(before: str) -> int:
    return next(_line_starts(before))


def _key(uri: str, before: str, start: int) -> tuple[str, str]:
    return uri, before[max(0, start - ABOVE) : start]


def _rest(suggestion: Suggestion, typed: str, indenting: bool, head: str, after: str) -> Suggestion | None:
    """What is left of a suggestion after `typed`, where `head` stood right of the cursor and now `after` does.

    Brackets and quotes that the editor closed meanwhile are swallowed; what was typed over is not swallowed again.
    """
    text = _cut(suggestion.text, typed, indenting)
    if text is None or not text.strip():
        return None
    for closed, gone in _changes_right(head, len(suggestion.swallow), typed, after):
        if _in_order(closed, text):  # else an editor would not show it: what is swallowed must come again
            return replace(suggestion, text=text, swallow=closed + suggestion.swallow[gone:])
    return None


def _cut(text: str, typed: str, indenting: bool) -> str | None:
    """`text` without `typed` at its beginning, or None. Kinds of line ends do not matter, nor does, for a text of one
    line at the beginning of a line, how far the user indents it."""
    if text.startswith(typed):
        return text[len(typed) :]
    if "\r\n" in text or "\r\n" in typed:
        plain, written = text.replace("\r\n", "\n"), typed.replace("\r\n", "\n")
        if plain.startswith(written):
            rest = plain[len(written) :]
            return rest.replace("\n", "\r\n") if "\r\n" in text else rest
    if indenting and typed[0] in " \t" and "\n" not in text and "\r" not in text:
        body, written = text.lstrip(" \t"), typed.lstrip(" \t")
        if body.startswith(written):
            return body[len(written) :]
    return None


def _changes_right(head: str, swallow: int, typed: str, after: str) -> Iterator[tuple[str, int]]:
    """Ways in which `head` became `after` while `typed` was typed: (closed by the editor before it, characters of its
    front that were typed over, at most `swallow`), the likeliest first."""
    for gone in range(swallow + 1):
        if not _in_order(head[:gone], typed):
            return
        kept = head[gone:]
        for length in range(min(AUTO_CLOSED, len(after)) + 1):
            if not may_close(after[:length], typed):
                break
            ends_too = len(head) == AFTER or len(after) == length + len(kept)
            if ends_too and after.startswith(kept, length):
                yield after[:length], gone


def may_close(closers: str, typed: str) -> bool:
    """Whether an editor may have put `closers` behind `typed` by itself: brackets and quotes that `typed` opens."""
    for closer in set(closers):
        opener = OPENERS.get(closer)
        if opener is None:
            return False
        opened, closed = typed.count(opener), typed.count(closer)
        still_open = opened * (opened % 2) if opener == closer else opened - closed
        if closers.count(closer) > still_open:
            return False
    return True


def _in_order(part: str, whole: str) -> bool:
    rest = iter(whole)
    return all(character in rest for character in part)


def _lines_past(whole: Suggestion, rest: Suggestion) -> int:
    """How many lines of the whole text stand in the document already, so that the rest is of later lines."""
    return whole.text.lstrip().count("\n") - rest.text.lstrip().count("\n")


def _to_show(pairs: Sequence[tuple[Suggestion, Suggestion]], lines: Lines) -> tuple[Suggestion, ...]:
    """Of pairs of a stored suggestion and its rest, what is to be shown; of rests that look the same, the first.

    Where one line was asked for, that is the line of the cursor, or the next one; each line has an id of its own.
    """
    shown: dict[str, Suggestion] = {}
    for whole, rest in pairs:
        if lines == "one":
            match = _FIRST_LINE.match(rest.text)
            text = match[0] if match else rest.text
            past = _lines_past(whole, rest)
            rest = replace(
                rest,
                id=f"{whole.id}+{past}" if past else whole.id,
                text=text,
                swallow=rest.swallow if text == rest.text or _in_order(rest.swallow, text) else "",
            )
        shown.setdefault(rest.text, rest)
    return tuple(shown.values())
