"""The service in a long file: requests at random lines beside requests at the end, where line after line is appended.

`python -m bench.service.jumps` makes a file of 10,000 lines from this repository. One client sends both kinds of
requests in turns, so that other load on the machine meets both. A jump finds no prompt in the cache; appending mostly
does. CPU: of the service's process, with all its threads. Must not judge the completions.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

from bench.report import Report, conditions, percentile
from bench.service.load import service
from bench.typed_lines import FOLDERS, ROOT
from infill.request import Hole, InfillRequest, InfillResult
from infill.service.client import ServiceClient
from infill.service.location import lock_holder
from train.program import reports_errors

LINES = 10_000
WARM_UP = 3  # requests of each kind
AIM = 1.5  # p99 of jumps by p50 of appending
STAGES = ("context", "encode", "denoise", "checks")


def long_file() -> list[str]:
    """The first LINES lines of this repository's Python files."""
    files = [file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*.py"))]
    lines = [line for file in files for line in file.read_text("utf-8").splitlines()]
    return [lines[number % len(lines)] for number in range(LINES)]


def request(lines: Sequence[str], line: int, end: int) -> InfillRequest:
    """A third of `line` is typed, and the file has `end` lines."""
    typed = lines[line][: len(lines[line]) - len(lines[line].strip()) * 2 // 3]
    before = "".join(f"{one}\n" for one in lines[:line]) + typed
    after = "\n" + "".join(f"{one}\n" for one in lines[line + 1 : end])
    return InfillRequest(before + after, (Hole(len(before), len(before)),), "python", "long.py", lines="one")


def measure(client: ServiceClient, process: psutil.Process, count: int, seed: int) -> dict[str, list[dict[str, float]]]:
    """Per kind of request, the milliseconds of each: in all, of CPU, and by stage."""
    rng, lines = random.Random(seed), long_file()
    code = [index for index, line in enumerate(lines) if len(line.strip()) >= 12]
    ends = [index for index in code if index >= LINES - 1000]
    found: dict[str, list[dict[str, float]]] = {"append": [], "jump": []}
    for turn in range(WARM_UP + count):
        places = {"append": ends[turn % len(ends)], "jump": rng.choice(code)}
        for kind, line in places.items():
            asked = request(lines, line, line + 1 if kind == "append" else LINES)
            cpu, started = _cpu_s(process), time.perf_counter()
            result = client.complete(asked)
            spent = {"wall": 1000 * (time.perf_counter() - started), "cpu": 1000 * (_cpu_s(process) - cpu)}
            if turn >= WARM_UP:
                found[kind].append(spent | _stages(result))
    return found


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _stages(result: InfillResult) -> dict[str, float]:
    return {stage: result.timings_ms[stage] for stage in STAGES}


def report(found: dict[str, list[dict[str, float]]], model: str) -> Report:
    """A table by kind of request, and how p99 of jumps compares with p50 of appending."""
    header = ["request", "p50 ms", "p99 ms", "CPU p50 ms", "CPU p99 ms", *(f"{stage} p50 ms" for stage in STAGES)]
    figures: dict[str, Any] = {"requests": {kind: len(spent) for kind, spent in found.items()}}
    table = []
    for kind, spent in found.items():
        figures[kind] = {
            f"{name}_p{100 * share:g}": percentile([one[name] for one in spent], share)
            for name in ("wall", "cpu", *STAGES)
            for share in (0.5, 0.99)
        }
        names = ["wall_p50", "wall_p99", "cpu_p50", "cpu_p99", *(f"{stage}_p50" for stage in STAGES)]
        table.append([kind, *(f"{figures[kind][name]:.0f}" for name in names)])
    for name in ("wall", "cpu"):
        figures[f"{name}_ratio"] = figures["jump"][f"{name}_p99"] / max(1.0, figures["append"][f"{name}_p50"])
    notes = [
        f"model {model}; {len(found['jump'])} requests of each kind in turns, in a file of {LINES:,} lines",
        f"p99 of jumps by p50 of appending: {figures['wall_ratio']:.2f}, in CPU time {figures['cpu_ratio']:.2f}; "
        f"the aim is {AIM}",
    ]
    return Report("Jumps in a long file", conditions(), header, table, notes, figures)


def main(
    model: Annotated[str, typer.Option(help="Name or folder of the model.")] = "pocket",
    requests: Annotated[int, typer.Option(min=1, help="Requests of each kind.")] = 100,
    seed: Annotated[int, typer.Option(help="Of the lines that are jumped to.")] = 0,
    write: Annotated[str, typer.Option(metavar="NAME", help="Write the result to bench/results too.")] = "",
) -> None:
    """Measures jumps and appending, and prints a table."""
    with tempfile.TemporaryDirectory(prefix="gesso-jumps-") as folder, service(Path(folder), "one", model, None) as at:
        process = psutil.Process(lock_holder(at))
        made = report(measure(ServiceClient(at, name="typist"), process, requests, seed), model)
    made.show()
    if write:
        made.write(write)


if __name__ == "__main__":
    typer.run(reports_errors(main))
