"""The lines of a text that a rewrite may change, without their common indentation, and the way back to the text.

Text has "\\n" line ends. Must not know models, prompts or checks.
"""

from __future__ import annotations

import os.path
import re
from dataclasses import dataclass

from infill.checks.context import indent_of

_BLANK_LINES = re.compile(r"(?:[ \t]*\n)*")


@dataclass(frozen=True)
class Selection:
    """text[start:end] was selected. text[first:last] are the whole lines with its code."""

    text: str
    start: int
    end: int
    first: int
    last: int

    @staticmethod
    def of(text: str, start: int, end: int) -> Selection | None:
        """None if text[start:end] has nothing but white space."""
        selected = text[start:end]
        if not selected.strip():
            return None
        blank = _BLANK_LINES.match(selected)
        code = start + (blank.end() if blank else 0)
        code_end = start + len(selected.rstrip())
        first = text.rfind("\n", 0, code) + 1
        last = text.find("\n", code_end)
        last = len(text) if last < 0 else last
        return Selection(text, start, end, first, last if text[code_end:last].strip() else code_end)

    @property
    def lines(self) -> str:
        """The whole lines."""
        return self.text[self.first : self.last]

    @property
    def indentation(self) -> str:
        """The indentation that all lines share."""
        return common_indentation(self.lines)

    @property
    def code(self) -> str:
        """The whole lines without their common indentation."""
        return dedent(self.lines)

    @property
    def known(self) -> str:
        """The beginning of `code` that is outside the selection; empty unless the selection begins within a line."""
        before = self.text[self.first : self.start] if self.first < self.start else ""
        return before.removeprefix(self.indentation) if before.strip() else ""

    def indented(self, code: str) -> str:
        """The inverse of `code`, for new code. Indentation that all its lines share is dropped first."""
        return "\n".join(self.indentation + line if line.strip() else "" for line in dedent(code).split("\n"))

    def replacement(self, lines: str) -> str | None:
        """The text for the selection, so that the whole lines become `lines`; None if other text would change too."""
        changed = self.text[: self.first] + lines + self.text[self.last :]
        after = self.text[self.end :]
        if len(changed) < self.start + len(after):
            return None
        if not (changed.startswith(self.text[: self.start]) and changed.endswith(after)):
            return None
        return changed[self.start : len(changed) - len(after)]


def common_indentation(text: str) -> str:
    """The white space that all lines with code begin with."""
    return os.path.commonprefix([indent_of(line) for line in text.split("\n") if line.strip()])


def dedent(text: str) -> str:
    """The text without its common indentation; lines of white space are empty."""
    common = common_indentation(text)
    return "\n".join(line.removeprefix(common) if line.strip() else "" for line in text.split("\n"))
