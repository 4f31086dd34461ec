"""A validated request: "\\n" line ends, sorted holes, the kind of each hole, and the text around it.

Knows text and syntax. Must not know tokens or how a hole is filled.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from engine.errors import InputError, Stop
from infill.code.context import ContextBudget, ShownContext, show_context
from infill.code.indentation import expects_block
from infill.code.languages import detect
from infill.code.overlap import until_next_line, without_overlap
from infill.prompts.prompt import HoleKind
from infill.request import MOST_CHARACTERS, MOST_HOLES, Hole, InfillRequest

NEAR_CHARS, MAX_NEAR_CHARS = 20_000, 100_000
_MARGIN = re.compile(r"\n\n(?=[a-z_@])")  # not a paragraph of prose, which begins with a capital


@dataclass
class PreparedRequest:
    """text: with "\\n" line ends. holes: in order, offsets into `text`. originals: the holes in the request's text.

    deadline: time.monotonic(). shown: the text that the model sees around all holes. stop: whether the caller has
    cancelled. fillings: the texts of the first holes, added as they are found.
    """

    request: InfillRequest
    text: str
    holes: tuple[Hole, ...]
    originals: tuple[Hole, ...]
    language: str | None
    deadline: float | None
    budget: ContextBudget
    shown: ShownContext = field(init=False)
    kinds: tuple[HoleKind, ...] = ()
    stop: Stop | None = None
    fillings: list[str] = field(default_factory=list)

    @property
    def line_end(self) -> str:
        """The line end of most lines of the request's text."""
        text = self.request.text
        return "\r\n" if 2 * text.count("\r\n") > text.count("\n") else "\n"

    def stop_parsing(self) -> bool:
        """Whether the caller has cancelled or the deadline has passed."""
        return bool(self.stop and self.stop()) or self.is_late()

    def is_late(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    def before(self, index: int) -> str:
        """The text up to hole `index`; earlier holes have their fillings or are empty."""
        parts, at = [], 0
        for number, hole in enumerate(self.holes[:index]):
            parts += [self.text[at : hole.start], *self.fillings[number : number + 1]]
            at = hole.end
        return "".join([*parts, self.text[at : self.holes[index].start]])

    def shown_around(self, index: int) -> ShownContext:
        """The text that the model sees around hole `index` alone."""
        if len(self.holes) == 1:
            return self.shown
        before, after = self.before(index), self.after(index)
        neighbours, at = self.request.neighbours, len(before)
        return show_context(
            before + after, at, at, self.language, self.request.path, neighbours, self.budget, self.stop_parsing
        )

    def replaced(self, index: int) -> str:
        return self.text[self.holes[index].start : self.holes[index].end]

    def after(self, index: int) -> str:
        """The text after hole `index`; later holes are empty."""
        parts, at = [], self.holes[index].end
        for hole in self.holes[index + 1 :]:
            parts.append(self.text[at : hole.start])
            at = hole.end
        return "".join([*parts, self.text[at:]])

    def near(self, index: int) -> tuple[str, str]:
        """The ends of `before` and `after` nearest to the hole: some NEAR_CHARS each, at most MAX_NEAR_CHARS.

        They are cut after a blank line, before a line without indentation, so that they parse as in the file; at a line
        end if there is none of these.
        """
        before, after = self.before(index)[-MAX_NEAR_CHARS - 1 :], self.after(index)[: MAX_NEAR_CHARS + 1]
        at = len(before) - NEAR_CHARS
        first = _MARGIN.search(before, at, at + NEAR_CHARS // 2) if at > 0 else None
        starts = [first] if first else [*_MARGIN.finditer(before, 0, max(0, at))][-1:]
        start = starts[0].end() if starts else 0
        if not starts and len(before) > MAX_NEAR_CHARS:
            start = before.find("\n", 0, at) + 1 or 1
        last = _MARGIN.search(after, NEAR_CHARS)
        end = last.start() + 1 if last else len(after)
        if last is None and len(after) > MAX_NEAR_CHARS:
            end = after.rfind("\n", NEAR_CHARS) + 1 or MAX_NEAR_CHARS
        return before[start:], after[:end]

    def without_overlap(self, index: int, text: str) -> str:
        """`text` for hole `index` without its end if that repeats the text after the hole."""
        before, after = self.near(index)
        return without_overlap(before, text, after, self.language, self.replaced(index))

    def until_next_line(self, index: int, text: str) -> str:
        """A generated text for hole `index` up to the line that follows the hole, and `without_overlap`."""
        before, after = self.near(index)
        return self.without_overlap(index, until_next_line(before, text, after))

    @property
    def between(self) -> list[str]:
        """The texts between consecutive holes."""
        pairs = zip(self.holes, self.holes[1:], strict=False)
        return [self.text[one.end : other.start] for one, other in pairs]


def prepare(request: InfillRequest, budget: ContextBudget, stop: Stop | None = None) -> PreparedRequest:
    """The request with its context within `budget`; raises InputError as `normalized_holes`."""
    text, originals = request.text, normalized_holes(request)
    if request.steps is not None and request.steps < 1:
        raise InputError(f"The request asks for {request.steps} steps; the minimum is 1.")
    unix = text.replace("\r\n", "\n")
    holes = tuple(Hole(*_unix_offsets(text, hole)) for hole in originals)
    language = request.language or detect(request.path, unix.partition("\n")[0])
    deadline = None if request.deadline_ms is None else time.monotonic() + request.deadline_ms / 1000
    prepared = PreparedRequest(
        request, unix, holes, originals, language, deadline, budget, stop=None if stop is None else _latched(stop)
    )
    first, last = holes[0].start, holes[-1].end
    prepared.shown = show_context(
        unix, first, last, language, request.path, request.neighbours, budget, prepared.stop_parsing
    )
    prepared.kinds = tuple(_kind(prepared, index) for index in range(len(holes)))
    return prepared


def normalized_holes(request: InfillRequest) -> tuple[Hole, ...]:
    """The holes in text order, none of which begins or ends between "\\r" and "\\n".

    Raises InputError if there is no hole, a hole is outside the text, two holes overlap, or text or holes are too many.
    """
    text = request.text
    if len(text) > MOST_CHARACTERS:
        raise InputError(f"The text has {len(text):,} characters; send at most {MOST_CHARACTERS:,} around the hole.")
    if len(request.holes) > MOST_HOLES:
        raise InputError(f"The request has {len(request.holes):,} holes; send at most {MOST_HOLES:,} at a time.")
    if not request.holes:
        raise InputError("The request has no hole; pass at least one.")
    ordered = sorted(request.holes, key=lambda hole: (hole.start, hole.end))
    for hole, previous in zip(ordered, [0, *(hole.end for hole in ordered)], strict=False):
        if not previous <= hole.start <= hole.end <= len(text):
            raise InputError(
                f"The hole {hole.start}-{hole.end} lies outside the text or overlaps another hole; correct its offsets."
            )
    return tuple(Hole(_before_line_end(text, hole.start), _before_line_end(text, hole.end)) for hole in ordered)


def _latched(stop: Stop) -> Stop:
    """`stop`, which stays True once it was, so that a stage that ends without raising Cancelled loses nothing."""
    stopped = False

    def latched() -> bool:
        nonlocal stopped
        stopped = stopped or stop()
        return stopped

    return latched


def one_hole_requests(prepared: PreparedRequest) -> Iterator[tuple[InfillRequest, Hole]]:
    """A request for each hole, with its original hole.

    The caller adds the filling to `prepared.fillings` before it takes the next one. Later holes are empty.
    """
    for index, original in enumerate(prepared.originals):
        before, after = prepared.before(index), prepared.after(index)
        hole = Hole(len(before), len(before) + len(prepared.replaced(index)))
        yield replace(prepared.request, text=before + prepared.replaced(index) + after, holes=(hole,)), original


def _before_line_end(text: str, offset: int) -> int:
    """The offset, moved back by one if it is between "\\r" and "\\n"."""
    return offset - 1 if text[max(0, offset - 1) : offset + 1] == "\r\n" else offset


def _unix_offsets(text: str, hole: Hole) -> tuple[int, int]:
    return hole.start - text.count("\r\n", 0, hole.start), hole.end - text.count("\r\n", 0, hole.end)


def _kind(prepared: PreparedRequest, index: int) -> HoleKind:
    """Whole lines if the hole begins and ends at line starts; one line unless a block is requested or expected."""
    before, after = prepared.near(index)
    replaced = prepared.replaced(index)
    at_start = not before or before.endswith("\n")
    at_next_line = replaced.endswith("\n") if replaced else not after.startswith("\n")
    lines = prepared.request.lines
    if lines == "auto":
        several = "\n" in replaced.rstrip("\n")
        expects = not prepared.stop_parsing() and expects_block(before + after, len(before), prepared.language)
        lines = "block" if several or expects else "one"
    return HoleKind(one_line=lines == "one", whole_lines=at_start and at_next_line)
