"""Candidate edits, kind by kind, and code that is never edited."""

import pytest

from infill.code.syntax import parse
from infill.lint.edits import find_edits
from infill.lint.kinds import KINDS
from infill.lint.symbols import SymbolTable


def edits(text: str, language: str = "python", code: str | None = None) -> set[tuple[str, str]]:
    """(original, replacement) of all edits, or of those of one kind."""
    tree = parse(text, language)
    assert tree is not None
    found = find_edits(tree, SymbolTable(tree), [(0, len(text))])
    assert {edit.code for edit in found} <= {*KINDS}
    return {(text[one.start : one.end], one.replacement) for one in found if code in (None, one.code)}


def test_other_variables_bound_above_are_candidates() -> None:
    text = "def area(width, height):\n    total = width * width\n    later = 1\n    return total\n"
    found = edits(text, code="wrong-name")
    assert {("width", "height"), ("total", "height"), ("total", "later")} <= found
    assert ("width", "later") not in found and ("width", "total") not in found


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("javascript", "function f(left, right) { return left + left; }"),
        ("typescript", "const f = (left: number, right: number) => left + left;"),
        ("go", "package p\nfunc f(left int, right int) int { return left + left }"),
        ("rust", "fn f(left: u32, right: u32) -> u32 { left + left }"),
        ("java", "class A { int f(int left, int right) { return left + left; } }"),
        ("c", "int f(int left, int right) { return left + left; }"),
        ("cpp", "int f(int left, int right) { return left + left; }"),
    ],
)
def test_parameters_are_variables_in_every_language(language: str, text: str) -> None:
    assert ("left", "right") in edits(text, language, "wrong-name")


def test_nested_functions_see_enclosing_variables() -> None:
    text = "def outer(one):\n    def inner(two):\n        return two\n    return inner\n"
    assert ("two", "one") in edits(text, code="wrong-name")


def test_neighbouring_arguments_are_swapped() -> None:
    found = edits("def f(a, b):\n    g(a, b, key=1)\n", code="swapped-arguments")
    assert found == {("a, b", "b, a")}


def test_a_name_that_only_the_class_has_lacks_self() -> None:
    body = "self.count = 1\n        if ready:\n            self.go(count)\n"
    text = "class A:\n    async def go(self, ready):\n        " + body
    assert edits(text, code="missing-self") == {("count", "self.count")}


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("javascript", "class A { f() { this.require = 1; return require('fs'); } }"),
        ("javascript", "class A { f() { this.fetch = 1; return fetch(x); } }"),
        ("python", "class A:\n    def f(self):\n        self.print = 1\n        return print(2)\n"),
        ("typescript", "export default class Pool { static get Pool() { return Pool; } f() { return this.Pool; } }"),
        ("tsx", "abstract class Pool { f() { this.Pool = 1; return new Pool(); } }"),
    ],
)
def test_globals_and_classes_are_not_members(language: str, text: str) -> None:
    assert not edits(text, language, "missing-self")


def test_base_classes_are_not_arguments() -> None:
    assert not edits("class A(Mixin, Base):\n    pass\n", code="swapped-arguments")


def test_local_imports_are_not_members() -> None:
    text = (
        "class A:\n    size: int\n\n    def f(self):\n        from m import Table\n        self.g(Table())\n\n"
        "    def h(self):\n        return Table, size, f\n"
    )
    assert edits(text, code="missing-self") == {("size", "self.size"), ("f", "self.f")}


@pytest.mark.parametrize(
    "body",
    [
        "size = 1\n        return size",  # a local variable
        "while go():\n            use(size)\n            size = 1",
        "return Size",  # imported
        "return [size for size in 1]",
        "def inner(size=size):\n            pass",
        "class B:\n            size = 1",
    ],
)
def test_ambiguous_names_do_not_lack_self(body: str) -> None:
    members = "class A:\n    size: int\n    Size: int\n\n"
    text = f"from m import a as Size\n\n\n{members}    def f(self):\n        self.x = 1\n        {body}\n"
    assert not edits(text, code="missing-self")


def test_an_assignment_that_nothing_reads_may_lack_self() -> None:
    below = "\n    def f(self):\n        return self.size\n"
    text = "class A:\n    def __init__(self, size, unit):\n        size = size\n        self.unit = unit\n" + below
    assert edits(text, code="missing-self") == {("size", "self.size")}
    unfinished = text.replace("        self.unit = unit\n", "")
    assert not edits(unfinished, code="missing-self")


@pytest.mark.parametrize("call", ["min(a, b)", "log.info('%s: %s', a, b)", "print(a, b)"])
def test_unordered_arguments_are_not_swapped(call: str) -> None:
    assert not edits(f"def f(a, b):\n    {call}\n", code="swapped-arguments")


def test_a_name_that_occurs_once_may_be_a_misspelling() -> None:
    text = (
        "response = get()\nlog(respones)\nprint(response, rows['titel'], rows['title'], rows['title'], items, item)\n"
    )
    assert edits(text, code="misspelled") == {("respones", "response"), ("titel", "title")}


@pytest.mark.parametrize("pair", [("value1", "value2"), ("start", "starts"), ("Token", "token"), ("find", "kind")])
def test_deliberately_different_names_are_not_misspellings(pair: tuple[str, str]) -> None:
    assert not edits(f"use({pair[0]})\nuse({pair[1]}, {pair[1]})\n", code="misspelled")


def test_names_not_updated_in_a_copied_line() -> None:
    text = "def f(box):\n    x_min = box.x_min + x_pad\n    y_min = box.y_min + x_pad\n"
    assert edits(text, code="copy-paste") == {("x_pad", "y_pad")}
    assert edits("width = get('a', width)\nheight = get('a', width)\n", code="copy-paste") == {("width", "height")}
    assert edits("a.maxItem = maxSize(a, 1)\na.minItem = maxSize(a, 1)\n", code="copy-paste") == {
        ("maxSize", "minSize")
    }


@pytest.mark.parametrize(
    ("above", "below"),
    [
        ("from a.b import c, d", "from a.c import c, d"),  # imports
        ("self.fn = wrap(fn, 1)", "self.base_fn = wrap(fn, 1)"),  # one name contains the other
        ("x = get(a, b, x, y)", "z = get(b, a, x, y)"),  # more than one substitution
        ("x = get(x, x, a, y)", "z = get(x, x, a, y)"),  # unchanged in several positions
    ],
)
def test_other_similar_lines_are_not_copies(above: str, below: str) -> None:
    assert not edits(f"{above}\n{below}\n", code="copy-paste")


def test_comments_strings_and_definitions_are_not_edited() -> None:
    text = '"""One < two and True."""\n\n# one < two\ndef one(two):\n    return f"one {two}"\n'
    assert not edits(text)


def test_edits_stay_in_the_ranges() -> None:
    text = "def f(a, b):\n    return a\n\ndef g(c, d):\n    return c\n"
    tree = parse(text, "python")
    assert tree is not None
    start = text.index("def g")
    found = find_edits(tree, SymbolTable(tree), [(start, len(text))])
    assert {(text[one.start : one.end], one.replacement) for one in found} == {("c", "d")}


def test_offsets_count_characters() -> None:
    text = "def f(a, b):\n    s = 'äöü😀'; return a\n"
    assert ("a", "b") in edits(text, code="wrong-name")
