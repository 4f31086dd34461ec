"""The checks of a completion. «‹text›» marks it in its file."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infill.checks import checks
from infill.checks.checks import first_refusal
from infill.checks.context import CheckContext
from tests.cpu_time import takes_less
from tests.infill.marked import case


def refused(check, marked, language="python", **options):
    reason = getattr(checks, check)(case(marked, language, **options))
    assert reason is None or (reason and "\n" not in reason)
    return reason is not None


def test_nothing_new():
    assert refused("nothing_new", "x = ‹›\n")
    assert refused("nothing_new", "x = 1\n‹   \n›\n")
    assert refused("nothing_new", "x = ‹1›\n", replaced="1")
    assert not refused("nothing_new", "x = ‹2›\n", replaced="1")
    assert not refused("nothing_new", "x = 1‹\n›y = 2\n")
    assert refused("nothing_new", "x = 1‹\n›y = 2\n", None)


def test_low_confidence():
    assert refused("low_confidence", "‹x›", confidence=0.49, min_confidence=0.5)
    assert not refused("low_confidence", "‹x›", confidence=0.5, min_confidence=0.5)
    assert "0.49" in checks.low_confidence(case("‹x›", confidence=0.49, min_confidence=0.5))


def test_rejected_before():
    assert refused("rejected_before", "‹x = 1 ›\n", rejected=frozenset(["x = 1"]))
    assert not refused("rejected_before", "‹x = 2›\n", rejected=frozenset(["x = 1"]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a " * 10, True),
        ("a " * 9, False),
        ("self." * 12, True),
        ("x, " * 6, False),
        ("# -----------------------------", False),
        ("====================", False),
        ("selfselfselfselfselfself", True),
        ("0xffffffffffffffff", False),
        ("a = load(x)\n" * 3, True),
        ("a = load(x)\n" * 2, False),
        ("a = load(x)\nb = a\n" * 3, True),
        ("}\n" * 5, False),
        ("[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]", False),
    ],
)
def test_repetition(text, expected):
    assert refused("repetition", f"‹{text}›") is expected


@pytest.mark.parametrize(
    ("marked", "expected"),
    [
        ("x = load(1)\n‹x = load(1)›\n", True),
        ("x = load(1)\nx = ‹load(1)›\n", True),
        ("x = load(1)\r\n‹x = load(1)›\r\n", True),
        ("a = 1\nb = 2\n‹a = 1\nb = 2\n›\n", True),
        ("x = load(1)\n‹x = load(2)›\n", False),
        ("if a:\n    x = load(1)\n‹x = load(1)›\n", False),
        ("  }\n‹  }›\n", False),
        ("‹x = load(1)›\n", False),
    ],
)
def test_repeats_prefix_lines(marked, expected):
    assert refused("repeats_prefix_lines", marked) is expected


@pytest.mark.parametrize(
    ("marked", "expected"),
    [
        ("f(‹a, b)›, other=value)\n", False),
        ("f(‹a, other=value)›, other=value)\n", True),
        ("f(‹a›)\n", False),
        ("f(‹a)›)\n", False),
        ("x = ‹y + z›z\n", False),
        ("x = y ‹+ z› + z\n", True),
        ("pa‹s›s\n", False),
        ("x = ‹resume_reading(file)›reading(file)\n", False),
        ("‹x = 1›\nx = 1\n", True),
        ("‹x = 1›\r\nx = 1\r\n", True),
        ("‹y = 2\nx = 1\n›x = 1\n", True),
        ("‹y = 2\nx = load(1)\nz = 3\nw = 4\n›x = load(1)\nz = 3\nq = 5\n", True),
        ("if a:\n    ‹return None›\nreturn None\n", False),
        ("‹    }\n›    }\n", False),
        ("‹y = 2›\nx = 1\n", False),
        ("‹value = compute_the_total(first, second)›\nvalue = compute_the_totel(first, second)\n", True),
        ("‹value = compute_the_total(first, 1)›\nvalue = compute_the_total(first, 2)\n", False),
        ("x = ‹1›", False),
    ],
)
def test_repeats_suffix(marked, expected):
    assert refused("repeats_suffix", marked) is expected


@given(st.text("abc", max_size=60), st.text("abc", max_size=60))
def test_nearly_equal_is_the_edit_distance(one, other):
    row = list(range(len(other) + 1))
    for i, left in enumerate(one):
        row, above = [i + 1], row
        for j, right in enumerate(other):
            row.append(min(row[j] + 1, above[j + 1] + 1, above[j] + (left != right)))
    assert checks._nearly_equal(one, other) is (row[-1] <= int(0.05 * max(len(one), len(other))))


@pytest.mark.parametrize(
    ("marked", "expected"),
    [
        ("def f():\n    ‹x = 1›\n", False),
        ("def f():\n‹    x = 1\n›\ny = 2\n", False),
        ("def f():\n‹x = 1\n›\n", True),
        ("def f():\n    a = 1\n‹        x = 1\n›", True),
        ("def f():\n    a = 1\n‹  x = 1\n›", True),
        ("def f():\n    a = 1\n‹x = 1\n›", False),
        ("def f():\n    a = 1\n‹x = 1\n›    b = 2\n", True),
        ("def f():\n    ‹if x:\n        y = 1\n    z = 2›\n    w = 3\n", False),
        ("def f():\n    ‹if x:\n    y = 1›\n", True),
        ("def f():\n    ‹if x:›\n    y = 1\n", False),
        ("def f():\n    x = g(‹a,\n  b,\n            c)›\n", False),
        ("def f():\n    '''‹Doc.\n  odd\n        more›\n    '''\n", False),
        ("def f():\n    x = 1 + \\\n  ‹          2›\n", False),
        ("def f():\r\n    a = 1\r\n‹        x = 1\n›", True),
        ("def f():\n    a = 1\n‹\tx = 1\n›", True),
        ("def f():\n\ta = 1\n‹    x = 1\n›", True),
        ("def f():\n\ta = 1\n‹\tx = 1\n›", False),
        ("def f():\n    a = 1\n    ‹# note\n  # odd note\n    b = 2›\n", False),
        ("x = g(\n    1,\ndef f():\n    ‹return 1›\n", False),
    ],
)
def test_wrong_indentation(marked, expected):
    assert refused("wrong_indentation", marked) is expected


def test_wrong_indentation_of_other_languages_is_about_tabs():
    assert not refused("wrong_indentation", "if (x) {\n  ‹y()\n      z()›\n}\n", "javascript")
    assert refused("wrong_indentation", "if (x) {\n  a()\n‹\ty()\n›}\n", "javascript")
    assert not refused("wrong_indentation", "/**\n * A\n */\nint f() {\n\tx();\n‹/**\n * B\n */\n›}\n", "c")


def test_first_refusal_is_the_first_reason_or_none():
    good = case("def f(a):\n    return ‹a + 1›\n\n\nx = f(1)\n", confidence=0.9, min_confidence=0.5)
    assert first_refusal(good) is None
    low = case("def f(a):\n    ‹›\n", confidence=0.1, min_confidence=0.5)
    assert first_refusal(low) == checks.low_confidence(low)
    assert [check.__name__ for check in checks.CHECKS] == [
        "low_confidence",
        "rejected_before",
        "nothing_new",
        "repetition",
        "repeats_prefix_lines",
        "repeats_suffix",
        "wrong_indentation",
        "unbalanced_brackets",
        "parse_worse",
    ]


ODD = st.text(st.sampled_from("ab (){}[]'\":=\n\t\r\f#é😀\ud800.,1"), max_size=40)


@given(ODD, ODD, ODD, st.sampled_from(["python", "javascript", "rust", "cpp", None]))
@settings(max_examples=200)
def test_any_text_can_be_checked(before, text, after, language):
    context = CheckContext(before, text, after, language)
    for check in checks.CHECKS:
        reason = check(context)
        assert reason is None or reason


@pytest.mark.parametrize("edge", ["‹x = 1›", "‹x = 1\n›y = 2", "y = 2\n‹x = 1›", "y = ‹[1, 2]›"])
def test_holes_at_the_edges_of_a_file(edge):
    assert first_refusal(case(edge)) is None


def test_a_very_long_line_and_a_long_file_are_checked_quickly():
    long_line = "x = [" + "1234, " * 30_000 + "‹5›]\n"
    long_file = "".join(f"def f{n}(a):\n    return g(a, [{n}])\n\n" for n in range(1700)) * 2
    middle = long_file.index("def f1690")

    def check(attempt):
        assert first_refusal(case(long_line.replace("5", str(attempt)))) is None
        context = CheckContext(long_file[:middle], f"y = {attempt}\n\n", long_file[middle:], "python")
        assert first_refusal(context) is None

    assert takes_less(4.0, check)
