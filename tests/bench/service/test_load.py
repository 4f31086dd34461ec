"""Load and its summary with a fake service, and once with a real one. No time is asserted."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench.report import Spread
from bench.service import load as bench
from bench.service.load import Found, Run, life, load, measure, overhead, report, rows, sender, service
from bench.typed_lines import Source, TypedLine
from infill.request import InfillRequest, InfillResult
from tests.infill.fakes import load_completer
from tests.waiting import PATIENCE_S

LINE = "value = compute(first, second, third)\n"
LINES = [TypedLine(Source(f"{n}.py", f"# {n}\n{LINE}", "python"), 4, 4 + len(LINE) - 1, 8) for n in range(6)]
ANSWER = InfillResult((), 1, 1, 1, 1, 1, {}, "none", 0)


class FakeService:
    """Responds once all clients of a round have sent a request, so they must do so at the same time."""

    def __init__(self, clients: int) -> None:
        self.barrier = threading.Barrier(clients)
        self.requests: list[tuple[str, InfillRequest]] = []

    def __call__(self, name: str, request: InfillRequest) -> InfillResult:
        self.requests.append((name, request))
        self.barrier.wait(PATIENCE_S)
        return ANSWER


def never_waits(name: str, request: InfillRequest) -> InfillResult:
    return ANSWER


def test_all_clients_start_together_and_each_types_on_its_own_line() -> None:
    fake = FakeService(3)
    run = load(fake, LINES, 3, 6)
    assert len(run.milliseconds) == 6 and run.throughput == pytest.approx(6 / run.seconds)
    for number in range(3):
        sent = [request for name, request in fake.requests if name == f"client-{number}"]
        assert sent == [LINES[number].request(more) for more in range(3)]


@pytest.mark.parametrize(("clients", "total", "answers"), [(1, 5, 5), (4, 6, 6), (6, 2, 6)])
def test_every_number_of_clients_gets_the_same_total_and_each_client_one(
    clients: int, total: int, answers: int
) -> None:
    assert len(load(never_waits, LINES, clients, total).milliseconds) == answers


def test_a_failing_client_ends_the_run_with_the_reason() -> None:
    def refuses(name: str, request: InfillRequest) -> InfillResult:
        if name == "client-1":
            raise ValueError("too much to do")
        return ANSWER

    with pytest.raises((ValueError, threading.BrokenBarrierError)):
        load(refuses, LINES, 3, 3)


def test_figures_cover_all_rounds() -> None:
    figures = Run(tuple(float(number) for number in range(1, 101)), 4.0).figures()
    assert figures == {"p50_ms": 50, "p95_ms": 95, "p99_ms": 99, "throughput": 25, "requests": 100}
    taken = measure({"alone": never_waits, "batched": never_waits}, LINES, 4, 8, rounds=3)
    assert [figures["requests"] for figures in taken.values()] == [24, 24]


def found() -> Found:
    spread = Spread.of([1.0, 2.0, 3.0])
    taken = measure({"alone": never_waits, "batched": never_waits}, LINES, 2, 2, rounds=1)
    return Found(
        life={
            "answers_s": 1.0,
            "ready_s": 2.0,
            "first_answer_s": 2.5,
            "idle_cpu_s_per_minute": 0.25,
            "idle_wakes_per_minute": 3.0,
            "memory_mib": 333.0,
        },
        overhead={"added_ms": spread, "engine_ms": spread, "outside_ms": Spread.of([0.5])},
        rows={"in_flight": spread, "one_by_one": spread, "ratio": Spread.of([1.5])},
        load=[{"clients": 2, **taken, "memory_mib": 444.0, "machine_load": 1.5}],
    )


def test_the_report_is_written_with_its_conditions(tmp_path: Path) -> None:
    report(found(), "pocket", 1, 1).write("load", tmp_path)
    text = (tmp_path / "load.md").read_text()
    assert (
        "2.5 s until a completion" in text and "0.250 s of CPU" in text and "333 MiB" in text and "1.50 times" in text
    )
    assert "adds 0.5 (0.5–0.5) ms" in text and "2.0 (1.5–2.5) ms to 2.0" in text
    assert "| 2 |" in text and "| 444 | 1.5 |" in text and "cores" in text
    assert (tmp_path / "load.json").is_file()


def test_an_interrupted_run_keeps_its_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(so_far: Found, *_: Any) -> None:
        so_far.load = found().load
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "_measure_all", interrupted)
    monkeypatch.setattr(bench.Report.write, "__defaults__", (tmp_path,))
    monkeypatch.setattr("bench.report.Console", lambda: Console(width=200, quiet=True))
    bench.main(corpus=None, model="pocket", clients=[2], requests=2, rounds=1, write="load")
    text = (tmp_path / "load.md").read_text()
    assert "| 2 |" in text and "until a completion" not in text


@pytest.mark.slow
def test_a_real_service_is_measured(tmp_path: Path) -> None:
    completer = load_completer(threads=1)
    with service(tmp_path, "s", "pocket", 1) as location:
        figures = measure({"alone": sender(location)}, LINES, 2, 2, rounds=1)["alone"]
        added = overhead(location, completer, [LINES[0].request(0)], 3)
        batch = rows(location, LINES, 3, 1)
    taken = life(tmp_path, "pocket", LINES[0].request(0), idle_s=0.5)
    assert 0 < taken["answers_s"] < taken["ready_s"] < taken["first_answer_s"] and taken["memory_mib"] > 50
    assert figures["requests"] == 2 and figures["p50_ms"] > 0
    assert len(added["engine_ms"].samples) == len(added["service_ms"].samples) == 3
    assert added["outside_ms"].median < added["service_ms"].median
    assert batch["one_by_one"].median > 0 and batch["ratio"].median > 0
