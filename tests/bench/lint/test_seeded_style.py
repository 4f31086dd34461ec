"""Slips of style that are put into files, and how they are counted."""

import random

import pytest

from bench.lint.seeded_style import SEEDED, SeededStyle, seed_style
from bench.lint.style import Seeded, style_report
from infill.code.syntax import parse
from infill.lint.style import find_style
from infill.lint.symbols import Survey

ROWS = ("all_rows", "new_rows", "old_rows", "bad_rows", "top_rows", "low_rows")
TEXT = (
    "def f(one, two, three, four):\n"
    + "".join(f"    {name} = {value}\n" for name, value in zip(ROWS, ("[]", "{}") * 3, strict=True))
    + "".join(f'    all_rows.append("{number}")\n' for number in range(24))
    + "".join(f"    if {name} is None:\n        return all_rows\n" for name in ("one", "two", "three", "four"))
    + "".join(f"    if {name} not in all_rows:\n        return {name}\n" for name in ROWS)
)


@pytest.mark.parametrize("code", SEEDED)
def test_a_slip_is_against_the_files_habit_and_its_fix_undoes_it(code: str) -> None:
    for number in range(6):
        slip = seed_style(TEXT, "python", code, random.Random(number))
        assert slip is not None and slip.text != TEXT and slip.text[slip.start : slip.end] != slip.right
        tree = parse(slip.text, "python")
        assert tree is not None and not tree.root.has_error
        (found,) = find_style(tree, Survey(tree), {code}, [(0, len(slip.text))])
        assert (found.edit.start, found.edit.end, found.edit.replacement) == (slip.start, slip.end, slip.right)


def test_where_there_can_be_none_there_is_none() -> None:
    assert seed_style("x = 1\n", "python", "style-naming", random.Random(1)) is None
    assert seed_style("def f(:\n", "python", "style-quotes", random.Random(1)) is None


def test_the_report_counts_what_is_shown_and_lists_all() -> None:
    slip = SeededStyle("style-naming", "", 0, 0, "")
    row = {"code": "style-quotes", "path": "p/a.py", "line": 3, "old": "'a'", "new": '"a"', "same": 30, "other": 1}
    clean = [{**row, "gain": 2.0}, {**row, "gain": -1.0}, {**row, "gain": None}]
    seeded = [Seeded(slip, True, True, True), Seeded(slip, True, False, False), Seeded(slip, False, False, False)]
    report = style_report(2_000, clean, seeded, {})
    rows = {line[0]: line[1:] for line in report.rows}
    assert rows["style-quotes"][:3] == ["3", "1", "0.500"]
    assert rows["style-naming"] == ["0", "0", "0.000", "3", "67%", "33%", "100%"]
    assert rows["all"][:4] == ["3", "1", "0.500", "3"]
    assert sum("p/a.py:3" in note for note in report.notes) == 3
