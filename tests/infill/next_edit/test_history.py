"""Keys become edits; checked against the texts themselves."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from infill.next_edit.edits import UserEdit, apply, split
from infill.next_edit.history import MAX_EDITS, EditHistory


def typed(text: str, *changes: tuple[int, int, str]) -> tuple[str, tuple[UserEdit, ...]]:
    history = EditHistory()
    for start, length, inserted in changes:
        start = min(start, len(text))
        history.changed(text, start, text[start : start + length], inserted)
        text = text[:start] + inserted + text[start + length :]
    return text, history.edits


def test_single_keys_become_one_edit() -> None:
    text, edits = typed("count = 0\n", *((0, 1, "") for _ in range(5)), (0, 0, "n"), (1, 0, "o"))
    assert text == "no = 0\n"
    assert edits == (UserEdit(0, "count", "no"),)


def test_edits_of_different_lines_are_apart_and_follow_later_edits() -> None:
    text, edits = typed("one\ntwo\nthree\n", (8, 5, "drei"), (0, 3, "eins!"))
    assert [(edit.old, text[edit.start : edit.end]) for edit in edits] == [("three", "drei"), ("one", "eins!")]


def test_what_is_undone_disappears() -> None:
    assert typed("one\n", (0, 3, "two"), (0, 3, "one"))[1] == ()


def test_an_edit_is_split_into_the_tokens_that_changed() -> None:
    parts = split(UserEdit(4, "def load(path, mode):", "def read(path):"))
    assert parts == [UserEdit(8, "load", "read"), UserEdit(17, ", mode", "")]


CHANGES = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 6), st.text("ab\n", max_size=4)), max_size=12)


@given(st.text("xy\n", max_size=25), CHANGES)
def test_undoing_all_edits_gives_the_first_text(first: str, changes: list[tuple[int, int, str]]) -> None:
    text, edits = typed(first, *changes)
    assert len(edits) <= MAX_EDITS
    assert all(text[edit.start : edit.end] == edit.new for edit in edits)
    if len(edits) < MAX_EDITS:
        places = tuple((edit.start, edit.end, edit.old) for edit in edits)
        assert apply(text, places) == first  # type: ignore[arg-type]
