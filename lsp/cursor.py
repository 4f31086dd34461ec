"""The text around a cursor that a suggestion is requested for. Must not know how a suggestion is found."""

from __future__ import annotations

from dataclasses import dataclass

from lsprotocol import types

from lsp.documents import Snapshot


@dataclass(frozen=True)
class CursorContext:
    """`before` + `after` is the text as if the entry selected in the completion popup were already inserted.

    entry: the selected entry, which `before` ends with. typed: the number of characters that the entry replaces.
    invoked: the user asked for suggestions by hand.
    """

    snapshot: Snapshot
    before: str
    after: str
    invoked: bool = False
    entry: str = ""
    typed: int = 0

    @classmethod
    def at(
        cls,
        snapshot: Snapshot,
        position: types.Position,
        invoked: bool = False,
        selected: types.SelectedCompletionInfo | None = None,
    ) -> CursorContext:
        text = snapshot.text
        if selected is None:
            offset = snapshot.offset(position)
            return cls(snapshot, text[:offset], text[offset:], invoked)
        start = snapshot.offset(selected.range.start)
        end = max(start, snapshot.offset(selected.range.end))
        return cls(snapshot, text[:start] + selected.text, text[end:], invoked, selected.text, end - start)

    @property
    def uri(self) -> str:
        return self.snapshot.uri

    @property
    def start(self) -> int:
        """The offset in the snapshot where inserted text begins, the selected entry included."""
        return len(self.before) - len(self.entry)

    @property
    def offset(self) -> int:
        """The offset of the cursor in the snapshot."""
        return self.start + self.typed

    def range(self, swallow: str = "") -> types.Range:
        """What the selected entry and a suggestion that swallows `swallow` replace."""
        return self.snapshot.range(self.start, self.offset + len(swallow))
