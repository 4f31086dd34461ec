"""Lines beside an edit that a model would change."""

from __future__ import annotations

from bench.edits.near import changed_lines, lines_near
from infill.next_edit.edits import UserEdit
from infill.request import Hole, HoleCompletion

TEXT = "one = 1\n\n    two = 2\n# no\nx = new\nthree = 3\ny\nfour = 4\nfive = 5\n"
EDIT = UserEdit(TEXT.index("new"), "old", "new")


def test_the_nearest_lines_with_code() -> None:
    near = [TEXT[start:end] for start, end in lines_near(TEXT, EDIT)]
    assert near == ["one = 1", "two = 2", "three = 3", "four = 4"]


def test_only_lines_that_the_model_knew_before_the_edit() -> None:
    def complete(text: str, start: int, end: int) -> HoleCompletion:
        line = text[start:end]
        known = line if "old" in text and line != "four = 4" else f"{line[:-1]}9"
        return HoleCompletion(Hole(start, end), known, line != "one = 1", None, 0.5, ())

    found = [(TEXT[start:end], now.text) for start, end, now in changed_lines(TEXT, EDIT, complete)]
    assert found == [("two = 2", "two = 9"), ("three = 3", "three = 9")]
