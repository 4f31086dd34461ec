"""Seeded style deviations, and how they are counted."""

import random

import pytest

from bench.lint.seeded_style import SEEDED, SeededStyle, seed_style
from bench.lint.style import Seeded, style_report
from infill.code.syntax import parse
from infill.lint.style import find_style
from infill.lint.symbols import SymbolTable

ROWS = ("all_rows", "new_rows", "old_rows", "bad_rows", "top_rows", "low_rows")
TEXT = (
    "def f(one, two, three, four):\n"
    + "".join(f"    {name} = {value}\n" for name, value in zip(ROWS, ("[]", "{}") * 3, strict=True))
    + "".join(f'    all_rows.append("{number}")\n' for number in range(24))
    + "".join(f"    if {name} is None:\n        return all_rows\n" for name in ("one", "two", "three", "four"))
    + "".join(f"    if {name} not in all_rows:\n        return {name}\n" for name in ROWS)
)


@pytest.mark.parametrize("code", SEEDED)
def test_lint_finds_and_reverts_a_deviation(code: str) -> None:
    for number in range(6):
        seeded = seed_style(TEXT, "python", code, random.Random(number))
        assert seeded is not None and seeded.text != TEXT and seeded.text[seeded.start : seeded.end] != seeded.right
        tree = parse(seeded.text, "python")
        assert tree is not None and not tree.root.has_error
        (found,) = find_style(tree, SymbolTable(tree), {code}, [(0, len(seeded.text))])
        assert (found.edit.start, found.edit.end, found.edit.replacement) == (seeded.start, seeded.end, seeded.right)


def test_unsuitable_files_get_no_deviation() -> None:
    assert seed_style("x = 1\n", "python", "style-naming", random.Random(1)) is None
    assert seed_style("def f(:\n", "python", "style-quotes", random.Random(1)) is None


def test_the_report_counts_shown_findings_and_lists_all() -> None:
    deviation = SeededStyle("style-naming", "", 0, 0, "")
    row = {"code": "style-quotes", "path": "p/a.py", "line": 3, "old": "'a'", "new": '"a"', "same": 30, "other": 1}
    seeded = [Seeded(deviation, True, True), Seeded(deviation, True, False), Seeded(deviation, False, False)]
    report = style_report(2_000, [row, row], seeded, {})
    rows = {line[0]: line[1:] for line in report.rows}
    assert rows["style-quotes"][:2] == ["2", "1.000"]
    assert rows["style-naming"] == ["0", "0.000", "3", "67%", "50%"]
    assert rows["all"][:3] == ["2", "1.000", "3"]
    assert sum("p/a.py:3" in note for note in report.notes) == 2
