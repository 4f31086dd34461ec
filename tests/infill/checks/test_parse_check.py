"""The parse check, error spans, and cutting back. «‹text›» marks a completion."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import Stop
from infill.checks.brackets import unbalanced_brackets
from infill.checks.context import CheckContext
from infill.checks.parse import cut_back, error_spans_within, parse_worse
from infill.code.syntax import SyntaxTree
from tests.cpu_time import takes_less
from tests.infill.marked import case


def refused(marked, language="python"):
    reason = parse_worse(case(marked, language))
    assert reason is None or (reason and "\n" not in reason)
    return reason is not None


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
    assert refused(marked, language) is expected


def test_an_error_elsewhere_in_the_file_makes_no_difference():
    elsewhere = "def broken(a b):\n    pass\n\n\ndef f():\n    "
    assert not refused(elsewhere + "‹return 1›\n")
    assert refused(elsewhere + "‹return 1 +›\n")


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


def test_a_text_that_was_cut_back_passes_the_checks():
    context = case("def f(items):\n    for item in items:\n        ‹total += (item\n    return [›\n\nx = 1\n")
    part = cut_back(context.before, context.text, context.after, "python")
    kept = CheckContext(context.before, part, context.after, "python")
    assert context.text.startswith(part) and part
    assert parse_worse(kept) is None and unbalanced_brackets(kept) is None


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
@settings(max_examples=200)
def test_any_text_can_be_cut_back_and_searched(before, text, after, language):
    assert text.startswith(cut_back(before, text, after, language).rstrip("\n"))
    for span in error_spans_within(before, text, after, language):
        assert 0 <= span.start < span.end <= len(text)


def test_a_long_file_is_cut_back_quickly():
    long_file = "".join(f"def f{n}(a):\n    return g(a, [{n}])\n\n" for n in range(1700)) * 2
    middle = long_file.index("def f1690")

    def cut(attempt):
        line = f"y = {attempt}\n"
        assert cut_back(long_file[:middle], f"{line}z = (\n", long_file[middle:], "python") == line

    assert takes_less(4.0, cut)


def test_once_parsing_is_stopped_every_text_passes_and_nothing_of_that_is_kept():
    before, broken = "x = 1\n" * 10_000, "y = (\n"
    assert parse_worse(CheckContext(before, broken, "", "python", stop=lambda: True)) is None
    assert error_spans_within(before, broken, "", "python", lambda: True) == ()
    assert parse_worse(CheckContext(before, broken, "", "python")) is not None


def test_a_text_is_parsed_once_for_its_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is checked where it is made, and again where it is judged."""
    parsed, replaced = [], SyntaxTree.replaced

    def count(tree: SyntaxTree, start: int, end: int, text: str, stop: Stop | None = None) -> SyntaxTree:
        parsed.append(text)
        return replaced(tree, start, end, text, stop)

    monkeypatch.setattr(SyntaxTree, "replaced", count)
    verdicts = [parse_worse(CheckContext("once = f(\n    ", "a)", "\nb = (\n", "python")) for _ in range(2)]
    assert verdicts[0] == verdicts[1] and parsed.count("a)") == 1
