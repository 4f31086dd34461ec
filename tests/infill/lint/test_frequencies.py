"""What counting says for an edit."""

import math

import pytest

from infill.code.syntax import parse
from infill.lint.frequencies import Habit, Habits
from infill.lint.kinds import Edit
from infill.lint.symbols import Survey


def habit(text: str, old: str, new: str) -> Habit:
    """Of the edit that makes the last `old` `new`."""
    tree = parse(text, "python")
    assert tree is not None
    start = text.rindex(old)
    return Habits(Survey(tree)).of(Edit(start, start + len(old), new, "wrong-name"))


def test_a_variable_that_is_read_nowhere_else() -> None:
    text = "def f(given):\n    made = given\n    late = made\n    return made\n"
    assert habit(text, "made", "late").unused == 1 and habit(text, "made", "late").dropped == 1
    assert habit(text, "made", "given").unused == 0
    lost = habit("def f(given):\n    made = 1\n    return made\n", "made", "given")
    assert lost.unused == 1 and lost.dropped == 0 and lost.orphan == 1


def test_parameters_and_others() -> None:
    text = "def f(given):\n    made = given\n    return made\n"
    assert habit(text, "made", "given").given == 1
    assert habit(text.replace("return made", "return given"), "given", "made").given == -1


def test_a_value_made_of_itself_is_an_update() -> None:
    text = "def f(size, other):\n    size = int(size)\n"
    assert habit(text, "size", "other").update == 1
    assert habit(text.replace("size = int", "area = int"), "size", "other").update == 0


def test_what_is_read_more_and_got_its_value_nearer() -> None:
    text = "def f(old):\n    new = old\n    go(new, new)\n    return old\n"
    found = habit(text, "old", "new")
    assert found.reads == pytest.approx(math.log(3 / 2))
    assert found.nearer == pytest.approx(math.log(4 / 3))


def test_a_name_without_an_origin_says_nothing_of_variables() -> None:
    found = habit("def f(a):\n    return print(b)\n", "b", "a")
    assert (found.dropped, found.given, found.update, found.reads, found.nearer) == (0, 0, 0, 0, 0)
    assert found.defined == 0 and found.lonely == 1
