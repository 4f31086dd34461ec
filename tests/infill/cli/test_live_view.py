"""The canvas drawn in a terminal and as an SVG picture."""

import io
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from rich.console import Console
from rich.table import Table

from infill.cli.live_view import LiveView, export_svg, panel
from infill.cli.support import VisibleConsole, add_row
from infill.request import Piece, StepView
from tests.infill.fake_completer import STEPS


def drawn(*pieces: Piece, lines: int = 6) -> str:
    console = Console(file=io.StringIO(), width=60)
    console.print(panel(pieces, "caption", lines))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_a_terminal_ends_with_the_final_text() -> None:
    screen = io.StringIO()
    with LiveView(Console(file=screen, force_terminal=True, width=60), seconds_per_step=0) as view:
        for step in STEPS:
            view.step(step)
        view.finish([Piece("known ", "known"), Piece("final", "settled")], "filled, 2 steps")
    shown = screen.getvalue()
    assert shown.index("step 1/2") < shown.index("step 2/2") < shown.rindex("filled, 2 steps")
    assert "final" in shown[shown.rindex("filled, 2 steps") :]
    assert view.views == list(STEPS)


def test_a_step_stays_long_enough_to_be_seen() -> None:
    started = time.monotonic()
    with LiveView(Console(file=io.StringIO(), force_terminal=True), seconds_per_step=0.05) as view:
        for step in (*STEPS, *STEPS):
            view.step(step)
    assert time.monotonic() - started >= 0.15


def test_without_a_terminal_nothing_is_shown() -> None:
    lines = io.StringIO()
    with LiveView(Console(file=lines), seconds_per_step=0) as view:
        for step in STEPS:
            view.step(step)
        view.finish([], "filled")
    assert lines.getvalue() == "" and view.views == list(STEPS)


def test_a_hidden_view_still_records_the_steps() -> None:
    output = io.StringIO()
    with LiveView(Console(file=output), show=False) as view:
        view.step(STEPS[0])
        view.finish([], "filled")
    assert output.getvalue() == "" and view.views == [STEPS[0]]


def test_each_state_has_its_own_style() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, color_system="standard", width=60)
    pieces = [Piece("k", "known"), Piece("s", "settled"), Piece("n", "noise"), Piece("", "null")]
    console.print(panel(pieces, ""))
    written = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b[2mk" in written and "\x1b[1;32ms" in written and "\x1b[2;35mn" in written
    assert "\x1b[90m·" in written


def test_only_the_lines_near_the_hole_are_drawn() -> None:
    known = "".join(f"line {number}\n" for number in range(20))
    picture = drawn(Piece(known, "known"), Piece("HOLE\n", "settled"), Piece(known, "known"), lines=3)
    assert [word for word in ("line 16", "line 17", "line 19") if word in picture] == ["line 17", "line 19"]
    assert "HOLE" in picture and "line 0" in picture and "line 4 " not in picture


def test_control_characters_never_reach_the_terminal() -> None:
    picture = drawn(Piece("\x1b[31m a\r\n[bold]b", "known"), Piece("c\x07\nd", "noise"), Piece("", "noise"))
    assert "\x1b" not in picture and "\x07" not in picture and "\r" not in picture
    assert "␛[31m a" in picture and "[bold]b" in picture and "c␇⏎d▒" in picture


def test_the_svg_shows_a_few_steps(tmp_path: Path) -> None:
    views = [StepView(step, 9, (Piece("x = ", "known"), Piece(f"v{step}", "noise"))) for step in range(1, 10)]
    export_svg(views, tmp_path / "a.svg", ([Piece("x = done", "settled")], "filled"))
    text = (tmp_path / "a.svg").read_text("utf-8").replace("&#160;", " ")
    ElementTree.fromstring(text)
    assert [step for step in range(1, 10) if f"step {step}/9" in text] == [1, 4, 6, 9]
    assert "x = done" in text


def test_what_a_console_prints_is_visible() -> None:
    console = VisibleConsole(file=io.StringIO(), width=60)
    table = Table("name")
    add_row(table, "a\x1b]0;title\x07\u202e")
    console.print(table, "\x9b31m")
    written = console.file.getvalue()  # type: ignore[attr-defined]
    assert "␛]0;title" in written and "<U+202E>" in written and "<U+009B>31m" in written
    assert not {"\x1b", "\x9b", "\u202e"} & {*written}
