"""The memory of a service over a working day of requests, in minutes.

`python -m bench.service.day` lets several clients type in one file after another, a few characters in each, as an
editor does. Some requests also ask for lint, and some are cancelled. Few steps per canvas make it short. Ctrl-C ends
the run and keeps the results so far. Must not judge the completions.
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
from bench.typed_lines import TypedLine, sources, typed_lines
from engine.errors import Cancelled
from infill.connection import CancellableConnection
from infill.findings import LintRequest
from infill.service.client import ServiceClient
from infill.service.exchange import ServiceRefused
from infill.service.location import ServiceLocation, lock_holder
from infill.service.memory import TRIM_S
from train.program import reports_errors

CLIENTS = 4
KEYS = 5  # requests per line, each after one more character
LINT_EVERY, CANCEL_EVERY = 50, 20  # requests
CANCEL_S = 0.03
IDLE_S = TRIM_S + 2


@dataclass(frozen=True)
class Snapshot:
    """The service after `requests` requests.

    memory_mib: of the idle process; busy_mib: before it was idle. kept_mib: of cached prompts.
    """

    requests: int
    seconds: float
    memory_mib: float
    kept_mib: float
    threads: int
    busy_mib: float


def ask(client: ServiceClient, lines: Sequence[TypedLine], number: int, steps: int | None) -> None:
    """The request with this number."""
    typed, connection = lines[number // KEYS], CancellableConnection()
    request = replace(typed.request(number % KEYS), steps=steps, seed=number)
    if number % LINT_EVERY == 0:
        at = typed.start
        with suppress(ServiceRefused):  # the model cannot lint
            client.lint(LintRequest(request.text, request.language, request.path, ranges=((at, at + 1),)))
    timer = threading.Timer(CANCEL_S, connection.cancel)
    if number % CANCEL_EVERY == 0:
        timer.start()
    with suppress(Cancelled):
        client.complete(request, connection=connection)
    timer.cancel()


def look(location: ServiceLocation, requests: int, started: float, idle_s: float) -> Snapshot:
    """Measures the service now and after `idle_s` seconds."""
    busy_mib, kept = memory_mib(location), 0.0
    time.sleep(idle_s)
    for line in ServiceClient(location).metrics().splitlines():
        if line.startswith("gesso_prompt_cache_bytes "):
            kept = float(line.rpartition(" ")[2]) / 2**20
    threads = psutil.Process(lock_holder(location)).num_threads()
    return Snapshot(requests, time.monotonic() - started, memory_mib(location), kept, threads, busy_mib)


def day(
    location: ServiceLocation,
    lines: Sequence[TypedLine],
    requests: int,
    every: int,
    steps: int | None,
    seen: list[Snapshot],
    say: Callable[[str], None] = lambda _: None,
) -> None:
    """Sends all requests and appends snapshots to `seen`: at the start, and after every `every` requests."""
    started = time.monotonic()
    seen.append(look(location, 0, started, 0.0))
    clients = [ServiceClient(location, name=f"client-{number}") for number in range(CLIENTS)]
    ended = threading.Event()

    def send(client: int, first: int, last: int) -> None:
        for number in range(first, last):
            if number // KEYS % CLIENTS == client and not ended.is_set():
                ask(clients[client], lines, number, steps)

    with ThreadPoolExecutor(CLIENTS) as threads:
        try:
            for first in range(0, requests, every):
                last = min(first + every, requests)
                for running in [threads.submit(send, client, first, last) for client in range(CLIENTS)]:
                    running.result()
                seen.append(look(location, last, started, IDLE_S))
                say(str(seen[-1]))
        finally:
            ended.set()


def main(
    corpus: Annotated[list[Path] | None, typer.Option(help="Files or corpus shards; default: this repository.")] = None,
    model: Annotated[str, typer.Option(help="The model to serve.")] = "pocket",
    requests: Annotated[int, typer.Option(help="Requests in total.", min=1)] = 5000,
    every: Annotated[int, typer.Option(help="Requests between two snapshots.", min=1)] = 500,
    steps: Annotated[int, typer.Option(help="Maximum number of steps per canvas; 0 for the default.", min=0)] = 2,
    write: Annotated[str | None, typer.Option(help="Write bench/results/NAME.json and .md.")] = None,
) -> None:
    """Measure the memory of a service over a day of requests."""
    lines = typed_lines(sources(corpus or []), -(-requests // KEYS), seed=0)
    console, seen = Console(stderr=True), list[Snapshot]()
    try:
        with (
            tempfile.TemporaryDirectory(prefix="gesso-day-") as folder,
            service(Path(folder), "s", model, None) as location,
        ):
            day(location, lines, requests, every, steps or None, seen, console.print)
    except KeyboardInterrupt:
        console.print("Interrupted. Results so far:")
    made = report(seen, model, steps)
    made.show()
    if write:
        made.write(write)


def report(seen: Sequence[Snapshot], model: str, steps: int) -> Report:
    rows = [
        [
            f"{one.requests}",
            f"{one.seconds:.0f}",
            *(f"{mib:.0f}" for mib in (one.busy_mib, one.memory_mib, one.kept_mib)),
        ]
        for one in seen
    ]
    limit = f"at most {steps} steps per canvas" if steps else "the default number of steps"
    notes = [
        f"model {model}, {CLIENTS} clients at once, {KEYS} requests per line, {limit}",
        f"every {CANCEL_EVERY}th request is cancelled after {1000 * CANCEL_S:.0f} ms, every {LINT_EVERY}th comes with "
        "a lint request",
        f"MiB idle: of the process after {IDLE_S:.0f} idle seconds; load average at the end {os.getloadavg()[0]:.1f}; "
        f"at most {max(one.threads for one in seen)} threads",
    ]
    figures = [vars(one) for one in seen]
    return Report(
        "A day of requests",
        conditions(),
        ["requests", "s", "MiB busy", "MiB idle", "of these prompts"],
        rows,
        notes,
        figures,
    )


if __name__ == "__main__":
    typer.run(reports_errors(main))
