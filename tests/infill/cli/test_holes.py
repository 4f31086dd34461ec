"""Positions, ranges and markers become holes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import UsageError
from infill.cli.holes import hole_at, hole_in_range, holes_at_markers, offset_of, position_of
from infill.request import Hole


@pytest.mark.parametrize(
    ("text", "position", "offset"),
    [
        ("", "1:1", 0),
        ("ab\ncd", "1:3", 2),
        ("ab\ncd", "2:1", 3),
        ("ab\ncd", "2:3", 5),
        ("ab\n", "2:1", 3),
        ("ab\r\ncd", "1:3", 2),
        ("ab\r\ncd", "2:2", 5),
        ("é😀x\ny", "1:3", 2),
        ("a\x0cb\u2028c\nd", "2:1", 6),
        ("\tx", " 1:2 ", 1),
    ],
)
def test_a_position_becomes_an_offset(text: str, position: str, offset: int) -> None:
    assert hole_at(text, position) == Hole(offset, offset)


@pytest.mark.parametrize(
    ("text", "position", "sentence"),
    [
        ("ab\ncd", "3:1", "There is no line 3: the text has lines 1 to 2."),
        ("ab\ncd", "0:1", "There is no line 0: the text has lines 1 to 2."),
        ("ab\ncd", "1:4", "There is no column 4 in line 1: it has columns 1 to 3."),
        ("ab\r\ncd", "1:4", "There is no column 4 in line 1: it has columns 1 to 3."),
        ("ab", "1:0", "There is no column 0 in line 1: it has columns 1 to 3."),
        ("ab", "12", "write LINE:COL"),
        ("ab", "-1:2", "write LINE:COL"),
        ("ab", "1:²", "write LINE:COL"),
    ],
)
def test_an_error_names_the_valid_positions(text: str, position: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        hole_at(text, position)
    assert sentence in str(caught.value)


def test_a_range_excludes_its_second_position() -> None:
    assert hole_in_range("one\ntwo\nthree\n", "2:1-3:1") == Hole(4, 8)


@pytest.mark.parametrize(("span", "part"), [("2:1", "LINE:COL-LINE:COL"), ("2:1-1:1", "earlier position first")])
def test_an_invalid_range_is_refused(span: str, part: str) -> None:
    with pytest.raises(UsageError, match=part):
        hole_in_range("one\ntwo\n", span)


def test_each_marker_is_covered_by_a_hole() -> None:
    assert holes_at_markers("a ?? b\n??", "??") == (Hole(2, 4), Hole(7, 9))
    assert holes_at_markers("aaa", "aa") == (Hole(0, 2),)


@pytest.mark.parametrize("marker", ["", "TODO"])
def test_a_marker_that_is_not_in_the_text_is_refused(marker: str) -> None:
    with pytest.raises(UsageError, match="marker"):
        holes_at_markers("a b", marker)


@given(st.text(alphabet="a\n é", max_size=40), st.data())
def test_position_and_offset_are_inverse(text: str, data: st.DataObject) -> None:
    offset = data.draw(st.integers(0, len(text)))
    assert offset_of(text, position_of(text, offset), "--at") == offset


def test_too_many_markers_are_an_error() -> None:
    assert len(holes_at_markers("@" * 1000, "@")) == 1000
    with pytest.raises(UsageError, match="marker '@' 1,001 times; use a rarer one, at most 1,000"):
        holes_at_markers("@" * 1001, "@")
