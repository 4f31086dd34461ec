"""The text around a hole that the checks look at."""

from __future__ import annotations

import pytest

from infill.code.syntax import parse
from infill.complete.prepared import MAX_NEAR_CHARS, NEAR_CHARS, prepare
from infill.complete.proposals import copies
from infill.request import Hole, InfillRequest
from tests.infill.fakes import pocket, pocket_tokens, request

FUNCTION = "def function_{}(first, second):\n    return first + second\n\n\n"


def near(text: str) -> tuple[str, str]:
    return prepare(request(text), pocket().budget).near(0)


def test_a_file_of_usual_size_is_near_as_a_whole() -> None:
    before, after = "x = 1\n\n\ny = ", "\n\n\nz = 3\n"
    assert near(f"{before}§{after}") == (before, after)


def test_a_long_file_is_cut_between_definitions() -> None:
    functions = [FUNCTION.format(number) for number in range(4000)]
    above, below = "".join(functions[:2000]), "".join(functions[2000:])
    before, after = near(f"{above}value = §\n\n\n{below}")
    assert above.endswith(before.removesuffix("value = ")) and f"\n\n\n{below}".startswith(after)
    assert before.startswith("def ") and after.rstrip("\n").endswith("second")
    assert NEAR_CHARS / 2 < len(before) <= NEAR_CHARS <= len(after) < 1.1 * NEAR_CHARS
    tree = parse(f"{before}1{after}", "python")
    assert tree is not None and not tree.root.has_error


@pytest.mark.parametrize("kept", ["class", "text"])
def test_a_long_class_or_string_is_near_from_its_beginning(kept: str) -> None:
    """The text is not cut within a class or a string."""
    if kept == "class":
        above = "x = 1\n\n\nclass Long:\n" + "    def method(self):\n        return 1\n\n" * 2000
        assert near(f"{above}    value = §\n")[0].startswith("class Long:")
    else:
        above = "import re\n\nPROSE = '''" + "One paragraph\nof several lines.\n\n" * 2000 + "'''\n"
        assert near(f"{above}value = §\n")[0].startswith("import re")


@pytest.mark.parametrize("text", ["{" * 700_000, "\n" * 700_000, "A<" * 350_000])
def test_what_is_near_is_bounded_and_parsing_ends_when_the_caller_leaves(text: str) -> None:
    hole = len(text) // 2
    wanted = InfillRequest(text, (Hole(hole, hole),), language="cpp")
    before, after = prepare(wanted, pocket().budget, lambda: True).near(0)
    assert len(before) <= MAX_NEAR_CHARS and len(after) <= MAX_NEAR_CHARS + 1
    assert len(before) > NEAR_CHARS < len(after)


def test_parsing_ends_at_the_deadline() -> None:
    prepared = prepare(InfillRequest("x", (Hole(1, 1),), deadline_ms=60_000), pocket().budget)
    assert not prepared.stop_parsing()
    prepared.deadline = 0.0
    assert prepared.stop_parsing()


def test_what_follows_a_hole_is_cut_off_its_text() -> None:
    prepared = prepare(request("def f():\r\n    §\r\n\r\nx = 1\r\n"), pocket().budget)
    assert prepared.without_overlap(0, "return 1\n\nx = 1") == "return 1"
    assert prepared.until_next_line(0, "return 1\n\nx = 1\ny = 2") == "return 1"


def test_a_copy_does_not_repeat_what_follows() -> None:
    line = "show(rows.map((x) => ({ name: 'n' + x, id: x "
    prepared = prepare(request(f"{line}}})));\n{line}§));\n", language="javascript", lines="one"), pocket().budget)
    assert [one.text for one in copies(prepared, 0, pocket_tokens())] == ["})"]
