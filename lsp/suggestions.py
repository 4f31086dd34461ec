"""The values of inline completion: suggestions, their origin, and the reason when there are none.

Must not know how a suggestion is found or shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Origin = Literal["typed", "cache", "running", "remainder", "model", "next edit"]


@dataclass(frozen=True)
class Suggestion:
    """`text` is inserted at the cursor and replaces `swallow`, which follows the cursor on its line.

    confidence: 0 to 1. model: the name of the model that wrote it. beginning: whether the line goes on after it.
    """

    id: str
    text: str
    swallow: str
    confidence: float
    model: str = ""
    beginning: bool = False


@dataclass(frozen=True)
class SkipReason:
    """rule: the name used in statistics and reports; sentence: for the user."""

    rule: str
    sentence: str


@dataclass(frozen=True)
class Suggestions:
    """The result of one request, best suggestion first. skipped: why there are none. Times in milliseconds.

    origin: typed (rest of what is on the screen), cache, running (a model run that was already under way), remainder
    (later lines of a cached suggestion), model.
    """

    items: tuple[Suggestion, ...] = ()
    origin: Origin | None = None
    skipped: SkipReason | None = None
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    total_ms: float = 0.0
