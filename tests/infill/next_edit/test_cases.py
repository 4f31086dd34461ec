"""Code that handles each member of an enum, a union or a family of classes."""

from __future__ import annotations

import pytest

from tests.infill.next_edit.asking import changed_lines, proposals

COLORS = """\
class Color(Enum):
    RED = 1
    DARK_BLUE = 2

NAMES = {
    Color.RED: "red",
    Color.DARK_BLUE: "dark blue",
}

def paint(color):
    match color:
        case Color.RED:
            return visit_red("Red")
        case Color.DARK_BLUE:
            return visit_dark_blue("Dark Blue")

class Fruit(Enum):
    RED = 1
    DARK_BLUE = 2

WEIGHTS = {Fruit.RED: "red", Fruit.DARK_BLUE: "dark blue"}
NUMBERS = {Color.RED: 1, Color.DARK_BLUE: 2}
ALL = [Color.RED, Color.DARK_BLUE]
"""


def test_a_new_member_of_an_enum() -> None:
    new = ("    DARK_BLUE = 2\n", "    DARK_BLUE = 2\n    LIGHT_GREEN = 3\n")
    assert changed_lines(COLORS, new) == [
        '    Color.LIGHT_GREEN: "light green",',
        "        case Color.LIGHT_GREEN:",
        '            return visit_light_green("Light Green")',
        "ALL = [Color.RED, Color.DARK_BLUE, Color.LIGHT_GREEN]",
    ]
    (found,) = proposals(COLORS, new)[1]
    assert (found.kind, found.reason) == ("case", "Handle `LIGHT_GREEN` in 3 places like `DARK_BLUE`.")


def test_it_is_put_where_it_is_in_the_declaration() -> None:
    lines = changed_lines(COLORS, ("    RED = 1\n", "    RED = 1\n    PINK = 3\n"))
    assert lines[-1] == "ALL = [Color.RED, Color.PINK, Color.DARK_BLUE]"
    lines = changed_lines(COLORS, ("    RED = 1\n", "    PINK = 3\n    RED = 1\n"))
    assert lines[-1] == "ALL = [Color.PINK, Color.RED, Color.DARK_BLUE]"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("    RED = 1", "    CRIMSON = 1"),  # renamed
        ('"red",', '"red", Color.NONE: "none",'),
        ("    RED = 1", "    RED = 1\n    PINK = 3\n    TEAL = 4"),
    ],
)
def test_only_one_new_member(old: str, new: str) -> None:
    assert not [one for one in proposals(COLORS, (old, new))[1] if one.kind == "case"]


def test_not_if_one_member_is_handled_in_another_way() -> None:
    code = COLORS.replace('visit_red("Red")', '"red"').replace("ALL = [Color.RED, ", "ALL = [")
    code = code.replace('Color.RED: "red",', 'Color.RED: "r",')
    assert not proposals(code, ("    DARK_BLUE = 2\n", "    DARK_BLUE = 2\n    PINK = 3\n"))[1]


def test_enums_and_unions_of_typescript() -> None:
    code = """\
enum Color { Red, Blue }
function name(color: Color): string {
  switch (color) {
    case Color.Red: return "red";
    case Color.Blue: return "blue";
    default: throw new Error();
  }
}
"""
    lines = changed_lines(code, ("Red, Blue", "Red, Blue, Green"), language="typescript")
    assert lines == ['    case Color.Green: return "green";']
    unclear = ("Red, Blue", "Red, Blue, DarkGreen")
    assert not proposals(code, unclear, language="typescript")[1], "dark_green, dark-green or darkGreen"
    code = """\
type Kind = "circle" | "square";
const makers: Record<Kind, Maker> = { circle: makeCircle, square: makeSquare };
"""
    new = ('"square";', '"square" | "bigTriangle";')
    assert changed_lines(code, new, language="typescript") == [
        "const makers: Record<Kind, Maker> = { circle: makeCircle, square: makeSquare, bigTriangle: makeBigTriangle };"
    ]


def test_constants_of_go() -> None:
    code = """\
package m

const (
\tRed Color = iota
\tBlue
)

func (c Color) String() string {
\tswitch c {
\tcase Red:
\t\treturn "Red"
\tcase Blue:
\t\treturn "Blue"
\t}
\tpanic(c)
}
"""
    assert changed_lines(code, ("\tBlue\n", "\tBlue\n\tGreen\n"), language="go") == [
        "\tcase Green:",
        '\t\treturn "Green"',
    ]


def test_a_class_beside_others() -> None:
    code = """\
class Circle(Shape):
    pass

class Square(Shape):
    pass

class Other(Thing):
    pass

SHAPES = [Circle, Square]
__all__ = ["Circle", "Square"]
check(Circle, Square)
"""
    new = ("class Other", "class Triangle(Shape):\n    pass\n\nclass Other")
    assert changed_lines(code, new) == [
        "SHAPES = [Circle, Square, Triangle]",
        '__all__ = ["Circle", "Square", "Triangle"]',
    ]
    assert not proposals(code, ("class Other", "class Triangle(Thing):\n    pass\n\nclass Other"))[1]
