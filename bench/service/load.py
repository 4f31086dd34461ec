"""What a service does under load: time to an answer and answers a second against the number of clients.

Run `python -m bench.service.load`. Each client types at a place of its own: asks, waits for the answer, types on, asks again.
Every number of clients has the same number of requests, at least one a client. The same requests go to a service that
steps canvases together and to one that does not, in turns, so that load on the machine hits both. What the service adds
is measured with one client beside the same model in this process; what a batch of rows gains, with as many under way as
`gesso batch` has; what it needs while nobody asks, and how long it takes to be there, with one of its own. Ctrl-C ends
it with what was measured so far. Must not judge what is written.
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

from bench.report import Report, Spread, conditions, ratios
from bench.speed.pocket import ROOT, Typing, percentile, sources, typings
from infill.complete.completion import Completer
from infill.complete.loaded_model import LoadedModel
from infill.engine_protocol import PriorityName
from infill.request import InfillRequest, InfillResult
from infill.service.client import IN_FLIGHT, ServiceClient
from infill.service.location import ServiceLocation, location_at, lock_holder
from infill.service.start import stop_service
from infill.settings import Settings

CLIENTS = (1, 2, 4, 8, 16, 32, 64)
REQUESTS = 32
IDLE_S = 60.0
SETTLE_S = 5.0  # until what the last answer left to be done is done
SHARES = (0.5, 0.95, 0.99)
KEYS = 8  # further characters that are typed at a place, one a request, before they are typed again
Ask = Callable[[str, InfillRequest], InfillResult]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Run:
    """milliseconds: of every answer. seconds: from the first request to the last answer."""

    milliseconds: tuple[float, ...]
    seconds: float

    @property
    def throughput(self) -> float:
        """Answers a second."""
        return len(self.milliseconds) / self.seconds

    def figures(self) -> dict[str, float]:
        times = {f"p{100 * share:g}_ms": percentile(self.milliseconds, share) for share in SHARES}
        return {**times, "throughput": self.throughput, "requests": len(self.milliseconds)}


@dataclass
class Found:
    """All that was measured so far. load: a row for each number of clients."""

    life: dict[str, float] = field(default_factory=dict)
    overhead: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, Any] = field(default_factory=dict)
    load: list[dict[str, Any]] = field(default_factory=list)


@contextmanager
def service(folder: Path, name: str, model: str, batch: int | None) -> Iterator[ServiceLocation]:
    """A service of its own that is ready; ended afterwards."""
    location = location_at(folder / name / "gesso.sock")
    options = ["--model", model, "--idle-minutes", "60", *(["--batch", str(batch)] if batch else [])]
    ServiceClient(location, arguments=options).connect()
    try:
        yield location
    finally:
        stop_service(location)


def load(ask: Ask, places: Sequence[Typing], clients: int, total: int) -> Run:
    """`total` requests, at least one a client, dealt to `clients` like cards; all begin at once.

    What each client asks first is not timed: it reads what stands around its place.
    """
    total, together, ended = max(total, clients), threading.Barrier(clients + 1), threading.Event()

    def one(number: int) -> list[float]:
        place, times = places[number % len(places)], []
        try:
            ask(f"client-{number}", place.request(0))
        except BaseException:
            together.abort()
            raise
        together.wait()
        for turn in range(len(range(number, total, clients))):
            if ended.is_set():
                break
            started = time.perf_counter()
            ask(f"client-{number}", place.request(1 + turn % KEYS))
            times.append(1000 * (time.perf_counter() - started))
        return times

    with ThreadPoolExecutor(clients) as threads:
        running = [threads.submit(one, number) for number in range(clients)]
        try:
            with suppress(threading.BrokenBarrierError):  # the client that failed tells why
                together.wait()
            started = time.perf_counter()
            times = [spent for future in running for spent in future.result()]
        finally:
            ended.set()
            together.abort()
    return Run(tuple(times), time.perf_counter() - started)


def asks(location: ServiceLocation, priority: PriorityName = "inline") -> Ask:
    """Asks the service at `location`."""
    return lambda name, request: ServiceClient(location, name=name, priority=priority).complete(request)


def measure(
    ways: dict[str, Ask], places: Sequence[Typing], clients: int, total: int, rounds: int
) -> dict[str, dict[str, float]]:
    """The figures of every way over all rounds, in which the ways take turns."""
    runs: dict[str, list[Run]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, ask in ways.items():
            runs[name].append(load(ask, places, clients, total))
    return {
        name: Run(tuple(ms for run in taken for ms in run.milliseconds), sum(run.seconds for run in taken)).figures()
        for name, taken in runs.items()
    }


def rows(location: ServiceLocation, places: Sequence[Typing], count: int, rounds: int) -> dict[str, Any]:
    """Of `count` rows by the service, with the priority of a batch: one by one, and as many under way as `gesso batch`
    has. Answers a second of both, and how many times as many those of a batch are, round by round in turns."""
    taken: dict[int, list[float]] = {1: [], IN_FLIGHT: []}
    ask = asks(location, "batch")
    for _ in range(rounds):
        for under_way, found in taken.items():
            with ThreadPoolExecutor(under_way) as threads:
                started = time.perf_counter()
                requests = [places[number % len(places)].request(number // len(places)) for number in range(count)]
                list(threads.map(partial(ask, "rows"), requests))
                found.append(count / (time.perf_counter() - started))
    return {
        "one_by_one": Spread.of(taken[1]).to_json(),
        "in_flight": Spread.of(taken[IN_FLIGHT]).to_json(),
        "ratio": ratios(taken[IN_FLIGHT], taken[1]).to_json(),
    }


def overhead(
    location: ServiceLocation, completer: Completer, requests: Sequence[InfillRequest], repeats: int
) -> dict[str, Any]:
    """Of the same requests, by the service and in this process in turns: ms each, their ratio, and what is added.

    outside_ms: added to what is no stage of the work, context, prompt, steps or checks. The stages take the same time
    here and there but for the load on the machine, which is many times what a service adds.
    """
    times: dict[str, list[float]] = {"engine": [], "service": []}
    outside: dict[str, list[float]] = {"engine": [], "service": []}

    def asked(name: str, ask: Callable[[InfillRequest], InfillResult], request: InfillRequest) -> None:
        started = time.perf_counter()
        stages = ask(request).timings_ms
        taken = 1000 * (time.perf_counter() - started)
        times[name].append(taken)
        outside[name].append(taken - sum(spent for stage, spent in stages.items() if stage != "total"))

    asking = partial(asks(location), "one")
    in_process = partial(completer.complete, stop=_never)
    for request in requests:
        for way in (in_process, asking):  # both read the prompt before it is timed
            way(request)
        for _ in range(repeats):
            asked("engine", in_process, request)
            asked("service", asking, request)
    added = [one - other for one, other in zip(times["service"], times["engine"], strict=True)]
    outer = [one - other for one, other in zip(outside["service"], outside["engine"], strict=True)]
    return {
        "engine_ms": Spread.of(times["engine"]).to_json(),
        "service_ms": Spread.of(times["service"]).to_json(),
        "added_ms": Spread.of(added).to_json(),
        "outside_ms": Spread.of(outer).to_json(),
        "ratio": ratios(times["service"], times["engine"]).to_json(),
    }


def life(folder: Path, model: str, request: InfillRequest, idle_s: float = IDLE_S) -> dict[str, float]:
    """Of a service of its own: seconds from its start to its first word, to a model that is ready and to an answer.

    Then seconds of CPU and wake-ups a minute while nobody asks, and its memory in MiB.
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
        time.sleep(min(idle_s, SETTLE_S))  # what the answer left to be done
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
    """What the service at `location` holds now."""
    return float(psutil.Process(lock_holder(location)).memory_info().rss / 2**20)


def _never() -> bool:
    return False


def main(
    corpus: Annotated[list[Path] | None, typer.Option(help="Files or a corpus, instead of the engine's code.")] = None,
    model: Annotated[str, typer.Option(help="The model to serve.")] = "pocket",
    clients: Annotated[list[int] | None, typer.Option(help="Numbers of clients; repeatable.")] = None,
    requests: Annotated[int, typer.Option(help="Of all clients together, at least one each.", min=1)] = REQUESTS,
    rounds: Annotated[int, typer.Option(help="How often the two services take turns.", min=1)] = 2,
    write: Annotated[str | None, typer.Option(help="Name of the files to write in bench/results.")] = None,
) -> None:
    console = Console(stderr=True)
    counts, found = clients or list(CLIENTS), Found()
    places = typings(sources(corpus or sorted((ROOT / "engine").glob("*.py"))), max(counts), seed=0)
    console.print(f"about {sum(4 * max(count, requests) for count in counts) * rounds // 2} requests; Ctrl-C ends it")
    try:
        _measure_all(found, places, model, counts, requests, rounds, console.print)
    except KeyboardInterrupt:
        console.print("interrupted; what was measured so far:")
    made = report(found, model, requests, rounds)
    made.show()
    if write:
        made.write(write)


def _measure_all(
    found: Found, places: Sequence[Typing], model: str, counts: Sequence[int], requests: int, rounds: int, say: Say
) -> None:
    """Into `found`, piece by piece; what takes long comes last. say: told what was found."""
    with tempfile.TemporaryDirectory(prefix="gesso-load-") as name:
        folder = Path(name)
        found.life = life(folder, model, places[0].request(0))
        say(f"life: {found.life}")
        with service(folder, "one", model, 1) as alone, service(folder, "many", model, None) as batched:
            settings = Settings(model=model)
            completer = Completer(LoadedModel.load(settings), settings)
            found.overhead = overhead(batched, completer, [place.request(0) for place in places[:8]], 8)
            del completer
            say(f"added: {_spread(found.overhead['outside_ms'])} ms, all in all {_spread(found.overhead['added_ms'])}")
            found.rows = rows(batched, places[:16], max(16, requests), rounds)
            say(f"rows: {found.rows['ratio']['median']:.2f} times as many with {IN_FLIGHT} under way")
            ways = {"alone": asks(alone), "batched": asks(batched)}
            for count in counts:
                started, taken = time.perf_counter(), measure(ways, places, count, requests, rounds)
                found.load.append(
                    {"clients": count, **taken, "memory_mib": memory_mib(batched), "machine_load": os.getloadavg()[0]}
                )
                seconds, rate = time.perf_counter() - started, taken["batched"]["throughput"]
                say(f"{count} clients: {seconds:.0f} s, {rate:.1f} answers/s batched")


def report(found: Found, model: str, requests: int, rounds: int) -> Report:
    """The table of what was found; a note for each of the rest that was."""
    header = ["clients"]
    for name in ("alone", "batched"):
        header += [f"{name} p50 ms", "p95", "p99", "answers/s"]
    header += ["MiB", "machine's load"]
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
        f"model {model}, one service a column, {requests} requests (at least one a client) of all clients together, "
        f"{rounds} rounds in turns; every client types at a place of its own, whose prompt was read before",
        "alone: a canvas a step; batched: canvases of several requests in a step; MiB: the batched service afterwards",
        *_notes(found),
    ]
    figures = {"load": found.load, "overhead": found.overhead, "rows": found.rows, "life": found.life}
    return Report("A service under load", conditions(), header, table, notes, figures)


def _notes(found: Found) -> Iterator[str]:
    if found.load:
        first, most = found.load[0], max(row["batched"]["throughput"] for row in found.load)
        ratio = most / first["alone"]["throughput"]
        yield f"most answers a second, batched: {ratio:.2f} times those of {first['clients']} client alone"
    if added := found.overhead:
        yield (
            f"one client: the service adds {_spread(added['outside_ms'])} ms to what is not context, prompt, steps or "
            f"checks; with these, which other programs lengthen too, {_spread(added['added_ms'])} ms to "
            f"{_spread(added['engine_ms'])} ms of the engine in this process; median and quartiles of pairs"
        )
    if batch := found.rows:
        yield (
            f"rows with the priority of a batch: {_spread(batch['in_flight'])} a second with {IN_FLIGHT} under way, as "
            f"`gesso batch` has them, {_spread(batch['one_by_one'])} one by one; {batch['ratio']['median']:.2f} times"
        )
    if life := found.life:
        yield (
            f"from its start {life['answers_s']:.1f} s to its first word, {life['ready_s']:.1f} s to a model that is "
            f"ready, {life['first_answer_s']:.1f} s to an answer"
        )
        yield (
            f"while nobody asks {life['idle_cpu_s_per_minute']:.3f} s of CPU and {life['idle_wakes_per_minute']:.0f} "
            f"wake-ups a minute; {life['memory_mib']:.0f} MiB"
        )


def _spread(value: dict[str, Any]) -> str:
    return str(Spread.of(value["samples"]))


def _cells(figures: dict[str, float]) -> list[str]:
    return [*(f"{figures[f'p{100 * share:g}_ms']:.0f}" for share in SHARES), f"{figures['throughput']:.1f}"]


if __name__ == "__main__":
    typer.run(main)
