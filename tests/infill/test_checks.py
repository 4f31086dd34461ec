"""The checks before a completion is shown. «‹text›» marks a completion within its file."""

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infill import checks
from infill.checks import CheckContext, cut_back, error_spans_within, first_refusal


def case(marked, language="python", **options):
    before, text, after = re.split("[‹›]", marked)
    return CheckContext(before, text, after, language, **options)


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
@settings(deadline=None)
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


def test_wrong_indentation_of_other_languages_minds_tabs_only():
    assert not refused("wrong_indentation", "if (x) {\n  ‹y()\n      z()›\n}\n", "javascript")
    assert refused("wrong_indentation", "if (x) {\n  a()\n‹\ty()\n›}\n", "javascript")
    assert not refused("wrong_indentation", "/**\n * A\n */\nint f() {\n\tx();\n‹/**\n * B\n */\n›}\n", "c")


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
        ("x = ‹\"\"\"abc›\ny = 1\n", True),
        ("# ‹don't (›\n", False),
        ("x = 1  ‹# (›\n", False),
        ("x = f(a ‹# )›\n", False),
        ("x = f(a‹ # (›\n)\n", False),
        ("x = ‹{›\n    1: 2,\n}\n", False),
        ("x = f(\r\n    ‹a)›\r\n)\r\n", True),
    ],
)
def test_unbalanced_brackets(marked, expected):
    assert refused("unbalanced_brackets", marked) is expected


def test_unbalanced_brackets_of_other_languages():
    assert not refused("unbalanced_brackets", "function f() {\n  ‹g(`${a}`)\n›}\n", "javascript")
    assert refused("unbalanced_brackets", "function f() {\n  ‹g(`${a`)\n›}\n", "javascript")
    assert refused("unbalanced_brackets", "function f() {\n  ‹return 1\n}›\n}\n", "javascript")
    assert not refused("unbalanced_brackets", "fn f<'a>() {\n ‹ let x: &'a str = g();›\n}\n", "rust")
    assert refused("unbalanced_brackets", "{a: [‹1}›]}\n", None)
    assert not refused("unbalanced_brackets", "a) one\n‹b) two›\n", None)


@pytest.mark.parametrize(
    ("marked", "language", "expected"),
    [
        ("x = ‹1›\n", "python", False),
        ("‹x = = 1›\ny = 2\n", "python", True),
        ("x = ‹= 1›\ny = 2\n", "python", True),
        ("x = f(‹a, b›\ny = 2\n", "python", False),
        ("x = f(‹a b›\ny = 2\n", "python", True),
        ("def f(‹a, b›\n    return a\n", "python", False),
        ("def f(‹a b)›\n    return a\n", "python", True),
        ("class A:\n    def f(self):\n        x.‹y›\n\n    def g(self):\n        pass\n", "python", False),
        ("class A:\n    def f(self):\n        x.‹1y›\n\n    def g(self):\n        pass\n", "python", True),
        ("def f():\n    x = g(1,\n    for a in b:\n        c\n    ‹return y›\n\nd = 1\n", "python", False),
        ("def f():\n    x = g(1,\n    for a in b:\n        c\n    ‹return y y›\n\nd = 1\n", "python", True),
        ("x = (1,\r\n     ‹2)›\r\né = '😀\ud800'\r\n", "python", False),
        ("fn f() {\n    let x = y.‹len();›\n    z()\n}\n", "rust", False),
        ("fn f() {\n    let x = y.‹len(;›\n    z()\n}\n", "rust", True),
        ("function f() {\n  ‹return 1;›\n}\n", "javascript", False),
        ("function f() {\n  ‹if (x) {›\n}\n", "javascript", True),
        ("int f(void) {\n  return g(‹1);›\n}\n", "c", False),
        ("#define BAD(\nint f(void) {\n  return ‹1;›\n}\n", "c", False),
        ("class A { int f() { return ‹1›; } }\n", "java", False),
        ("class A { int f() { return ‹1 2›; } }\n", "java", True),
        ("any ‹((›\n", None, False),
    ],
)
def test_parse_worse(marked, language, expected):
    assert refused("parse_worse", marked, language) is expected


def test_an_error_elsewhere_in_the_file_neither_excuses_nor_condemns():
    elsewhere = "def broken(a b):\n    pass\n\n\ndef f():\n    "
    assert not refused("parse_worse", elsewhere + "‹return 1›\n")
    assert refused("parse_worse", elsewhere + "‹return 1 +›\n")


def test_first_refusal_names_the_first_reason_and_lets_good_code_pass():
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


@pytest.mark.parametrize(
    ("marked", "language", "expected"),
    [
        ("def f():\n    ‹x = 1\n    y = (2›\n\nz = 3\n", "python", "x = 1"),
        ("def f():\n‹    x = 1\n    y = (2\n›\nz = 3\n", "python", "    x = 1\n"),
        ("x = ‹f(a) + (b›\n", "python", "f(a)"),
        ("x = f(‹a, b) c›\n", "python", "a, b)"),
        ("‹)(›\n", "python", ""),
        ("‹›\n", "python", ""),
        ("x = ‹good(1)›\n", "python", "good(1)"),
        ("function f() {\n  ‹g();\n  h({;›\n}\n", "javascript", "g();"),
        ("{x: ‹[1}›}\n", None, ""),
        ("{x: ‹a [›}\n", None, "a"),
    ],
)
def test_cut_back(marked, language, expected):
    context = case(marked, language)
    assert cut_back(context.before, context.text, context.after, language) == expected


def test_what_is_cut_back_passes_the_checks_it_was_cut_for():
    context = case("def f(items):\n    for item in items:\n        ‹total += (item\n    return [›\n\nx = 1\n")
    part = cut_back(context.before, context.text, context.after, "python")
    kept = CheckContext(context.before, part, context.after, "python")
    assert context.text.startswith(part) and part
    assert checks.parse_worse(kept) is None and checks.unbalanced_brackets(kept) is None


def test_error_spans_within():
    def parts(marked, language="python"):
        context = case(marked, language)
        spans = error_spans_within(context.before, context.text, context.after, language)
        return [context.text[slice(*span)] for span in spans]

    assert parts("é = '😀'\nx = ‹1 + 2›\n") == []
    assert parts("é = '😀'\nx = ‹= 3›\ny = 1\n") == ["="]
    assert "(" in parts("x = ‹f(a›\ny = 2\nz = 3\n")
    assert parts("int f() {\n  return ‹1›\n}\n", "c") == ["1"]
    assert parts("x ‹((›\n", None) == []
    assert parts("x = = 1\n‹y = 2\n›") == []


ODD = st.text(st.sampled_from("ab (){}[]'\":=\n\t\r\f#é😀\ud800.,1"), max_size=40)


@given(ODD, ODD, ODD, st.sampled_from(["python", "javascript", "rust", "cpp", None]))
@settings(max_examples=200, deadline=None)
def test_any_text_is_judged(before, text, after, language):
    context = CheckContext(before, text, after, language)
    for check in checks.CHECKS:
        reason = check(context)
        assert reason is None or reason
    assert text.startswith(cut_back(before, text, after, language).rstrip("\n"))
    for span in error_spans_within(before, text, after, language):
        assert 0 <= span.start < span.end <= len(text)


@pytest.mark.parametrize("edge", ["‹x = 1›", "‹x = 1\n›y = 2", "y = 2\n‹x = 1›", "y = ‹[1, 2]›"])
def test_holes_at_the_edges_of_a_file(edge):
    assert first_refusal(case(edge)) is None


def test_a_very_long_line_and_a_long_file_are_judged_quickly():
    long_line = "x = [" + "1234, " * 30_000 + "‹5›]\n"
    long_file = "".join(f"def f{n}(a):\n    return g(a, [{n}])\n\n" for n in range(1700)) * 2
    middle = long_file.index("def f1690")
    started = time.perf_counter()
    assert first_refusal(case(long_line)) is None
    assert first_refusal(CheckContext(long_file[:middle], "y = 1\n\n", long_file[middle:], "python")) is None
    assert cut_back(long_file[:middle], "y = 1\nz = (\n", long_file[middle:], "python") == "y = 1\n"
    assert time.perf_counter() - started < 4.0
