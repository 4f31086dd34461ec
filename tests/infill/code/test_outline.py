"""The outline of a file: what it shows, in which order, and what it leaves out."""

import pytest

from infill.code.outline import outline
from infill.code.syntax import Span

PYTHON = '''"""A module."""
import os
from a import (b,
    c)

LIMIT = 3


def first(x, y=(1,
                2)):  # why
    """First one.

    More of it.
    """
    def inner():
        pass
    return LIMIT


@dataclass
class Thing(Base):
    size: int = 3

    def grow(self, é="😀"):
        self.size += 1

    async def shrink(self):
        self.size -= 1


def last():
    return os
'''


def kept(text, part):
    start = text.index(part)
    return [Span(start, start + len(part))]


def test_imports_and_signatures_in_file_order_without_bodies():
    assert outline(PYTHON, "python", []) == (
        "import os\n"
        "from a import (b,\n    c)\n"
        "def first(x, y=(1,\n                2)):\n"
        "@dataclass\nclass Thing(Base):\n"
        '    def grow(self, é="😀"):\n'
        "    async def shrink(self):\n"
        "def last():\n"
    )


def test_kept_spans_are_left_out_but_not_their_scopes():
    keep = kept(PYTHON, "    async def shrink(self):\n        self.size -= 1\n")
    shown = outline(PYTHON, "python", keep)
    assert "shrink" not in shown
    assert "class Thing(Base):\n" in shown


def test_scopes_around_come_first_then_imports_then_the_nearest():
    keep = kept(PYTHON, "self.size += 1")
    around = '@dataclass\nclass Thing(Base):\n    def grow(self, é="😀"):\n'
    assert outline(PYTHON, "python", keep, limit_chars=len(around)) == around
    with_import = outline(PYTHON, "python", keep, limit_chars=len(around) + len("import os\n"))
    assert with_import == "import os\n" + around
    imports = "import os\nfrom a import (b,\n    c)\n"
    limit = len(around) + len(imports) + len("    async def shrink(self):\n")
    more = outline(PYTHON, "python", keep, limit_chars=limit)
    assert "shrink" in more and "first" not in more


def test_a_method_is_never_shown_without_its_class():
    text = "class Long(With, Many, Bases, Indeed):\n    def a(self):\n        pass\n\n\nx = 1\n"
    assert outline(text, "python", kept(text, "x = 1"), limit_chars=30) == ""


def test_a_header_has_decorators_and_signature_but_no_comment():
    text = "@wraps(x)\ndef f(a,\n      b=':'):  # why\n    # how\n    return a\n"
    assert outline(text, "python", []) == "@wraps(x)\ndef f(a,\n      b=':'):\n"
    text = "export function f(a: T): U {\n  return 1\n}\n"
    assert outline(text, "typescript", []) == "export function f(a: T): U\n"


@pytest.mark.parametrize("limit", range(0, 300, 17))
def test_the_outline_stays_within_the_limit(limit):
    assert len(outline(PYTHON, "python", kept(PYTHON, "LIMIT = 3"), limit_chars=limit)) <= limit


def test_line_ends_are_newlines():
    assert outline(PYTHON.replace("\n", "\r\n"), "python", []) == outline(PYTHON, "python", [])


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("javascript", "import a from 'b'\nexport class A {\n  f(x) { g() }\n}\nexport const g = (x) => {}\n",
         "import a from 'b'\nexport class A\n  f(x)\nexport const g = (x) =>\n"),
        ("go", 'package a\nimport "fmt"\ntype S struct { a int }\nfunc (s *S) F(x int) error {}\n',
         'import "fmt"\ntype S struct\nfunc (s *S) F(x int) error\n'),
        ("rust", "use a::b;\nimpl X for Y {\n    fn f(&self) -> u8 { 1 }\n}\n",
         "use a::b;\nimpl X for Y\n    fn f(&self) -> u8\n"),
        ("java", "import a.b;\nclass A {\n  int f(int x) { return x; }\n}\n",
         "import a.b;\nclass A\n  int f(int x)\n"),
        ("cpp", "#include <a>\nnamespace n {\nint A::m() const { return 1; }\n}\n",
         "#include <a>\nnamespace n\nint A::m() const\n"),
    ],
)  # fmt: skip
def test_other_languages(language, text, expected):
    assert outline(text, language, []) == expected


def test_without_a_tree_there_is_no_outline():
    assert outline("def f():\n    pass\n", None, []) == ""
    assert outline("", "python", []) == ""
