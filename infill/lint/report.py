"""Output formats for findings: text, JSON, SARIF, and GitHub annotations.

Lines and columns count from 1, columns in characters. Must not know how findings are made.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any
from urllib.parse import quote

from infill.findings import Finding
from infill.lint.coverage import Coverage
from infill.lint.kinds import ALL_KINDS, ON_BY_DEFAULT, PAGE, help_text, link
from infill.printable import json_text, one_line, printable, visible

SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


@dataclass(frozen=True)
class LocatedFinding:
    """A finding with its position in a file. source: its first line. also: the same finding at each other range."""

    path: Path
    finding: Finding
    line: int
    column: int
    end_line: int
    end_column: int
    source: str
    also: tuple[LocatedFinding, ...] = ()

    @property
    def range(self) -> dict[str, dict[str, int]]:
        """The position as JSON."""
        return {
            "start": {"line": self.line, "column": self.column},
            "end": {"line": self.end_line, "column": self.end_column},
        }

    @property
    def region(self) -> dict[str, int]:
        """The position as a SARIF region."""
        return {
            "startLine": self.line,
            "startColumn": self.column,
            "endLine": self.end_line,
            "endColumn": self.end_column,
        }


def locate(path: Path, text: str, findings: Sequence[Finding]) -> list[LocatedFinding]:
    """`findings` of `text`, with lines and columns."""
    lines = text.split("\n")
    starts = [0, *accumulate(len(line) + 1 for line in lines)][: len(lines)]

    def position(offset: int) -> tuple[int, int]:
        line = bisect_right(starts, offset)
        return line, offset - starts[line - 1] + 1

    def located(finding: Finding, start: int, end: int, also: tuple[LocatedFinding, ...] = ()) -> LocatedFinding:
        source = lines[position(start)[0] - 1].rstrip("\r")
        return LocatedFinding(path, finding, *position(start), *position(end), source, also)

    return [located(one, one.start, one.end, tuple(located(one, *range_) for range_ in one.also)) for one in findings]


def as_text(found: Sequence[LocatedFinding]) -> str:
    """For each finding a line, the code with the finding underlined, and the explanation if there is one."""
    parts = []
    for one in found:
        end = one.end_column - 1 if one.end_line == one.line else len(one.source)
        before, marked = visible(one.source[: one.column - 1]), visible(one.source[one.column - 1 : end])
        pad = "".join(character if character == "\t" else " " for character in before)
        place = f"{one_line(str(one.path))}:{one.line}:{one.column}"
        parts.append(f"{place}: {one.finding.code}: {one_line(one.finding.message)}\n")
        parts.append(f"    {one.source}\n    {pad}{'^' * max(1, len(marked))}\n")
        if one.finding.explanation is not None:
            parts.append(f"    {one.finding.explanation}\n")
    return printable("".join(parts))


def as_json(found: Sequence[LocatedFinding], coverage: Coverage) -> str:
    """An object with `findings`, `judgedFiles`, `notJudged` and `kindsOff`.

    A finding has path, range, code, message, replacement and score. Optional: `also`, other ranges that get the same
    replacement, and `explanation`.
    """
    rows: list[dict[str, Any]] = []
    for one in found:
        row = {
            "path": one.path.as_posix(),
            "range": one.range,
            "code": one.finding.code,
            "message": one.finding.message,
            "replacement": one.finding.replacement,
            "score": one.finding.score,
        }
        if one.also:
            row["also"] = [more.range for more in one.also]
        if one.finding.explanation is not None:
            row["explanation"] = one.finding.explanation
        rows.append(row)
    not_judged = [
        {"path": one.path.as_posix(), "reason": one.reason, "language": one.detail, "inPart": one.part}
        for one in coverage.not_judged
    ]
    content = {
        "findings": rows,
        "judgedFiles": coverage.judged,
        "notJudged": not_judged,
        "kindsOff": list(coverage.kinds_off),
    }
    return json_text(content, indent=2)


def as_sarif(found: Sequence[LocatedFinding], version: str, coverage: Coverage) -> str:
    """SARIF 2.1.0 (OASIS): one run, with a fix for each result, and a notification for what was not judged."""
    rules = [
        {
            "id": kind.code,
            "shortDescription": {"text": kind.title},
            "help": {"text": f"See {PAGE.name}, {kind.code}.", "markdown": help_text(kind.code)},
            "helpUri": link(kind.code),
            "defaultConfiguration": {"level": "note", "enabled": kind.code in ON_BY_DEFAULT},
        }
        for kind in ALL_KINDS.values()
    ]
    order = [*ALL_KINDS]
    results = []
    for one in found:
        artifact = {"uri": _uri(one.path)}
        changes = [
            {"deletedRegion": located.region, "insertedContent": {"text": one.finding.replacement}}
            for located in (one, *one.also)
        ]
        properties: dict[str, Any] = {"score": one.finding.score}
        if one.finding.explanation is not None:
            properties["explanation"] = one.finding.explanation
        results.append(
            {
                "ruleId": one.finding.code,
                "ruleIndex": order.index(one.finding.code),
                "level": "note",
                "message": {"text": _message(one.finding)},
                "locations": [{"physicalLocation": {"artifactLocation": artifact, "region": one.region}}],
                "fixes": [{"artifactChanges": [{"artifactLocation": artifact, "replacements": changes}]}],
                "properties": properties,
            }
        )
    notifications: list[dict[str, Any]] = [
        {
            "level": "note",
            "message": {"text": f"Not judged{' in part' * one.part}: {one.reason}."},
            "locations": [{"physicalLocation": {"artifactLocation": {"uri": _uri(one.path)}}}],
        }
        for one in coverage.not_judged
    ]
    if sentence := coverage.sentence():
        notifications.append({"level": "note", "message": {"text": sentence}})
    invocation = {"executionSuccessful": True, "toolExecutionNotifications": notifications}
    driver = {"name": "gesso", "version": version, "rules": rules}
    run: dict[str, Any] = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    run["invocations"] = [invocation]
    return json_text({"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2)


def as_github(found: Sequence[LocatedFinding]) -> str:
    """Workflow commands, which GitHub shows as annotations in a pull request.

    Escaped like `escapeData` and `escapeProperty` of https://github.com/actions/toolkit (packages/core, command.ts).
    """
    rows = []
    for one in found:
        parameters = {
            "file": one.path.as_posix(),
            "line": one.line,
            "endLine": one.end_line,
            "col": one.column,
            "endColumn": one.end_column,
            "title": f"gesso {one.finding.code}",
        }
        properties = ",".join(f"{name}={_escaped(str(value), ':,')}" for name, value in parameters.items())
        rows.append(f"::notice {properties}::{_escaped(_message(one.finding))}\n")
    return "".join(rows)


def _message(finding: Finding) -> str:
    """The message, followed by the explanation if there is one."""
    return " ".join(filter(None, (finding.message, finding.explanation)))


def _uri(path: Path) -> str:
    """A URI (RFC 3986) of the bytes of the path: `file://…` if it is absolute, else a relative reference."""
    return path.as_uri() if path.is_absolute() else quote(os.fsencode(path.as_posix()))


def _escaped(text: str, more: str = "") -> str:
    text = visible(text)
    for character in "%\r\n" + more:
        text = text.replace(character, f"%{ord(character):02X}")
    return text
