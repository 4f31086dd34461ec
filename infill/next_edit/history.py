"""The last edits of one document: single keys become whole edits, and what was undone disappears.

Must not know trees, editors or clocks.
"""

from __future__ import annotations

from collections.abc import Iterable

from infill.next_edit.edits import UserEdit

MAX_EDITS = 12
MAX_CHARS = 4_000  # of the old or the new text; longer edits are forgotten


class EditHistory:
    """Edits of the same line are one edit."""

    def __init__(self) -> None:
        self._edits: list[UserEdit] = []

    @property
    def edits(self) -> tuple[UserEdit, ...]:
        """Oldest first, with offsets in the current text."""
        return tuple(self._edits)

    def changed(self, before: str, start: int, removed: str, inserted: str, by_hand: bool = True) -> bool:
        """`inserted` replaced `removed` at character `start` of the text `before`.

        Returns whether this undid an edit that was not made by hand.
        """
        end, shift = start + len(removed), len(inserted) - len(removed)
        kept, joined = [], []
        for edit in self._edits:
            if _is_apart(before, edit.end, start):
                kept.append(edit)
            elif _is_apart(before, end, edit.start):
                kept.append(UserEdit(edit.start + shift, edit.old, edit.new, edit.by_hand))
            else:
                joined.append(edit)
        first = min([start, *(edit.start for edit in joined)])
        last = max([end, *(edit.end for edit in joined)])
        old = _undone(before, joined, first, last)
        new = before[first:start] + inserted + before[end:last]
        if old != new and max(len(old), len(new)) <= MAX_CHARS:
            kept.append(UserEdit(first, old, new, by_hand or any(edit.by_hand for edit in joined)))
        self._edits = kept[-MAX_EDITS:]
        return old == new and any(not edit.by_hand for edit in joined)

    def forget(self) -> None:
        """After a change that is not the user's, or that was not followed."""
        self._edits = []


def _is_apart(text: str, end: int, start: int) -> bool:
    """Whether `start` is on a later line than `end`."""
    return end < start and "\n" in text[end:start]


def _undone(text: str, edits: Iterable[UserEdit], first: int, last: int) -> str:
    """text[first:last] before these edits, which are disjoint."""
    parts = []
    for edit in sorted(edits, key=lambda edit: edit.start):
        parts += [text[first : edit.start], edit.old]
        first = edit.end
    return "".join([*parts, text[first:last]])
