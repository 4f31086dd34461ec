"""The last requests and what became of each, for "why nothing?" and for bug reports.

A record has no field that could hold code or a file's name. Must not know the protocol.
"""

from __future__ import annotations

import platform
import statistics
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Literal

Outcome = Literal["shown", "nothing", "superseded", "failed"]
LAST = 30
STAGES = ("context", "encode", "denoise", "checks")


@dataclass(frozen=True)
class Record:
    """at: seconds of the epoch; document: a running number; line from 1; times in milliseconds."""

    at: float
    document: int
    language: str | None
    line: int
    outcome: Outcome
    rule: str | None
    sentence: str | None
    rung: str | None
    timings_ms: Mapping[str, float]
    total_ms: float
    characters: int
    confidence: float | None


class Activity:
    """The last `size` records."""

    def __init__(self, size: int = 200) -> None:
        self._records: deque[Record] = deque(maxlen=size)

    def add(self, record: Record) -> None:
        self._records.append(record)

    def last(self, count: int) -> list[Record]:
        """Oldest first."""
        return list(self._records)[-count:]

    def report(self, status: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
        """Markdown to paste in a bug report. `settings`: those that are not as they come."""
        lines = ["## Gesso", ""]
        lines += [f"- {name}: {_version(name)}" for name in ("gesso", "pygls", "torch", "transformers")]
        lines += [f"- Python {platform.python_version()}, {platform.system()} {platform.machine()}"]
        shown = {name: status.get(name) for name in ("model", "state", "enabled", "latencyMs")}
        lines += ["- " + ", ".join(f"{name} {value}" for name, value in shown.items())]
        lines += [
            "- settings: " + (", ".join(f"{name} = {value}" for name, value in settings.items()) or "as they come")
        ]
        lines += ["", *self._percentiles(), "", *self._table(), ""]
        return "\n".join(lines)

    def _percentiles(self) -> list[str]:
        rows = ["| rung | shown | p50 ms | p95 ms |", "|---|---|---|---|"]
        for rung in ("typed", "cache", "remainder", "running", "model"):
            times = [one.total_ms for one in self._records if one.outcome == "shown" and one.rung == rung]
            if times:
                cuts = statistics.quantiles(times, n=20, method="inclusive") if len(times) > 1 else times * 19
                rows.append(f"| {rung} | {len(times)} | {cuts[9]:.0f} | {cuts[18]:.0f} |")
        return rows

    def _table(self) -> list[str]:
        head = ["document", "line", "language", "outcome", "rule", "rung", "characters", "confidence", "ms", *STAGES]
        rows = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        for one in self.last(LAST):
            stages = [f"{one.timings_ms[stage]:.0f}" if stage in one.timings_ms else "" for stage in STAGES]
            confidence = "" if one.confidence is None else f"{one.confidence:.2f}"
            cells = [one.document, one.line, one.language or "", one.outcome, one.rule or "", one.rung or ""]
            cells += [one.characters, confidence, f"{one.total_ms:.0f}", *stages]
            rows.append("| " + " | ".join(str(cell) for cell in cells) + " |")
        return rows


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
