"""A position in a text, identified by its line and the lines around it rather than by its line number.

So it is recognized after edits elsewhere. Must not know what is remembered about a position.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from os.path import commonprefix

EDITED = 0.4  # most of a line that may change, in one spot, for it to count as the same line


@dataclass(frozen=True)
class LineContext:
    """left, right: the rest of the line, without outer space; above, below: the nearest non-blank lines, or ""."""

    above: str
    left: str
    right: str
    below: str

    @classmethod
    def of(cls, above: Iterable[str], left: str, right: str, below: Iterable[str]) -> LineContext:
        """above, below: lines, the nearest first."""
        return cls(_first_text(above), left.lstrip(), right.rstrip(), _first_text(below))

    def same_neighbours(self, other: LineContext) -> int:
        """How many of the lines above and below are equal: 0 to 2."""
        return (self.above == other.above) + (self.below == other.below)

    def is_edited(self, other: LineContext) -> bool:
        """Whether the lines differ in one spot only, and by little."""
        one, two = (f"{context.left}\n{context.right}" for context in (self, other))
        same = len(commonprefix([one, two]))
        same += len(commonprefix([one[same:][::-1], two[same:][::-1]]))
        longer = max(len(one), len(two))
        return longer - same <= EDITED * longer


def _first_text(lines: Iterable[str]) -> str:
    return next((line.strip() for line in lines if line.strip()), "")
