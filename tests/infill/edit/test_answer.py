"""From a fenced answer to code."""

from __future__ import annotations

import pytest

from infill.edit.answer import closing_fence, is_prose, without_surroundings


@pytest.mark.parametrize(
    ("answer", "fence", "end"),
    [
        ("a\n```\nThis", "```", 2),
        ("a\n  ```", "```", 2),
        ("```", "```", 0),
        ("a ```\nb", "```", None),
        ("```", "````", None),
    ],
)
def test_the_end_of_the_block(answer: str, fence: str, end: int | None) -> None:
    assert closing_fence(answer, fence) == end


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("    y = 2", "    y = 2"),
        ("def f(x):\n    a = 1\n    y = 2", "    y = 2"),
        ("    a = 1\n\n    y = 2", "\n    y = 2"),
        ("    y = 2\n    return y", "    y = 2"),
        ("    y = 2\n    return y\n\nprint(f(1))", "    y = 2"),
        ("def f(x):\n    a = 1\n    y = 2\n    return y", "    y = 2"),
        ("    z = 1\n    a = 1\n    y = 2", "    z = 1\n    a = 1\n    y = 2"),
        ("    x = 1", "    x = 1"),
    ],
)
def test_repeated_surroundings_are_cut(code: str, expected: str) -> None:
    before, after = "import os\n\ndef f(x):\n    a = 1\n", "\n    return y\n\nprint(f(1))\n"
    assert without_surroundings(code, "x = 1", before, after) == expected


def test_blank_lines_of_repeated_surroundings_are_not_doubled() -> None:
    before, after = "import os\n\n\ndef f():\n    pass\n\n", "\n\nx = 1\n"
    assert without_surroundings("def f():\n    pass\n\ndef g():\n    pass", "y", before, after) == "def g():\n    pass"
    assert without_surroundings("    pass\n\n\ndef g(): pass", "y", before, after) == "\ndef g(): pass", (
        "one more is new"
    )
    assert without_surroundings("def g(): pass\n\nx = 1", "y", before, after) == "def g(): pass"


def test_lines_that_the_selection_has_too_stay() -> None:
    before, after = "a = 1\n", "\nb = 1\n"
    assert without_surroundings("a = 1\nc\nb = 1", "a = 1\nb\nb = 1", before, after) == "a = 1\nc\nb = 1"
    assert without_surroundings("{\n}", "x", "", "\n}\n") == "{\n}"
    assert without_surroundings("x\n}", "x", "", "\n}\n") == "x", "the bracket is closed outside"
    assert without_surroundings("x\n}", "{\n}", "", "\n}\n") == "x", "the same, although the selection ends in one"
    assert without_surroundings("f {\nx\n}", "y", "f {\n", "\n}\n") == "x", "both ends are outside"


@pytest.mark.parametrize(
    ("code", "selected", "prose"),
    [
        ("Here is the new code:\nx = 1", "x = 0", True),
        ("x = 1\nThis returns early when the list is empty.", "x = 0", True),
        ("x = 1", "x = 0", False),
        ("Total = make_total(first, second)", "x", False),
        ("The first line of text.", "A line of some text.", False),
        ("Session session = new Session();", "x", False),
    ],
)
def test_prose(code: str, selected: str, prose: bool) -> None:
    assert is_prose(code, selected) is prose
