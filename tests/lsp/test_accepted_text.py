"""Accepted text is followed through any edits, and the share that was kept is returned once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsp.accepted_text import SETTLED_S, AcceptedText, KeptShare
from lsp.documents import Edit
from tests.lsp.clock import Clock

URI, OTHER = "file:///a.py", "file:///b.py"
BEFORE, TEXT, AFTER = "total = ", "sum(prices)", "\nprint(total)\n"
START, END = len(BEFORE), len(BEFORE + TEXT)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def accepted(clock: Clock) -> AcceptedText:
    accepted = AcceptedText(clock)
    accepted.accepted(URI, "python", START, TEXT)
    return accepted


def share(accepted: AcceptedText) -> float:
    (settled,) = accepted.closed(URI)
    return settled.share


@pytest.mark.parametrize(
    ("edit", "left"),
    [
        (Edit(0, "", "# a comment\n"), TEXT),
        (Edit(START, "", "1 + "), TEXT),
        (Edit(END, "", " + 1"), TEXT),
        (Edit(START + 4, "", "all_"), TEXT),
        (Edit(END + 1, "print", "log"), TEXT),
        (Edit(0, "total", "all"), TEXT),
        (Edit(START, "sum", "max"), "(prices)"),
        (Edit(START + 4, "prices", ""), "sum()"),
        (Edit(START + 4, "prices", "items"), "sum()s"),
        (Edit(START - 2, "= sum", ""), "(prices)"),
        (Edit(END - 1, ")\nprint", ""), "sum(prices"),
        (Edit(START, TEXT, ""), ""),
        (Edit(0, BEFORE + TEXT + AFTER, ""), ""),
        (Edit(0, BEFORE + TEXT + AFTER, "nothing alike"), ""),
        (Edit(0, BEFORE + TEXT + AFTER, "x " + BEFORE + TEXT + AFTER), TEXT),
        (Edit(0, BEFORE + TEXT + AFTER, BEFORE + "sum(items)" + AFTER), "sum(s)"),
    ],
)
def test_one_edit(accepted: AcceptedText, edit: Edit, left: str) -> None:
    assert (BEFORE + TEXT + AFTER)[edit.start :].startswith(edit.removed)
    accepted.changed(URI, [edit])
    assert share(accepted) == len(left) / len(TEXT)


def test_edits_of_one_message_are_applied_in_order(accepted: AcceptedText) -> None:
    accepted.changed(URI, [Edit(0, "", "x"), Edit(START + 1, "sum", "")])
    assert share(accepted) == 8 / 11
    accepted.accepted(URI, "python", 0, TEXT)
    accepted.changed(URI, [Edit(0, "sum", "")])
    accepted.changed(URI, [Edit(0, "(", "")])
    assert share(accepted) == 7 / 11


def test_text_typed_into_it_does_not_count(accepted: AcceptedText) -> None:
    accepted.changed(URI, [Edit(START + 4, "", "all_")])
    accepted.changed(URI, [Edit(START + 4, "all_", "")])
    assert share(accepted) == 1.0


def test_documents_are_independent(accepted: AcceptedText) -> None:
    accepted.accepted(OTHER, "python", 0, "x = 1")
    accepted.changed(OTHER, [Edit(0, "x = 1", "")])
    assert accepted.closed(OTHER) == [KeptShare("python", 0.0)]
    assert accepted.closed(URI) == [KeptShare("python", 1.0)]


def test_each_result_is_returned_once_after_the_settling_time(accepted: AcceptedText, clock: Clock) -> None:
    clock.now += SETTLED_S / 2
    accepted.accepted(URI, "python", 0, "x")
    clock.now += SETTLED_S / 2 - 0.001
    assert accepted.settled() == []
    accepted.changed(URI, [Edit(START, TEXT, "")])
    clock.now += 0.001
    assert accepted.settled() == [KeptShare("python", 0.0)]
    assert accepted.settled() == []
    clock.now += SETTLED_S
    assert accepted.settled() == [KeptShare("python", 1.0)]
    assert accepted.settled() == accepted.closed(URI) == []


def test_closing_a_document_returns_its_results_at_once(accepted: AcceptedText, clock: Clock) -> None:
    assert accepted.closed(URI) == [KeptShare("python", 1.0)]
    clock.now += SETTLED_S
    assert accepted.closed(URI) == accepted.settled() == []
    accepted.changed(URI, [Edit(0, "", "x")])


def test_empty_text(accepted: AcceptedText) -> None:
    accepted.accepted(OTHER, "python", 0, "")
    assert accepted.closed(OTHER) == [KeptShare("python", 0.0)]


EDITS = st.tuples(st.integers(0, 40), st.integers(0, 12), st.text("ABC", max_size=5))


@given(accepted=st.tuples(st.integers(0, 12), st.integers(1, 12)), edits=st.lists(EDITS, max_size=25))
def test_any_edits_against_flagged_characters(accepted: tuple[int, int], edits: list[tuple[int, int, str]]) -> None:
    """Against a document of characters with an accepted flag. Typed characters differ from all of its characters."""
    begin, length = accepted
    document = [
        (character, begin <= index < begin + length) for index, character in enumerate("abcdefghijklmnopqrstuvwx")
    ]
    accepted = AcceptedText(Clock())
    accepted.accepted(URI, "python", begin, "".join(character for character, is_accepted in document if is_accepted))
    for start, removed, inserted in edits:
        start = min(start, len(document))
        removed_text = "".join(character for character, _ in document[start : start + removed])
        if set(removed_text) & set(inserted):
            inserted = ""
        accepted.changed(URI, [Edit(start, removed_text, inserted)])
        document[start : start + removed] = [(character, False) for character in inserted]
    assert share(accepted) == sum(is_accepted for _, is_accepted in document) / length


@given(
    start=st.integers(0, 24),
    removed=st.integers(0, 24),
    inserted=st.text("ABC", max_size=5),
    wider=st.tuples(st.integers(0, 24), st.integers(0, 24)),
)
def test_an_edit_that_replaces_more_than_it_changes(
    start: int, removed: int, inserted: str, wider: tuple[int, int]
) -> None:
    """Some editors replace the line or the whole document to change one character."""
    text = "abcdefghijklmnopqrstuvwx"
    end = min(len(text), start + removed)
    left, right = max(0, start - wider[0]), min(len(text), end + wider[1])
    shares = []
    for edit in (
        Edit(start, text[start:end], inserted),
        Edit(left, text[left:right], text[left:start] + inserted + text[end:right]),
    ):
        accepted = AcceptedText(Clock())
        accepted.accepted(URI, "python", 6, text[6:18])
        accepted.changed(URI, [edit, Edit(0, "", "one more")])
        shares.append(share(accepted))
    assert shares[0] == shares[1]
