"""Files whose arguments are removed, so that the syntax or a model has to give them."""

from __future__ import annotations

import pytest

from bench.edits.arguments import Outcome, is_argument, plain, removed_arguments, report

CODE = "def f(a, b, c=1):\n    return a + b\n\n\nprint(f(1, 2))\nb = 3\nf(4, b)\n"


def removed(code: str) -> list[tuple[str, str, str | None]]:
    return [(one.name, code[one.start : one.end], one.proposed) for one in removed_arguments("a.py", code)]


def test_the_arguments_that_the_syntax_gives() -> None:
    assert removed(CODE) == [("b", "2", None), ("b", "b", ", b")]
    code = "def f(a, b): pass\n\ndef g(b):\n    f(1, b)\n    f(a=2, b=b + 1)\n    f(\n        3,\n        b,\n    )\n"
    assert removed(code) == [("b", "b", ", b"), ("b", "b=b + 1", ", b=b"), ("b", "b", ",\n        b")]
    assert removed("x = f(5, 6)\n" + CODE)[0] == ("b", "6", None)


def test_white_space_and_the_name_of_the_parameter_do_not_count() -> None:
    assert plain(",\n  b = x + 1", "b") == plain("x+1,", "b")
    assert plain("b == x", "b") == "b==x"


def test_the_report_counts_by_confidence() -> None:
    outcomes = [Outcome("a.py", "b", "1", 0.9, True), Outcome("a.py", "b", "1", 0.4, False)]
    rows = report("tiny", 5, [True, False], outcomes).rows
    assert rows.pop(0)[1:] == ["2 of 5", "1 (50 %)"]
    assert rows[0][1:] == ["2 of 2", "1 (50 %)"] and rows[2][1:] == ["1 of 2", "1 (100 %)"]


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("a.b(1, 2)", "python", True),
        ("unit='cm'", "python", True),
        ("a, b", "python", False),
        ("a) + (b", "python", False),
        ("a # b", "python", False),
        ("  ", "python", False),
        ("x => x + 1", "javascript", True),
        ("x, y", "typescript", False),
        ('map[string]int{"a": 1}', "go", True),
        ("a, b", "go", False),
    ],
)
def test_what_is_one_argument(text: str, language: str, expected: bool) -> None:
    assert is_argument(text, language) == expected
