"""Evidence by operands."""

from __future__ import annotations

import pytest

from infill.code.syntax import parse
from infill.lint.kinds import Edit
from infill.lint.operands import operand_change


def change(text: str, old: str, new: str, language: str = "python") -> float:
    """Of the edit that replaces the last `old` by `new`."""
    tree = parse(text, language)
    assert tree is not None
    start = text.rindex(old)
    return operand_change(tree, Edit(start, start + len(old), new, "wrong-name"))


@pytest.mark.parametrize(
    ("code", "language"),
    [
        ("x = min(a[1], a[1])", "python"),
        ("x = max(a.size, 0, a.size)", "python"),
        ("x = a.x - a.x", "python"),
        ("x = a and c and a", "python"),
        ("x = not a or not a", "python"),
        ("x = a.starts('x') or a.starts('x')", "python"),
        ("x = len(a) <  len( a )", "python"),
        ("x = a.x is not a.x", "python"),
        ("if (a.length >= a.length) f();", "javascript"),
        ("x = Math.max(a, a);", "javascript"),
        ("const x: boolean = a && c && a;", "typescript"),
        ("func f() { if a.n < a.n { g() } }", "go"),
    ],
)
def test_equal_operands_that_become_different(code: str, language: str) -> None:
    assert change(code, "a", "b", language) == 1


def test_different_operands_that_become_equal() -> None:
    assert change("x = min(a[1], b[1])", "b", "a") == -1
    assert change("x = a.left - a.right", "right", "left") == -1


@pytest.mark.parametrize(
    "code",
    [
        "x = a != a",  # whether a is a number
        "x = a * a",
        "x = a + a",
        "x = f(a, a)",
        "x = read(1) < a",
        "x = a() - a()",  # two calls may return different values
        "x = next(a) or next(a)",
        "x = c < a",
        "x = a and c or a",
    ],
)
def test_operands_that_may_be_equal_do_not_count(code: str) -> None:
    assert change(code, "a", "b") == 0


def test_two_equal_operands_that_stay_equal_to_others_do_not_count() -> None:
    assert change("x = a and b and a", "a", "b") == 0


def test_literals_do_not_count() -> None:
    assert change("x = a or 1 < 1", "1", "2") == 0


def test_the_code_inside_a_function_is_not_an_operand_of_what_is_around_it() -> None:
    assert change("x = min(a, lambda: a)", "a", "b") == 0
