"""What a service does under load: time to an answer and answers a second against the number of clients.

Run `python -m bench.load`. Each client asks, waits for the answer, and asks again. The same requests go to a service
that steps canvases together and to one that does not, in turns, so that load on the machine hits both. What the service
adds is measured with one client beside the same model in this process; what it needs while nobody asks, and how long it
takes to be there, with one of its own. Must not judge what is written.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

from bench.pocket_speed import ROOT, percentile, sources, typings
from bench.report import Report, Spread, conditions, interleaved, ratios
from infill import client
from infill.client import Client
from infill.completion import Completer
from infill.request import InfillRequest, InfillResult
from infill.service_place import Place, holder, place_at
from infill.settings import Settings

CLIENTS = (1, 2, 4, 8, 16, 32, 64)
IDLE_S = 10.0
SHARES = (0.5, 0.95, 0.99)
Ask = Callable[[str, InfillRequest], InfillResult]


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


@contextmanager
def service(folder: Path, name: str, model: str, batch: int | None) -> Iterator[Place]:
    """A service of its own that is ready; ended afterwards."""
    place = place_at(folder / name / "gesso.sock")
    options = ["--model", model, "--idle-minutes", "60", *(["--batch", str(batch)] if batch else [])]
    client.start(place, options).wait_until_ready()
    try:
        yield place
    finally:
        client.stop(place)


def load(ask: Ask, requests: Sequence[InfillRequest], clients: int, each: int) -> Run:
    """`clients` that each ask `each` of `requests`, one after another; all begin at once."""
    together = threading.Barrier(clients + 1)

    def one(number: int) -> list[float]:
        times = []
        together.wait()
        for turn in range(each):
            started = time.perf_counter()
            ask(f"client-{number}", requests[(number * each + turn) % len(requests)])
            times.append(1000 * (time.perf_counter() - started))
        return times

    with ThreadPoolExecutor(clients) as threads:
        running = [threads.submit(one, number) for number in range(clients)]
        together.wait()
        started = time.perf_counter()
        times = [spent for future in running for spent in future.result()]
    return Run(tuple(times), time.perf_counter() - started)


def asks(place: Place) -> Ask:
    """Asks the service at `place`."""
    return lambda name, request: Client(place, name).complete(request)


def overhead(place: Place, completer: Completer, requests: Sequence[InfillRequest]) -> dict[str, Any]:
    """Of the same requests, by the service and in this process in turns: ms each, their ratio, and what is added."""
    times: dict[str, list[float]] = {"engine": [], "service": []}
    for request in requests:
        ways: dict[str, Callable[[], object]] = {
            "engine": partial(completer.complete, request, stop=_never),
            "service": partial(asks(place), "one", request),
        }
        for way in ways.values():  # both read the prompt before it is timed
            way()
        for name, taken in interleaved(ways, 3).items():
            times[name] += taken
    added = [one - other for one, other in zip(times["service"], times["engine"], strict=True)]
    return {
        "engine_ms": Spread.of(times["engine"]).to_json(),
        "service_ms": Spread.of(times["service"]).to_json(),
        "added_ms": Spread.of(added).to_json(),
        "ratio": Spread.of(ratios(times["service"], times["engine"]).samples).to_json(),
    }


def life(folder: Path, model: str, request: InfillRequest, idle_s: float = IDLE_S) -> dict[str, float]:
    """Of a service of its own: seconds from its start to its first word, to a model that is ready and to an answer.

    Then milliseconds of CPU and wake-ups a second while nobody asks, and its memory in MiB.
    """
    place = place_at(folder / "life" / "gesso.sock")
    started = time.perf_counter()
    found = client.start(place, ["--model", model, "--idle-minutes", "60"])
    answers_s = time.perf_counter() - started
    found.wait_until_ready()
    ready_s = time.perf_counter() - started
    found.complete(request)
    first_s = time.perf_counter() - started
    process = psutil.Process(holder(place))
    try:
        time.sleep(1.0)  # what the answer left to be done
        cpu, wakes = sum(process.cpu_times()[:2]), sum(process.num_ctx_switches())
        time.sleep(idle_s)
        cpu, wakes = sum(process.cpu_times()[:2]) - cpu, sum(process.num_ctx_switches()) - wakes
        return {
            "answers_s": answers_s,
            "ready_s": ready_s,
            "first_answer_s": first_s,
            "idle_cpu_ms_per_s": 1000 * cpu / idle_s,
            "idle_wakes_per_s": wakes / idle_s,
            "memory_mib": process.memory_info().rss / 2**20,
        }
    finally:
        client.stop(place)


def memory_mib(place: Place) -> float:
    """What the service at `place` holds now."""
    return float(psutil.Process(holder(place)).memory_info().rss / 2**20)


def _never() -> bool:
    return False


def main(
    corpus: Annotated[list[Path] | None, typer.Option(help="Files or a corpus, instead of the engine's code.")] = None,
    model: Annotated[str, typer.Option(help="The model to serve.")] = "pocket",
    clients: Annotated[list[int] | None, typer.Option(help="Numbers of clients; repeatable.")] = None,
    each: Annotated[int, typer.Option(help="Requests of each client.", min=1)] = 4,
    rounds: Annotated[int, typer.Option(help="How often the two services take turns.", min=1)] = 2,
    write: Annotated[str | None, typer.Option(help="Name of the files to write in bench/results.")] = None,
) -> None:
    found = sources(corpus or sorted((ROOT / "engine").glob("*.py")))
    requests = [typing.request(0) for typing in typings(found, 64, seed=0)]
    counts = clients or list(CLIENTS)
    with (
        tempfile.TemporaryDirectory(prefix="gesso-load-") as folder,
        service(Path(folder), "one", model, 1) as alone,
        service(Path(folder), "many", model, None) as batched,
    ):
        taken = life(Path(folder), model, requests[0])
        ways = {"alone": asks(alone), "batched": asks(batched)}
        figures = measure(ways, requests, counts, each, rounds, partial(memory_mib, batched))
        added = overhead(batched, Completer.load(Settings(model=model)), requests[:8])
    report(figures, added, taken, model, each, rounds, write)


def measure(
    ways: dict[str, Ask],
    requests: Sequence[InfillRequest],
    counts: Sequence[int],
    each: int,
    rounds: int,
    memory: Callable[[], float] | None = None,
) -> list[dict[str, Any]]:
    """For every number of clients the figures of every way, over all rounds, in which the ways take turns, and the
    `memory` afterwards."""
    for ask in ways.values():
        ask("warm", requests[0])
    rows = []
    for count in counts:
        runs: dict[str, list[Run]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, ask in ways.items():
                runs[name].append(load(ask, requests, count, each))
        row: dict[str, Any] = {"clients": count}
        for name, taken in runs.items():
            milliseconds = tuple(spent for run in taken for spent in run.milliseconds)
            row[name] = Run(milliseconds, sum(run.seconds for run in taken)).figures()
        if memory is not None:
            row["memory_mib"] = memory()
        rows.append(row)
    return rows


def report(
    figures: Sequence[dict[str, Any]],
    added: dict[str, Any],
    taken: dict[str, float],
    model: str,
    each: int,
    rounds: int,
    write: str | None,
) -> None:
    """Prints the table, and writes it where `write` names a file."""
    header = ["clients"]
    for name in ("alone", "batched"):
        header += [f"{name} p50 ms", "p95", "p99", "answers/s"]
    header.append("MiB")
    rows = [
        [str(row["clients"]), *_cells(row["alone"]), *_cells(row["batched"]), f"{row.get('memory_mib', 0):.0f}"]
        for row in figures
    ]
    one, most = figures[0]["alone"]["throughput"], max(row["batched"]["throughput"] for row in figures)
    notes = [
        f"model {model}, one service a column, {each} requests of each client, {rounds} rounds in turns",
        "alone: a canvas a step; batched: canvases of several requests in a step",
        f"one client: the service adds {added['added_ms']['median']:.1f} ms at the median to "
        f"{added['engine_ms']['median']:.1f} ms of the engine in this process",
        f"most answers a second, batched: {most / one:.1f} times those of {figures[0]['clients']} client alone",
        f"from its start {taken['answers_s']:.1f} s to its first word, {taken['ready_s']:.1f} s to a model that is "
        f"ready, {taken['first_answer_s']:.1f} s to an answer",
        f"while nobody asks {taken['idle_cpu_ms_per_s']:.2f} ms of CPU and {taken['idle_wakes_per_s']:.1f} wake-ups a "
        f"second; {taken['memory_mib']:.0f} MiB; MiB in the table: the batched service after its round",
    ]
    made = Report(
        "A service under load",
        conditions(),
        header,
        rows,
        notes,
        {"load": list(figures), "overhead": added, "life": taken},
    )
    made.show()
    if write:
        made.write(write)


def _cells(figures: dict[str, float]) -> list[str]:
    return [*(f"{figures[f'p{100 * share:g}_ms']:.0f}" for share in SHARES), f"{figures['throughput']:.1f}"]


if __name__ == "__main__":
    typer.run(main)
