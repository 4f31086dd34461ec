"""Requests and results of `/v1/infill` as JSON, both ways: the service reads and writes them, the client the reverse.

Imports nothing slow, since every command may be a client. Offsets are characters of the text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from infill.api_fields import Flag, ListOf, Number, Object, Text
from infill.confidence import Evidence
from infill.request import Candidate, Hole, HoleCompletion, InfillRequest, InfillResult, Neighbour, Piece, StepView

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
        "neighbours": ListOf(Object({"path": Text(most=4096, required=True), "text": Text(required=True)}), most=64),
        "rejected": ListOf(Text(most=100_000), most=256),
        "caution": Number(default=1.0, least=0, most=100),
        "priority": Text(default="inline", choices=("inline", "lint", "batch")),
        "client": Text(most=256),
        "stream": Flag(),
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
