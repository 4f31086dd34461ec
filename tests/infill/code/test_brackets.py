"""Brackets, strings and comments of each language, without a syntax tree."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infill.code.brackets import scan
from infill.code.languages import LANGUAGES
from tests.cpu_time import takes_less


def still_open(text, language):
    return "".join(bracket.char for bracket in scan(text, language).open)


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("python", "x = foo('a(' # (\n, [{", "([{"),
        ("python", '"""(\n(""" + f(', "("),
        ("python", r"'\'(' + f(", "("),
        ("python", "x = foo(a, [\ndef f(a:\n", "("),
        ("javascript", "`a${ {b: ']'} } (` + [ // (", "["),
        ("javascript", "`a${b(", "${("),
        ("javascript", 'x = /["(]/.test(y) / 2; {', "{"),
        ("javascript", "a = b / c; d = (e / f", "("),
        ("javascript", "x = [\n  // quotes (\n  /[\"'(]/, /* ) */ /'/, {", "[{"),
        ("javascript", "if (a(b)) /'(/.test(c); {", "{"),
        ("javascript", "x = (a + b) / c; y = '/'; {", "{"),
        ("javascript", "f() {}\n/'(/.test(c); {", "{"),
        ("javascript", "i++ / a['/']; {", "{"),
        ("javascript", "<A b={c}\n/>; {", "{"),
        ("typescript", "<p>Don't</p>\n{", "{"),
        ("go", "`(\n` + '(' {", "{"),
        ("rust", "fn f<'a>(x: &'a str) { let c = '('; r#\"a\"(\"#;", "{"),
        ("rust", '"a(\n(" [', "["),
        ("java", '"""\n( " (\n""" + "(" {', "{"),
        ("c", "// don't (\nchar c = '('; /* ( \n ( */ [", "["),
        ("cpp", 'auto x = 1\'000\'000; R"d(()" ()d"; foo(', "("),
        (None, 'say "hi (" and don\'t (', "("),
    ],
)
def test_scan_ignores_brackets_in_strings_and_comments(language, text, expected):
    assert still_open(text, language) == expected


def test_scan_names_the_string_or_comment_around_the_end():
    assert scan("x = 'abc", "python").inside == "'"
    assert scan('x = """abc\n', "python").inside == '"""'
    assert scan("x  # abc", "python").inside == "#"
    assert scan("`a${b}c", "javascript").inside == "`"
    assert scan("a /* b", "c").inside == "/*"
    assert scan("x = 'abc'", "python").inside == ""
    assert scan("x = /[(", "javascript").inside == scan("x = /['", "typescript").inside == "/"
    assert scan("x = a /(b", "javascript").inside == ""


def test_scan_reports_stray_and_skipped_brackets_and_unterminated_strings():
    reading = scan("a) + f([)\nx = 'abc\ny", "python")
    assert [bracket.char for bracket in reading.stray] == [")"]
    assert [bracket.char for bracket in reading.skipped] == ["["]
    assert reading.unterminated == (14,)


SNIPPETS = st.lists(
    st.sampled_from([*"()[]{}`'\"#/\\\nRxé😀 ", "${", '"""', "//", "/*", "*/", "r#", "\r\n", "def f"]),
    max_size=30,
).map("".join)  # fmt: skip


@given(SNIPPETS, st.sampled_from([*LANGUAGES, None]), st.data())
def test_a_scan_can_resume_at_any_line(text, language, data):
    cut = data.draw(st.integers(0, len(text)))
    cut = text.rfind("\n", 0, cut) + 1
    whole, part = scan(text, language), scan(text, language, cut)
    again = scan(text, language, None, part.resume, part.resume_open)
    assert (again.open, again.inside) == (whole.open, whole.inside)


@pytest.mark.parametrize(
    ("language", "repeated"),
    [
        ("python", ("(", "}")),
        ("javascript", ("[{", "(", "]")),
        ("javascript", ("{", "}")),
        ("javascript", ("`${", "}")),
        ("python", ("(", ")")),
        ("javascript", ("/[",)),
        ("javascript", ("// x\n", "=/")),
        ("javascript", ("/**/", "/", "(/**/")),
        ("javascript", (")", "/")),
        (None, ('"', '\\"')),
        ("python", ("# x\n",)),
    ],
)
def test_no_text_takes_more_than_linear_time(language: str | None, repeated: tuple[str, ...]) -> None:
    """A scanner that searches all open brackets, or the rest of a line, at each character needs hours for these."""
    text = "".join(part * 100_000 for part in repeated)
    assert takes_less(20.0, lambda attempt: scan(text, language))
