"""Suggestions that can be served without asking the model.

Most keystrokes need no model: the user types what was suggested, returns to an earlier position by undo, goes on to the
next line of a longer suggestion, or types while a run is under way. One rule holds for all of them: accepting what is
served here gives the same text as accepting the stored suggestion at its own position, except for indentation that the
user typed. Must not know the protocol, the model, or when to stay quiet.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from infill.request import Lines
from lsp.suggestions import Suggestion, Suggestions

ABOVE = 1_000  # characters before a line that identify it
AFTER = 400  # characters right of the cursor that must be equal
REACH = 2_000  # most characters typed since a suggestion was stored
LINES = 30  # most lines typed since a suggestion was stored
ENTRIES, CHARACTERS = 500, 2_000_000  # most that is kept in total
FRESH_S = 600.0  # how long suggestions are kept
NOTHING_S = 10.0  # how long an empty answer is kept
AUTO_CLOSED = 8  # most characters that an editor closes automatically
OPENERS = {")": "(", "]": "[", "}": "{", ">": "<", '"': '"', "'": "'", "`": "`"}

_FIRST_LINE = re.compile(r"\s*[^\r\n]*")
_LINE_END = re.compile(r"[ \t]*(?:\r\n?|\n)")


class Anchor:
    """A cursor position, remembered by the text around it, so that what was typed since can be derived later."""

    def __init__(self, before: str, after: str) -> None:
        self.length = len(before)
        self.tail = before[-ABOVE:]
        self.head = after[:AFTER]
        self.indenting = not before[_line_start(before) :].strip()

    def typed(self, before: str) -> str | None:
        """The text between this position and the end of `before`; None if the user did more than type."""
        begin = self.length - len(self.tail)
        if len(before) > self.length + REACH or not before.startswith(self.tail, begin):
            return None
        return before[self.length :]

    def agrees(self, before: str, after: str) -> bool:
        """Whether the user has only typed on from here, or done nothing."""
        typed = self.typed(before)
        if typed is None:
            return False
        closers = len(self.head[:AUTO_CLOSED]) - len(self.head[:AUTO_CLOSED].lstrip("".join(OPENERS)))
        return next(_changes_right(self.head, closers, typed, after), None) is not None

    def fitting(self, suggestions: Sequence[Suggestion], before: str, after: str) -> tuple[Suggestion, ...]:
        """The suggestions for this position that begin with what was typed since, each without that beginning."""
        typed = self.typed(before)
        if typed is None:
            return ()
        rests = (_rest(suggestion, typed, self.indenting, self.head, after) for suggestion in suggestions)
        return tuple(rest for rest in rests if rest is not None)


@dataclass(frozen=True)
class _OnScreen:
    line: tuple[str, str]
    anchor: Anchor
    suggestion: Suggestion


@dataclass(frozen=True, eq=False)
class _Entry:
    """The model's suggestions for one position. left: the line up to the cursor; head: the text right of it."""

    left: str
    head: str
    suggestions: tuple[Suggestion, ...]
    lines: Lines
    stored: float
    size: int


class SuggestionCache:
    """Holds the model's suggestions, and what each document shows on the screen; the oldest are dropped first.

    clock: seconds. capacity: most entries. A lookup reads a few thousand characters, however long the text is.
    """

    def __init__(self, clock: Callable[[], float], capacity: int = ENTRIES) -> None:
        self._clock, self._capacity = clock, capacity
        self._shown: dict[str, _OnScreen] = {}
        self._by_line: OrderedDict[tuple[str, str], list[_Entry]] = OrderedDict()
        self._count = self._size = 0

    def __len__(self) -> int:
        """The number of entries."""
        return self._count

    def look_up(self, uri: str, before: str, after: str) -> Suggestions | None:
        """The suggestions for the cursor between `before` and `after`; None if the model has to be asked.

        A suggestion on the screen that agrees with what was typed comes first, so that it never changes while the user
        reads it. An empty result means that the model found nothing here a moment ago.
        """
        if (shown := self._shown.get(uri)) is not None:
            if fitting := shown.anchor.fitting((shown.suggestion,), before, after):
                return Suggestions(fitting, "typed")
        for start in _line_starts(before):
            if found := self._look_in_line(uri, before, after, start):
                return found
        start, now = _line_start(before), self._clock()
        for entry in self._by_line.get(_key(uri, before, start), ()):
            same_position = entry.left == before[start:] and entry.head == after[:AFTER]
            if not entry.suggestions and same_position and now - entry.stored < NOTHING_S:
                return Suggestions((), "cache")
        return None

    def store(
        self, uri: str, before: str, after: str, suggestions: Sequence[Suggestion], lines: Lines
    ) -> tuple[Suggestion, ...]:
        """Stores the model's suggestions for a position, even if there are none; returns what to show at once.

        lines: how much was requested. With "one", a longer suggestion is served one line at a time.
        """
        start = _line_start(before)
        key, left, head = _key(uri, before, start), before[start:], after[:AFTER]
        size = len(key[1]) + len(left) + len(head) + sum(len(suggestion.text) for suggestion in suggestions)
        entry = _Entry(left, head, tuple(suggestions), lines, self._clock(), size)
        for other in [other for other in self._by_line.get(key, ()) if (other.left, other.head) == (left, head)]:
            self._drop(key, other)
        self._by_line.setdefault(key, []).append(entry)
        self._by_line.move_to_end(key)
        self._count, self._size = self._count + 1, self._size + size
        while self._count > self._capacity or self._size > CHARACTERS:
            oldest = next(iter(self._by_line))
            self._drop(oldest, self._by_line[oldest][0])
        return _to_show([(suggestion, suggestion) for suggestion in suggestions], lines, after)

    def shown(self, uri: str, before: str, after: str, suggestion: Suggestion) -> None:
        """The editor shows this suggestion. The rest of one that is already shown keeps its original position."""
        shown = self._shown.get(uri)
        if shown is None or shown.anchor.fitting((shown.suggestion,), before, after) != (suggestion,):
            line = _key(uri, before, _line_start(before))
            self._shown[uri] = _OnScreen(line, Anchor(before, after), suggestion)

    def extended(self, uri: str, identifier: str, longer: Suggestion) -> bool:
        """The suggestion `identifier` is the beginning of `longer`, which takes its place if it is on the screen.

        Returns whether it does.
        """
        shown = self._shown.get(uri)
        if shown is None or shown.suggestion.id != identifier or shown.suggestion.text == longer.text:
            return False
        if not longer.text.startswith(shown.suggestion.text):
            return False
        self._shown[uri] = replace(shown, suggestion=replace(longer, id=identifier))
        return True

    def accepted(self, identifier: str) -> None:
        """The user accepted all that was shown; further lines of the same suggestion stay cached and come next."""
        for uri in self._touch(identifier):
            del self._shown[uri]

    def partly_accepted(self, identifier: str, length: int) -> None:
        """The user accepted the first `length` characters; the rest is served like typed text."""
        for uri in self._touch(identifier):
            if length >= len(self._shown[uri].suggestion.text):
                del self._shown[uri]

    def forget(self, uri: str) -> None:
        """The document was closed."""
        self._shown.pop(uri, None)
        for key in [key for key in self._by_line if key[0] == uri]:
            for entry in list(self._by_line[key]):
                self._drop(key, entry)

    def _touch(self, identifier: str) -> list[str]:
        """Marks the line that shows this suggestion as recently used; returns the documents that show it."""
        uris = [uri for uri, shown in self._shown.items() if shown.suggestion.id == identifier]
        for uri in uris:
            if (line := self._shown[uri].line) in self._by_line:
                self._by_line.move_to_end(line)
        return uris

    def _look_in_line(self, uri: str, before: str, after: str, start: int) -> Suggestions | None:
        """Suggestions stored for the line that begins at `start`, from the nearest position that fits."""
        key = _key(uri, before, start)
        now = self._clock()
        for entry in [entry for entry in self._by_line.get(key, ()) if now - entry.stored >= FRESH_S]:
            self._drop(key, entry)
        written = before[start:]
        for entry in sorted(self._by_line.get(key, ()), key=lambda entry: len(entry.left), reverse=True):
            if not written.startswith(entry.left):
                continue
            since = (written[len(entry.left) :], not entry.left.strip(), entry.head, after)
            pairs = [(whole, rest) for whole in entry.suggestions if (rest := _rest(whole, *since))]
            if pairs:
                self._by_line.move_to_end(key)
                shown = _to_show(pairs, entry.lines, after)
                return Suggestions(shown, "remainder" if _lines_past(*pairs[0]) else "cache")
        return None

    def _drop(self, key: tuple[str, str], entry: _Entry) -> None:
        entries = self._by_line[key]
        entries.remove(entry)
        if not entries:
            del self._by_line[key]
        self._count, self._size = self._count - 1, self._size - entry.size


def _line_starts(before: str) -> Iterator[int]:
    """Offsets of the cursor's line and of the lines above it, as far as typing is followed."""
    floor, end = max(0, len(before) - REACH), len(before)
    for number in range(LINES):
        start = max(before.rfind("\n", floor, end), before.rfind("\r", floor, end)) + 1
        if start == 0:
            if floor == 0:
                yield 0
            elif number == 0:  # a very long line: cut it where the cut stays the same for a while
                yield len(before) - len(before) % REACH
            return
        yield start
        end = start - (2 if before.endswith("\r\n", floor, start) else 1)


def _line_start(before: str) -> int:
    return next(_line_starts(before))


def _key(uri: str, before: str, start: int) -> tuple[str, str]:
    return uri, before[max(0, start - ABOVE) : start]


def _rest(suggestion: Suggestion, typed: str, indenting: bool, head: str, after: str) -> Suggestion | None:
    """The rest of a suggestion after `typed`; the text right of the cursor was `head` and is now `after`.

    Brackets and quotes that the editor closed since are swallowed; those that were typed over are not.
    """
    text = _cut(suggestion.text, typed, indenting)
    if text is None or not text.strip():
        return None
    for closed, overtyped in _changes_right(head, len(suggestion.swallow), typed, after):
        if _in_order(closed, text):  # editors hide a suggestion that does not repeat what it replaces
            return replace(suggestion, text=text, swallow=closed + suggestion.swallow[overtyped:])
    return None


def _cut(text: str, typed: str, indenting: bool) -> str | None:
    """`text` without `typed` at its beginning, or None if it begins differently.

    Line ends may differ in kind. For a single line that begins the line, the indentation may differ.
    """
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
    """Ways in which `head` can have become `after` while `typed` was typed, the likeliest first.

    Yields what the editor closed before it, and how many of its first `swallow` characters were typed over.
    """
    for overtyped in range(swallow + 1):
        if not _in_order(head[:overtyped], typed):
            return
        kept = head[overtyped:]
        for length in range(min(AUTO_CLOSED, len(after)) + 1):
            if not may_close(after[:length], typed):
                break
            ends_too = len(head) == AFTER or len(after) == length + len(kept)
            if ends_too and after.startswith(kept, length):
                yield after[:length], overtyped


def may_close(closers: str, typed: str) -> bool:
    """Whether an editor can have added `closers` after `typed`: brackets and quotes that `typed` leaves open."""
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
    """How many lines of the whole suggestion are already in the document."""
    return whole.text.lstrip().count("\n") - rest.text.lstrip().count("\n")


def _to_show(pairs: Sequence[tuple[Suggestion, Suggestion]], lines: Lines, after: str) -> tuple[Suggestion, ...]:
    """What to show, given pairs of a stored suggestion and its rest; of equal texts only the first.

    If one line was requested, that is the current or next line, and each line has its own id. It keeps its line break
    if the suggestion is whole lines above another line, which would otherwise be joined to it.
    """
    shown: dict[str, Suggestion] = {}
    above_line = bool(after) and not _LINE_END.match(after)
    for whole, rest in pairs:
        if lines == "one":
            match = _FIRST_LINE.match(rest.text)
            text = match[0] if match else rest.text
            if above_line and rest.text.endswith("\n") and (end := _LINE_END.match(rest.text, len(text))):
                text += end[0]
            past = _lines_past(whole, rest)
            rest = replace(
                rest,
                id=f"{whole.id}+{past}" if past else whole.id,
                text=text,
                swallow=rest.swallow if text == rest.text or _in_order(rest.swallow, text) else "",
            )
        shown.setdefault(rest.text, rest)
    return tuple(shown.values())
