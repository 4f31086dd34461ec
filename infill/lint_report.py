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
from infill.lint_kinds import KINDS

SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


@dataclass(frozen=True)
class Place:
    """A finding and where it stands."""

    path: Path
    finding: Finding
    line: int
    column: int
    end_line: int
    end_column: int
    source: str  # its first line


def places(path: Path, text: str, findings: Sequence[Finding]) -> list[Place]:
    """`findings` of `text`, located."""
    lines = text.split("\n")
    starts = [0, *accumulate(len(line) + 1 for line in lines)][: len(lines)]

    def at(offset: int) -> tuple[int, int]:
        line = bisect_right(starts, offset)
        return line, offset - starts[line - 1] + 1

    return [
        Place(path, one, *at(one.start), *at(one.end), lines[at(one.start)[0] - 1].rstrip("\r")) for one in findings
    ]


def as_text(found: Sequence[Place]) -> str:
    """One line for each, and below it the code with a mark under what is meant."""
    parts = []
    for one in found:
        width = (one.end_column if one.end_line == one.line else len(one.source) + 1) - one.column
        before = one.source[: one.column - 1]
        pad = "".join(character if character == "\t" else " " for character in before)
        head = f"{one.path}:{one.line}:{one.column}: {one.finding.code}: {one.finding.message}"
        parts.append(f"{head}\n    {one.source}\n    {pad}{'^' * max(1, width)}\n")
    return "".join(parts)


def as_json(found: Sequence[Place]) -> str:
    """A list of objects with path, range, code, message, replacement, score."""
    rows: list[dict[str, Any]] = [
        {
            "path": one.path.as_posix(),
            "range": {
                "start": {"line": one.line, "column": one.column},
                "end": {"line": one.end_line, "column": one.end_column},
            },
            "code": one.finding.code,
            "message": one.finding.message,
            "replacement": one.finding.replacement,
            "score": one.finding.score,
        }
        for one in found
    ]
    return json.dumps(rows, indent=2, ensure_ascii=False) + "\n"


def as_sarif(found: Sequence[Place], version: str) -> str:
    """SARIF 2.1.0 (OASIS), a run with a fix for each result."""
    rules = [
        {"id": kind.code, "shortDescription": {"text": kind.title}, "defaultConfiguration": {"level": "note"}}
        for kind in KINDS.values()
    ]
    order = [*KINDS]
    results = []
    for one in found:
        region = {
            "startLine": one.line,
            "startColumn": one.column,
            "endLine": one.end_line,
            "endColumn": one.end_column,
        }
        artifact = {"uri": one.path.as_posix()}
        change = {"deletedRegion": region, "insertedContent": {"text": one.finding.replacement}}
        results.append(
            {
                "ruleId": one.finding.code,
                "ruleIndex": order.index(one.finding.code),
                "level": "note",
                "message": {"text": one.finding.message},
                "locations": [{"physicalLocation": {"artifactLocation": artifact, "region": region}}],
                "fixes": [{"artifactChanges": [{"artifactLocation": artifact, "replacements": [change]}]}],
                "properties": {"score": one.finding.score},
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
        rows.append(f"::notice {properties}::{_escaped(one.finding.message)}\n")
    return "".join(rows)


def _escaped(text: str, more: str = "") -> str:
    for character in "%\r\n" + more:
        text = text.replace(character, f"%{ord(character):02X}")
    return text
