"""What a client's last request drafted: if the user types its beginning, the rest is a guess at the next text.

Must not know how a draft is made or what a guess costs.
"""

from __future__ import annotations

from dataclasses import dataclass

COMPARED = 256  # characters before the hole that must be the same


@dataclass(frozen=True)
class LastDraft:
    """text: the draft. offset: of its hole. before: the last COMPARED characters up to the hole."""

    text: str = ""
    offset: int = 0
    before: str = ""

    @staticmethod
    def at(before: str, text: str) -> LastDraft:
        """The draft `text` for a hole after `before`."""
        return LastDraft(text, len(before), before[-COMPARED:])

    def rest(self, before: str) -> str:
        """The rest of the draft for a hole after `before`; "" unless `before` ends within the draft."""
        typed = before[self.offset :]
        if len(before) < self.offset or not self.text.startswith(typed):
            return ""
        return self.text[len(typed) :] if before.endswith(self.before, 0, self.offset) else ""
