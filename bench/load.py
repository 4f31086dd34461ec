"""What a service does under load: time to an answer and answers a second against the number of clients.

Run `python -m bench.load`. Each client asks, waits for the answer, and asks again. The same requests go to a service
that steps canvases together and to one that does not, in turns, so that load on the machine hits both. What the service
adds is measured with one client beside the same model in this process. Must not judge what is written.
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

import typer

from bench.pocket_speed import ROOT, percentile, sources, typings
from bench.report import Report, Spread, conditions, interleaved, ratios
from infill import client
from infill.client import Client
from infill.completion import Completer
from infill.request import InfillRequest, InfillResult
from infill.service_place import Place, place_at
from infill.settings import Settings

CLIENTS = (1, 2, 4, 8, 16, 32, 64)
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
        figures = measure({"alone": asks(alone), "batched": asks(batched)}, requests, counts, each, rounds)
        added = overhead(batched, Completer.load(Settings(model=model)), requests[:8])
    report(figures, added, model, each, rounds, write)


def measure(
    ways: dict[str, Ask], requests: Sequence[InfillRequest], counts: Sequence[int], each: int, rounds: int
) -> list[dict[str, Any]]:
    """For every number of clients the figures of every way, over all rounds, in which the ways take turns."""
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
        rows.append(row)
    return rows


def report(
    figures: Sequence[dict[str, Any]], added: dict[str, Any], model: str, each: int, rounds: int, write: str | None
) -> None:
    """Prints the table, and writes it where `write` names a file."""
    header = ["clients"]
    for name in ("alone", "batched"):
        header += [f"{name} p50 ms", "p95", "p99", "answers/s"]
    rows = [[str(row["clients"]), *_cells(row["alone"]), *_cells(row["batched"])] for row in figures]
    notes = [
        f"model {model}, one service a column, {each} requests of each client, {rounds} rounds in turns",
        "alone: a canvas a step; batched: canvases of several requests in a step",
        f"one client: the service adds {added['added_ms']['median']:.1f} ms at the median to "
        f"{added['engine_ms']['median']:.1f} ms of the engine in this process",
    ]
    made = Report("A service under load", conditions(), header, rows, notes, {"load": list(figures), "overhead": added})
    made.show()
    if write:
        made.write(write)


def _cells(figures: dict[str, float]) -> list[str]:
    return [*(f"{figures[f'p{100 * share:g}_ms']:.0f}" for share in SHARES), f"{figures['throughput']:.1f}"]


if __name__ == "__main__":
    typer.run(main)
