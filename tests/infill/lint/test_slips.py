"""Edits of operators, numbers and missing words, by language."""

import pytest

from infill.code.syntax import parse
from infill.lint.edits import find_edits
from infill.lint.symbols import SymbolTable


def edited(text: str, language: str, code: str, within: str | None = None) -> set[str]:
    """The lines that the edits of a kind make of a text."""
    tree = parse(text, language)
    assert tree is not None and not tree.root.has_error, tree
    start = text.index(within) if within else 0
    ranges = ((start, start + len(within)),) if within else ((0, len(text)),)
    found = [one for one in find_edits(tree, SymbolTable(tree), ranges) if one.code == code]
    texts = (text[: one.start] + one.replacement + text[one.end :] for one in found)
    before = text.split("\n")
    return {line.strip() for text in texts for line in text.split("\n") if line not in before}


PYTHON = """async def f(self, a, b):
    if a < b and not self.x:
        self.go(a)
        print("at {a}", "{c} {}")
    for i in range(len(a) - 1):
        a[i + 1] += b
    while self.ready:
        b = self.next(1)
    return a
"""
GO = """package m

func f(a []int, b bool) int {
\tif b && len(a) == 0 {
\t\treturn a[1]
\t}
\treturn len(a) - 1
}
"""
SCRIPT = """async function f(a, b) {
  if (!a.ok || b === 2) {
    const c = g("${a}", 'x');
    this.go(c);
  }
}
"""


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        ("wrong-operator", {"if a <= b and not self.x:", "if a < b or not self.x:", "a[i + 1] -= b"}),
        ("wrong-negation", {"if a < b and self.x:", "while not self.ready:"}),
        (
            "off-by-one",
            {"for i in range(len(a)):", "for i in range(len(a) - 2):", "a[i] += b", "a[i + 2] += b"},
        ),
        ("missing-await", {"await self.go(a)", "b = await self.next(1)"}),
        ("missing-f", {'print(f"at {a}", "{c} {}")'}),
    ],
)
def test_python(code: str, lines: set[str]) -> None:
    found = edited(PYTHON, "python", code)
    assert lines <= found, found
    if code == "missing-f":
        assert found == lines


def test_a_return_may_be_missing_at_the_end_of_a_branch_or_body() -> None:
    text = "def f(a):\n    if a:\n        g(a)\n    else:\n        a = 1\n    h(a)\n    g(a)\n"
    assert edited(text, "python", "missing-return") == {"return g(a)"}
    assert edited("class A:\n    def __init__(self):\n        g(1)\n", "python", "missing-return") == set()


def test_go() -> None:
    assert {"if b || len(a) == 0 {", "if b && len(a) != 0 {"} <= edited(GO, "go", "wrong-operator")
    assert {"return a[0]", "return a[2]", "return len(a)"} <= edited(GO, "go", "off-by-one")
    assert edited(GO, "go", "wrong-negation") == {"if !b && len(a) == 0 {"}
    assert not edited(GO, "go", "missing-await") | edited(GO, "go", "missing-f")


@pytest.mark.parametrize("language", ["javascript", "typescript", "tsx"])
def test_javascript(language: str) -> None:
    assert {"if (!a.ok && b === 2) {", "if (!a.ok || b !== 2) {"} <= edited(SCRIPT, language, "wrong-operator")
    assert edited(SCRIPT, language, "wrong-negation") == {"if (a.ok || b === 2) {"}
    assert edited(SCRIPT, language, "missing-await") == {"await this.go(c);", "const c = await g(\"${a}\", 'x');"}
    assert edited(SCRIPT, language, "missing-f") == {"const c = g(`${a}`, 'x');"}


def test_types_are_not_operators() -> None:
    text = "def f(a: int | None) -> str | None:\n    return a | 1\n"
    assert edited(text, "python", "wrong-operator") == {"return a & 1"}


def test_only_edits_within_the_ranges_though_the_statement_is_longer() -> None:
    assert edited(PYTHON, "python", "wrong-negation", "if a < b and not self.x:") == {"if a < b and self.x:"}


def test_members_are_exchanged_with_those_of_the_same_object_in_the_same_role() -> None:
    text = "def f(p, q):\n    p.x = p.y\n    p.go(q.z)\n    p.stop()\n"
    assert edited(text, "python", "wrong-member") == {"p.y = p.y", "p.x = p.x", "p.stop(q.z)", "p.go()"}


@pytest.mark.parametrize(
    ("language", "code", "lines"),
    [
        ("python", "def f(a):\n    b = a[len(a)]\n", {"b = a[len(a) - 1]"}),
        ("python", "def f(a):\n    b = a.c[len( a.c )] + 90\n", {"b = a.c[len( a.c ) - 1] + 90"}),
        ("javascript", "function f(a) { return a[a.length]; }\n", {"function f(a) { return a[a.length - 1]; }"}),
        ("go", "package m\n\nfunc f(a []int) int {\n\treturn a[len(a)]\n}\n", {"return a[len(a) - 1]"}),
        ("python", "def f(a, b):\n    a[len(a)] = a[len(b)]\n", set()),  # an append, and another list
        ("javascript", "function f(a) { a[a.length] = 9; }\n", set()),
        ("go", "package m\n\nfunc f(a []int, b int) {\n\ta[len(a)], b = b, b\n}\n", set()),
    ],
)
def test_an_index_past_the_end(language: str, code: str, lines: set[str]) -> None:
    assert edited(code, language, "off-by-one") == lines
