"""Checks the texts that a server generated for a hole, as the service checks those of its own model.

Must not know any server.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from infill.checks.checks import first_refusal
from infill.checks.context import CheckContext
from infill.checks.parse import cut_back, parse_worse
from infill.complete.prepared import PreparedRequest
from infill.request import Candidate, HoleCompletion, InfillResult
from infill.validation import Limits

LogProbability = Annotated[float, Limits(-1e9, 1.0)]  # nats; above 0 only by rounding


@dataclass(frozen=True)
class Generated:
    """confidence: the geometric mean of its tokens' probabilities; 1 if the server does not report them."""

    text: str
    tokens: int
    confidence: float


@dataclass(frozen=True)
class RunStats:
    """The statistics of a result. started: time.perf_counter()."""

    model: str
    started: float
    steps: int = 0
    prompt_tokens: int = 0
    canvas: int = 0


def checked_result(work: PreparedRequest, generated: Sequence[Generated], stats: RunStats) -> InfillResult:
    """The result for the only hole of `work`, the best text first. A text that breaks the parse is shortened."""
    finished = time.perf_counter()
    distinct = {one.text: one for one in reversed(generated)}
    found = [_candidate(work, one) for one in generated if distinct[one.text] is one]
    candidates = tuple(sorted(found, key=lambda one: (not one.shown, -one.confidence)))
    best = candidates[0]
    completion = HoleCompletion(work.originals[0], best.text, best.shown, best.reason, best.confidence, candidates)
    now = time.perf_counter()
    timings = {
        "context": 0.0,
        "encode": 0.0,
        "denoise": 1000 * (finished - stats.started),
        "checks": 1000 * (now - finished),
        "total": 1000 * (now - stats.started),
    }
    return InfillResult(
        completions=(completion,),
        steps=stats.steps,
        prompt_tokens=stats.prompt_tokens,
        encoded_tokens=stats.prompt_tokens,
        canvas=stats.canvas,
        hole=best.tokens,
        timings_ms=timings,
        model=stats.model,
        seed=work.request.seed,
    )


def _candidate(work: PreparedRequest, generated: Generated) -> Candidate:
    before, after = work.near(0)
    text = work.until_next_line(0, generated.text)
    if text.strip() and parse_worse(CheckContext(before, text, after, work.language, stop=work.stop_parsing)):
        shorter = cut_back(before, text, after, work.language, work.stop, work.stop_parsing)
        text = shorter if shorter.strip() else text
    context = CheckContext(
        before=before,
        text=text,
        after=after,
        language=work.language,
        confidence=generated.confidence,
        rejected=frozenset(work.request.rejected),
        replaced=work.replaced(0),
        stop=work.stop_parsing,
    )
    reason = first_refusal(context)
    shown = text.replace("\n", work.line_end)
    return Candidate(shown, round(generated.confidence, 4), reason is None, reason, "model", generated.tokens)
