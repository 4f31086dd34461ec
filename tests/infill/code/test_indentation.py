"""The indentation of a new line, and whether a block is expected. «|» marks the cursor."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infill.code.indentation import expects_block, indent_unit, indentation_at
from infill.code.languages import LANGUAGES
from tests.cpu_time import takes_less
from tests.infill.marked import at

UGLY = st.text(st.sampled_from("x(\n\t =é😀\ud800\udc00\r\f'\":#{}1\x00"), max_size=60)


@given(UGLY, st.sampled_from([*LANGUAGES, None]))
def test_any_text_has_an_indentation_anywhere(text, language):
    for offset in (0, len(text) // 2, len(text)):
        assert expects_block(text, offset, language) in (True, False)
        assert not indentation_at(text, offset, language).strip()


@pytest.mark.parametrize(
    ("language", "marked", "expected"),
    [
        ("python", "def f():\n    |\n", True),
        ("python", "def f():\n|", True),
        ("python", "def f():|", True),
        ("python", "def f(\n    a,\n):  # note (\n    # more\n    |\n\nx = 1\n", True),
        ("python", "if x:|\r\ny = 1\r\n", True),
        ("python", "def f():\n    '''Doc.\n    More.'''\n    |\n", True),
        ("python", "def f():\n    |\n    return 1\n", False),
        ("python", "def f():| return\n", False),
        ("python", "x = {a:|\n", False),
        ("python", "x: |\n", False),
        ("python", "f = lambda:|\n", False),
        ("python", "x = [y[1:|\n", False),
        ("python", "x = 'if:|\n", False),
        ("python", "x = 1\n|\n", False),
        ("python", "|", False),
        ("javascript", "if (x) {|}", True),
        ("javascript", "if (x) {\n  |\n}\n", True),
        ("javascript", "const f = () => {|}", True),
        ("javascript", "function f() {|\n\nfunction g() {}\n", True),
        ("javascript", "function f() {\n  |\n  return 1\n}", False),
        ("javascript", "const {|} = x", False),
        ("javascript", "f({|})", False),
        ("javascript", "x = `${|}`", False),
        ("c", "switch (x) {\n  case 1: {|}\n}", True),
        ("cpp", "class A { int f() const {|} };", True),
        ("go", "func f() {|}", True),
        ("rust", "use std::{|};", False),
        (None, "server {\n  |\n}\n", True),
        (None, "plain: |", False),
    ],
)
def test_expects_block(language, marked, expected):
    text, offset = at(marked)
    assert expects_block(text, offset, language) is expected


@pytest.mark.parametrize(
    ("language", "marked", "expected"),
    [
        ("python", "|", ""),
        ("python", "if x:|", "    "),
        ("python", "if x:\n  if y:  # (\n|", "    "),
        ("python", "if x:\n\ty = 1\n\tif z:|", "\t\t"),
        ("python", "def f():\n    x = g(a,\n          b)\n    |", "    "),
        ("python", "def f():\n    '''Doc.\n  odd\n    '''|", "    "),
        ("python", "def f():\n    x = g(|", "        "),
        ("python", "def f():\n    return 1\n\n|", "    "),
        ("python", "def f(\n    a,\n):|", "    "),
        ("javascript", "f(() => {\n  g()|", "  "),
        ("javascript", "if (x) {\n  y()\n}|", ""),
        ("go", "func f() {\n\tif x {|", "\t\t"),
        ("c", "switch (x) {\n    case 1:|", "        "),
        ("c", "int f()\r\n{\r\n  if (x)\r\n  {|", "    "),
        (None, "a:\n  - b:|", "    "),
    ],
)
def test_indentation_at(language, marked, expected):
    text, offset = at(marked)
    assert indentation_at(text, offset, language) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "    "),
        ("x = 1\ny = 2\n", "    "),
        ("if x:\n  y\nif x:\n  y\n", "  "),
        ("if x {\n\ty\n\tif z {\n\t\tw\n", "\t"),
        ("/**\n * a\n */\nif (x) {\n    y\n", "    "),
        ("def f(a,\n      b):\n  x\n  if y:\n    z\n", "  "),
    ],
)
def test_indent_unit(text, expected):
    assert indent_unit(text) == expected


def test_a_large_file_is_read_quickly():
    text = "".join(f"def f{n}(a, b=({n}, 'é')):\n    return g(a)[{n}]\n\n" for n in range(2000))

    def read(attempt: int) -> None:
        middle = len(text) // 2 + attempt
        expects_block(text, middle, "python")
        indentation_at(text, middle, "python")

    assert takes_less(1.0, read)


@pytest.mark.parametrize(("language", "line"), [("python", "#\n"), ("go", "//\n"), ("c", "/**/\n"), ("python", "\n")])
def test_many_comments_before_the_cursor_take_linear_time(language: str, line: str) -> None:
    text = line * 50_000
    assert takes_less(20.0, lambda attempt: expects_block(text, len(text) - attempt * len(line), language))
    assert not expects_block(text, len(text), language)
