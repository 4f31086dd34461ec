"""Requests and results of `/v1/infill` and `/v1/lint` as JSON, both ways: for the service and for its clients.

Imports nothing slow, since every command may be a client. Offsets are characters of the text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from engine.errors import InputError
from infill.api.fields import Flag, ListOf, Number, Object, Text
from infill.findings import Finding, LintRequest
from infill.request import (
    Candidate,
    Evidence,
    Hole,
    HoleCompletion,
    InfillRequest,
    InfillResult,
    Neighbour,
    Piece,
    StepView,
)

NEIGHBOURS = ListOf(Object({"path": Text(most=4096, required=True), "text": Text(required=True)}), most=64)
OFFSET = Number(least=0, whole=True, required=True)
INFILL = Object(
    {
        "text": Text(required=True),
        "holes": ListOf(Object({"start": OFFSET, "end": OFFSET}), most=64, least=1, required=True),
        "language": Text(default=None, most=64),
        "path": Text(default=None, most=4096),
        "lines": Text(default="auto", choices=("one", "block", "auto")),
        "candidates": Number(default=1, least=1, most=32, whole=True),
        "steps": Number(least=1, most=1000, whole=True),
        "seed": Number(default=0, whole=True),
        "deadline_ms": Number(least=1, most=120_000),
        "neighbours": NEIGHBOURS,
        "rejected": ListOf(Text(most=100_000), most=256),
        "caution": Number(default=1.0, least=0, most=100),
        "priority": Text(default="inline", choices=("inline", "lint", "batch")),
        "client": Text(most=256),
        "local": Flag(),
        "any_model": Flag(),
        "stream": Flag(),
        "min_confidence": Number(least=0, most=1),
        "copy_drafts": Flag(default=None),
        "causal_draft": Flag(default=None),
    }
)
FINDING = Object(
    {
        "start": OFFSET,
        "end": OFFSET,
        "code": Text(most=64, required=True),
        "message": Text(most=4096),
        "replacement": Text(most=100_000, required=True),
        "score": Number(default=0.0, least=-1e9, most=1e9),
        "also": ListOf(ListOf(OFFSET, least=2, most=2), most=10_000),
        "explanation": Text(default=None, most=4096),
    }
)
OWN = ("min_confidence", "copy_drafts", "causal_draft")  # settings that a request may bring with it
LINT = Object(
    {
        "text": Text(required=True),
        "language": Text(default=None, most=64),
        "path": Text(default=None, most=4096),
        "ranges": ListOf(Object({"start": OFFSET, "end": OFFSET}), most=10_000),
        "neighbours": NEIGHBOURS,
        "off": ListOf(Text(most=64), most=64),
        "on": ListOf(Text(most=64), most=64),
        "findings": ListOf(FINDING, most=1_000),
        "explain": Flag(),
        "priority": Text(default="lint", choices=("inline", "lint", "batch")),
        "client": Text(most=256),
        "local": Flag(),
        "any_model": Flag(),
    }
)


def request_to_json(request: InfillRequest) -> dict[str, Any]:
    return asdict(request)


def request_from_json(fields: Mapping[str, Any]) -> InfillRequest:
    """From fields as `INFILL` reads them."""
    return InfillRequest(
        text=fields["text"],
        holes=tuple(Hole(**hole) for hole in fields["holes"]),
        language=fields["language"],
        path=fields["path"],
        lines=fields["lines"],
        candidates=fields["candidates"],
        steps=fields["steps"],
        seed=fields["seed"],
        deadline_ms=fields["deadline_ms"],
        neighbours=tuple(Neighbour(**neighbour) for neighbour in fields["neighbours"]),
        rejected=fields["rejected"],
        caution=fields["caution"],
    )


def settings_from_json(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that the request brings with it."""
    return {name: fields[name] for name in OWN if fields[name] is not None}


def result_to_json(result: InfillResult) -> dict[str, Any]:
    return asdict(result)


def result_from_json(value: Mapping[str, Any]) -> InfillResult:
    completions = tuple(
        HoleCompletion(
            **{
                **completion,
                "hole": Hole(**completion["hole"]),
                "candidates": tuple(
                    Candidate(**{**candidate, "evidence": Evidence(**candidate["evidence"])})
                    for candidate in completion["candidates"]
                ),
            }
        )
        for completion in value["completions"]
    )
    return InfillResult(**{**value, "completions": completions})


def step_to_json(view: StepView) -> dict[str, Any]:
    return asdict(view)


def step_from_json(value: Mapping[str, Any]) -> StepView:
    return StepView(value["step"], value["max_steps"], tuple(Piece(**piece) for piece in value["pieces"]))


def lint_request_to_json(request: LintRequest) -> dict[str, Any]:
    ranges = [{"start": start, "end": end} for start, end in request.ranges]
    return {**asdict(request), "ranges": ranges, "off": sorted(request.off), "on": sorted(request.on)}


def lint_request_from_json(fields: Mapping[str, Any]) -> LintRequest:
    """From fields as `LINT` reads them; raises InputError for a range or a finding that is none of the text."""
    text = fields["text"]
    ranges = tuple((one["start"], one["end"]) for one in fields["ranges"])
    findings = tuple(Finding(**one) for one in fields["findings"])
    for start, end in (*ranges, *(place for one in findings for place in one.places)):
        if not start <= end <= len(text):
            raise InputError(f"The range {start}-{end} lies outside the text; send one of its {len(text)} characters.")
    neighbours = tuple(Neighbour(**neighbour) for neighbour in fields["neighbours"])
    off, on = frozenset(fields["off"]), frozenset(fields["on"])
    explain = fields["explain"]
    return LintRequest(text, fields["language"], fields["path"], ranges, neighbours, off, on, findings, explain)


def findings_to_json(findings: Sequence[Finding]) -> dict[str, Any]:
    return {"findings": [asdict(one) for one in findings]}


def findings_from_json(value: Mapping[str, Any]) -> tuple[Finding, ...]:
    return tuple(
        Finding(**{**one, "also": tuple((start, end) for start, end in one.get("also", ()))})
        for one in value["findings"]
    )
