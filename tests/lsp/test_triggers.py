"""When each rule applies, one line or several, and the eagerness levels on real code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest

from infill.code.syntax import in_comment, in_string, parse
from lsp.documents import Edit
from lsp.settings import Eagerness
from lsp.triggers import RULES, Kind, Situation, lines_to_request, reason_to_skip

LEVELS: tuple[Eagerness, ...] = get_args(Eagerness)
SOURCES = Path(__file__).parents[2] / "infill"
HEAD = "import os\n\n\n"


def at(marked: str, language: str | None = "python", **more: Any) -> Situation:
    """The situation at the `|` in a text, with some code above it."""
    before, after = marked.split("|")
    return Situation(HEAD + before, after, language, more.pop("invoked", False), **more)


def rule(marked: str, eagerness: Eagerness = "balanced", **more: Any) -> str | None:
    reason = reason_to_skip(at(marked, eagerness=eagerness, **more))
    assert reason is None or reason.sentence.endswith(".")
    return reason.rule if reason else None


def by_level(marked: str, **more: Any) -> dict[str, str | None]:
    return {level: rule(marked, level, **more) for level in LEVELS}


@pytest.mark.parametrize(
    "marked",
    [
        "total = |",
        "total = sum(|)",
        "total = sum(values|)",
        "values = [one, |]",
        "call(one, |);",
        'print("|")',
        "    |",
        "if ready and |:",
        "self.|",
        "for value in values|:",
    ],
)
def test_ordinary_positions_trigger(marked: str) -> None:
    assert rule(marked) is None


@pytest.mark.parametrize("eagerness", LEVELS)
def test_only_closers_and_punctuation_may_follow(eagerness: Eagerness) -> None:
    for after in ("", ")", "))", ");", "),", "]:", ") ", '")', "'", "`", " }", ") {", "  "):
        assert rule(f"x = alpha + call(value|{after}\nnext_line = 1", eagerness) is None, after
    for after in (" + 1", " # note", ", other)", ") + 1", " = 3", ".name", "(1)", ") {}", " and"):
        assert rule(f"x = alpha + call(value|{after}\n", eagerness) == "middle of a line", after


@pytest.mark.parametrize("eagerness", LEVELS)
def test_inside_a_word(eagerness: Eagerness) -> None:
    for after in ("ue)", "_x", "9", "\u00e9", "\u0301t"):
        assert rule(f"call(value|{after}", eagerness) == "inside a word"


def test_every_kind_of_line_end_ends_the_line() -> None:
    for end in ("\n", "\r\n", "\r"):
        assert rule(f"x = call(|){end}y = 2{end}") is None
        assert rule(f"a = 1;{end}x = |{end}") is None
    assert rule(("x = 1\r" * 100) + "y = |\r") is None


@pytest.mark.parametrize(
    ("marked", "language"),
    [
        ("x = call(value)|", "python"),
        ("call()|", "python"),
        ("value = 1;|", "javascript"),
        ("if (ready) { go(); }|", "javascript"),
        ("if ready:|", "python"),
        ("def area(\n    width: int,\n) -> int:|", "python"),
        ("else:|", "python"),
        ("switch (kind) {\n  case ONE:|", "c"),
        ("  default:|", "java"),
    ],
)
def test_after_a_complete_statement(marked: str, language: str) -> None:
    assert by_level(marked, language=language) == {
        "calm": "statement finished",
        "balanced": "statement finished",
        "eager": None,
    }


@pytest.mark.parametrize(
    ("marked", "language"),
    [
        ("def area(a, b) |", "python"),
        ("} |", "javascript"),
        ("for (int i = 0; |", "c"),
        ("width: |", "python"),
        ("width:|", "python"),
        ("sizes = {width:|", "python"),
        ("const size = {width:|", "typescript"),
        ("part = values[1:|", "python"),
        ("call(key=lambda x:|", "python"),
    ],
)
def test_after_an_incomplete_statement(marked: str, language: str) -> None:
    assert by_level(marked, language=language) == dict.fromkeys(LEVELS)


def test_after_an_index_only_calm_skips() -> None:
    assert by_level("values[index]|") == {"calm": "statement finished", "balanced": None, "eager": None}


def test_comments() -> None:
    def comment(marked: str, language: str = "python") -> dict[str, str | None]:
        return by_level(marked, language=language, kind="comment")

    never: dict[str, str | None] = {"calm": "in a comment", "balanced": "in a comment", "eager": None}
    late: dict[str, str | None] = {"calm": "in a comment", "balanced": None, "eager": None}
    assert comment("# |") == never
    assert comment("# the widest |") == never
    assert comment("# the widest of |") == late
    assert comment("# the widest of al|") == never
    assert comment("    // the widest of |", "go") == late
    assert comment("/** the widest of |", "java") == late
    assert comment(" * the widest of |", "java") == late
    assert comment("widest = max(all, key=len)  # the |") == never
    assert comment("widest = max(all, key=len)  # the widest of all |") == never


@pytest.mark.parametrize(
    "marked",
    [
        'print("total of |")',
        'def area():\n    """The area of |',
        'def area():\n    """|',
        "text = '''\nThe|",
        "text = '''a|",
    ],
)
def test_only_eager_triggers_in_prose(marked: str) -> None:
    expected = {"calm": "in a string", "balanced": "in a string", "eager": None}
    assert by_level(marked, kind="string") == expected


@pytest.mark.parametrize(
    "marked",
    ['row["|"]', 'row["wid|"]', "open('data/|')", 'print(f"{to|}")', "name = 'a'; x = `b/|`", 'log("total |")'],
)
def test_balanced_triggers_in_short_strings(marked: str) -> None:
    assert by_level(marked, kind="string") == {"calm": "in a string", "balanced": None, "eager": None}


def changed(marked: str, *edits: tuple[int, str, str], **more: Any) -> str | None:
    return rule(marked, edits=tuple(Edit(*edit) for edit in edits), **more)


@pytest.mark.parametrize("eagerness", LEVELS)
def test_bulk_changes(eagerness: Eagerness) -> None:
    def bulk(*edits: tuple[int, str, str], **more: Any) -> bool:
        found = changed("def area():\n    |", *edits, eagerness=eagerness, **more)
        assert found in (None, "bulk change")
        return found is not None

    assert bulk((10, "", "a = 1\nb = 2\n"))
    assert bulk((10, "", "a = 1\r\nb = 2"))
    assert bulk((10, "a = 1\nb = 2\n", ""))
    assert bulk((0, "a=1\nb=2\n", "a = 1\nb = 2\n"))
    assert bulk((0, "", "x"), (50, "", "x"), (90, "", "x"))
    assert not bulk((10, "", "x"))
    assert not bulk((10, "", "\n    "))
    assert not bulk((10, "", "\r\n    "))
    assert not bulk((10, "", "\n    \n"))  # Enter between two braces
    assert not bulk((10, "", "\n * "))
    assert not bulk((10, "", "total = area(1, 2)" * 6))
    assert not bulk((40, "", "names.sort()"), (0, "", "import names\n"))
    assert not bulk((10, "\n    ", ""))


@pytest.mark.parametrize("eagerness", LEVELS)
def test_keys_typed_fast_are_not_a_bulk_change(eagerness: Eagerness) -> None:
    def typed(*edits: tuple[int, str, str]) -> str | None:
        return changed("call(value = |)", *edits, eagerness=eagerness)

    assert typed((10, "", "v"), (11, "", "a"), (12, "", "l"), (13, "", " "), (14, "", "=")) is None
    assert typed((10, "", "()"), (11, "", "v"), (12, "", "a"), (13, "", "l")) is None
    assert typed((10, "", "v"), (11, "", "q"), (11, "q", ""), (11, "", "a"), (12, "", "=")) is None
    assert typed((10, "", "x"), (9, "yx", ""), (8, "z", ""), (8, "", "=")) is None


def test_an_accepted_suggestion_of_several_lines_is_not_a_bulk_change() -> None:
    block = "for one in many:\n        yield one"
    assert changed("def each():\n    |", (20, "", block)) == "bulk change"
    assert changed("def each():\n    |", (20, "", block), last_shown=block + "\n    return") is None


def test_just_deleted() -> None:
    expected = {"calm": "just deleted", "balanced": "just deleted", "eager": None}
    assert {level: changed("x = value|", (9, "s", ""), eagerness=level) for level in LEVELS} == expected
    assert changed("x = value|", (9, "", "s"), (9, "s", "")) == "just deleted"
    assert changed("x = value|", (9, "st", "ue")) is None
    assert changed("x = value + |", (9, "s", "")) is None
    assert changed("x = value|", (9, "s", ""), (8, "", "e")) is None


@pytest.mark.parametrize("eagerness", LEVELS)
def test_rules_for_every_level(eagerness: Eagerness) -> None:
    assert rule("x = [" + "100, " * 90 + "|]", eagerness) == "long line"
    assert rule("x = [" + "100, " * 70 + "|]", eagerness) is None
    reason = reason_to_skip(Situation(" \n", "\n", "python", False, eagerness=eagerness))
    assert reason is not None and reason.rule == "empty file"


def test_the_popup_entry_must_begin_with_what_was_typed() -> None:
    assert rule("x = os.path|", selected="path", typed="pa") is None
    assert rule("x = os.path|", selected="path", typed="") is None
    assert rule("x = os.path|", selected="path", typed="th") == "popup entry"
    assert rule("x = os.pa|", typed="th") is None


def test_calm_skips_an_empty_line_at_the_top_level() -> None:
    assert by_level("x = 1\n|\n") == {"calm": "empty line at the top", "balanced": None, "eager": None}
    assert by_level("x = 1\n|\n", language=None)["calm"] == "empty line at the top"
    assert rule("def area():\n    return 1\n\n    |", "calm") is None
    assert rule("def area():\n|", "calm") is None
    assert rule("def area():\n|\n    return 1", "calm") == "empty line at the top"


def test_calm_needs_three_letters() -> None:
    assert by_level("total = v|") == {"calm": "few letters", "balanced": None, "eager": None}
    assert rule("total = va|", "calm") == "few letters"
    assert rule("total = val|", "calm") is None
    assert rule("total = shape.v|", "calm") is None
    assert rule("total = |", "calm") is None


def test_no_rule_applies_if_invoked_by_hand() -> None:
    edits = (Edit(0, "a\nb\n", ""), Edit(90, "", "c\nd\n"))
    kinds: tuple[Kind, ...] = ("comment", "string", "code")
    for kind in kinds:
        for marked in ("x = call(val|ue)", "x = 1;|", "v|", "|", "# |", "x = " + "1" * 500 + "|"):
            situation = at(marked, invoked=True, kind=kind, edits=edits, eagerness="calm")
            assert reason_to_skip(situation) is None
    assert reason_to_skip(Situation("", "", None, True)) is None


def test_rules_have_a_docstring_and_a_unique_name() -> None:
    assert all(each.__doc__ for each in RULES)
    assert len({each.__name__ for each in RULES}) == len(RULES)


@pytest.mark.parametrize(
    ("marked", "language", "lines"),
    [
        ("def area(width):\n    |", "python", "auto"),
        ("def area(width):\n    |\n\n\nx = 1\n", "python", "auto"),
        ('def area(width):\n    """Width squared."""\n    |', "python", "auto"),
        ("def area(width):\n    # Width squared.\n    |", "python", "auto"),
        ("function area(width) {\n  |\n}", "javascript", "auto"),
        ("func area(width int) int {\n\t// Width squared.\n\t|\n}", "go", "auto"),
        ("def area(width):\n    |\n    return width\n", "python", "one"),
        ("func area(width int) int {\n\t|\n\treturn width\n}", "go", "one"),
        ("def area(width):|", "python", "one"),
        ("def area(width):\n    ret|", "python", "one"),
        ("def area(width):\n    |return width", "python", "one"),
        ("x = 1\n|", "python", "one"),
        ("values = [\n    |\n]", "python", "one"),
        ("Shopping:\n    |", None, "one"),
    ],
)
def test_several_lines_only_at_the_beginning_of_a_block(marked: str, language: str | None, lines: str) -> None:
    assert lines_to_request(at(marked, language)) == lines
    assert lines_to_request(at(marked, language, multiline="never")) == "one"


def shares(text: str) -> dict[str, float]:
    """The share of keys at which each level asks the model, while a Python file is typed from top to bottom."""
    tree = parse(text, "python")
    assert tree is not None
    triggered, keys = dict.fromkeys(LEVELS, 0), 0
    for offset in range(1, len(text) + 1):
        if re.match(r"[ \t]", text[offset:]) and not text[text.rfind("\n", 0, offset) + 1 : offset].strip():
            continue  # the editor indents
        keys += 1
        kind: Kind = "code"
        if in_comment(tree, offset) or in_string(tree, offset):
            kind = "comment" if in_comment(tree, offset) else "string"
        before, edits = text[max(0, offset - 1_000) : offset], (Edit(offset - 1, "", text[offset - 1]),)
        for level in LEVELS:
            situation = Situation(before, "\n", "python", False, kind, edits, eagerness=level)
            triggered[level] += reason_to_skip(situation) is None
    return {level: count / keys for level, count in triggered.items()}


@pytest.mark.parametrize("name", ["cli/holes.py", "complete/confidence.py", "checks/brackets.py"])
def test_eagerness_levels_differ_on_real_code(name: str) -> None:
    share = shares((SOURCES / name).read_text("utf-8"))
    assert share["calm"] < 0.85 * share["balanced"]
    assert share["balanced"] < 0.85 * share["eager"]
    assert share["eager"] > 0.95
    assert share["calm"] > 0.25
