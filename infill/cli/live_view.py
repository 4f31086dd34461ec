"""The canvas as it settles, drawn in a terminal or as a picture.

Known code is plain and dim, settled tokens green, noise magenta, empty slots faint dots. Must not know how a
canvas is denoised: it is handed pieces of text with a state.
"""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from infill.request import Piece, PieceState, StepView

STYLES: dict[PieceState, str] = {
    "known": "dim",
    "settled": "bold green",
    "noise": "dim magenta",
    "null": "bright_black",
}
NOISE, EMPTY_SLOT, LINE_BREAK = "▒", "·", "⏎"
CONTROL = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"} | {0x7F: 0x2421}
LINES_AROUND = 6
SECONDS_A_STEP = 0.06
PICTURE_FRAMES, PICTURE_WIDTH, PICTURE_LINES = 4, 96, 3


class LiveView:
    """Shows every step on `console`; where that is no terminal, one line of text a step.

    A context manager: `step` is the callback for the completion, `finish` shows what came of it. A step stays for
    at least `seconds_a_step`, or the eye could not follow a small model.
    """

    def __init__(self, console: Console, seconds_a_step: float = SECONDS_A_STEP, show: bool = True) -> None:
        self.console, self.seconds_a_step, self.show = console, seconds_a_step, show
        self.views: list[StepView] = []
        self._live = Live(console=console, auto_refresh=False) if show and console.is_terminal else None
        self._last = 0.0

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
            time.sleep(max(0.0, self._last + self.seconds_a_step - time.monotonic()))
            self._live.update(frame(view), refresh=True)
            self._last = time.monotonic()
        elif self.show:
            self.console.print(summary(view), markup=False, highlight=False)

    def finish(self, pieces: Sequence[Piece], caption: str) -> None:
        """Draws what stands in the file now, as the last frame, which stays."""
        if self._live is not None:
            self._live.update(drawing(pieces, caption), refresh=True)
        elif self.show:
            self.console.print(caption, markup=False, highlight=False)


def frame(view: StepView, lines_around: int = LINES_AROUND) -> Panel:
    """One step, with its caption."""
    return drawing(view.pieces, f"step {view.step}/{view.max_steps}", lines_around)


def drawing(pieces: Sequence[Piece], caption: str, lines_around: int = LINES_AROUND) -> Panel:
    """Pieces in their colours, with a few lines of known code around what is filled."""
    text = Text(no_wrap=False, tab_size=4)
    for piece in _near(pieces, lines_around):
        text.append(_shown(piece), STYLES[piece.state])
    return Panel(text, title=Text(caption, "bold"), title_align="left", border_style="bright_black")


def summary(view: StepView) -> str:
    """A step in words: `step 3/16: 42 characters settled, 17 still noise`."""
    settled, noise = (
        sum(len(piece.text) for piece in view.pieces if piece.state == state) for state in ("settled", "noise")
    )
    return f"step {view.step}/{view.max_steps}: {settled} characters settled, {noise} still noise"


def export_svg(views: Sequence[StepView], path: Path, final: tuple[Sequence[Piece], str] | None = None) -> None:
    """A picture of a few steps, evenly spread, and of the final pieces with their caption."""
    console = Console(record=True, width=PICTURE_WIDTH, file=io.StringIO(), force_terminal=True)
    panels = [frame(view, PICTURE_LINES) for view in _spread(views, PICTURE_FRAMES)]
    if final is not None:
        panels.append(drawing(*final, PICTURE_LINES))
    console.print(Group(*panels))
    path.write_text(console.export_svg(title="gesso infill --watch"), "utf-8")


def _spread(views: Sequence[StepView], most: int) -> list[StepView]:
    """First, last, and some between."""
    if len(views) <= most:
        return list(views)
    return [views[round(index * (len(views) - 1) / (most - 1))] for index in range(most)]


def _near(pieces: Sequence[Piece], lines: int) -> list[Piece]:
    """The pieces, known code before the first and after the last hole cut to a few lines."""
    holes = [index for index, piece in enumerate(pieces) if piece.state != "known"]
    first, last = (holes[0], holes[-1]) if holes else (len(pieces), len(pieces))
    before = "".join(piece.text for piece in pieces[:first]).split("\n")
    after = "".join(piece.text for piece in pieces[last + 1 :]).split("\n")
    return [
        Piece("\n".join(before[-lines - 1 :]).lstrip("\n"), "known"),
        *pieces[first : last + 1],
        Piece("\n".join(after[: lines + 1]).rstrip("\n"), "known"),
    ]


def _shown(piece: Piece) -> str:
    """Text that cannot disturb a terminal; noise keeps to its line, so that the picture does not jump."""
    if piece.state == "null":
        return piece.text or EMPTY_SLOT
    if piece.state == "noise":
        return piece.text.replace("\n", LINE_BREAK).translate(CONTROL) or NOISE
    return piece.text.replace("\r\n", "\n").translate(CONTROL)
