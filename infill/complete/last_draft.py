"""What a client's last request drafted: if the user types its beginning, the rest is a guess at the next text.

Must not know how a draft is made or what a guess costs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

COMPARED = 256  # characters before the hole that must be the same, and after it
WORD = re.compile(r"\w*\W?")


@dataclass(frozen=True)
class LastDraft:
    """text: the draft. offset: of its hole. before: the last COMPARED characters up to the hole.

    after: the first COMPARED characters after the hole, for a draft of the denoiser. canvas: its last draft.
    """

    text: str = ""
    offset: int = 0
    before: str = ""
    after: str = ""
    canvas: LastDraft | None = None

    @staticmethod
    def at(before: str, text: str, after: str = "") -> LastDraft:
        """The draft `text` for a hole after `before`."""
        return LastDraft(text, len(before), before[-COMPARED:], after[:COMPARED])

    def rest(self, before: str) -> str:
        """The rest of the draft for a hole after `before`; "" unless `before` ends within the draft."""
        typed = before[self.offset :]
        if len(before) < self.offset or not self.text.startswith(typed):
            return ""
        return self.text[len(typed) :] if before.endswith(self.before, 0, self.offset) else ""

    def expected(self, before: str, after: str) -> tuple[str, str] | None:
        """What may follow `before` if characters of the draft were typed, removed or replaced, and no others were.

        A part that was contradicted, which may be empty, and the text after it. None for a hole elsewhere, and for the
        same one, whose result does not depend on what was asked before.
        """
        if not self.text or len(before) == self.offset or after[:COMPARED] != self.after:
            return None
        if len(before) < self.offset:
            removed = self.before[len(before) - self.offset :]
            same = self.offset - len(before) < len(self.before) and before.endswith(self.before[: -len(removed)])
            return ("", removed + self.text) if same else None
        typed = before[self.offset :]
        if len(typed) >= len(self.text) or not before.endswith(self.before, 0, self.offset):
            return None
        if self.text.startswith(typed):
            return "", self.text[len(typed) :]
        word = WORD.match(self.text, len(typed))
        assert word is not None, "it matches the empty text"
        return word[0], self.text[word.end() :]
