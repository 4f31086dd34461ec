"""A very short day against a real service: snapshots, and the number of requests."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.service import day as bench
from bench.service.day import Snapshot, day, report
from bench.service.load import service
from bench.typed_lines import Source, TypedLine
from infill.service.client import ServiceClient

LINE = "value = compute(first, second, third)\n"
LINES = [TypedLine(Source(f"{n}.py", f"# {n}\n{LINE}", "python"), 4, 4 + len(LINE) - 1, 8) for n in range(3)]


def test_the_report_has_every_snapshot_and_its_conditions(tmp_path: Path) -> None:
    seen = [Snapshot(0, 0.0, 300.0, 0.0, 2, 300.0), Snapshot(100, 60.0, 480.0, 127.0, 9, 512.0)]
    report(seen, "pocket", 2).write("day", tmp_path)
    text = (tmp_path / "day.md").read_text()
    assert "| 100 | 60 | 512 | 480 | 127 |" in text and "2 steps per canvas" in text and "at most 9 threads" in text


@pytest.mark.slow
def test_a_short_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "IDLE_S", 0.1)
    monkeypatch.setattr(bench, "LINT_EVERY", 4)
    monkeypatch.setattr(bench, "CANCEL_EVERY", 100)
    seen: list[Snapshot] = []
    with service(tmp_path, "s", "pocket", None) as location:
        day(location, LINES, 12, 8, 1, seen)
        counts = ServiceClient(location).metrics()
    assert [one.requests for one in seen] == [0, 8, 12]
    assert all(one.memory_mib > 50 and one.threads > 1 for one in seen) and seen[-1].kept_mib > 0
    assert sum(int(line.split()[1]) for line in counts.splitlines() if line.startswith("gesso_requests_total")) == 15
