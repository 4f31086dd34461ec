"""Columns in three encodings, compared with Python's codecs character by character."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsp.positions import column_to_index, index_to_column, width

ENCODINGS = st.sampled_from(["utf-8", "utf-16", "utf-32"])
PIECES = st.sampled_from("a \tß漢ｅ\u0301👍🏽😀\u2028\f\x00\ud83d\ude00\udce9\udc80")
LINES = st.text(PIECES | st.characters(), max_size=20)
UNIT_BYTES = {"utf-8": 1, "utf-16": 2, "utf-32": 4}
CODECS = {"utf-8": "utf-8", "utf-16": "utf-16-le", "utf-32": "utf-32-le"}


def units(character: str, encoding: str) -> int:
    if encoding == "utf-8" and "\udc80" <= character <= "\udcff":
        return 1  # a byte that was not UTF-8
    return len(character.encode(CODECS[encoding], "surrogatepass")) // UNIT_BYTES[encoding]


def boundaries(line: str, encoding: str) -> list[int]:
    """The columns at which the characters of a line begin, and the width of the line."""
    columns = [0]
    for character in line:
        columns.append(columns[-1] + units(character, encoding))
    return columns


@pytest.mark.parametrize(
    ("encoding", "columns"),
    [("utf-8", [0, 1, 3, 6, 10, 11]), ("utf-16", [0, 1, 2, 3, 5, 6]), ("utf-32", [0, 1, 2, 3, 4, 5])],
)
def test_an_emoji_takes_four_two_or_one_code_units(encoding, columns):
    line = "aß漢😀z"
    assert [index_to_column(line, index, encoding) for index in range(6)] == columns
    assert [column_to_index(line, column, encoding) for column in columns] == [0, 1, 2, 3, 4, 5]


@given(LINES, ENCODINGS)
def test_the_width_is_the_sum_of_the_characters(line, encoding):
    assert width(line, encoding) == boundaries(line, encoding)[-1]


@given(LINES, ENCODINGS)
def test_a_column_maps_to_the_last_character_that_begins_at_or_before_it(line, encoding):
    columns = boundaries(line, encoding)
    for column in range(columns[-1] + 3):
        index = column_to_index(line, column, encoding)
        assert columns[index] <= column
        assert index == len(line) or column < columns[index + 1]


@given(LINES, ENCODINGS)
def test_every_index_survives_a_round_trip(line, encoding):
    columns = boundaries(line, encoding)
    for index, column in enumerate(columns):
        assert index_to_column(line, index, encoding) == column
        assert column_to_index(line, column, encoding) == index


@given(LINES, ENCODINGS)
def test_positions_outside_the_line_are_clamped(line, encoding):
    assert column_to_index(line, 2**31 - 1, encoding) == len(line)
    assert column_to_index(line, -1, encoding) == 0
    assert index_to_column(line, len(line) + 5, encoding) == width(line, encoding)
    assert index_to_column(line, -1, encoding) == 0


def test_a_long_line_is_bisected(monkeypatch):
    """A minified file is one line: at most twice its length is measured in total."""
    line = "é😀a" * 100_000
    measured = []
    monkeypatch.setattr(
        "lsp.positions.width", lambda text, encoding: measured.append(len(text)) or width(text, encoding)
    )
    assert column_to_index(line, 300_001, "utf-16") == 225_001
    assert sum(measured) <= 2 * len(line)
    assert len(measured) <= 20
