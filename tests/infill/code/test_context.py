"""The shown window: whole lines, bounded, and stable while the user types."""

from __future__ import annotations

import pytest

from infill.code.context import CHARACTER_STEP, ContextBudget, show_context, window_end, window_start
from infill.request import Neighbour

LINES = "".join(f"value_{number} = {number}\n" for number in range(400))
BUDGET = ContextBudget(prefix=600, suffix=300, header=200)


def test_a_small_file_is_shown_whole_and_without_an_outline() -> None:
    shown = show_context("import os\nx = 1\n", 10, 12, "python", "a.py", (), BUDGET)
    assert (shown.header, shown.prefix, shown.suffix) == ("", "import os\n", "= 1\n")


@pytest.mark.parametrize("first", [0, 5, 300, 3000, len(LINES)])
def test_the_window_keeps_its_size_and_whole_lines(first: int) -> None:
    shown = show_context(LINES, first, first, "python", None, (), BUDGET)
    assert LINES[:first].endswith(shown.prefix) and LINES[first:].startswith(shown.suffix)
    assert len(shown.prefix) <= BUDGET.prefix and len(shown.suffix) <= BUDGET.suffix
    assert len(shown.header) <= BUDGET.header
    start = first - len(shown.prefix)
    assert start == 0 or LINES[start - 1] == "\n"


def test_the_rest_of_a_longer_file_is_outlined() -> None:
    text = "import os\n" + LINES + "def last(one):\n    return one\n"
    shown = show_context(text, 3000, 3000, "python", None, (), BUDGET)
    assert "import os" in shown.header and "def last(one)" in shown.header


def test_neighbours_are_outlined_within_the_budget() -> None:
    near = Neighbour("near.py", "def helper(path):\n    return path\n")
    far = Neighbour("far.py", "def other():\n    pass\n" * 400)
    shown = show_context("x = 1\n", 0, 0, "python", None, (near, far), BUDGET)
    assert "def helper(path)" in shown.header
    assert len(shown.header) <= BUDGET.header


@pytest.mark.parametrize("line", ["x = 1\n", "    call(" + "a, " * 30 + ")\n"])
def test_the_start_moves_rarely_and_only_forward(line: str) -> None:
    text = line * 200
    starts = [window_start(text, end, 600) for end in range(600, len(text))]
    assert starts == sorted(starts)
    assert all(300 <= end - start <= 600 for end, start in zip(range(601, len(text)), starts[1:], strict=True))
    assert len(set(starts)) <= len(text) / len(line)
    assert all(start == 0 or text[start - 1] == "\n" for start in starts)


def test_in_one_long_line_the_start_moves_by_whole_steps() -> None:
    text = "x" * 5000
    starts = {window_start(text, end, 1400) for end in range(1401, 5000)}
    assert all(start % CHARACTER_STEP == 0 for start in starts)
    assert all(end - 1400 <= window_start(text, end, 1400) <= end - 700 for end in range(1401, 5000))


def test_the_end_is_a_line_end_if_there_is_one() -> None:
    assert window_end("ab\ncd\nef", 0, 7) == 6
    assert window_end("ab\ncd\nef", 0, 8) == 8
    assert window_end("x" * 50, 10, 20) == 30
    assert window_end("", 0, 5) == 0
