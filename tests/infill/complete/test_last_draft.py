"""A draft serves only a hole within it."""

from __future__ import annotations

import pytest

from infill.complete.last_draft import COMPARED, LastDraft

LINES = "".join(f"value_{number} = {number}\n" for number in range(5_000))


def test_typing_along_a_draft_leaves_its_rest() -> None:
    draft = LastDraft.at(LINES + "x = ", "one + two")
    assert draft.rest(LINES + "x = ") == "one + two"
    assert draft.rest(LINES + "x = one") == " + two"
    assert draft.rest(LINES + "x = one + two") == ""


@pytest.mark.parametrize("before", [LINES[:1000], LINES, LINES + "x = on two", LINES + "y = ", "y" + LINES[1:] + "x  "])
def test_a_hole_elsewhere_gets_nothing(before: str) -> None:
    """A hole above the last one does not get the text between them."""
    assert LastDraft.at(LINES + "x = ", "one + two").rest(before) == ""


def test_a_draft_keeps_little_of_a_long_file() -> None:
    assert len(LastDraft.at(LINES, "one").before) == COMPARED
    assert LastDraft().rest("") == LastDraft().rest("x") == ""


def test_keys_within_a_draft_leave_what_is_expected() -> None:
    draft = LastDraft.at(LINES + "x = on", "e(two, three)", "\nrest")
    assert draft.expected(LINES + "x = one(", "\nrest") == ("", "two, three)"), "typed"
    assert draft.expected(LINES + "x = ", "\nrest") == ("", "one(two, three)"), "removed"
    assert draft.expected(LINES + "x = ona", "\nrest") == ("(", "two, three)"), "replaced"
    assert draft.expected(LINES + "x = one(two.", "\nrest") == (" ", "three)"), "replaced"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (LINES + "x = on", "\nrest"),
        (LINES + "x = one", "\nothers"),
        (LINES + "y = one", "\nrest"),
        (LINES + "x = one(two, three) + more", "\nrest"),
        (LINES[:-COMPARED], "\nrest"),
        (LINES + "x =\n", "\nrest"),
    ],
)
def test_nothing_is_expected_in_the_same_hole_or_elsewhere(before: str, after: str) -> None:
    assert LastDraft.at(LINES + "x = on", "e(two, three)", "\nrest").expected(before, after) is None
    assert LastDraft().expected(before, after) is None
