"""Rejections survive edits elsewhere, belong to their position, and expire."""

import pytest

from lsp.rejections import MOST_DELETED, REMEMBERED, REMEMBERED_S, Rejections
from tests.lsp.clock import Clock

URI = "file:///a.py"
ABOVE = "def total(prices):\n    tax = 0.2\n"
BELOW = "\n    return result\n"
LINE = "    result = "


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def rejections(clock: Clock) -> Rejections:
    rejections = Rejections(clock)
    rejections.rejected(URI, ABOVE + LINE, BELOW, "sum(prices)")
    return rejections


def test_only_the_same_text_at_the_same_position(rejections: Rejections) -> None:
    assert rejections.is_rejected(URI, ABOVE + LINE, BELOW, "sum(prices)")
    assert rejections.texts(URI, ABOVE + LINE, BELOW) == ("sum(prices)",)
    assert not rejections.is_rejected(URI, ABOVE + LINE, BELOW, "min(prices)")
    assert not rejections.is_rejected("file:///b.py", ABOVE + LINE, BELOW, "sum(prices)")
    assert not rejections.is_rejected(URI, "for price in shop:\n" + LINE, "\n    print(price)\n", "sum(prices)")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param("import os\n\n\n" * 50 + ABOVE + LINE, BELOW, id="lines inserted far above"),
        pytest.param(ABOVE + "    rate = 3\n" + LINE, BELOW, id="line inserted right above"),
        pytest.param(ABOVE + LINE, "\n    print(result)\n    return result\n", id="line inserted right below"),
        pytest.param(ABOVE + "\n\n" + LINE, BELOW, id="blank lines"),
        pytest.param(ABOVE + "    results = ", BELOW, id="a name changed"),
        pytest.param(ABOVE + "    self.result = ", BELOW, id="a word put before"),
        pytest.param(ABOVE + LINE, "  # cents" + BELOW, id="a comment put behind"),
        pytest.param((ABOVE + "    " + LINE).replace("\n", "\r\n"), BELOW.replace("\n", "\r\n"), id="indented, CRLF"),
        pytest.param(ABOVE + "if tax:\n    " + LINE, BELOW, id="put under a condition"),
    ],
)
def test_edits_around_the_position_change_nothing(rejections: Rejections, before: str, after: str) -> None:
    assert rejections.is_rejected(URI, before, after, "sum(prices)")


def test_a_neighbouring_line_is_another_position(rejections: Rejections) -> None:
    assert not rejections.is_rejected(URI, ABOVE + LINE + "1\n    whole = ", BELOW, "sum(prices)")
    assert not rejections.is_rejected(URI, ABOVE + LINE + "0\n" + LINE, "\n    print()\n", "sum(prices)")
    assert not rejections.is_rejected(URI, ABOVE + "    yield from (", BELOW, "sum(prices)")
    assert not rejections.is_rejected(URI, ABOVE + LINE, ")\n    return x\n", "sum(prices)")


def test_the_rest_after_typing_or_deleting_is_rejected_too(rejections: Rejections) -> None:
    assert rejections.is_rejected(URI, ABOVE + LINE + "sum(", ")" + BELOW, "prices)")
    assert rejections.is_rejected(URI, ABOVE + "    resu", BELOW, "lt = sum(prices)")
    assert not rejections.is_rejected(URI, ABOVE + LINE + "max(", BELOW, "prices)")


def test_kinds_of_line_ends_do_not_matter(rejections: Rejections) -> None:
    rejections.rejected(URI, ABOVE + LINE, BELOW, "f(\r\n)\r\n")
    assert rejections.is_rejected(URI, ABOVE + LINE, BELOW, "f(\n)")


def test_a_line_without_words_needs_both_neighbours(clock: Clock) -> None:
    rejections = Rejections(clock)
    rejections.rejected(URI, "    }\n    ", "\n}\n", "close();")
    assert rejections.is_rejected(URI, "    }\n", "\n}\n", "    close();")  # the cursor before the indentation
    assert not rejections.is_rejected(URI, "    open();\n    ", "\n}\n", "close();")
    rejections.rejected(URI, "a()\nx = ", "\n}\n", "b()")
    assert not rejections.is_rejected(URI, "c()\n", "\n}\n", "x = b()")


@pytest.mark.parametrize(
    ("typed", "seen_s", "counts"),
    [
        ("max(", 0.4, True),
        ("max(", 0.39, False),
        ("", 5, False),
        ("  ", 5, False),
        ("\n", 5, True),
        (")", 5, True),
        ("sum(pri", 5, False),
        ("sum()", 5, False),  # the editor closed the bracket
        ("sum()]", 5, True),
        ("max()", 5, True),
        ("sum(prices)\n", 5, False),
    ],
)
def test_typing_over_rejects_only_what_was_seen_and_differs(
    clock: Clock, typed: str, seen_s: float, counts: bool
) -> None:
    rejections = Rejections(clock)
    assert rejections.typed_over(URI, ABOVE + LINE, BELOW, "sum(prices)", typed, seen_s) is counts
    assert rejections.is_rejected(URI, ABOVE + LINE, BELOW, "sum(prices)") is counts


def test_rejections_are_forgotten_after_a_while_or_after_many_others(rejections: Rejections, clock: Clock) -> None:
    clock.now += REMEMBERED_S - 1
    assert rejections.texts(URI, ABOVE + LINE, BELOW)
    clock.now += 2
    assert not rejections.texts(URI, ABOVE + LINE, BELOW)
    rejections.rejected(URI, ABOVE + LINE, BELOW, "sum(prices)")
    for number in range(REMEMBERED):
        assert rejections.is_rejected(URI, ABOVE + LINE, BELOW, "sum(prices)")
        rejections.rejected(URI, f"a{number}\nb{number} = ", "", f"{number}")
    assert not rejections.is_rejected(URI, ABOVE + LINE, BELOW, "sum(prices)")


def test_the_latest_rejection_comes_first_and_each_once(rejections: Rejections) -> None:
    rejections.rejected(URI, ABOVE + LINE, BELOW, "max(prices)")
    rejections.rejected(URI, ABOVE + LINE, BELOW, "max(prices)\n")
    assert rejections.texts(URI, ABOVE + LINE, BELOW) == ("max(prices)", "sum(prices)")


CALL = "    total = compute"
RETURN = "    return total\n"


def test_deleted_text_is_not_offered_again(clock: Clock) -> None:
    rejections = Rejections(clock)
    rejections.deleted(URI, ABOVE + CALL, "\n" + RETURN, "(prices, tax)")
    for offered in ("(prices, tax)", "(prices, tax) + 1", "(prices, tax"):
        assert rejections.is_rejected(URI, ABOVE + CALL, "\n" + RETURN, offered)
    assert rejections.is_rejected(URI, ABOVE + CALL + "(", "\n" + RETURN, "prices, tax)")
    assert not rejections.is_rejected(URI, ABOVE + CALL, "\n" + RETURN, "(prices)")
    assert not rejections.is_rejected(URI, "def other():\n" + CALL, "\n\n", "(prices, tax)")
    assert rejections.texts(URI, ABOVE + CALL, "\n" + RETURN) == ("(prices, tax)",)


def test_a_longer_word_is_not_the_deleted_text(clock: Clock) -> None:
    rejections = Rejections(clock)
    rejections.deleted(URI, ABOVE + "    ", "\n", "return x")
    assert rejections.is_rejected(URI, ABOVE + "    ", "\n", "return x")
    assert not rejections.is_rejected(URI, ABOVE + "    ", "\n", "return x_ray")
    assert not rejections.is_rejected(URI, ABOVE + "    ", "\n", "return")


def test_the_first_line_of_deleted_lines_is_not_offered_again(clock: Clock) -> None:
    rejections = Rejections(clock)
    rejections.deleted(URI, ABOVE + "    ", "\n", "a = 1\n    b = 2\n    c = 3")
    assert rejections.is_rejected(URI, ABOVE + "    ", "\n", "a = 1")
    assert rejections.is_rejected(URI, ABOVE + "    ", "\n", "a = 1\n    b = 2")


@pytest.mark.parametrize("backwards", [True, False])
def test_keys_that_delete_one_by_one_add_up(clock: Clock, backwards: bool) -> None:
    rejections, text = Rejections(clock), "(prices, tax)"
    for number in range(len(text)):
        left, right = (text[: -1 - number], "") if backwards else ("", text[number + 1 :])
        key = text[-1 - number] if backwards else text[number]
        rejections.deleted(URI, ABOVE + CALL + left, right + "\n" + RETURN, key)
    assert rejections.texts(URI, ABOVE + CALL, "\n" + RETURN) == (text,)


def test_deleted_text_that_is_typed_again_may_come_again(clock: Clock) -> None:
    rejections = Rejections(clock)
    rejections.deleted(URI, ABOVE + CALL, "\n" + RETURN, "(prices)")
    rejections.typed(URI, "def other():\n" + CALL + "(prices)", "\n\n")
    assert rejections.is_rejected(URI, ABOVE + CALL, "\n" + RETURN, "(prices)")
    rejections.typed(URI, ABOVE + CALL + "(prices)", "\n" + RETURN)
    assert not rejections.is_rejected(URI, ABOVE + CALL, "\n" + RETURN, "(prices)")


def test_deleted_white_space_and_very_long_texts_are_not_remembered(clock: Clock) -> None:
    rejections = Rejections(clock)
    rejections.deleted(URI, ABOVE + CALL, "\n" + RETURN, "   ")
    rejections.deleted(URI, ABOVE + CALL, "\n" + RETURN, "x" * (MOST_DELETED + 1))
    assert rejections.texts(URI, ABOVE + CALL, "\n" + RETURN) == ()
