"""What the model sees of a file: the text around the holes, an outline of the rest, and related lines.

Sizes are in characters, since only a prompt family knows tokens. The start of the window moves by several lines at a
time, so that the prompt keeps its beginning while the user types, and its cached keys stay valid.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from engine.errors import Cancelled, Stop
from infill.code.outline import outline
from infill.code.snippets import snippet
from infill.code.syntax import ParsingStopped, Span
from infill.request import Neighbour

LINE_STEPS = (16, 4, 1)
CHARACTER_STEP = 256
NEAR_LINES = 8
NEAR_CHARACTERS = 800
FAR_CHARACTERS = 60_000  # on each side of the window, and of another file: some 1,500 lines
OTHER_CHARACTERS = 400_000  # of all other files


@dataclass(frozen=True)
class ContextBudget:
    """The most characters of each part."""

    prefix: int
    suffix: int
    header: int


@dataclass(frozen=True)
class ShownContext:
    """header: outlines of neighbours, related lines, and the outline of the rest of the file, in this order.

    prefix ends where the first hole begins; suffix begins where the last hole ends.
    """

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
    stop: Stop | None = None,
) -> ShownContext:
    """The context of text[first:last], which the caller shows itself. Once `stop` returns True, without a header."""
    start = window_start(text, first, budget.prefix)
    end = window_end(text, last, budget.suffix)
    above = text[window_start(text, start, FAR_CHARACTERS) : start]
    below = text[end : window_end(text, end, FAR_CHARACTERS)]
    others = [*_bounded(neighbours)]
    related = rest = ""
    if (above or below or others) and not (stop is not None and stop()):
        related = snippet(_near(text, first, last), [above, below, *others], budget.header // 2)
    remaining = budget.header - len(related)
    if above or below:
        window = Span(len(above), len(above))
        rest = _outline(_Source(above + below, language, (window,), remaining, stop))
    outlines = ""
    for other in others:
        remaining = budget.header - len(outlines) - len(related) - len(rest)
        if remaining > 80:
            source = _Source(other, language, (), remaining, stop)
            outlines = _outline(source) + outlines
    return ShownContext(outlines + related + rest, text[start:first], text[last:end], language, path)


def _bounded(neighbours: Sequence[Neighbour]) -> Iterator[str]:
    """Their texts, cut to FAR_CHARACTERS each and to OTHER_CHARACTERS together."""
    remaining = OTHER_CHARACTERS
    for neighbour in neighbours:
        text = neighbour.text[: min(FAR_CHARACTERS, remaining)]
        remaining -= len(text)
        if text:
            yield text


def _near(text: str, first: int, last: int) -> str:
    """The text whose names are searched for; it changes only every NEAR_LINES lines."""
    line = text.count("\n", 0, first)
    start = first
    for _ in range(line % NEAR_LINES + 1):
        start = text.rfind("\n", 0, max(start, 0))
    return text[max(0, start - NEAR_CHARACTERS) : max(0, start)] + text[last : last + NEAR_CHARACTERS // 2]


@dataclass(frozen=True)
class _Source:
    """A text to outline. keep: shown otherwise. stop: once it returns True, parsing stops."""

    text: str
    language: str | None
    keep: tuple[Span, ...]
    limit_chars: int
    stop: Stop | None = field(compare=False)


def _outline(source: _Source) -> str:
    """The outline; empty if parsing was stopped."""
    try:
        return _cached_outline(source)
    except (ParsingStopped, Cancelled):
        return ""


@lru_cache(maxsize=16)
def _cached_outline(source: _Source) -> str:
    """Cached, since typing within the window does not change the text outside it."""
    return outline(source.text, source.language, source.keep, source.limit_chars, source.stop)


def window_start(text: str, end: int, limit: int) -> int:
    """The start of a window of at most `limit` characters, and at least half of that, before `end`.

    The start of the text, or the first line whose number is a multiple of LINE_STEPS[0], else of the next of
    LINE_STEPS; without a line end in that range, a multiple of CHARACTER_STEP.
    """
    if end <= limit:
        return 0
    earliest, latest = end - limit, end - limit // 2
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


def window_end(text: str, start: int, limit: int) -> int:
    """The last line end within `limit` characters after `start`; `start + limit` if there is none."""
    if len(text) - start <= limit:
        return len(text)
    newline = text.rfind("\n", start, start + limit)
    return newline + 1 if newline > start else start + limit
