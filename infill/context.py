"""What of a file the model is shown: the text around the holes, and an outline of what does not fit.

Text in, text out; sizes are characters, since only a prompt family knows tokens. Where a window is cut moves
by whole steps of lines, so that typing leaves the start of the prompt as it was and its cached keys stay
good.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from infill.outline import outline
from infill.request import Neighbour
from infill.syntax import Span

LINE_STEPS = (16, 4, 1)
CHARACTER_STEP = 256


@dataclass(frozen=True)
class ContextBudget:
    """Most characters of each part."""

    prefix: int
    suffix: int
    header: int


@dataclass(frozen=True)
class ShownContext:
    """header: outline of the rest of the file and of neighbours. prefix ends where the first hole begins,
    suffix begins where the last one ends."""

    header: str
    prefix: str
    suffix: str
    language: str | None
    path: str | None


def show_context(
    text: str,
    first: int,
    last: int,
    language: str | None,
    path: str | None,
    neighbours: Sequence[Neighbour],
    budget: ContextBudget,
) -> ShownContext:
    """The context of the region [first, last) of `text`, which the caller shows itself."""
    start = window_start(text, first, budget.prefix)
    end = window_end(text, last, budget.suffix)
    header = ""
    if start > 0 or end < len(text):
        header = outline(text, language, [Span(start, end)], limit_chars=budget.header)
    for neighbour in neighbours:
        room = budget.header - len(header)
        if room > 80:
            header = outline(neighbour.text, language, [], limit_chars=room) + header
    return ShownContext(header, text[start:first], text[last:end], language, path)


def window_start(text: str, end: int, room: int) -> int:
    """Where to begin so that at most `room` characters, and at least half of that, stand before `end`.

    The start of the file, or the first line there whose number is a multiple of LINE_STEPS[0], or else of the
    next of LINE_STEPS; in a line that is too long for that, a multiple of CHARACTER_STEP.
    """
    if end <= room:
        return 0
    earliest, latest = end - room, end - room // 2
    line, at = text.count("\n", 0, earliest), earliest
    starts: list[tuple[int, int]] = []
    while (newline := text.find("\n", at, latest)) != -1:
        line, at = line + 1, newline + 1
        starts.append((line, at))
    for step in LINE_STEPS:
        for number, start in starts:
            if number % step == 0:
                return start
    snapped = -(-earliest // CHARACTER_STEP) * CHARACTER_STEP
    return snapped if snapped <= latest else earliest


def window_end(text: str, start: int, room: int) -> int:
    """The last line end within `room` characters after `start`, or `room` itself in a longer line."""
    if len(text) - start <= room:
        return len(text)
    newline = text.rfind("\n", start, start + room)
    return newline + 1 if newline > start else start + room
