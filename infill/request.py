"""What is asked of an infill and what comes back: plain values, shared by command line, batch and editor.

Must not know how a completion is made. Offsets are characters of the text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Lines = Literal["one", "block", "auto"]
Source = Literal["model", "causal", "copy"]
PieceState = Literal["known", "settled", "noise", "null"]


@dataclass(frozen=True)
class Hole:
    """[start, end) of the text is to be written anew; start == end is a cursor."""

    start: int
    end: int


@dataclass(frozen=True)
class Neighbour:
    """Another file whose names may be of use."""

    path: str
    text: str


@dataclass(frozen=True)
class InfillRequest:
    """language: an id of `infill.code.languages`, None for text without a tree. lines: how much is asked for.

    steps, seed: of the denoiser. deadline_ms counts from the call; the best so far is returned then. rejected: texts
    that the user refused here. caution: times the confidence that the settings ask for; 0: whatever passes the checks.
    """

    text: str
    holes: tuple[Hole, ...]
    language: str | None = None
    path: str | None = None
    lines: Lines = "auto"
    candidates: int = 1
    steps: int | None = None
    seed: int = 0
    deadline_ms: float | None = None
    neighbours: tuple[Neighbour, ...] = ()
    rejected: tuple[str, ...] = ()
    caution: float = 1.0


@dataclass(frozen=True)
class Evidence:
    """Log-probabilities in nats a token.

    seam: of the text and of the tokens after it, by the causal encoder that has not seen what follows.
    middle: of the text by the causal encoder that has. weakest: of the least likely token there; both 0 without it.
    certainty: of the denoiser in the text it wrote, 0 for texts that are not its own.
    denoised, drafted, copied: 1 where the text came about so. agreeing: share of the other ways that begin alike.
    matched: log of one more than the characters before the hole that stand before the copy too; fits: 1 where what
    follows the hole follows there too; places: log of one more than the places that say the same; all 0 without a
    copy. length: log of the number of tokens.
    """

    seam: float = 0.0
    middle: float = 0.0
    weakest: float = 0.0
    certainty: float = 0.0
    denoised: float = 0.0
    drafted: float = 0.0
    copied: float = 0.0
    agreeing: float = 0.0
    matched: float = 0.0
    fits: float = 0.0
    places: float = 0.0
    length: float = 0.0


@dataclass(frozen=True)
class Candidate:
    """confidence: 0 to 1. shown: good enough to show; reason: why not. source: the model's canvas, its causal encoder,
    or a copy from the context."""

    text: str
    confidence: float
    shown: bool
    reason: str | None
    source: Source
    tokens: int
    evidence: Evidence = field(default=Evidence(), repr=False)


@dataclass(frozen=True)
class HoleCompletion:
    """The best candidate's values (even where it is not to be shown) and all candidates, best first."""

    hole: Hole
    text: str
    shown: bool
    reason: str | None
    confidence: float
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True)
class InfillResult:
    """canvas: width in tokens; hole: slots laid out; timings_ms: by stage, `total` among them."""

    completions: tuple[HoleCompletion, ...]
    steps: int
    prompt_tokens: int
    encoded_tokens: int
    canvas: int
    hole: int
    timings_ms: dict[str, float]
    model: str
    seed: int


@dataclass(frozen=True)
class Piece:
    """A run of canvas text: known code, settled or still noise, or a slot left empty."""

    text: str
    state: PieceState


@dataclass(frozen=True)
class StepView:
    """The canvas after `step` of at most `max_steps` steps."""

    step: int
    max_steps: int
    pieces: tuple[Piece, ...]


OnStep = Callable[[StepView], bool | None]
