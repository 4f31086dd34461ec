"""What counts as due and as right, on small releases."""

from __future__ import annotations

import random

from bench.edits.next import (
    first_hunks,
    hunks,
    is_right,
    lone_hunks,
    report,
    seeded,
    walks,
)
from bench.edits.seeds import SEEDS
from infill.next_edit.edits import Place, Proposal

OLD = "def f(a):\n    return a\n\n\nx = 1\n\n\ndef g(b):\n    use(b)\n    f(b, 1)\n    return b\n"
NEW = "def f(a):\n    return a\n\n\nx = 1\n\n\ndef g(c):\n    use(c)\n    f(b, 1)\n    return c, 1\n"


def proposal(text: str, *changes: tuple[str, str]) -> Proposal:
    places = tuple(Place(text.index(old), text.index(old) + len(old), new) for old, new in changes)
    return Proposal("rename", places, "", 1.0, 0)


def test_right_is_what_the_newer_release_has_even_if_its_line_changed_more() -> None:
    assert is_right(OLD, NEW, proposal(OLD, ("use(b", "use(c"), ("return b", "return c")))
    assert not is_right(OLD, NEW, proposal(OLD, ("use(b", "use(d")))
    assert not is_right(OLD, NEW, proposal(OLD, ("use(b", "use(c"), ("x = 1", "y = 1")))
    assert not is_right(OLD, NEW, proposal(OLD, ("return a", "return c")))


def test_an_inserted_line_is_right_where_the_newer_release_has_it() -> None:
    old, new = "a = 1\nb = 2\nc = 3\n", "a = 1\nb = 2\nd = 4\nc = 3\n"
    at = old.index("\nc")
    assert is_right(old, new, Proposal("field", (Place(at, at, "\nd = 4"),), "", 1.0, 0))
    assert not is_right(old, new, Proposal("field", (Place(at, at, "\nd = 5"),), "", 1.0, 0))


def test_the_first_hunk_of_a_function_is_the_edit() -> None:
    new = NEW.replace("f(b, 1)", "f(c, 1)")
    (outcome,) = first_hunks("m.py", "python", OLD, new.replace("    use(c)", "    use(b)"))
    assert (outcome.edit, outcome.kind, outcome.right) == ("def g(c):", "rename", False)


def test_a_lone_hunk_is_quiet_or_not() -> None:
    (quiet,) = lone_hunks("m.py", "python", OLD, OLD.replace("x = 1", "x = 2"))
    assert quiet.kind is None
    (loud,) = lone_hunks("m.py", "python", OLD, OLD.replace("def g(b)", "def g(c)"))
    assert (loud.kind, loud.right) == ("rename", None)
    assert len(hunks(OLD, NEW)) == 2


CALLS = "def f(value, rest):\n    total = value + 1\n    check(total, rest)\n    check(value, 2)\n    check(1, total)\n"
CALLS += "    check(rest, rest)\n    return total\n"


def test_seeds_are_found_and_reported() -> None:
    outcomes = {}
    for kind, make in SEEDS.items():
        seeds = list(make("m.py", CALLS, random.Random(0)))
        assert seeds, kind
        outcomes[kind] = [seeded(seed) for seed in seeds]
        assert all(one.right for one in outcomes[kind]), kind
    empty: dict[str, list[object]] = {"first hunk": [], "walk": [], "nothing due": []}
    table = report(empty, outcomes, {})  # type: ignore[arg-type]
    assert [row[0] for row in table.rows][-2:] == ["seeded rename", "seeded repeat"]


def test_a_walk_counts_a_proposal_once() -> None:
    old = "def f(a, b):\n    return a\n\nx = 1\n\ny = 1\n\nf(1, 2)\n"
    new = "def f(a):\n    return a\n\nx = 2\n\ny = 2\n\nf(1)\n"
    outcomes = list(walks("m.py", "python", old, new))
    assert [(one.edit, one.kind, one.right) for one in outcomes] == [
        ("def f(a):", "argument", True),
        ("x = 2", None, None),
        ("y = 2", None, None),
    ]


def test_an_import_is_right_wherever_the_newer_release_has_it() -> None:
    old, new = "import a\nfrom b import c, d\n\nx = 1\n", "from b import d\nimport a\nimport os\n\nx = 1\n"
    for place, right in (
        (Place(0, 0, "import os\n"), True),
        (Place(0, 0, "import re\n"), False),
        (Place(old.index("c, "), old.index("d"), ""), True),
        (Place(0, len("import a\n"), ""), False),
    ):
        assert is_right(old, new, Proposal("import", (place,), "", 1.0, 0)) == right


def test_whole_lines_of_the_newer_release_are_right_even_if_much_else_changed_beside_them() -> None:
    old, new = "a = 1\ndef f(self):\n    return self.x\n", "a = 1\nself.x = x\n"
    assert is_right(old, new, Proposal("field", (Place(5, 5, "\nself.x = x"),), "", 1.0, 0))
    assert not is_right(new, old, Proposal("field", (Place(5, 5, "\na = 1"),), "", 1.0, 0)), "once is enough"
