"""Findings of a document, kept at their positions while the text around them changes.

A finding stays while other text changes and is dropped when its own text does. Must not know the protocol nor how
findings are made.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from lsp.documents import Snapshot


@dataclass(frozen=True)
class TrackedFinding:
    """`text` at [start, end) of the document should be `replacement`. number: its id for clients."""

    number: int
    start: int
    end: int
    text: str
    code: str
    message: str
    replacement: str

    def is_like(self, other: TrackedFinding) -> bool:
        """Whether both look the same to the user."""
        return replace(self, number=other.number) == other


def shifted(findings: Iterable[TrackedFinding], snapshot: Snapshot) -> list[TrackedFinding]:
    """The findings of the previous snapshot that are still valid in this one, at their new positions."""
    kept = []
    for finding in findings:
        start, end, touched = finding.start, finding.end, False
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
                kept.append(replace(finding, start=start, end=end))
    return kept


def _is_within_word(text: str, at: int) -> bool:
    return 0 < at < len(text) and f"x{text[at - 1]}".isidentifier() and f"x{text[at]}".isidentifier()
