"""The check for unbalanced brackets. «‹text›» marks a completion."""

import pytest

from infill.checks.brackets import unbalanced_brackets
from tests.infill.marked import case


def refused(marked, language="python"):
    reason = unbalanced_brackets(case(marked, language))
    assert reason is None or (reason and "\n" not in reason)
    return reason is not None


@pytest.mark.parametrize(
    ("marked", "expected"),
    [
        ("x = f(‹a, b›)\n", False),
        ("x = f(‹a, b)›)\n", True),
        ("x = f(‹a, b)›\n", False),
        ("x = f(‹a, g(b›\n", True),
        ("x = f(‹a, g(b›))\n", False),
        ("x = f(‹a, [b)›\n", True),
        ("x = ‹f(a]›\n", True),
        ("x = ‹1)›\n", True),
        ("x = (\n    ‹f(1›\n)\n", True),
        ("x = (\n    ‹f(1),›\n)\n", False),
        ("x = ‹'abc›\n", True),
        ("x = 'a‹bc'›\n", False),
        ("x = 'a‹bc'›'\n", True),
        ('x = ‹"""abc›\ny = 1\n', True),
        ("# ‹don't (›\n", False),
        ("x = 1  ‹# (›\n", False),
        ("x = f(a ‹# )›\n", False),
        ("x = f(a‹ # (›\n)\n", False),
        ("x = ‹{›\n    1: 2,\n}\n", False),
        ("x = f(\r\n    ‹a)›\r\n)\r\n", True),
    ],
)
def test_unbalanced_brackets(marked, expected):
    assert refused(marked) is expected


def test_unbalanced_brackets_of_other_languages():
    assert not refused("function f() {\n  ‹g(`${a}`)\n›}\n", "javascript")
    assert refused("function f() {\n  ‹g(`${a`)\n›}\n", "javascript")
    assert refused("function f() {\n  ‹return 1\n}›\n}\n", "javascript")
    assert not refused("fn f<'a>() {\n ‹ let x: &'a str = g();›\n}\n", "rust")
    assert refused("{a: [‹1}›]}\n", None)
    assert not refused("a) one\n‹b) two›\n", None)
