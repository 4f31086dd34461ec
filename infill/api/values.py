"""Requests and results of Gesso's own HTTP API as JSON, in both directions: for the service and its clients.

Imports nothing slow, since every command may be a client. Offsets are characters of the text.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal

from engine.errors import InputError
from infill.edit_request import EditRequest, EditResult
from infill.findings import Finding, LintRequest
from infill.ignore_files import Verdicts
from infill.privacy import private_reason
from infill.request import (
    MOST_CHARACTERS,
    MOST_HOLES,
    Hole,
    InfillRequest,
    InfillResult,
    Lines,
    Neighbour,
    StepView,
)
from infill.validation import Limits, structure

Text = Annotated[str, Limits(most=MOST_CHARACTERS)]
Name = Annotated[str, Limits(most=64)]
Path = Annotated[str, Limits(most=4096)]
Client = Annotated[str, Limits(most=256)]
Offset = Annotated[int, Limits(0, 2**63 - 1)]
Seed = Annotated[int, Limits(0, 2**63 - 1)]
Candidates = Annotated[int, Limits(1, 32)]
Milliseconds = Annotated[float, Limits(1, 120_000)]
Kinds = Annotated[tuple[Name, ...], Limits(most=64)]
_SURROGATES = re.compile("[\ud800-\udfff]")
NEIGHBOURS_S = 0.5  # to judge all neighbours
REQUEST_SETTINGS = ("min_confidence", "copy_drafts", "causal_draft")  # settings that a request may override


@dataclass(frozen=True)
class TextRange:
    """[start, end) of the text."""

    start: Offset
    end: Offset


def readable(neighbours: Iterable[Neighbour]) -> tuple[Neighbour, ...]:
    """Without those that must not be read, since editors send what is open, and without those that there is no time to
    judge. Reads ignore files, so it blocks."""
    end, known = time.monotonic() + NEIGHBOURS_S, Verdicts()
    return tuple(
        one for one in neighbours if time.monotonic() < end and private_reason(FilePath(one.path), known=known) is None
    )


@dataclass(frozen=True, kw_only=True)
class RequestBody:
    """What requests for holes, edits and findings share."""

    text: Text
    language: Name | None = None
    path: Path | None = None
    neighbours: Annotated[tuple[Neighbour, ...], Limits(most=64)] = ()
    priority: Literal["inline", "lint", "batch"] = "inline"
    client: Client = ""
    local: bool = False
    any_model: bool = False


@dataclass(frozen=True, kw_only=True)
class InfillBody(RequestBody):
    """The body of `/v1/infill`."""

    holes: Annotated[tuple[TextRange, ...], Limits(1, MOST_HOLES)]
    lines: Lines = "auto"
    candidates: Candidates = 1
    steps: Annotated[int, Limits(1, 1000)] | None = None
    seed: Seed = 0
    deadline_ms: Milliseconds | None = None
    rejected: Annotated[tuple[Annotated[str, Limits(most=100_000)], ...], Limits(most=256)] = ()
    caution: Annotated[float, Limits(0, 100)] = 1.0
    beginning: bool = False
    stream: bool = False
    min_confidence: Annotated[float, Limits(0, 1)] | None = None
    copy_drafts: bool | None = None
    causal_draft: bool | None = None

    def request(self) -> InfillRequest:
        values = {entry.name: getattr(self, entry.name) for entry in fields(InfillRequest)}
        values["neighbours"] = readable(self.neighbours)
        return InfillRequest(**values | {"holes": tuple(Hole(hole.start, hole.end) for hole in self.holes)})

    def settings(self) -> dict[str, Any]:
        """The settings that the request overrides."""
        return {name: value for name in REQUEST_SETTINGS if (value := getattr(self, name)) is not None}


@dataclass(frozen=True, kw_only=True)
class EditBody(RequestBody):
    """The body of `/v1/edit`."""

    start: Offset
    end: Offset
    instruction: Annotated[str, Limits(most=100_000)]
    candidates: Candidates = 1
    deadline_ms: Milliseconds | None = None
    stream: bool = False

    def request(self) -> EditRequest:
        values = {entry.name: getattr(self, entry.name) for entry in fields(EditRequest)}
        return EditRequest(**values | {"neighbours": readable(self.neighbours)})


@dataclass(frozen=True, kw_only=True)
class FindingBody(Finding):
    """A finding to explain; what does not matter for that may be left out."""

    message: str = ""
    score: float = 0.0


@dataclass(frozen=True, kw_only=True)
class LintBody(RequestBody):
    """The body of `/v1/lint`."""

    priority: Literal["inline", "lint", "batch"] = "lint"
    ranges: Annotated[tuple[TextRange, ...], Limits(most=10_000)] = ()
    off: Kinds = ()
    on: Kinds = ()
    findings: Annotated[tuple[FindingBody, ...], Limits(most=1_000)] = ()
    explain: bool = False
    deadline_ms: Annotated[float, Limits(1, 600_000)] | None = None

    def request(self) -> LintRequest:
        """Raises InputError for a range or a finding outside the text."""
        ranges = tuple((one.start, one.end) for one in self.ranges)
        findings = tuple(Finding(**vars(one)) for one in self.findings)
        for start, end in (*ranges, *(range_ for one in findings for range_ in one.ranges)):
            if not 0 <= start <= end <= len(self.text):
                raise InputError(
                    f"The range {start}-{end} lies outside the text; send one of its {len(self.text)} characters."
                )
        off, on = frozenset(self.off), frozenset(self.on)
        return LintRequest(
            self.text,
            self.language,
            self.path,
            ranges,
            readable(self.neighbours),
            off,
            on,
            findings,
            self.explain,
            self.deadline_ms,
        )


def request_to_json(request: InfillRequest | EditRequest) -> dict[str, Any]:
    """With U+FFFD for lone surrogates, as in file names that are not UTF-8; offsets stay valid."""
    return _whole_characters(asdict(request))


def result_from_json(value: Any) -> InfillResult:
    """Raises InputError, as the next functions do, if `value` has another shape."""
    return structure(InfillResult, value, "result")


def edit_result_from_json(value: Any) -> EditResult:
    return structure(EditResult, value, "result")


def step_from_json(value: Any) -> StepView:
    return structure(StepView, value, "step")


def lint_request_to_json(request: LintRequest) -> dict[str, Any]:
    """As `request_to_json`."""
    ranges = [{"start": start, "end": end} for start, end in request.ranges]
    values = {**asdict(request), "ranges": ranges, "off": sorted(request.off), "on": sorted(request.on)}
    return _whole_characters(values)


def _whole_characters(value: Any) -> Any:
    if isinstance(value, str):
        return _SURROGATES.sub("\ufffd", value)
    if isinstance(value, dict):
        return {name: _whole_characters(one) for name, one in value.items()}
    return [_whole_characters(one) for one in value] if isinstance(value, (list, tuple)) else value


def findings_to_json(findings: Sequence[Finding]) -> dict[str, Any]:
    return {"findings": [asdict(one) for one in findings]}


def findings_from_json(value: Any) -> tuple[Finding, ...]:
    found = value.get("findings") if isinstance(value, Mapping) else None
    return structure(tuple[Finding, ...], found, "findings")
