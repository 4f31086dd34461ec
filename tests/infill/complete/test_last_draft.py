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
