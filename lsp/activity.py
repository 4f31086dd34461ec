"""The last requests and their outcomes, for "why nothing?" and for bug reports.

A record has no field for code or file names. Its only free text, the sentence for the user, may name a model's folder
and is left out of reports. Must not know the protocol.
"""

from __future__ import annotations

import platform
import re
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import Field, dataclass, fields
from typing import Any, Literal, get_args

from infill.statistics import latency, plain_model
from infill.version import installed_version
from lsp.settings import LspSettings, may_hold_text
from lsp.suggestions import Origin

Outcome = Literal["shown", "nothing", "superseded", "failed"]
LAST = 30  # requests listed in a report
STAGES = ("context", "encode", "denoise", "checks")
_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


@dataclass(frozen=True)
class Record:
    """at: seconds since the epoch; document: a number; line: from 1; times in milliseconds.

    language: an id of `infill.code.languages`. rule: why nothing was suggested; sentence: the same, for the user alone.
    """

    at: float
    document: int
    language: str | None
    line: int
    outcome: Outcome
    rule: str | None
    sentence: str | None
    origin: Origin | None
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
        """The last records, oldest first."""
        return list(self._records)[max(0, len(self._records) - count) :]

    def report(self, status: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
        """Markdown to paste into a bug report.

        status: the result of the command `gesso.status`. settings: those that differ from their defaults, by their
        names in `LspSettings`; a value that may hold the user's own words is shown as "changed".
        """
        model, latency_ms = status.get("model"), status.get("latencyMs")
        lines = ["## Gesso", ""]
        lines += [f"- {name}: {installed_version(name)}" for name in ("gesso", "pygls", "torch", "transformers")]
        lines += [
            f"- Python {platform.python_version()}, {platform.system()} {platform.release()} {platform.machine()}"
        ]
        lines += [f"- model: {plain_model(model) if model else 'none'}, {status.get('state')}"]
        lines += [f"- enabled: {_shown(status.get('enabled'))}"]
        lines += [f"- latest answer: {latency_ms:.0f} ms" if latency_ms is not None else "- latest answer: none yet"]
        known = [entry for entry in fields(LspSettings) if entry.name in settings]
        changed = [f"{entry.name} {_setting(entry, settings[entry.name])}" for entry in known]
        lines += [f"- settings: {', '.join(changed) or 'defaults'}"]
        lines += ["", *self._percentiles(), "", *self._outcomes(), "", *self._requests(), ""]
        return "\n".join(lines)

    def _percentiles(self) -> list[str]:
        """Latency by origin of what was shown, including the wait for a pause in typing."""
        rows = []
        for origin in get_args(Origin):
            times = [one.total_ms for one in self._records if one.outcome == "shown" and one.origin == origin]
            if times:
                found = latency(times)
                rows.append((origin, found.shown, *(f"{time:.0f}" for time in (found.p50, found.p95, found.p99))))
        return _table(("shown by origin", "count", "p50 ms", "p95 ms", "p99 ms"), rows)

    def _outcomes(self) -> list[str]:
        counted = Counter((one.outcome, one.rule or "") for one in self._records)
        rows = [(outcome, rule, number) for (outcome, rule), number in counted.most_common()]
        return _table(("outcome", "rule", f"count in the last {len(self._records)}"), rows)

    def _requests(self) -> list[str]:
        """The last requests, newest last. s ago: seconds before the newest."""
        records = self.last(LAST)
        head = ("s ago", "document", "line", "language", "outcome", "rule", "origin", "characters", "confidence", "ms")
        rows = []
        for one in records:
            stages = [f"{one.timings_ms[stage]:.0f}" if stage in one.timings_ms else "" for stage in STAGES]
            confidence = "" if one.confidence is None else f"{one.confidence:.2f}"
            request = (f"{records[-1].at - one.at:.1f}", one.document, one.line, one.language or "")
            result = (one.outcome, one.rule or "", one.origin or "", one.characters, confidence, f"{one.total_ms:.0f}")
            rows.append((*request, *result, *stages))
        return _table((*head, *STAGES), rows)


def _table(head: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> list[str]:
    lines = [head, ("---",) * len(head), *rows]
    return ["| " + " | ".join(str(cell) for cell in line) + " |" for line in lines]


def _setting(entry: Field[Any], value: Any) -> str:
    """The value if it is one of a fixed set; "changed" if it may hold the user's own words."""
    if entry.name == "model" and value:
        return plain_model(value)
    is_fixed = not may_hold_text(entry.name)
    return _shown(value) if is_fixed or (entry.name == "device" and _DEVICE.fullmatch(str(value))) else "changed"


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
