"""The service under load: response time and throughput by number of clients, overhead, idle cost, start.

`python -m bench.service.load` lets each client type in a file of its own: send a request, wait for the response, type
the next character. All numbers of clients have the same total of requests, at least one per client. The requests go in
turns to a service that steps canvases together and to one that does not. The overhead of the service is measured with
one client against the same model in this process; the gain for rows with as many requests in flight as `gesso batch`
has; start and idle cost with a separate service. Ctrl-C ends the run and keeps the results so far. Must not judge the
completions.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
from rich.console import Console

from bench.report import Report, Spread, conditions, percentile, ratios
from bench.typed_lines import ROOT, TypedLine, sources, typed_lines
from infill.complete.completion import Completer
from infill.complete.loaded_model import LoadedModel
from infill.engine_protocol import PriorityName
from infill.request import InfillRequest, InfillResult
from infill.service.client import IN_FLIGHT, ServiceClient
from infill.service.location import ServiceLocation, location_at, lock_holder
from infill.service.start import stop_service
from infill.settings import Settings
from train.program import reports_errors

CLIENTS = (1, 2, 4, 8, 16, 32, 64)
REQUESTS = 32
IDLE_S = 60.0
SETTLE_S = 5.0  # until background work after the last response has ended
SHARES = (0.5, 0.95, 0.99)
KEYS = 8  # characters typed on a line, one per request, before they repeat
Send = Callable[[str, InfillRequest], InfillResult]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Run:
    """milliseconds: of every response. seconds: from the first request to the last response."""

    milliseconds: tuple[float, ...]
    seconds: float

    @property
    def throughput(self) -> float:
        """Responses per second."""
        return len(self.milliseconds) / self.seconds

    def figures(self) -> dict[str, float]:
        times = {f"p{100 * share:g}_ms": percentile(self.milliseconds, share) for share in SHARES}
        return {**times, "throughput": self.throughput, "requests": len(self.milliseconds)}


@dataclass
class Found:
    """The results so far. load: one row per number of clients."""

    life: dict[str, float] = field(default_factory=dict)
    overhead: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, Any] = field(default_factory=dict)
    load: list[dict[str, Any]] = field(default_factory=list)


@contextmanager
def service(folder: Path, name: str, model: str, batch: int | None) -> Iterator[ServiceLocation]:
    """A separate service that is ready; it is stopped at the end."""
    location = location_at(folder / name / "gesso.sock")
    options = ["--model", model, "--idle-minutes", "60", *(["--batch", str(batch)] if batch else [])]
    ServiceClient(location, arguments=options).connect()
    try:
        yield location
    finally:
        stop_service(location)


def load(send: Send, lines: Sequence[TypedLine], clients: int, total: int) -> Run:
    """`total` requests, at least one per client, distributed round-robin over clients that start at the same time.

    The first request of each client is not timed, since it encodes the prompt.
    """
    total, together, ended = max(total, clients), threading.Barrier(clients + 1), threading.Event()

    def one(number: int) -> list[float]:
        line, times = lines[number % len(lines)], []
        try:
            send(f"client-{number}", line.request(0))
        except BaseException:
            together.abort()
            raise
        together.wait()
        for turn in range(len(range(number, total, clients))):
            if ended.is_set():
                break
            started = time.perf_counter()
            send(f"client-{number}", line.request(1 + turn % KEYS))
            times.append(1000 * (time.perf_counter() - started))
        return times

    with ThreadPoolExecutor(clients) as threads:
        running = [threads.submit(one, number) for number in range(clients)]
        try:
            with suppress(threading.BrokenBarrierError):  # the failed client raises the reason
                together.wait()
            started = time.perf_counter()
            times = [spent for future in running for spent in future.result()]
        finally:
            ended.set()
            together.abort()
    return Run(tuple(times), time.perf_counter() - started)


def sender(location: ServiceLocation, priority: PriorityName = "inline") -> Send:
    """A function that sends a request to the service at `location`."""
    return lambda name, request: ServiceClient(location, name=name, priority=priority).complete(request)


def measure(
    services: dict[str, Send], lines: Sequence[TypedLine], clients: int, total: int, rounds: int
) -> dict[str, dict[str, float]]:
    """The figures of every service over all rounds. The services take turns."""
    runs: dict[str, list[Run]] = {name: [] for name in services}
    for _ in range(rounds):
        for name, send in services.items():
            runs[name].append(load(send, lines, clients, total))
    return {
        name: Run(tuple(ms for run in taken for ms in run.milliseconds), sum(run.seconds for run in taken)).figures()
        for name, taken in runs.items()
    }


def rows(location: ServiceLocation, lines: Sequence[TypedLine], count: int, rounds: int) -> dict[str, Any]:
    """Responses per second for `count` rows with the priority of a batch: one by one, and with as many in flight as
    `gesso batch` has; and the ratio, round by round in turns."""
    taken: dict[int, list[float]] = {1: [], IN_FLIGHT: []}
    send = sender(location, "batch")
    for _ in range(rounds):
        for in_flight, found in taken.items():
            with ThreadPoolExecutor(in_flight) as threads:
                started = time.perf_counter()
                requests = [lines[number % len(lines)].request(number // len(lines)) for number in range(count)]
                list(threads.map(partial(send, "rows"), requests))
                found.append(count / (time.perf_counter() - started))
    return {
        "one_by_one": Spread.of(taken[1]),
        "in_flight": Spread.of(taken[IN_FLIGHT]),
        "ratio": ratios(taken[IN_FLIGHT], taken[1]),
    }


def overhead(
    location: ServiceLocation, completer: Completer, requests: Sequence[InfillRequest], repeats: int
) -> dict[str, Any]:
    """The same requests to the service and in this process, in turns: ms of each, their ratio, and the difference.

    outside_ms: the difference without the stages context, prompt, steps and checks. These take the same time in both
    except for load on the machine, which is much more than the overhead of a service.
    """
    times: dict[str, list[float]] = {"engine": [], "service": []}
    outside: dict[str, list[float]] = {"engine": [], "service": []}

    def measure_one(name: str, complete: Callable[[InfillRequest], InfillResult], request: InfillRequest) -> None:
        started = time.perf_counter()
        stages = complete(request).timings_ms
        taken = 1000 * (time.perf_counter() - started)
        times[name].append(taken)
        outside[name].append(taken - sum(spent for stage, spent in stages.items() if stage != "total"))

    by_service = partial(sender(location), "one")
    in_process = partial(completer.complete, stop=_never)
    for request in requests:
        for complete in (in_process, by_service):  # encode the prompt before the timed requests
            complete(request)
        for _ in range(repeats):
            measure_one("engine", in_process, request)
            measure_one("service", by_service, request)
    added = [one - other for one, other in zip(times["service"], times["engine"], strict=True)]
    outer = [one - other for one, other in zip(outside["service"], outside["engine"], strict=True)]
    return {
        "engine_ms": Spread.of(times["engine"]),
        "service_ms": Spread.of(times["service"]),
        "added_ms": Spread.of(added),
        "outside_ms": Spread.of(outer),
        "ratio": ratios(times["service"], times["engine"]),
    }


def life(folder: Path, model: str, request: InfillRequest, idle_s: float = IDLE_S) -> dict[str, float]:
    """Seconds from the start of a separate service until it responds, until its model is ready, until a completion.

    Then CPU seconds and wake-ups per idle minute, and its memory in MiB.
    """
    location = location_at(folder / "life" / "gesso.sock")
    started = time.perf_counter()
    client = ServiceClient(location, arguments=["--model", model, "--idle-minutes", "60"])
    client.start()
    answers_s = time.perf_counter() - started
    client.connect()
    ready_s = time.perf_counter() - started
    client.complete(request)
    first_s = time.perf_counter() - started
    process = psutil.Process(lock_holder(location))
    try:
        time.sleep(min(idle_s, SETTLE_S))
        cpu, wakes = sum(process.cpu_times()[:2]), sum(process.num_ctx_switches())
        time.sleep(idle_s)
        cpu, wakes = sum(process.cpu_times()[:2]) - cpu, sum(process.num_ctx_switches()) - wakes
        return {
            "answers_s": answers_s,
            "ready_s": ready_s,
            "first_answer_s": first_s,
            "idle_cpu_s_per_minute": 60 * cpu / idle_s,
            "idle_wakes_per_minute": 60 * wakes / idle_s,
            "memory_mib": process.memory_info().rss / 2**20,
        }
    finally:
        stop_service(location)


def memory_mib(location: ServiceLocation) -> float:
    """Resident memory of the service at `location`."""
    return float(psutil.Process(lock_holder(location)).memory_info().rss / 2**20)


def _never() -> bool:
    return False


def main(
    corpus: Annotated[list[Path] | None, typer.Option(help="Files or corpus shards; default: engine/*.py.")] = None,
    model: Annotated[str, typer.Option(help="The model to serve.")] = "pocket",
    clients: Annotated[list[int] | None, typer.Option(help="Number of clients; repeatable.")] = None,
    requests: Annotated[int, typer.Option(help="Requests in total, at least one per client.", min=1)] = REQUESTS,
    rounds: Annotated[int, typer.Option(help="Turns of the two services.", min=1)] = 2,
    write: Annotated[str | None, typer.Option(help="Write bench/results/NAME.json and .md.")] = None,
) -> None:
    """Measure a service under load."""
    console = Console(stderr=True)
    counts, found = clients or list(CLIENTS), Found()
    lines = typed_lines(sources(corpus or sorted((ROOT / "engine").glob("*.py"))), max(counts), seed=0)
    total = sum(4 * max(count, requests) for count in counts) * rounds // 2
    console.print(f"about {total} requests; Ctrl-C stops and keeps the results")
    try:
        _measure_all(found, lines, model, counts, requests, rounds, console.print)
    except KeyboardInterrupt:
        console.print("Interrupted. Results so far:")
    made = report(found, model, requests, rounds)
    made.show()
    if write:
        made.write(write)


def _measure_all(
    found: Found, lines: Sequence[TypedLine], model: str, counts: Sequence[int], requests: int, rounds: int, say: Say
) -> None:
    """Stores results in `found` one by one, the longest measurements last. say: prints a line of progress."""
    with tempfile.TemporaryDirectory(prefix="gesso-load-") as name:
        folder = Path(name)
        found.life = life(folder, model, lines[0].request(0))
        say(f"life: {found.life}")
        with service(folder, "one", model, 1) as alone, service(folder, "many", model, None) as batched:
            settings = Settings(model=model)
            completer = Completer(LoadedModel.load(settings), settings)
            found.overhead = overhead(batched, completer, [line.request(0) for line in lines[:8]], 8)
            del completer
            say(f"overhead: {found.overhead['outside_ms']} ms, with all stages {found.overhead['added_ms']} ms")
            found.rows = rows(batched, lines[:16], max(16, requests), rounds)
            say(f"rows: {found.rows['ratio'].median:.2f} times as fast with {IN_FLIGHT} in flight")
            services = {"alone": sender(alone), "batched": sender(batched)}
            for count in counts:
                started, taken = time.perf_counter(), measure(services, lines, count, requests, rounds)
                found.load.append(
                    {"clients": count, **taken, "memory_mib": memory_mib(batched), "machine_load": os.getloadavg()[0]}
                )
                seconds, rate = time.perf_counter() - started, taken["batched"]["throughput"]
                say(f"{count} clients: {seconds:.0f} s, {rate:.1f} responses/s batched")


def report(found: Found, model: str, requests: int, rounds: int) -> Report:
    """A table of the load, and notes for the other results."""
    header = ["clients"]
    for name in ("alone", "batched"):
        header += [f"{name} p50 ms", "p95", "p99", "responses/s"]
    header += ["MiB", "load average"]
    table = [
        [
            str(row["clients"]),
            *_cells(row["alone"]),
            *_cells(row["batched"]),
            f"{row['memory_mib']:.0f}",
            f"{row['machine_load']:.1f}",
        ]
        for row in found.load
    ]
    notes = [
        f"model {model}; {requests} requests in total (at least one per client), {rounds} rounds in turns; each client "
        "types in its own file, whose prompt is already encoded",
        "alone: one canvas per step; batched: canvases of several requests in a step; MiB: of the batched service",
        *_notes(found),
    ]
    figures = {"load": found.load, "overhead": found.overhead, "rows": found.rows, "life": found.life}
    return Report("A service under load", conditions(), header, table, notes, figures)


def _notes(found: Found) -> Iterator[str]:
    if found.load:
        first, most = found.load[0], max(row["batched"]["throughput"] for row in found.load)
        ratio = most / first["alone"]["throughput"]
        yield f"highest throughput, batched: {ratio:.2f} times that of {first['clients']} client alone"
    if added := found.overhead:
        yield (
            f"one client: the service adds {added['outside_ms']} ms outside context, prompt, steps and checks; with "
            f"these, which depend on other load, it adds {added['added_ms']} ms to {added['engine_ms']} ms of the "
            "engine in this process; median and quartiles of pairs"
        )
    if batch := found.rows:
        yield (
            f"rows with the priority of a batch: {batch['in_flight']} per second with {IN_FLIGHT} in flight (as "
            f"`gesso batch`), {batch['one_by_one']} one by one; {batch['ratio'].median:.2f} times"
        )
    if life := found.life:
        yield (
            f"from its start {life['answers_s']:.1f} s until it responds, {life['ready_s']:.1f} s until the model is "
            f"ready, {life['first_answer_s']:.1f} s until a completion"
        )
        yield (
            f"idle: {life['idle_cpu_s_per_minute']:.3f} s of CPU and {life['idle_wakes_per_minute']:.0f} wake-ups per "
            f"minute; {life['memory_mib']:.0f} MiB"
        )


def _cells(figures: dict[str, float]) -> list[str]:
    return [*(f"{figures[f'p{100 * share:g}_ms']:.0f}" for share in SHARES), f"{figures['throughput']:.1f}"]


if __name__ == "__main__":
    typer.run(reports_errors(main))
