"""What every pipeline does with its proposals: confidence, checks, and several holes one after the other.

Must not know how proposals are made.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from engine.errors import Stop, leave_if
from infill.checks.checks import first_refusal, low_confidence
from infill.checks.context import CheckContext
from infill.complete.confidence import Calibration, evidence_values
from infill.complete.prepared import PreparedRequest, one_hole_requests
from infill.complete.proposals import Proposal
from infill.request import (
    NO_TIME,
    Candidate,
    Evidence,
    Hole,
    HoleCompletion,
    InfillRequest,
    InfillResult,
    OnStep,
    StepView,
)

Complete = Callable[[InfillRequest, OnStep | None, Stop | None], InfillResult]


def judge(
    prepared: PreparedRequest,
    index: int,
    proposal: Proposal,
    evidence: Evidence,
    calibration: Calibration,
    min_confidence: float,
) -> Candidate:
    """The proposal for hole `index` as a candidate, with the reason if it is not to be shown."""
    leave_if(prepared.stop)
    evidence = Evidence(**evidence_values(evidence))
    confidence = calibration.confidence(evidence)
    before, after = prepared.near(index)
    context = CheckContext(
        before=before,
        text=proposal.text,
        after=after,
        language=prepared.language,
        confidence=confidence,
        min_confidence=min(1.0, min_confidence * prepared.request.caution),
        rejected=frozenset(prepared.request.rejected),
        replaced=prepared.replaced(index),
        stop=prepared.stop_parsing,
    )
    reason = first_refusal(context)
    leave_if(prepared.stop)
    return Candidate(
        text=proposal.text.replace("\n", prepared.line_end),
        confidence=round(confidence, 4),
        shown=reason is None,
        reason=reason,
        source=proposal.sources[0],
        tokens=proposal.tokens,
        evidence=evidence,
        refused=reason is not None and low_confidence(context) is None,
    )


def one_after_another(
    complete: Complete, prepared: PreparedRequest, on_step: OnStep | None, stop: Stop | None, started: float
) -> InfillResult:
    """Each hole by a request of its own; shown fillings are part of the text for the holes below.

    Holes that the deadline leaves no time for stay empty, except the first. started: time.perf_counter().
    """
    parts: list[InfillResult] = []
    for request, original in one_hole_requests(prepared):
        if parts and prepared.is_late():
            break
        left = None if prepared.deadline is None else max(1.0, 1000 * (prepared.deadline - time.monotonic()))
        part = complete(replace(request, deadline_ms=left), _of_hole(on_step, len(parts), len(prepared.holes)), stop)
        completion = _with_line_end(part.completions[0], original, prepared.line_end)
        prepared.fillings.append(part.completions[0].text if completion.shown else "")
        parts.append(replace(part, completions=(completion,)))
    stages = parts[0].timings_ms
    timings = {stage: sum(part.timings_ms[stage] for part in parts) for stage in stages}
    return replace(
        parts[0],
        completions=(*(part.completions[0] for part in parts), *map(no_time, prepared.originals[len(parts) :])),
        steps=sum(part.steps for part in parts),
        encoded_tokens=sum(part.encoded_tokens for part in parts),
        hole=sum(part.hole for part in parts),
        timings_ms={**timings, "total": 1000 * (time.perf_counter() - started)},
    )


def no_time(hole: Hole) -> HoleCompletion:
    """The completion of a hole that the model did not reach before the deadline."""
    return HoleCompletion(hole, "", False, NO_TIME, 0.0, ())


def _of_hole(on_step: OnStep | None, hole: int, holes: int) -> OnStep | None:
    """The callback, which gets views with the number of their hole."""
    return None if on_step is None else lambda view: on_step(replace(view, hole=hole, holes=holes))


def until_stopped(on_step: OnStep) -> OnStep:
    """The callback, no longer called once it has returned False."""
    stopped = False

    def step(view: StepView) -> bool:
        nonlocal stopped
        stopped = stopped or on_step(view) is False
        return not stopped

    return step


def _with_line_end(completion: HoleCompletion, hole: Hole, line_end: str) -> HoleCompletion:
    """The completion of `hole`, with `line_end` for "\n"."""
    candidates = tuple(replace(one, text=one.text.replace("\n", line_end)) for one in completion.candidates)
    text = completion.text.replace("\n", line_end)
    return replace(completion, hole=hole, text=text, candidates=candidates)
