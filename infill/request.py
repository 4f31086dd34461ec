"""Requests and results of an infill: plain values, with offsets in characters of the text.

Must not know how a completion is made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

MOST_CHARACTERS, MOST_HOLES = 2_000_000, 1_000  # of a text
NO_TIME = "the deadline left no time for this hole"  # reason of a hole that the model did not reach
Lines = Literal["one", "block", "auto"]
Source = Literal["model", "causal", "copy"]
PieceState = Literal["known", "settled", "noise", "null"]


@dataclass(frozen=True)
class Hole:
    """text[start:end] is to be replaced; an empty range is a cursor."""

    start: int
    end: int


@dataclass(frozen=True)
class Neighbour:
    """Another file of the project, for context."""

    path: str
    text: str


@dataclass(frozen=True)
class InfillRequest:
    """language: an id of `infill.code.languages`; None to detect it. lines: how much to write.

    steps, seed: of the denoiser. deadline_ms: from the call on; the best so far is returned then. rejected: texts that
    the user rejected here. caution: factor of the threshold of confidence; with 0 all that passes the checks is shown.
    beginning: whether the beginning of a line may be shown if the model is not sure of the whole line.
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
    beginning: bool = False


@dataclass(frozen=True)
class Evidence:
    """The evidence for a candidate; log-probabilities in nats per token.

    seam: of the text and the tokens after it, by the causal encoder given only the text before.
    middle: of the text, by the causal encoder given the text on both sides; weakest: of its least likely token; both 0
    if the encoder is not trained for that. certainty: of the denoiser in its own text; 0 for other texts.
    denoised, drafted, copied: 1 if that is a source of the text. agreeing: share of the other texts that begin alike.
    matched: log(1 + characters before the hole that also precede the copy). fits: 1 if the copy is followed by what
    follows the hole. places: log(1 + occurrences of the copy). All three are 0 without a copy.
    length: log of the number of tokens.
    Of code models only, 0 for others: alone: the sum for the text, given only the text before. margin: nats by which
    the text, given the text on both sides, is likelier than the likeliest other candidate; 0 without one. whole: 1 if
    the hole is whole lines.
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
    alone: float = 0.0
    margin: float = 0.0
    whole: float = 0.0


@dataclass(frozen=True)
class Candidate:
    """confidence: 0 to 1. shown: whether it passes all checks; reason: why not. tokens: length of the text.

    source: the denoised canvas ("model"), the causal encoder, or a copy from the context. refused: whether a check of
    the text itself refuses it, rather than its low confidence. beginning: whether the line goes on after the text.
    """

    text: str
    confidence: float
    shown: bool
    reason: str | None
    source: Source
    tokens: int
    evidence: Evidence = field(default=Evidence(), repr=False)
    refused: bool = field(default=False, repr=False)
    beginning: bool = False


@dataclass(frozen=True)
class HoleCompletion:
    """The values of the best candidate, even if it is not shown, and all candidates, best first."""

    hole: Hole
    text: str
    shown: bool
    reason: str | None
    confidence: float
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True)
class InfillResult:
    """canvas: width in tokens. hole: number of slots. timings_ms: by stage, and `total`."""

    completions: tuple[HoleCompletion, ...]
    steps: int
    prompt_tokens: int
    encoded_tokens: int
    canvas: int
    hole: int
    timings_ms: dict[str, float]
    model: str
    seed: int

    @property
    def tokens_given(self) -> int:
        """Tokens that the model was given: the prompt, and the known tokens of the canvas."""
        return self.prompt_tokens + max(0, self.canvas - self.hole)


@dataclass(frozen=True)
class Piece:
    """A part of the canvas: known text, settled tokens, tokens that are still noise, or null slots."""

    text: str
    state: PieceState


@dataclass(frozen=True)
class StepView:
    """The canvas after `step` of at most `max_steps` steps.

    sure: how many characters of the hole the model is sure of so far; 0 unless the request allows the beginning of a
    line.
    hole, holes: the number of the hole, from 0, and of all holes, if each has a canvas of its own.
    """

    step: int
    max_steps: int
    pieces: tuple[Piece, ...]
    sure: int = 0
    hole: int = 0
    holes: int = 1


OnStep = Callable[[StepView], bool | None]
