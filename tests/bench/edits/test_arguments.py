"""Files whose arguments are removed, so that a model has to write them."""

from __future__ import annotations

from bench.edits.arguments import Outcome, by_syntax, cases, report
from infill.next_edit.edits import apply

CODE = "def f(a, b, c=1):\n    return a + b\n\n\nprint(f(1, 2))\nb = 3\nf(4, b)\n"


def test_the_parameter_is_there_and_its_arguments_are_not() -> None:
    code = CODE.replace("b = 3\nf(4, b)\n", "f(4, 5 + 6)\n")
    (case,) = cases("a.py", code)
    assert case.text == code.replace("1, 2", "1").replace("4, 5 + 6", "4")
    assert apply(case.text, case.proposal.filled(["2", "5 + 6"]).places) == code
    assert not [*cases("a.py", CODE)], "a variable of that name is visible"


def test_the_report_counts_by_confidence() -> None:
    outcomes = [Outcome("a.py", "", ["1"], 0.9, True), Outcome("a.py", "", ["1"], 0.4, False)]
    rows = report("tiny", outcomes, [True, None, False]).rows
    assert rows.pop(0)[1:] == ["2 of 3", "1 (50 %)"]
    assert rows[0][1:] == ["2 of 2", "1 (50 %)"] and rows[2][1:] == ["1 of 2", "1 (100 %)"]


def test_what_the_syntax_gives_is_counted_by_calls() -> None:
    assert list(by_syntax(CODE)) == [None, True]
    assert list(
        by_syntax(
            "def f(a, b): pass\n\ndef g(b):\n    f(1, b)\n    f(a=2, b=b + 1)\n    f(\n        3,\n        b,\n    )\n"
        )
    ) == [True, False, True]
