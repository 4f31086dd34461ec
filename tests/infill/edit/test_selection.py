"""Which lines a rewrite may change, and that nothing else changes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infill.edit.selection import Selection, common_indentation, dedent


def selection(marked: str) -> Selection:
    start, end = marked.index("«"), marked.index("»") - 1
    found = Selection.of(marked.replace("«", "").replace("»", ""), start, end)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("marked", "lines", "code", "known"),
    [
        ("a\n«    b\n    c\n»d\n", "    b\n    c", "b\nc", ""),
        ("a\n    «b\n    c»\nd\n", "    b\n    c", "b\nc", ""),
        ("a\n«\n    b\n\n        c\n\n»d\n", "    b\n\n        c", "b\n\n    c", ""),
        ("print(«x + 1»)\n", "print(x + 1)", "print(x + 1)", "print("),
        ("    return «x»  \n", "    return x", "return x", "return "),
        ("«a»", "a", "a", ""),
        ("«\ta\n\t\tb»\n", "\ta\n\t\tb", "a\n\tb", ""),
    ],
)
def test_the_lines_of_a_range(marked: str, lines: str, code: str, known: str) -> None:
    found = selection(marked)
    assert (found.lines, found.code, found.known) == (lines, code, known)


@pytest.mark.parametrize("marked", ["a«»b", "a\n«  \n\n»b", "«»"])
def test_a_range_without_code_is_no_selection(marked: str) -> None:
    start, end = marked.index("«"), marked.index("»") - 1
    assert Selection.of(marked.replace("«", "").replace("»", ""), start, end) is None


@pytest.mark.parametrize(
    ("marked", "lines", "replacement"),
    [
        ("a\n«    b\n»c\n", "    x\n    y", "    x\n    y\n"),
        ("a\n    «b»\nc\n", "    x", "x"),
        ("a\n«\n\n    b\n»c\n", "    x", "\n\n    x\n"),
        ("print(«x + 1»)\n", "print(y)", "y"),
        ("print(«x + 1»)\n", "show(y)", None),
        ("print(«x + 1»)\n", "print(y", None),
        ("f(«x»)\n", "f)", None),
        ("aa«b»aa\n", "aaa", None),
    ],
)
def test_only_the_range_changes(marked: str, lines: str, replacement: str | None) -> None:
    assert selection(marked).replacement(lines) == replacement


@given(st.text("ab \n", max_size=30), st.integers(0, 30), st.integers(0, 30), st.text("xy \n", max_size=10))
def test_a_replacement_leads_to_exactly_the_new_lines(text: str, one: int, other: int, new: str) -> None:
    start, end = sorted((min(one, len(text)), min(other, len(text))))
    found = Selection.of(text, start, end)
    if found is None:
        assert not text[start:end].strip()
        return
    assert found.indented(found.code) == "\n".join(line if line.strip() else "" for line in found.lines.split("\n"))
    if (replacement := found.replacement(new)) is not None:
        changed = text[:start] + replacement + text[end:]
        assert changed == text[: found.first] + new + text[found.last :]


def test_indentation_that_all_lines_of_an_answer_share_is_dropped() -> None:
    found = selection("if a:\n«    b\n»")
    assert found.indented("        if c:\n            d\n\n        e") == "    if c:\n        d\n\n    e"
    assert (common_indentation("\n  a\n   b\n"), dedent("  a\n \n   b")) == ("  ", "a\n\n b")
