"""When an edit counts as finished."""

from __future__ import annotations

import pytest

from infill.next_edit.edits import UserEdit
from infill.next_edit.find import is_settled
from infill.next_edit.history import EditHistory


@pytest.mark.parametrize(
    ("edit", "text", "away", "expected"),
    [
        (UserEdit(4, "name", ""), "x = (1)\n", 0, False),  # a name that is gone
        (UserEdit(4, "name", ""), "x = (1)\n", 3, True),
        (UserEdit(4, "name", "na"), "x = na(1)\n", 0, False),
        (UserEdit(4, "name", "other"), "x = other(1)\n", 0, True),
        (UserEdit(4, "a, ", ""), "f = b\n", 0, True),
    ],
)
def test_a_name_is_finished_once_the_cursor_leaves_it_or_it_is_another_one(
    edit: UserEdit, text: str, away: int, expected: bool
) -> None:
    assert is_settled(edit, text, edit.end + away, 1.0) == expected
    assert not is_settled(edit, text, edit.end + away, 0.1), "no pause"


def test_a_name_that_is_deleted_and_typed_with_one_more_letter() -> None:
    history, text = EditHistory(), "x = name(1)\n"
    for start, old, new in ((4, "name", ""), *((4 + index, "", key) for index, key in enumerate("names"))):
        history.changed(text, start, old, new)
        text = text[:start] + new + text[start + len(old) :]
    assert history.edits == (UserEdit(8, "", "s"),), "what was undone on the way is forgotten"
