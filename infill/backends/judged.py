"""Texts that a server wrote for a hole, judged in their place as those of a model here are.

Must not know any server.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from infill.checks.checks import first_refusal
from infill.checks.context import CheckContext
from infill.checks.parse import cut_back, parse_worse
from infill.complete.prepared import PreparedRequest
from infill.request import Candidate, HoleCompletion, InfillResult


@dataclass(frozen=True)
class Written:
    """confidence: the mean probability of its tokens, geometric; 1 where the server does not tell it."""

    text: str
    tokens: int
    confidence: float


@dataclass(frozen=True)
class Spent:
    """What a result says of how it came about. started: time.perf_counter()."""

    model: str
    started: float
    steps: int = 0
    prompt_tokens: int = 0
    canvas: int = 0


def judged(work: PreparedRequest, written: Sequence[Written], spent: Spent) -> InfillResult:
    """The result for the one hole of `work`, the best text first; one that breaks the parse is cut back."""
    answered = time.perf_counter()
    distinct = {one.text: one for one in reversed(written)}
    found = [_candidate(work, one) for one in written if distinct[one.text] is one]
    candidates = tuple(sorted(found, key=lambda one: (not one.shown, -one.confidence)))
    best = candidates[0]
    completion = HoleCompletion(work.originals[0], best.text, best.shown, best.reason, best.confidence, candidates)
    now = time.perf_counter()
    timings = {
        "context": 0.0,
        "encode": 0.0,
        "denoise": 1000 * (answered - spent.started),
        "checks": 1000 * (now - answered),
        "total": 1000 * (now - spent.started),
    }
    return InfillResult(
        completions=(completion,),
        steps=spent.steps,
        prompt_tokens=spent.prompt_tokens,
        encoded_tokens=spent.prompt_tokens,
        canvas=spent.canvas,
        hole=best.tokens,
        timings_ms=timings,
        model=spent.model,
        seed=work.request.seed,
    )


def _candidate(work: PreparedRequest, written: Written) -> Candidate:
    before, after = work.near(0)
    text = written.text
    if text.strip() and parse_worse(CheckContext(before, text, after, work.language)):
        shorter = cut_back(before, text, after, work.language, work.stop)
        text = shorter if shorter.strip() else text
    context = CheckContext(
        before=before,
        text=text,
        after=after,
        language=work.language,
        confidence=written.confidence,
        rejected=frozenset(work.request.rejected),
        replaced=work.replaced(0),
    )
    reason = first_refusal(context)
    shown = text.replace("\n", work.line_end)
    return Candidate(shown, round(written.confidence, 4), reason is None, reason, "model", written.tokens)
