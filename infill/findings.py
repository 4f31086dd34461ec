"""What the lint is asked for and what it finds: plain data, that also goes between processes.

Must not know the model, nor who shows a finding.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from infill.request import Neighbour

Range = tuple[int, int]  # [start, end) in characters
IGNORE = "gesso: ignore"  # what a comment says, with [code, code] behind it where only those kinds are meant
_IGNORE = re.compile(r"gesso:\s*ignore(?:\[([\w\-, ]*)\])?(?!\w)")


@dataclass(frozen=True)
class LintRequest:
    """ranges: of `text`, those that are asked about; without any the whole. off: codes that are not wanted; on: those
    of style that are. findings: where there are any, nothing is looked for, and these are what was found. explain:
    whether each gets a sentence that says why.
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


@dataclass(frozen=True)
class Finding:
    """[start, end) of the text should read `replacement`. score: by how much that is likelier, in nats.

    also: further places that must then read it too, as where a name is used. explanation: a sentence, where one was
    asked for and the model had one.
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
    def places(self) -> tuple[Range, ...]:
        """All that should read `replacement`, in text order."""
        return tuple(sorted(((self.start, self.end), *self.also)))


def ignores(line: str, code: str) -> bool:
    """Whether a comment in this line says that findings of this kind are to be left alone on it."""
    return any(
        named[1] is None or code in (one.strip() for one in named[1].split(",")) for named in _IGNORE.finditer(line)
    )
