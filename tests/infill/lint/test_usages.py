"""What the places of names and arguments say for an edit."""

import math

import pytest

from infill.code.syntax import parse
from infill.lint.edits import find_edits
from infill.lint.names import Bloom, KnownNames
from infill.lint.symbols import Survey
from infill.lint.usages import Slot, Slots


def slot(text: str, old: str, new: str, code: str = "wrong-name", known: KnownNames | None = None) -> Slot:
    """Of the last edit that makes `old` `new`."""
    tree = parse(text, "python")
    assert tree is not None
    survey = Survey(tree)
    found = [
        edit
        for edit in find_edits(tree, survey, [(0, len(text))])
        if edit.code == code and (text[edit.start : edit.end], edit.replacement) == (old, new)
    ]
    return Slots(survey, known).of(found[-1])


@pytest.mark.parametrize(
    "place", ["{}.send()", "send({})", "send(to={})", "1 < {}", "box[{}]", "{}[0]", "kept = {}", "{}(1)"]
)
def test_what_stands_in_such_places_elsewhere_fits(place: str) -> None:
    lines = [place.format(name) for name in ("left", "left", "right")]
    found = slot("def f(left, right):\n" + "".join(f"    {line}\n" for line in lines), "right", "left")
    assert found.fits == pytest.approx(math.log(3))


def test_other_places_say_nothing() -> None:
    assert slot("def f(left, right):\n    send(left)\n    get(right)\n", "right", "left").fits == 0


@pytest.mark.parametrize(
    "text",
    [
        "def f(wide, high):\n    g(height=wide, high=wide)\n",
        "def f(wide, high):\n    self.high = wide\n",
        "def g(high):\n    pass\n\n\ndef f(wide, high):\n    g(wide)\n",
        "class g:\n    def __init__(self, high):\n        pass\n\n\ndef f(wide, high):\n    g(wide)\n",
        "class g:\n    high: int\n\n\ndef f(wide, high):\n    g(wide)\n",
    ],
)
def test_what_is_called_as_is_wanted_is_better_named(text: str) -> None:
    assert slot(text, "wide", "high").named == 1


def test_a_share_of_the_words_is_as_good_as_its_share() -> None:
    text = "def g(high_up):\n    pass\n\n\ndef f(wide, high):\n    g(wide)\n"
    assert slot(text, "wide", "high").named == 0.5


def test_a_name_is_akin_to_those_of_its_part_and_its_object() -> None:
    text = "class A:\n    def f(self, top_k):\n        self.tops(1, 1, self.topk(top_k), other.tops)\n"
    assert slot(text + "        self.topz(1)\n        tops(self.tops)\n", "topz", "tops", "misspelled").akin == 2
    assert slot(text + "        this.topz(1)\n        tops(self.tops)\n", "topz", "tops", "misspelled").akin == 1
    assert slot(text.replace("tops", "x") + "        topz(tops, tops)\n", "topz", "tops", "misspelled").akin == 2
    assert slot(text.replace("tops", "x") + "        self.topz(tops, tops)\n", "topz", "tops", "misspelled").akin == 0


def test_arguments_that_are_called_as_each_others_parameters_cross() -> None:
    text = "def g(start, stop):\n    pass\n\n\ng({}, {})\n"
    assert (
        slot(text.format("a.stop", "start()"), "a.stop, start()", "start(), a.stop", "swapped-arguments").crossed == 2
    )
    assert slot(text.format("start", "stop"), "start, stop", "stop, start", "swapped-arguments").crossed == -2


def test_other_calls_say_which_way_round() -> None:
    text = "g(a, b)\ng(a, b)\ng(b, a)\n"
    assert slot(text, "b, a", "a, b", "swapped-arguments").turned == pytest.approx(math.log(5))


def test_arguments_of_different_kinds_and_strange_functions() -> None:
    known = KnownNames(Bloom.of(["isfile"]), Bloom.of([]), Bloom.of([]))
    found = slot("isfile('a', b)\n", "'a', b", "b, 'a'", "swapped-arguments", known)
    assert found.unlike == 1 and found.strange == 0
    assert slot("quux(a, b)\n", "a, b", "b, a", "swapped-arguments", known).strange == 1
    assert slot("def quux(c):\n    quux(a, b)\n", "a, b", "b, a", "swapped-arguments", known).strange == 0
