"""Bugs seeded into correct code."""

import random

import pytest

from infill.code.syntax import parse
from infill.lint.kinds import KINDS
from tests.train.lint.fakes import CODE
from train.lint.seeded_bugs import seed_bug


@pytest.mark.parametrize("code", sorted(KINDS))
def test_every_kind_can_be_seeded_and_fixed(code: str) -> None:
    bug = seed_bug(CODE, "python", code, random.Random(1))
    assert bug is not None and bug.code == code
    assert bug.text != CODE and bug.original == CODE
    tree = parse(bug.text, "python")
    assert tree is not None and not tree.root.has_error
    assert bug.scope[0] <= bug.start < bug.end <= bug.scope[1] <= len(bug.text)


def test_the_seed_decides_and_broken_code_gets_no_bug() -> None:
    assert seed_bug(CODE, "python", "wrong-name", random.Random(3)) == seed_bug(
        CODE, "python", "wrong-name", random.Random(3)
    )
    assert seed_bug("def f(:\n", "python", "wrong-name", random.Random(1)) is None
    assert seed_bug("x = 1\n", "python", "wrong-name", random.Random(1)) is None
