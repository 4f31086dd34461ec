"""What is marked in a document, kept in place while the text around it changes.

A mark stays while other text changes and goes when its own does. Must not know the protocol nor how findings are made.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from lsp.documents import Snapshot


@dataclass(frozen=True)
class Mark:
    """`text`, which stands at [start, end) of the document, should read `replacement`. number: what clients call it."""

    number: int
    start: int
    end: int
    text: str
    code: str
    message: str
    replacement: str

    def is_like(self, other: Mark) -> bool:
        """Whether both are the same to the user."""
        return replace(self, number=other.number) == other


def moved(marks: Iterable[Mark], snapshot: Snapshot) -> list[Mark]:
    """The marks of the snapshot before this one that stand, at their places in this one."""
    kept = []
    for mark in marks:
        start, end, touched = mark.start, mark.end, False
        for edit in snapshot.edits:
            if edit.removed == edit.inserted:
                continue
            stop = edit.start + len(edit.removed)
            touched = touched or stop == start or edit.start == end
            if stop <= start:
                by = len(edit.inserted) - len(edit.removed)
                start, end = start + by, end + by
            elif edit.start < end:
                break
        else:
            if not (touched and (_is_within_word(snapshot.text, start) or _is_within_word(snapshot.text, end))):
                kept.append(replace(mark, start=start, end=end))
    return kept


def _is_within_word(text: str, at: int) -> bool:
    return 0 < at < len(text) and f"x{text[at - 1]}".isidentifier() and f"x{text[at]}".isidentifier()
