"""Parameters, fields and imports."""

from __future__ import annotations

import pytest

from infill.next_edit.edits import apply
from tests.infill.next_edit.asking import changed_lines, proposals

LOADER = """\
def load(path, mode, *, strict=False):
    return path

class Loader:
    def load(self, path, mode):
        return self.load(path, mode=1)

def caller(mode, rest):
    load("a", "r")
    load(mode="r", path="a")
    load("a", *rest)
    Loader().load("b", "r")
    return load("b",
                "w", strict=True)
"""


def test_a_removed_parameter_takes_its_arguments_along() -> None:
    assert changed_lines(LOADER, ("(path, mode, *", "(path, *")) == [
        '    load("a")',
        '    load(path="a")',
        "                strict=True)",
    ]


def test_a_removed_parameter_of_a_method() -> None:
    assert changed_lines(LOADER, ("(self, path, mode)", "(self, path)")) == ["        return self.load(path)"]


def test_a_constructor_is_called_by_the_name_of_its_class() -> None:
    code = "class A:\n    def __init__(self, x, y): pass\n\nA(1, 2)\nB(1, 2)\n"
    assert changed_lines(code, ("x, y)", "x)")) == ["A(1)"]


def test_a_new_parameter_is_passed_where_a_variable_has_its_name() -> None:
    code = "def f(a): pass\n\ndef g(b):\n    f(1)\n\nf(2)\n"
    assert changed_lines(code, ("f(a)", "f(a, b)")) == ["    f(1, b)"]
    assert changed_lines(code, ("f(a)", "f(b, a)")) == ["    f(b, 1)"]
    assert not proposals(code, ("f(a)", "f(a, b=1)"))[1]
    assert not proposals(code, ("f(a)", "f(a, *b)"))[1]


def test_nothing_is_passed_where_no_variable_has_the_name() -> None:
    code = "def f(a): pass\n\ndef g(b):\n    f(1)\n\nf(2)\nf()\n"
    assert changed_lines(code, ("f(a)", "f(a, b)")) == ["    f(1, b)"]
    assert not proposals("function f(b) {}\nf(1); f(2);\n", ("f(b)", "f(a, b)"), language="javascript")[1]


def test_parameters_of_go_and_javascript() -> None:
    go = "package m\n\nfunc f(a, b int) {}\n\nfunc g() { f(1, 2) }\n"
    assert changed_lines(go, ("a, b int", "a int"), language="go") == ["func g() { f(1) }"]
    script = "function f(a, b) {}\nf(1, 2);\nx.f(1, 2);\n"
    assert changed_lines(script, ("a, b)", "b)"), language="javascript") == ["f(2);"]


SHAPE = """\
class Shape:
    def __init__(self, name, size):
        self.name = name
        self.size = size

    def __repr__(self):
        return f"Shape(name={self.name!r}, size={self.size!r})"
"""


def test_a_new_parameter_of_a_constructor_is_stored() -> None:
    assert changed_lines(SHAPE, ("name, size", "name, size, color")) == ["        self.color = color"]
    script = "class A {\n  constructor(a) {\n    this.a = a;\n  }\n}\n"
    assert changed_lines(script, ("(a)", "(a, b)"), language="typescript") == ["    this.b = b;"]


def test_a_new_field_gets_a_parameter_and_is_shown() -> None:
    new = "        self.size = size\n        self.color = color\n"
    text, found = proposals(SHAPE, ("        self.size = size\n", new))
    assert [one.places[0].text for one in found] == [", color", ", color={self.color!r}"]
    assert text[: found[0].places[0].start].endswith("name, size")


def test_an_import_that_nothing_uses() -> None:
    code = "import os\nfrom json import dumps, loads\n\nprint(os.name, dumps(1), loads(2))\n"
    assert changed_lines(code, ("os.name, ", "")) == ["-import os"]
    assert changed_lines(code, ("dumps(1), ", "")) == ["from json import loads"]
    assert not proposals(code + "# os\n", ("os.name, ", ""))[1]
    go = 'package m\n\nimport (\n\t"fmt"\n\t"os"\n)\n\nfunc f() { fmt.Print(os.Args) }\n'
    assert changed_lines(go, ("os.Args", "1"), language="go") == ['-\t"os"']
    script = "import { a, b } from 'm';\na(b);\n"
    assert changed_lines(script, ("(b)", "()"), language="javascript") == ["import { a } from 'm';"]


def test_an_import_that_is_missing() -> None:
    code = "import os\nfrom m import one\n\nprint(os.name)\n"
    assert changed_lines(code, ("os.name", "sys.argv")) == ["import sys"]
    neighbour = "from m import two\nfrom n import (\n    three,\n)\n"
    two = changed_lines(code, ("os.name", "two(1)"), kind="import", neighbours=[neighbour])
    assert two == ["from m import one, two"]
    three = changed_lines(code, ("os.name", "three"), kind="import", neighbours=[neighbour])
    assert three == ["from n import three"]
    assert not changed_lines(code, ("os.name", "os.name + unknown(1)"), kind="import", neighbours=[neighbour])
    go = 'package m\n\nimport (\n\t"fmt"\n)\n\nfunc f() { fmt.Print(1) }\n'
    assert changed_lines(go, ("(1)", "(strings.ToUpper(x))"), language="go") == ['\t"strings"']


def test_an_import_follows_a_name_that_replaces_its_only_use() -> None:
    code = "from m import make_item, other\n\nx = make_item(1)\nother()\n"
    assert changed_lines(code, ("= make_item", "= make_items")) == ["from m import make_items, other"]
    assert changed_lines(code, ("item(1)", "items(1)")) == ["from m import make_items, other"], "a part of the name"
    assert changed_lines(code, ("(1)", "s(1)")) == ["from m import make_items, other"]
    assert changed_lines(code, ("= make_item", "= build")) == ["from m import other"], "not alike"
    assert not proposals(code + "make_item(2)\n", ("= make_item", "= make_items"))[1], "still used"
    assert not proposals("import osmium\n\nx = osmium.y\n", ("osmium.y", "osmiun.y"))[1], "a module, or a slip"
    script = "import type { AnyAction } from 'redux'\nlet x: AnyAction\n"
    assert changed_lines(script, (": AnyAction", ": UnknownAction"), language="typescript") == [
        "import type { UnknownAction } from 'redux'"
    ]


def test_a_name_that_leaves_an_import_was_not_used_there() -> None:
    code = "from a import one, two\nfrom b import one\n"
    assert not changed_lines(code, ("one, two", "two"), kind="import")


def test_a_module_of_the_standard_library_is_imported_beside_others() -> None:
    code = "import os\nfrom functools import wraps\n\nimport attr\n\nx = os.name, attr.s, wraps\n"
    text, (found,) = proposals(code, ("os.name", "os.name, types.A"))
    assert apply(text, found.places).startswith("import os\nimport types\nfrom functools")


def test_a_stored_parameter_keeps_the_order_and_the_form_of_the_fields() -> None:
    code = "class A:\n    def __init__(self, a, c):\n        self._a = a\n        self._c = c\n        self.d = {}\n"
    text, (found,) = proposals(code, ("a, c", "a, b, c"))
    assert "self._a = a\n        self._b = b\n        self._c = c\n" in apply(text, found.places)
    text, (found,) = proposals(code, ("a, c", "b, a, c"))
    assert "):\n        self._b = b\n        self._a = a\n" in apply(text, found.places)
    script = "class A {\n  constructor(a, c) {\n    this.a = a;\n    this.c = c;\n  }\n}\n"
    text, (found,) = proposals(script, ("(a, c", "(b, a, c"), language="javascript")
    assert "{\n    this.b = b;\n    this.a = a;\n" in apply(text, found.places)


@pytest.mark.parametrize(
    ("before", "after", "call", "expected"),
    [
        ("a, *, c", "a, *, b, c", "f(1, c=2)", "f(1, c=2, b=b)"),
        ("a", "a, *, b", "f(1)", "f(1, b=b)"),
        ("*a", "*a, b", "f(1, 2)", "f(1, 2, b=b)"),
        ("a", "a, b", "f(a=1)", "f(a=1, b=b)"),
        ("a", "b, a", "f(a=1)", "f(b=b, a=1)"),
        ("a, c", "a, b, c", "f(1, c=2)", "f(1, b, c=2)"),
        ("a", "a, b", "f(\n        1,\n    )", "f(\n        1,\n        b,\n    )"),
        ("a, c", "a, b, c", "f(\n        1,\n        c=2,\n    )", "f(\n        1,\n        b,\n        c=2,\n    )"),
        ("a", "a, b", "f(*rest)", None),
        ("a", "b, a", "f(one for one in rest)", None),
        ("a, /", "a, /, b", "f(1)", "f(1, b)"),
        ("a", "a, b", "f(1,)", "f(1, b,)"),
        ("a", "a, b", "f(\n        1,  # one\n    )", "f(\n        1, b,  # one\n    )"),
        ("a", "a, b", "f(1, 2)", None),
        ("a", "a, b", "f(1, b=3)", None),
        ("a", "a, b=None", "f(1)", None),
    ],
)
def test_how_a_new_argument_is_passed(before: str, after: str, call: str, expected: str | None) -> None:
    code = f"def f({before}): pass\n\ndef g(b, rest):\n    {call}\n"
    text, found = proposals(code, (f"f({before})", f"f({after})"))
    assert [apply(text, one.places) for one in found] == ([text.replace(call, expected)] if expected else [])


@pytest.mark.parametrize(
    "caller",
    [
        "def g():\n    f(1)\n    b = 2\n",  # has no value yet
        "import b\ndef g():\n    f(1)\n",
        "def b(): pass\ndef g():\n    f(1)\n",
        "class b: pass\nf(1)\n",
        "f(1)\nb = 2\n",
    ],
)
def test_what_is_not_a_variable_with_a_value_is_not_passed(caller: str) -> None:
    _, found = proposals(f"def f(a): pass\n{caller}", ("f(a)", "f(a, b)"))
    assert not found


def test_arguments_of_inherited_methods_and_of_functions_in_variables() -> None:
    code = "class A:\n    def __init__(self, a): pass\n    def m(self, a): pass\n\nclass B(A):\n"
    code += "    def __init__(self, a, b):\n        super().__init__(a)\n        self.m(a)\n        super().m(a)\n"
    assert changed_lines(code, ("self, a)", "self, a, b)"), kind="argument") == ["        super().__init__(a, b)"]
    assert changed_lines(code, ("m(self, a)", "m(self, a, b)")) == ["        self.m(a, b)", "        super().m(a, b)"]
    assert changed_lines(code, ("m(self, a)", "m(self)")) == ["        self.m()", "        super().m()"]
    script = "class A { constructor(a) {} }\nclass B extends A { constructor(a, b) { super(a); } }\n"
    script += "class C { constructor(b) { super(a); } }\n"
    assert changed_lines(script, ("(a)", "(a, b)"), kind="argument", language="javascript") == [
        "class B extends A { constructor(a, b) { super(a, b); } }"
    ]
    arrow = "const f = (a: number) => a;\nconst g = (b: number) => f(1) + b;\nx.f(1);\n"
    assert changed_lines(arrow, ("(a: number", "(a: number, b: number"), language="typescript") == [
        "const g = (b: number) => f(1, b) + b;"
    ]


RECORD = """\
@dataclass(frozen=True)
class Point:
    x: int
    kind: ClassVar[int] = 3
    y: int = 0

    def area(self):
        return self.x * self.y

def f(z):
    return Point(1), Point(x=1), Point(1, y=2)
"""


def test_the_fields_of_a_data_class_are_arguments() -> None:
    added = ("    x: int\n", "    x: int\n    z: int\n")
    assert changed_lines(RECORD, added) == ["    return Point(1, z), Point(x=1, z=z), Point(1, z, y=2)"]
    assert not changed_lines(RECORD, ("    x: int\n", "    x: int\n    z: int = 1\n"))
    assert changed_lines(RECORD, ("    y: int = 0\n", ""), kind="argument") == [
        "    return Point(1), Point(x=1), Point(1)"
    ]
    assert changed_lines(RECORD, ("    y: int", "    size: int"))[-1].endswith("Point(1, size=2)")
    for head in ("class Point(Base):", "class Point:", "@dataclass\nclass Point(Base):", "@other\nclass Point:"):
        code = RECORD.replace("@dataclass(frozen=True)\nclass Point:", head)
        assert not changed_lines(code, added, kind="argument"), head
    last = "class Point(NamedTuple):\n    x: int\n\ndef f(z):\n    return Point(1)\n"
    assert changed_lines(last, added) == ["    return Point(1, z)"]
    assert (
        changed_lines(f"{last}Point(1)\n".replace("(1)", "(1, 2)"), ("    x: int\n", "    x: int\n    z: int\n")) == []
    )


def test_new_lines_end_like_those_of_the_file() -> None:
    for code, edit in (
        ("class A:\n    def __init__(self, a):\n        self.a = a\n", ("self, a", "self, a, b")),
        ("import os\nimport re\n\nx = os.name, re\n", ("x = os", "x = json.x, os")),
        ("def f(a): pass\n\ndef g(b):\n    f(\n        1,\n    )\n", ("f(a", "f(a, b")),
    ):
        text, (found,) = proposals(code, edit)
        windows, (same,) = proposals(code.replace("\n", "\r\n"), edit)
        assert apply(windows, same.places) == apply(text, found.places).replace("\n", "\r\n")


def test_only_the_package_of_a_go_import_is_its_name() -> None:
    go = 'package m\n\nimport (\n\t"example.com/one/two"\n\t"example.com/three/v2"\n)\n\n'
    go += "var x = one.A + two.B + three.C\n"
    assert not changed_lines(go, ("one.A + ", ""), kind="import", language="go")
    assert changed_lines(go, ("two.B + ", ""), language="go") == ['-\t"example.com/one/two"']
    assert changed_lines(go, (" + three.C", ""), language="go") == ['-\t"example.com/three/v2"']


@pytest.mark.parametrize("new", ["", "# json is used.\n", "# os\n# json\n"])
def test_nothing_follows_a_comment(new: str) -> None:
    code = "import os\n\n# os is used.\nx = 1\n"
    assert not proposals(code, ("# os is used.\n", new))[1]
    assert not proposals(f"{code}y = x  # os\n", ("  # os", ""))[1]
