"""How load is made and summed up, with an asker that needs no service; once against a real one. No time is asserted."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from rich.console import Console

from bench import load as bench
from bench.load import Run, asks, life, load, measure, overhead, service
from infill.completion import Completer
from infill.request import Hole, InfillRequest, InfillResult
from infill.settings import Settings

REQUESTS = [InfillRequest(f"x{number} = \n", (Hole(5, 5),), "python", lines="one") for number in range(6)]
ANSWER = InfillResult((), 1, 1, 1, 1, 1, {}, "none", 0)


class Asker:
    """Answers once all clients of a round are there, so that they must ask at the same time."""

    def __init__(self, clients: int) -> None:
        self.barrier = threading.Barrier(clients)
        self.asked: list[tuple[str, str]] = []

    def __call__(self, name: str, request: InfillRequest) -> InfillResult:
        self.asked.append((name, request.text))
        self.barrier.wait(10)
        return ANSWER


def test_all_clients_ask_at_once_and_each_its_own_requests() -> None:
    asker = Asker(3)
    run = load(asker, REQUESTS, 3, 2)
    assert len(run.milliseconds) == 6 and run.throughput == pytest.approx(6 / run.seconds)
    assert sorted(asker.asked) == sorted((f"client-{n // 2}", REQUESTS[n].text) for n in range(6))


def test_figures_are_of_all_rounds() -> None:
    figures = Run(tuple(float(number) for number in range(1, 101)), 4.0).figures()
    assert figures == {"p50_ms": 50, "p95_ms": 95, "p99_ms": 99, "throughput": 25, "requests": 100}
    ways = {"alone": lambda name, request: ANSWER, "batched": lambda name, request: ANSWER}
    rows = measure(ways, REQUESTS, [1, 4], each=2, rounds=3)
    assert [row["clients"] for row in rows] == [1, 4]
    assert [row["batched"]["requests"] for row in rows] == [6, 24]


def test_the_report_is_written_with_its_conditions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.Report.write, "__defaults__", (tmp_path,))
    monkeypatch.setattr("bench.report.Console", lambda: Console(width=200, quiet=True))
    ways = {"alone": lambda name, request: ANSWER, "batched": lambda name, request: ANSWER}
    rows = measure(ways, REQUESTS, [2], each=1, rounds=1)
    added = {"added_ms": {"median": 2.0}, "engine_ms": {"median": 80.0}}
    taken = {
        "answers_s": 1.0,
        "ready_s": 2.0,
        "first_answer_s": 2.5,
        "idle_cpu_ms_per_s": 0.25,
        "idle_wakes_per_s": 0.1,
    }
    bench.report(rows, added, taken | {"memory_mib": 333.0}, "pocket", 1, 1, "load")
    text = (tmp_path / "load.md").read_text()
    assert "2.5 s to an answer" in text and "0.25 ms of CPU" in text and "333 MiB" in text
    assert "adds 2.0 ms" in text and "| 2 |" in text and "cores" in text
    assert (tmp_path / "load.json").is_file()


@pytest.mark.slow
def test_a_real_service_is_measured(tmp_path: Path) -> None:
    completer = Completer.load(Settings(threads=1))
    with service(tmp_path, "s", "pocket", 1) as place:
        (row,) = measure({"alone": asks(place)}, REQUESTS, [2], each=1, rounds=1)
        added = overhead(place, completer, REQUESTS[:1])
    taken = life(tmp_path, "pocket", REQUESTS[0], idle_s=0.5)
    assert 0 < taken["answers_s"] < taken["ready_s"] < taken["first_answer_s"] and taken["memory_mib"] > 50
    assert row["alone"]["requests"] == 2 and row["alone"]["p50_ms"] > 0
    assert len(added["engine_ms"]["samples"]) == len(added["service_ms"]["samples"]) == 3
