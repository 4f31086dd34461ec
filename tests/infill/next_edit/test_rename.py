"""A declaration changed: its uses, and nothing else, follow."""

from __future__ import annotations

import pytest

from tests.infill.next_edit.asking import changed_lines, proposals

PYTHON = """\
count = 0

def outer(items, limit=count):
    count = len(items)
    def inner(count):
        return count
    class Box:
        count = 1
    print(f"{count:>3} of", [count for _ in items], items.count(count), "count")
    return [count for count in items]

def other():
    return count
"""


def test_a_local_variable_of_python_and_not_what_shadows_it() -> None:
    assert changed_lines(PYTHON, ("    count = len", "    total = len")) == [
        '    print(f"{total:>3} of", [total for _ in items], items.count(total), "count")'
    ]


def test_a_global_of_python_with_the_default_of_a_parameter() -> None:
    assert changed_lines(PYTHON, ("count = 0", "first = 0")) == [
        "def outer(items, limit=first):",
        "    return first",
    ]


def test_a_parameter_with_the_keywords_of_calls() -> None:
    code = "def scale(size, by):\n    return size * by\n\nscale(1, by=2)\nother(by=3)\n"
    assert changed_lines(code, ("by)", "factor)")) == ["    return size * factor", "scale(1, factor=2)"]


def test_global_and_nonlocal() -> None:
    code = "hits = 0\ndef hit():\n    global hits\n    hits += 1\ndef miss():\n    hits = 2\n"
    assert changed_lines(code, ("hits = 0", "total = 0")) == ["    global total", "    total += 1"]


def test_a_method_and_a_field_by_their_class() -> None:
    code = (
        "class A:\n    def __init__(self):\n        self.width = 1\n    def area(self):\n        return self.width\n"
        "class B:\n    def area(self):\n        return self.width\n"
        "    def twice(self):\n        return self.area() * 2\n"
    )
    assert changed_lines(code, ("self.width = 1", "self.size = 1")) == ["        return self.size"]
    assert not changed_lines(code, ("def area", "def surface"))


def test_exports_of_python() -> None:
    code = '__all__ = ["load", "loads"]\ndef load(): pass\n'
    assert changed_lines(code, ("def load", "def read")) == ['__all__ = ["read", "loads"]']


SCRIPT = """\
import { helper } from './m';
const size = 1;
function area(size, scale) {
  const { width } = size;
  if (scale) { let scale = 2; use(scale); }
  return { size, width: width * scale };
}
class Box {
  constructor(size) { this.size = size; }
  grow() { this.size += helper(size); }
}
for (const size of all) { use(size); }
"""


@pytest.mark.parametrize("language", ["javascript", "typescript", "tsx"])
def test_variables_of_javascript_and_typescript(language: str) -> None:
    assert changed_lines(SCRIPT, ("const size", "const length"), language=language) == [
        "  grow() { this.size += helper(length); }"
    ]
    assert changed_lines(SCRIPT, ("area(size", "area(box"), language=language) == [
        "  const { width } = box;",
        "  return { size: box, width: width * scale };",
    ]
    assert changed_lines(SCRIPT, (", scale)", ", by)"), language=language) == [
        "  if (by) { let scale = 2; use(scale); }",
        "  return { size, width: width * by };",
    ]
    assert changed_lines(SCRIPT, ("{ helper }", "{ helpers }"), language=language) == [
        "  grow() { this.size += helpers(size); }"
    ]


def test_types_of_typescript() -> None:
    code = "interface Shape { x: number }\nfunction f<T>(a: Shape, b: T): T { return b; }\ntype U = Shape | T;\n"
    assert changed_lines(code, ("interface Shape", "interface Form"), language="typescript") == [
        "function f<T>(a: Form, b: T): T { return b; }",
        "type U = Form | T;",
    ]
    assert changed_lines(code, ("f<T>", "f<V>"), language="typescript") == [
        "function f<V>(a: Shape, b: V): V { return b; }"
    ]


def test_a_property_of_an_interface() -> None:
    code = "interface P { extent: number }\nfunction f(p: P) { const { extent } = p; return p.extent; }\n"
    code += "const q: P = { extent: 1 };\nconst r = (extent: number): P => ({ extent });\nconst s = { x: extent };\n"
    edit = ("{ extent: n", "{ span: n")
    assert changed_lines(code, edit, language="typescript") == [
        "function f(p: P) { const { span: extent } = p; return p.span; }",
        "const q: P = { span: 1 };",
        "const r = (extent: number): P => ({ span: extent });",
    ]
    assert not proposals(f"{code}interface Q {{ extent: number }}\n", edit, language="typescript")[1], "one of two"
    method = "type P = { total(): number };\nfunction f(p: P) { return p.total(); }\n"
    assert changed_lines(method, ("{ total", "{ sum"), language="typescript") == [
        "function f(p: P) { return p.sum(); }"
    ]


GO = """\
package m

type Box struct{ Width int }

func (b *Box) Area(scale int) int {
	if scale := 2; scale > 1 {
		return scale
	}
	width := b.Width
	for i, width := range all {
		use(i, width)
	}
	return width * scale
}

func New() *Box { return &Box{Width: 1} }
"""


def test_names_of_go() -> None:
    assert changed_lines(GO, ("	width := b", "	wide := b"), language="go") == ["	return wide * scale"]
    assert changed_lines(GO, ("(scale int", "(by int"), language="go") == ["	return width * by"]
    assert changed_lines(GO, ("type Box", "type Case"), language="go") == [
        "func (b *Case) Area(scale int) int {",
        "func New() *Case { return &Case{Width: 1} }",
    ]
    assert changed_lines(GO, ("{ Width", "{ Breadth"), language="go") == [
        "	width := b.Breadth",
        "func New() *Box { return &Box{Breadth: 1} }",
    ]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return [count", "return [total"),  # a use
        ("    count = len", "    items = len"),  # a name that is taken
        ("    count = len", "    None = len"),
        ('"count")', '"total")'),
        ("count = 0", "count = 1"),
        ("count = 0", "count  =  0"),
        ("    count = len(", "    total = len(("),  # broken
    ],
)
def test_nothing_is_renamed_after_other_edits(old: str, new: str) -> None:
    assert not proposals(PYTHON, (old, new))[1]


def test_a_name_that_was_copied_is_not_renamed() -> None:
    """Duplicate a function, then name the copy: the calls are those of the first."""
    code = "def load(a):\n    return a\n\nload(1)\n"
    copy = "def load(a):\n    return a\n\ndef load(a):\n    return a\n"
    assert not proposals(code, ("def load(a):\n    return a\n", copy), ("\ndef load", "\ndef save"))[1]


def test_undone_edits_leave_nothing() -> None:
    assert not proposals(PYTHON, ("    count = len", "    total = len"), ("    total = len", "    count = len"))[1]


def test_an_import_that_makes_way_for_another_is_not_renamed() -> None:
    code = "from typing import Any, Dict\nfrom a import Request\n\nx: Any\ny: Dict\nz: Request\n"
    assert not changed_lines(code, ("Any, Dict", "TYPE_CHECKING, Any"), kind="rename")
    assert not changed_lines(code, ("Request", "Sphinx"), kind="rename")
    assert changed_lines(code, ("Request", "TopRequest"), kind="rename") == ["z: TopRequest"]


def test_a_variable_with_a_new_value_or_type_is_another_one() -> None:
    code = "def f(file: str):\n    size = len(file)\n    return size, file\n"
    assert not changed_lines(code, ("size = len(file)", "path = join(file)"), kind="rename")
    assert not changed_lines(code, ("file: str", "files: list"), kind="rename")
    assert changed_lines(code, ("file: str", "name: str"), kind="rename") == [
        "    size = len(name)",
        "    return size, name",
    ]


def test_code_that_makes_way_for_other_code_is_not_renamed() -> None:
    code = "class A:\n    def load(self, a):\n        return a\n\n    def use(self):\n        return self.load(1)\n"
    old = "    def load(self, a):\n        return a\n"
    assert not changed_lines(code, (old, "    def close(self):\n        self.x = 1\n"), kind="rename")
    assert changed_lines(code, (old, "    def loaded(self, a):\n        return [a]\n"), kind="rename") == [
        "        return self.loaded(1)"
    ]
    assert not changed_lines(code, ("load", "__enter__"), kind="rename")
    assert not changed_lines(code, ("load(self", "load(that"), kind="rename")


def test_a_name_that_another_class_takes_over_is_not_renamed() -> None:
    code = "class Error(ValueError):\n    pass\n\nraise Error\n"
    new = "class BaseError(Exception):\n    pass\n\nclass Error(BaseError):\n    pass\n"
    assert not changed_lines(code, ("class Error(ValueError):\n    pass\n", new), kind="rename")
