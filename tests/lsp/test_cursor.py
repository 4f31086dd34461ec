"""The text around a cursor and the range that a suggestion replaces."""

from __future__ import annotations

import pytest
from lsprotocol import types

from lsp.cursor import CursorContext
from lsp.documents import Documents, Snapshot


def span(start: int, end: int) -> types.Range:
    return types.Range(types.Position(1, start), types.Position(1, end))


@pytest.fixture
def snapshot() -> Snapshot:
    return Documents().open(types.TextDocumentItem("file:///a.py", "python", 1, "x = 1\ny = (pri)\n"))


def test_at_a_position(snapshot: Snapshot) -> None:
    context = CursorContext.at(snapshot, types.Position(1, 8))
    assert (context.before, context.after, context.entry) == ("x = 1\ny = (pri", ")\n", "")
    assert context.offset == context.start == 14
    assert context.range() == span(8, 8)
    assert context.range(")") == span(8, 9)


def test_with_a_selected_popup_entry(snapshot: Snapshot) -> None:
    selected = types.SelectedCompletionInfo(span(5, 8), "price")
    context = CursorContext.at(snapshot, types.Position(1, 8), True, selected)
    assert (context.before, context.after) == ("x = 1\ny = (price", ")\n")
    assert (context.start, context.offset, context.typed) == (11, 14, 3)
    assert context.range(")") == span(5, 9)


def test_a_reversed_range_of_a_popup_entry_replaces_nothing(snapshot: Snapshot) -> None:
    selected = types.SelectedCompletionInfo(span(8, 5), "price")
    context = CursorContext.at(snapshot, types.Position(1, 8), True, selected)
    assert (context.before, context.after) == ("x = 1\ny = (priprice", ")\n")
    assert context.range() == span(8, 8)
