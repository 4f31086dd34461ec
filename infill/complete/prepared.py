"""A request made ready: "\\n" line ends, holes in order, what kind each is, and what stands around it.

Knows text and syntax, no tokens. Must not know how a hole is filled.
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
from infill.prompts.prompt import HoleKind
from infill.request import Hole, InfillRequest

NEAR_CHARS = 20_000
_MARGIN = re.compile(r"\n\n(?=[a-z_@])")  # a paragraph of prose would begin with a capital


@dataclass
class PreparedRequest:
    """`text` has "\\n" line ends and `holes` are offsets into it, in order; `originals` are the same holes in
    the request's text. deadline: time.monotonic(). shown: what the model sees around the holes. stop: whether the
    answer is no longer wanted, asked between all stages. `fillings`: what was found for the first of the holes."""

    request: InfillRequest
    text: str
    holes: tuple[Hole, ...]
    originals: tuple[Hole, ...]
    language: str | None
    deadline: float | None
    shown: ShownContext
    kinds: tuple[HoleKind, ...] = ()
    stop: Stop | None = None
    fillings: list[str] = field(default_factory=list)

    @property
    def line_end(self) -> str:
        """The line end that most lines of the request's text have."""
        text = self.request.text
        return "\r\n" if 2 * text.count("\r\n") > text.count("\n") else "\n"

    def before(self, index: int) -> str:
        """The text up to hole `index`, earlier holes with their fillings or empty."""
        parts, at = [], 0
        for number, hole in enumerate(self.holes[:index]):
            parts += [self.text[at : hole.start], *self.fillings[number : number + 1]]
            at = hole.end
        return "".join([*parts, self.text[at : self.holes[index].start]])

    def replaced(self, index: int) -> str:
        return self.text[self.holes[index].start : self.holes[index].end]

    def after(self, index: int) -> str:
        """The text from the end of hole `index` on, later holes empty."""
        parts, at = [], self.holes[index].end
        for hole in self.holes[index + 1 :]:
            parts.append(self.text[at : hole.start])
            at = hole.end
        return "".join([*parts, self.text[at:]])

    def near(self, index: int) -> tuple[str, str]:
        """Of `before` and `after` what the checks look at: some NEAR_CHARS, cut where something begins at the margin
        after a blank line, so that the rest parses as it does in the file."""
        before, after = self.before(index), self.after(index)
        at = len(before) - NEAR_CHARS
        first = _MARGIN.search(before, at, at + NEAR_CHARS // 2) if at > 0 else None
        starts = [first] if first else [*_MARGIN.finditer(before, 0, max(0, at))][-1:]
        last = _MARGIN.search(after, NEAR_CHARS)
        return before[starts[0].end() if starts else 0 :], after[: last.start() + 1 if last else None]

    @property
    def between(self) -> list[str]:
        """The texts that stand between consecutive holes."""
        pairs = zip(self.holes, self.holes[1:], strict=False)
        return [self.text[one.end : other.start] for one, other in pairs]


def prepare(request: InfillRequest, budget: ContextBudget, stop: Stop | None = None) -> PreparedRequest:
    """The request with the context that fits `budget`.

    Raises InputError where there is no hole, or one lies outside the text or within another.
    """
    text = request.text
    if not request.holes:
        raise InputError("The request has no hole; say where to fill.")
    if request.steps is not None and request.steps < 1:
        raise InputError(f"The request asks for {request.steps} steps; ask for at least 1.")
    ordered = sorted(request.holes, key=lambda hole: (hole.start, hole.end))
    for hole, previous in zip(ordered, [0, *(hole.end for hole in ordered)], strict=False):
        if not previous <= hole.start <= hole.end <= len(text):
            raise InputError(f"The hole {hole.start}-{hole.end} lies outside the text or within another hole.")
    originals = tuple(Hole(_line_end_whole(text, hole.start), _line_end_whole(text, hole.end)) for hole in ordered)
    unix = text.replace("\r\n", "\n")
    holes = tuple(Hole(*_unix_offsets(text, hole)) for hole in originals)
    language = request.language or detect(request.path, unix.partition("\n")[0])
    deadline = None if request.deadline_ms is None else time.monotonic() + request.deadline_ms / 1000
    first, last = holes[0].start, holes[-1].end
    shown = show_context(unix, first, last, language, request.path, request.neighbours, budget)
    prepared = PreparedRequest(request, unix, holes, originals, language, deadline, shown, stop=stop)
    prepared.kinds = tuple(_kind(prepared, index) for index in range(len(holes)))
    return prepared


def one_hole_requests(prepared: PreparedRequest) -> Iterator[tuple[InfillRequest, Hole]]:
    """A request of its own for each hole, with the original hole. `prepared.fillings` must have grown by the time
    the next one is asked for; holes further down are empty."""
    for index, original in enumerate(prepared.originals):
        before, after = prepared.before(index), prepared.after(index)
        hole = Hole(len(before), len(before) + len(prepared.replaced(index)))
        yield replace(prepared.request, text=before + prepared.replaced(index) + after, holes=(hole,)), original


def _line_end_whole(text: str, offset: int) -> int:
    """The offset, or the one before it where it would stand between "\\r" and "\\n"."""
    return offset - 1 if text[max(0, offset - 1) : offset + 1] == "\r\n" else offset


def _unix_offsets(text: str, hole: Hole) -> tuple[int, int]:
    return hole.start - text.count("\r\n", 0, hole.start), hole.end - text.count("\r\n", 0, hole.end)


def _kind(prepared: PreparedRequest, index: int) -> HoleKind:
    """Whole lines where the hole begins and ends at line starts; one line unless a block is asked for or
    expected."""
    before, replaced, after = prepared.before(index), prepared.replaced(index), prepared.after(index)
    at_start = not before or before.endswith("\n")
    at_next_line = replaced.endswith("\n") if replaced else not after.startswith("\n")
    lines = prepared.request.lines
    if lines == "auto":
        several = "\n" in replaced.rstrip("\n")
        lines = "block" if several or expects_block(before + after, len(before), prepared.language) else "one"
    return HoleKind(one_line=lines == "one", whole_lines=at_start and at_next_line)
