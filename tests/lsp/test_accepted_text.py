"""What was accepted is followed through any edits, and its share told once, when the text has settled."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsp.accepted_text import SETTLED_S, Kept, Settled
from lsp.documents import Edit

URI, OTHER = "file:///a.py", "file:///b.py"
BEFORE, TEXT, AFTER = "total = ", "sum(prices)", "\nprint(total)\n"
START, END = len(BEFORE), len(BEFORE + TEXT)


class Clock:
    now = 50.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def kept(clock: Clock) -> Kept:
    kept = Kept(clock)
    kept.accepted("1", URI, "python", START, TEXT)
    return kept


def share(kept: Kept) -> float:
    (settled,) = kept.closed(URI)
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
def test_one_edit(kept: Kept, edit: Edit, left: str) -> None:
    assert (BEFORE + TEXT + AFTER)[edit.start :].startswith(edit.removed)
    kept.changed(URI, [edit])
    assert share(kept) == len(left) / len(TEXT)


def test_edits_of_one_message_count_one_after_the_other(kept: Kept) -> None:
    kept.changed(URI, [Edit(0, "", "x"), Edit(START + 1, "sum", "")])
    assert share(kept) == 8 / 11
    kept.accepted("2", URI, "python", 0, TEXT)
    kept.changed(URI, [Edit(0, "sum", "")])
    kept.changed(URI, [Edit(0, "(", "")])
    assert share(kept) == 7 / 11


def test_what_was_typed_into_it_is_not_it(kept: Kept) -> None:
    kept.changed(URI, [Edit(START + 4, "", "all_")])
    kept.changed(URI, [Edit(START + 4, "all_", "")])
    assert share(kept) == 1.0


def test_other_documents_are_others(kept: Kept) -> None:
    kept.accepted("2", OTHER, "python", 0, "x = 1")
    kept.changed(OTHER, [Edit(0, "x = 1", "")])
    assert kept.closed(OTHER) == [Settled("2", "python", 0.0)]
    assert kept.closed(URI) == [Settled("1", "python", 1.0)]


def test_it_is_told_once_when_the_text_has_settled(kept: Kept, clock: Clock) -> None:
    clock.now += SETTLED_S / 2
    kept.accepted("2", URI, "python", 0, "x")
    clock.now += SETTLED_S / 2 - 0.001
    assert kept.settled() == []
    kept.changed(URI, [Edit(START, TEXT, "")])
    clock.now += 0.001
    assert kept.settled() == [Settled("1", "python", 0.0)]
    assert kept.settled() == []
    clock.now += SETTLED_S
    assert kept.settled() == [Settled("2", "python", 1.0)]
    assert kept.settled() == kept.closed(URI) == []


def test_a_closed_document_is_told_at_once_and_then_forgotten(kept: Kept, clock: Clock) -> None:
    assert kept.closed(URI) == [Settled("1", "python", 1.0)]
    clock.now += SETTLED_S
    assert kept.closed(URI) == kept.settled() == []
    kept.changed(URI, [Edit(0, "", "x")])


def test_empty_text_is_no_trouble(kept: Kept) -> None:
    kept.accepted("2", OTHER, "python", 0, "")
    assert kept.closed(OTHER) == [Settled("2", "python", 0.0)]


PLACES = st.tuples(st.integers(0, 40), st.integers(0, 12), st.text("ABC", max_size=5))


@given(accepted=st.tuples(st.integers(0, 12), st.integers(1, 12)), places=st.lists(PLACES, max_size=25))
def test_any_edits_against_marked_characters(accepted: tuple[int, int], places: list[tuple[int, int, str]]) -> None:
    """The document as characters that know whether they were accepted; what is typed is like nothing in it."""
    begin, length = accepted
    document = [
        (character, begin <= index < begin + length) for index, character in enumerate("abcdefghijklmnopqrstuvwx")
    ]
    kept = Kept(Clock())
    kept.accepted("1", URI, "python", begin, "".join(character for character, mine in document if mine))
    for start, removed, inserted in places:
        start = min(start, len(document))
        gone = "".join(character for character, _ in document[start : start + removed])
        if set(gone) & set(inserted):
            inserted = ""
        kept.changed(URI, [Edit(start, gone, inserted)])
        document[start : start + removed] = [(character, False) for character in inserted]
    assert share(kept) == sum(mine for _, mine in document) / length


@given(
    start=st.integers(0, 24),
    removed=st.integers(0, 24),
    inserted=st.text("ABC", max_size=5),
    wider=st.tuples(st.integers(0, 24), st.integers(0, 24)),
)
def test_an_edit_that_writes_more_than_it_changes(
    start: int, removed: int, inserted: str, wider: tuple[int, int]
) -> None:
    """Some editors replace the line or the whole document where one character changed."""
    text = "abcdefghijklmnopqrstuvwx"
    end = min(len(text), start + removed)
    left, right = max(0, start - wider[0]), min(len(text), end + wider[1])
    shares = []
    for edit in (
        Edit(start, text[start:end], inserted),
        Edit(left, text[left:right], text[left:start] + inserted + text[end:right]),
    ):
        kept = Kept(Clock())
        kept.accepted("1", URI, "python", 6, text[6:18])
        kept.changed(URI, [edit, Edit(0, "", "one more")])
        shares.append(share(kept))
    assert shares[0] == shares[1]
