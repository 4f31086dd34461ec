"""Findings in the forms that people and programs read: text, JSON, SARIF, and annotations of GitHub.

Lines and columns count from 1, columns in characters. Must not know how findings come about.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from infill.findings import Finding
from infill.lint.kinds import ALL_KINDS, PAGE, STYLE, help_text, link

SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


@dataclass(frozen=True)
class Place:
    """A finding and where it stands. source: its first line; also: the finding at each further place that changes."""

    path: Path
    finding: Finding
    line: int
    column: int
    end_line: int
    end_column: int
    source: str
    also: tuple[Place, ...] = ()

    @property
    def range(self) -> dict[str, dict[str, int]]:
        """As in JSON."""
        return {
            "start": {"line": self.line, "column": self.column},
            "end": {"line": self.end_line, "column": self.end_column},
        }

    @property
    def region(self) -> dict[str, int]:
        """As in SARIF."""
        return {
            "startLine": self.line,
            "startColumn": self.column,
            "endLine": self.end_line,
            "endColumn": self.end_column,
        }


def places(path: Path, text: str, findings: Sequence[Finding]) -> list[Place]:
    """`findings` of `text`, located."""
    lines = text.split("\n")
    starts = [0, *accumulate(len(line) + 1 for line in lines)][: len(lines)]

    def at(offset: int) -> tuple[int, int]:
        line = bisect_right(starts, offset)
        return line, offset - starts[line - 1] + 1

    def place(one: Finding, start: int, end: int, also: tuple[Place, ...] = ()) -> Place:
        return Place(path, one, *at(start), *at(end), lines[at(start)[0] - 1].rstrip("\r"), also)

    return [place(one, one.start, one.end, tuple(place(one, *more) for more in one.also)) for one in findings]


def as_text(found: Sequence[Place]) -> str:
    """One line for each, below it the code with a mark under what is meant, and the explanation where there is one."""
    parts = []
    for one in found:
        width = (one.end_column if one.end_line == one.line else len(one.source) + 1) - one.column
        before = one.source[: one.column - 1]
        pad = "".join(character if character == "\t" else " " for character in before)
        head = f"{one.path}:{one.line}:{one.column}: {one.finding.code}: {one.finding.message}"
        parts.append(f"{head}\n    {one.source}\n    {pad}{'^' * max(1, width)}\n")
        if one.finding.explanation is not None:
            parts.append(f"    {one.finding.explanation}\n")
    return "".join(parts)


def as_json(found: Sequence[Place]) -> str:
    """A list of objects with path, range, code, message, replacement, score; where there are any, also: the ranges of
    further places that change alike; where there is one, explanation."""
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
    return json.dumps(rows, indent=2, ensure_ascii=False) + "\n"


def as_sarif(found: Sequence[Place], version: str) -> str:
    """SARIF 2.1.0 (OASIS), a run with a fix for each result."""
    rules = [
        {
            "id": kind.code,
            "shortDescription": {"text": kind.title},
            "help": {"text": f"See {PAGE.name}, {kind.code}.", "markdown": help_text(kind.code)},
            "helpUri": link(kind.code),
            "defaultConfiguration": {"level": "note", "enabled": kind.code not in STYLE},
        }
        for kind in ALL_KINDS.values()
    ]
    order = [*ALL_KINDS]
    results = []
    for one in found:
        artifact = {"uri": one.path.as_posix()}
        changes = [
            {"deletedRegion": place.region, "insertedContent": {"text": one.finding.replacement}}
            for place in (one, *one.also)
        ]
        properties: dict[str, Any] = {"score": one.finding.score}
        if one.finding.explanation is not None:
            properties["explanation"] = one.finding.explanation
        results.append(
            {
                "ruleId": one.finding.code,
                "ruleIndex": order.index(one.finding.code),
                "level": "note",
                "message": {"text": _said(one.finding)},
                "locations": [{"physicalLocation": {"artifactLocation": artifact, "region": one.region}}],
                "fixes": [{"artifactChanges": [{"artifactLocation": artifact, "replacements": changes}]}],
                "properties": properties,
            }
        )
    driver = {"name": "gesso", "version": version, "rules": rules}
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return json.dumps({"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2, ensure_ascii=False) + "\n"


def as_github(found: Sequence[Place]) -> str:
    """Workflow commands that GitHub shows beside the lines of a pull request."""
    rows = []
    for one in found:
        where = {
            "file": one.path.as_posix(),
            "line": one.line,
            "endLine": one.end_line,
            "col": one.column,
            "endColumn": one.end_column,
            "title": f"gesso {one.finding.code}",
        }
        properties = ",".join(f"{name}={_escaped(str(value), ':,')}" for name, value in where.items())
        rows.append(f"::notice {properties}::{_escaped(_said(one.finding))}\n")
    return "".join(rows)


def _said(finding: Finding) -> str:
    """The message, and behind it the explanation where there is one."""
    return " ".join(filter(None, (finding.message, finding.explanation)))


def _escaped(text: str, more: str = "") -> str:
    for character in "%\r\n" + more:
        text = text.replace(character, f"%{ord(character):02X}")
    return text
