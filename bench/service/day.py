"""A working day of requests in minutes: what memory a service holds after every few hundred of them.

Run `python -m bench.service.day`. Several clients type, each at a place of its own and then at the next one: each place is
asked about for a few characters in a row, as an editor does; some ask for findings as well, and some hang up before the
answer comes. Few steps a canvas make it short: prompts, canvases and texts are those of a day all the same. Ctrl-C ends
it with what was measured so far. Must not judge what is written.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import psutil
import typer
from rich.console import Console

from bench.report import Report, conditions
from bench.service.load import memory_mib, service
from bench.speed.pocket import Typing, sources, typings
from engine.errors import Cancelled
from infill.connection import CancellableConnection
from infill.findings import LintRequest
from infill.service.client import ServiceClient
from infill.service.exchange import ServiceRefused
from infill.service.location import ServiceLocation, lock_holder
from infill.service.memory import TRIM_S

CLIENTS = 4
KEYS = 5  # requests at a place, each after one more character
LINT_EVERY, HANG_UP_EVERY = 50, 20  # requests
HANG_UP_S = 0.03
QUIET_S = TRIM_S + 2


@dataclass(frozen=True)
class Moment:
    """After `requests` in all: MiB of the process and of the prompts that it keeps, and its threads. busy_mib: of the
    process before it was quiet."""

    requests: int
    seconds: float
    memory_mib: float
    kept_mib: float
    threads: int
    busy_mib: float


def ask(client: ServiceClient, places: Sequence[Typing], number: int, steps: int | None) -> None:
    """The `number`th request of the day."""
    place, connection = places[number // KEYS], CancellableConnection()
    request = replace(place.request(number % KEYS), steps=steps, seed=number)
    if number % LINT_EVERY == 0:
        at = place.start
        with suppress(ServiceRefused):  # a model that has no findings
            client.lint(LintRequest(request.text, request.language, request.path, ranges=((at, at + 1),)))
    timer = threading.Timer(HANG_UP_S, connection.cancel)
    if number % HANG_UP_EVERY == 0:
        timer.start()
    with suppress(Cancelled):
        client.complete(request, connection=connection)
    timer.cancel()


def look(location: ServiceLocation, requests: int, started: float, quiet_s: float) -> Moment:
    """Before and after some quiet."""
    busy_mib, kept = memory_mib(location), 0.0
    time.sleep(quiet_s)
    for line in ServiceClient(location).metrics().splitlines():
        if line.startswith("gesso_prompt_cache_bytes "):
            kept = float(line.rpartition(" ")[2]) / 2**20
    threads = psutil.Process(lock_holder(location)).num_threads()
    return Moment(requests, time.monotonic() - started, memory_mib(location), kept, threads, busy_mib)


def day(
    location: ServiceLocation,
    places: Sequence[Typing],
    requests: int,
    every: int,
    steps: int | None,
    seen: list[Moment],
    say: Callable[[str], None] = lambda _: None,
) -> None:
    """Asks all `requests`, and appends to `seen`: before, and after `every` of them and some quiet."""
    started = time.monotonic()
    seen.append(look(location, 0, started, 0.0))
    clients = [ServiceClient(location, name=f"client-{number}") for number in range(CLIENTS)]
    ended = threading.Event()

    def typed(client: int, first: int, last: int) -> None:
        for number in range(first, last):
            if number // KEYS % CLIENTS == client and not ended.is_set():
                ask(clients[client], places, number, steps)

    with ThreadPoolExecutor(CLIENTS) as threads:
        try:
            for first in range(0, requests, every):
                last = min(first + every, requests)
                for running in [threads.submit(typed, client, first, last) for client in range(CLIENTS)]:
                    running.result()
                seen.append(look(location, last, started, QUIET_S))
                say(str(seen[-1]))
        finally:
            ended.set()


def main(
    corpus: Annotated[list[Path] | None, typer.Option(help="Files or a corpus, instead of this repository.")] = None,
    model: Annotated[str, typer.Option(help="The model to serve.")] = "pocket",
    requests: Annotated[int, typer.Option(help="Of the day.", min=1)] = 5000,
    every: Annotated[int, typer.Option(help="Requests between two looks at the memory.", min=1)] = 500,
    steps: Annotated[int, typer.Option(help="Most steps of a canvas; 0 for the model's own.", min=0)] = 2,
    write: Annotated[str | None, typer.Option(help="Name of the files to write in bench/results.")] = None,
) -> None:
    places = typings(sources(corpus or []), -(-requests // KEYS), seed=0)
    console, seen = Console(stderr=True), list[Moment]()
    try:
        with (
            tempfile.TemporaryDirectory(prefix="gesso-day-") as folder,
            service(Path(folder), "s", model, None) as location,
        ):
            day(location, places, requests, every, steps or None, seen, console.print)
    except KeyboardInterrupt:
        console.print("interrupted; what was measured so far:")
    made = report(seen, model, steps)
    made.show()
    if write:
        made.write(write)


def report(seen: Sequence[Moment], model: str, steps: int) -> Report:
    rows = [
        [
            f"{one.requests}",
            f"{one.seconds:.0f}",
            *(f"{mib:.0f}" for mib in (one.busy_mib, one.memory_mib, one.kept_mib)),
        ]
        for one in seen
    ]
    taken = f"{steps} steps a canvas at most" if steps else "as many steps as ever"
    notes = [
        f"model {model}, {CLIENTS} clients at once, {KEYS} requests at each place, {taken}",
        f"every {HANG_UP_EVERY}th request hangs up after {1000 * HANG_UP_S:.0f} ms, every {LINT_EVERY}th asks for "
        "findings too",
        f"MiB quiet: of the process {QUIET_S:.0f} s later; the machine's load at the end {os.getloadavg()[0]:.1f}; "
        f"threads at most {max(one.threads for one in seen)}",
    ]
    figures = [vars(one) for one in seen]
    return Report(
        "A day of requests",
        conditions(),
        ["requests", "s", "MiB busy", "MiB quiet", "of these prompts"],
        rows,
        notes,
        figures,
    )


if __name__ == "__main__":
    typer.run(main)
