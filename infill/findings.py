"""What lint is asked for and what it finds: plain data that also travels between processes.

Must not know the model, nor how findings are shown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from infill.request import Neighbour

Range = tuple[int, int]  # [start, end) in characters
IGNORE = "gesso: ignore"  # in a comment; [code, code] after it limits it to those kinds
_IGNORE = re.compile(r"gesso:\s*ignore(?:\[([\w\-, ]*)\])?(?!\w)")


@dataclass(frozen=True)
class LintRequest:
    """ranges: parts of `text` to check; empty for all of it. off: codes to leave out. on: codes to include that
    are off by default.

    findings: if there are any, nothing is searched for and these are the result. explain: whether each finding gets a
    sentence that explains it. deadline_ms: of the service, from the call on.
    """

    text: str
    language: str | None = None
    path: str | None = None
    ranges: tuple[Range, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    off: frozenset[str] = frozenset()
    on: frozenset[str] = frozenset()
    findings: tuple[Finding, ...] = ()
    explain: bool = False
    deadline_ms: float | None = None


@dataclass(frozen=True)
class Finding:
    """text[start:end] should read `replacement`. score: how much likelier the whole text becomes, in nats.

    also: other ranges that get the same replacement, for example all uses of a name. explanation: a sentence, if it was
    requested and the model gave one.
    """

    start: int
    end: int
    code: str
    message: str
    replacement: str
    score: float
    also: tuple[Range, ...] = ()
    explanation: str | None = None

    @property
    def ranges(self) -> tuple[Range, ...]:
        """All ranges that should read `replacement`, in text order."""
        return tuple(sorted(((self.start, self.end), *self.also)))


def ignores(line: str, code: str) -> bool:
    """Whether a comment in this line suppresses findings of this kind."""
    return any(
        match[1] is None or code in (part.strip() for part in match[1].split(",")) for match in _IGNORE.finditer(line)
    )
