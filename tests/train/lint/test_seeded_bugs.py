"""Bugs seeded into correct code."""

import random

import pytest

from infill.code.syntax import parse
from infill.lint.edits import find_edits
from infill.lint.kinds import KINDS
from infill.lint.symbols import SymbolTable
from tests.train.lint.fakes import CODE
from train.lint.seeded_bugs import APART, seed_bug, seed_bugs


@pytest.mark.parametrize("code", sorted(KINDS))
def test_every_kind_can_be_seeded_and_fixed(code: str) -> None:
    bug = seed_bug(CODE, "python", code, random.Random(1))
    assert bug is not None and bug.code == code
    assert bug.text != CODE and bug.original == CODE
    tree = parse(bug.text, "python")
    assert tree is not None and not tree.root.has_error
    assert bug.scope[0] <= bug.start <= bug.end <= bug.scope[1] <= len(bug.text)


@pytest.mark.parametrize("code", sorted(KINDS))
def test_every_seeded_bug_has_an_edit_that_fixes_it(code: str) -> None:
    text = CODE.replace("x_min + x_pad", "x_min + self.box.x_pad + x_pad")
    fixed, seeds = 0, range(12)
    for seed in seeds:
        bug = seed_bug(text, "python", code, random.Random(seed))
        assert bug is not None
        tree = parse(bug.text, "python")
        assert tree is not None
        edits = find_edits(tree, SymbolTable(tree), ((0, len(bug.text)),))
        fixed += any(bug.text[: one.start] + one.replacement + bug.text[one.end :] == bug.original for one in edits)
    assert fixed >= 1


def test_several_bugs_are_some_lines_apart_and_each_can_be_undone() -> None:
    text = CODE * 4
    bugs = seed_bugs(text, "python", (*KINDS, *KINDS), random.Random(2), (0, len(text)), 5)
    assert len(bugs) >= 3 and len({bug.text for bug in bugs}) == 1
    assert all(b.start - a.end >= APART - 20 for a, b in zip(bugs, bugs[1:], strict=False))
    undone = bugs[0].text
    for bug in reversed(bugs):
        undone = undone[: bug.start] + bug.right + undone[bug.end :]
    assert undone == text
    assert all(bug.scope[0] <= bug.start <= bug.end <= bug.scope[1] for bug in bugs)


def test_the_seed_decides_and_broken_code_gets_no_bug() -> None:
    assert seed_bug(CODE, "python", "wrong-name", random.Random(3)) == seed_bug(
        CODE, "python", "wrong-name", random.Random(3)
    )
    assert seed_bug("def f(:\n", "python", "wrong-name", random.Random(1)) is None
    assert seed_bug("x = 1\n", "python", "wrong-name", random.Random(1)) is None
