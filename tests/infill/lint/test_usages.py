"""Evidence by usage."""

import math

import pytest

from infill.code.syntax import parse
from infill.lint.edits import find_edits
from infill.lint.names import Bloom, KnownNames
from infill.lint.symbols import SymbolTable
from infill.lint.usages import UsageEvidence, Usages


def evidence(text: str, old: str, new: str, code: str = "wrong-name", known: KnownNames | None = None) -> UsageEvidence:
    """Evidence for the last edit that replaces `old` by `new`."""
    tree = parse(text, "python")
    assert tree is not None
    symbols = SymbolTable(tree)
    found = [
        edit
        for edit in find_edits(tree, symbols, [(0, len(text))])
        if edit.code == code and (text[edit.start : edit.end], edit.replacement) == (old, new)
    ]
    return Usages(symbols, known).evidence(found[-1])


@pytest.mark.parametrize(
    "usage", ["{}.send()", "send({})", "send(to={})", "1 < {}", "box[{}]", "{}[0]", "kept = {}", "{}(1)"]
)
def test_names_used_in_the_same_way_are_counted(usage: str) -> None:
    lines = [usage.format(name) for name in ("left", "left", "right")]
    found = evidence("def f(left, right):\n" + "".join(f"    {line}\n" for line in lines), "right", "left")
    assert found.usage_ratio == pytest.approx(math.log(3))


def test_other_usages_do_not_count() -> None:
    assert evidence("def f(left, right):\n    send(left)\n    get(right)\n", "right", "left").usage_ratio == 0


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
def test_names_like_the_parameter_or_target_match(text: str) -> None:
    assert evidence(text, "wide", "high").name_match == 1


def test_a_name_that_shares_words_matches_in_part() -> None:
    text = "def g(high_up):\n    pass\n\n\ndef f(wide, high):\n    g(wide)\n"
    assert evidence(text, "wide", "high").name_match == 0.5


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("self.topz(1)\n        tops(self.tops)", 2),
        ("this.topz(1)\n        tops(self.tops)", 1),
        ("topz(tops, tops)", 2),
        ("self.topz(tops, tops)", 0),
    ],
)
def test_members_match_by_role_and_object(line: str, match: int) -> None:
    text = "class A:\n    def f(self, top_k):\n        self.tops(1, 1, self.topk(top_k), other.tops)\n"
    text = text if "self.tops" in line else text.replace("tops", "x")
    assert evidence(f"{text}        {line}\n", "topz", "tops", "misspelled").member_match == match


def swap(text: str, one: str, other: str, known: KnownNames | None = None) -> UsageEvidence:
    return evidence(text, f"{one}, {other}", f"{other}, {one}", "swapped-arguments", known)


def test_swapped_arguments_match_the_names_of_parameters() -> None:
    definition = "def g(start, stop):\n    pass\n\n\n"
    assert swap(f"{definition}g(a.stop, start())\n", "a.stop", "start()").parameter_match == 2
    assert swap(f"{definition}g(start, stop)\n", "start", "stop").parameter_match == -2


def test_contradicting_definitions_count_against_a_swap() -> None:
    one, other = "def g(start, stop):\n    pass\n\n\n", "def g(stop, start):\n    pass\n\n\n"
    for definitions in (one + other, other + one):
        assert swap(f"{definitions}g(start, stop)\n", "start", "stop").parameter_match == -2


def test_other_calls_show_the_usual_order() -> None:
    assert swap("g(a, b)\ng(a, b)\ng(b, a)\n", "b", "a").call_ratio == pytest.approx(math.log(5))


def test_literals_and_unknown_callees() -> None:
    known = KnownNames(Bloom.of(["isfile"]), Bloom.of([]), Bloom.of([]))
    found = swap("isfile('a', b)\n", "'a'", "b", known)
    assert found.literal_mix == 1 and found.unknown_callee == 0
    assert swap("quux(a, b)\n", "a", "b", known).unknown_callee == 1
    assert swap("def quux(c):\n    quux(a, b)\n", "a", "b", known).unknown_callee == 0
