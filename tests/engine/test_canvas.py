"""Known tokens and holes next to each other make a canvas, or a clear error."""

from __future__ import annotations

import pytest

from engine.canvas import Canvas, Known, Slots
from engine.errors import InputError


def test_parts_keep_their_order() -> None:
    canvas = Canvas.of(Slots(2), Known([7, 8]), Slots(1), Known((9,)))
    assert canvas.tokens.tolist() == [-1, -1, 7, 8, -1, 9]
    assert canvas.pinned.tolist() == [False, False, True, True, False, True]
    assert canvas.hole_columns.tolist() == [0, 1, 4]
    assert canvas.width == 6


def test_a_draft_fills_the_first_slots() -> None:
    canvas = Canvas.of(Known([7]), Slots(4, draft=[3, None, 5]))
    assert canvas.tokens.tolist() == [7, 3, -1, 5, -1]
    assert canvas.hole_columns.tolist() == [1, 2, 3, 4]


def test_a_draft_longer_than_the_hole_is_cut() -> None:
    canvas = Canvas.of(Slots(2, draft=[1, 2, 3]), Known([4]))
    assert canvas.tokens.tolist() == [1, 2, 4]
    assert canvas.hole_columns.tolist() == [0, 1]


@pytest.mark.parametrize("parts", [(), (Known([1, 2]),), (Known([1]), Slots(0))])
def test_a_canvas_without_a_hole_is_refused(parts: tuple[Known | Slots, ...]) -> None:
    with pytest.raises(InputError, match="no hole to fill"):
        Canvas.of(*parts)


def test_a_hole_column_may_be_restricted() -> None:
    canvas = Canvas.of(Known([1]), Slots(2), allowed={2: [5, 6]})
    assert {column: ids.tolist() for column, ids in canvas.allowed.items()} == {2: [5, 6]}


@pytest.mark.parametrize("allowed", [{0: [5]}, {3: [5]}, {-1: [5]}, {1: []}])
def test_a_restriction_elsewhere_or_of_everything_is_refused(allowed: dict[int, list[int]]) -> None:
    with pytest.raises(InputError, match=f"Column {next(iter(allowed))} "):
        Canvas.of(Known([1]), Slots(2), allowed=allowed)
