"""Evidence by counting."""

import math

import pytest

from infill.code.syntax import parse
from infill.lint.frequencies import Frequencies, FrequencyEvidence
from infill.lint.kinds import Edit
from infill.lint.symbols import SymbolTable


def evidence(text: str, old: str, new: str) -> FrequencyEvidence:
    """Evidence for replacing the last `old` by `new`."""
    tree = parse(text, "python")
    assert tree is not None
    start = text.rindex(old)
    return Frequencies(SymbolTable(tree)).evidence(Edit(start, start + len(old), new, "wrong-name"))


def test_variables_that_no_other_code_reads() -> None:
    text = "def f(given):\n    made = given\n    late = made\n    return made\n"
    assert evidence(text, "made", "late").new_unread == 1 and evidence(text, "made", "late").new_unread_local == 1
    assert evidence(text, "made", "given").new_unread == 0
    found = evidence("def f(given):\n    made = 1\n    return made\n", "made", "given")
    assert found.new_unread == 1 and found.new_unread_local == 0 and found.old_read_once == 1


def test_parameters_and_other_variables() -> None:
    text = "def f(given):\n    made = given\n    return made\n"
    assert evidence(text, "made", "given").parameter_change == 1
    assert evidence(text.replace("return made", "return given"), "given", "made").parameter_change == -1


def test_a_variable_computed_from_itself_is_an_update() -> None:
    text = "def f(size, other):\n    size = int(size)\n"
    assert evidence(text, "size", "other").is_update == 1
    assert evidence(text.replace("size = int", "area = int"), "size", "other").is_update == 0


def test_reads_and_distances_are_compared() -> None:
    text = "def f(old):\n    new = old\n    go(new, new)\n    return old\n"
    found = evidence(text, "old", "new")
    assert found.read_ratio == pytest.approx(math.log(3 / 2))
    assert found.distance_ratio == pytest.approx(math.log(4 / 3))


def test_undefined_names_are_not_compared_as_variables() -> None:
    found = evidence("def f(a):\n    return print(b)\n", "b", "a")
    assert found.new_unread_local == found.parameter_change == found.is_update == 0
    assert found.read_ratio == found.distance_ratio == 0
    assert found.old_defined == 0 and found.old_occurs_once == 1
