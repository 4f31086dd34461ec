"""Requests and results of a rewrite by instruction: plain values, with offsets in characters of the text.

Must not know how a rewrite is made.
"""

from __future__ import annotations

from dataclasses import dataclass

from infill.request import Neighbour


@dataclass(frozen=True)
class EditRequest:
    """text[start:end] is to be rewritten as `instruction` says, in any natural language.

    language: an id of `infill.code.languages`; None to detect it. deadline_ms: from the call on; an answer that is
    incomplete by then is not shown.
    """

    text: str
    start: int
    end: int
    instruction: str
    language: str | None = None
    path: str | None = None
    candidates: int = 1
    deadline_ms: float | None = None
    neighbours: tuple[Neighbour, ...] = ()


@dataclass(frozen=True)
class EditCandidate:
    """text: for the range. shown: whether it passes all checks; reason: why not. tokens: length of the answer."""

    text: str
    shown: bool
    reason: str | None
    tokens: int


@dataclass(frozen=True)
class EditResult:
    """The best candidate, even if it is not shown, and all candidates, best first.

    start, end: the range that `text` replaces. timings_ms: by stage, and `total`.
    """

    start: int
    end: int
    text: str
    shown: bool
    reason: str | None
    candidates: tuple[EditCandidate, ...]
    prompt_tokens: int
    encoded_tokens: int
    timings_ms: dict[str, float]
    model: str
