"""Calls of a function that returns more values than before."""

from __future__ import annotations

import pytest

from tests.infill.next_edit.asking import changed_lines, proposals

CODE = """\
def load(path):
    text = read(path)
    size = len(text)
    return text

def first(path):
    text = load(path)
    return text

def second(path, size):
    content = load(path)
    print(load(path))
    if load(path).strip():
        load(path)
    return load(path)
"""


def test_a_return_becomes_a_tuple() -> None:
    assert changed_lines(CODE, ("    return text\n", "    return text, size\n")) == [
        "    text, size = load(path)",
        "    content, _ = load(path)",
        "    print(load(path)[0])",
        "    if load(path)[0].strip():",
    ]
    assert changed_lines(CODE, ("    return text\n", "    return (len(text), text)\n"))[:3] == [
        "    _, text = load(path)",
        "    _, content = load(path)",
        "    print(load(path)[1])",
    ]


def test_a_tuple_gets_longer() -> None:
    code = CODE.replace("    return text\n", "    return text, size\n", 1).replace(
        "    text = load", "    (text, _) = load"
    )
    assert changed_lines(code, ("text, size\n", "text, path, size\n")) == ["    (text, _, _) = load(path)"]


@pytest.mark.parametrize(
    "code",
    [
        CODE.replace("    size = len(text)", "    if not text:\n        return None"),
        CODE.replace("    size = len(text)", "    yield text"),
        "def load(path):\n    return text\n\nx: str = load(1)\nload(2)\ny = [load(3)]\n    return text\n",
    ],
)
def test_quiet(code: str) -> None:
    assert not proposals(code, ("    return text\n", "    return text, size\n"))[1]


def test_not_before_every_return_has_as_many_values() -> None:
    code = CODE.replace("    size = len(text)", "    if not text:\n        return ''")
    one = ("    return text\n", "    return text, 0\n")
    assert not proposals(code, one)[1]
    assert changed_lines(code, one, ("return ''", "return '', 0"))[0] == "    text, _ = load(path)"


def test_awaited_calls() -> None:
    code = "async def f(a):\n    return a\n\nasync def g(b):\n    x = await f(b)\n    y = f(b)\n"
    assert changed_lines(code, ("return a", "return a, b")) == ["    x, _ = await f(b)"]


def test_javascript() -> None:
    code = """\
function load(path) {
  return text;
}
const text = load(1);
let other = load(2);
other = load(3);
const { length } = load(4);
show(load(5));
"""
    assert changed_lines(code, ("return text;", "return [text, size];"), language="javascript") == [
        "const [text, size] = load(1);",
        "let [other, size] = load(2);",
        "other = load(3)[0];",
        "show(load(5)[0]);",
    ]


def test_go() -> None:
    code = """\
package m

func load(path string) string {
\treturn text
}

func main() {
\ttext := load("a")
\tuse(load("b"))
\ttext = load("c")
}
"""
    edits = [("return text", "return text, err"), (") string {", ") (string, error) {")]
    expected = ['\ttext, err := load("a")', '\ttext, _ = load("c")']
    assert changed_lines(code, *edits, kind="return", language="go") == expected
