"""Draws the canvas at each denoising step, in a terminal or as an SVG picture.

Known code is dim, settled tokens green, noise magenta, empty slots faint dots. Must not know how a canvas is
denoised: it gets pieces of text, each with a state.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from infill.cli.support import errors_console
from infill.printable import one_line, visible
from infill.request import OnStep, Piece, PieceState, StepView

STYLES: dict[PieceState, str] = {
    "known": "dim",
    "settled": "bold green",
    "noise": "dim magenta",
    "null": "bright_black",
}
NOISE, EMPTY_SLOT, LINE_BREAK = "▒", "·", "⏎"
CONTEXT_LINES = 6
SECONDS_PER_STEP = 0.06
SVG_STEPS, SVG_WIDTH, SVG_CONTEXT_LINES = 4, 96, 3


class LiveView:
    """Shows every step on `console` as a live panel if that is a terminal.

    A context manager. Pass `step` as the completion's callback, then call `finish` with the result. Each step stays
    visible for at least `seconds_per_step`, because a small model is faster than the eye.
    """

    def __init__(self, console: Console, seconds_per_step: float = SECONDS_PER_STEP, show: bool = True) -> None:
        self.console, self.seconds_per_step, self.show = console, seconds_per_step, show
        self.views: list[StepView] = []
        self._live = Live(console=console, auto_refresh=False) if show and console.is_terminal else None
        self._drawn_at = 0.0

    def __enter__(self) -> LiveView:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def step(self, view: StepView) -> None:
        """Draws one step."""
        self.views.append(view)
        if self._live is not None:
            time.sleep(max(0.0, self._drawn_at + self.seconds_per_step - time.monotonic()))
            self._live.update(_step_panel(view), refresh=True)
            self._drawn_at = time.monotonic()

    def finish(self, pieces: Sequence[Piece], caption: str) -> None:
        """Draws the final text, which stays on the screen."""
        if self._live is not None:
            self._live.update(panel(pieces, caption), refresh=True)


@contextmanager
def hole_progress(holes: int) -> Iterator[OnStep]:
    """A callback that shows how many holes are done, in a bar on standard error; off if that is not a terminal."""
    console = errors_console()
    columns = (TextColumn("filling"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("holes", total=holes)
        yield lambda view: progress.update(task, completed=view.hole)


def panel(pieces: Sequence[Piece], caption: str, context_lines: int = CONTEXT_LINES) -> Panel:
    """The pieces in their colours, with `context_lines` lines of known code around the holes."""
    text = Text(no_wrap=False, tab_size=4)
    for piece in _clip_context(pieces, context_lines):
        text.append(_printable(piece), STYLES[piece.state])
    return Panel(text, title=Text(one_line(caption), "bold"), title_align="left", border_style="bright_black")


def export_svg(views: Sequence[StepView], path: Path, final: tuple[Sequence[Piece], str] | None = None) -> None:
    """Writes a picture of some evenly spaced steps and of the final pieces with their caption."""
    console = Console(record=True, width=SVG_WIDTH, file=io.StringIO(), force_terminal=True)
    panels = [_step_panel(view, SVG_CONTEXT_LINES) for view in _evenly_spaced(views, SVG_STEPS)]
    if final is not None:
        panels.append(panel(*final, SVG_CONTEXT_LINES))
    console.print(Group(*panels))
    path.write_text(console.export_svg(title="gesso infill --watch"), "utf-8")


def _step_panel(view: StepView, context_lines: int = CONTEXT_LINES) -> Panel:
    return panel(view.pieces, f"step {view.step}/{view.max_steps}", context_lines)


def _evenly_spaced(views: Sequence[StepView], count: int) -> list[StepView]:
    """At most `count` views, including the first and the last."""
    if len(views) <= count:
        return list(views)
    return [views[round(index * (len(views) - 1) / (count - 1))] for index in range(count)]


def _clip_context(pieces: Sequence[Piece], lines: int) -> list[Piece]:
    """The pieces with only `lines` lines of known code before the first hole and after the last."""
    holes = [index for index, piece in enumerate(pieces) if piece.state != "known"]
    first, last = (holes[0], holes[-1]) if holes else (len(pieces), len(pieces))
    before = "".join(piece.text for piece in pieces[:first]).split("\n")
    after = "".join(piece.text for piece in pieces[last + 1 :]).split("\n")
    return [
        Piece("\n".join(before[-lines - 1 :]).lstrip("\n"), "known"),
        *pieces[first : last + 1],
        Piece("\n".join(after[: lines + 1]).rstrip("\n"), "known"),
    ]


def _printable(piece: Piece) -> str:
    """The text without control characters; line breaks in noise become a symbol, so the panel keeps its height."""
    if piece.state == "null":
        return piece.text or EMPTY_SLOT
    if piece.state == "noise":
        return visible(piece.text.replace("\n", LINE_BREAK)) or NOISE
    return visible(piece.text.replace("\r\n", "\n"))
