"""Speed of completing a line while it is typed, and of the start: time, memory, stages.

`python -m bench.speed.pocket` types lines in the middle of files: one request, then one more after every character. The
first request encodes the prompt, the others find it in the cache. Start and memory are measured in separate processes.
Must not judge the completions; `bench.quality.run` does.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Protocol

import torch
import typer
from rich.progress import track

from bench.report import Report, Spread, conditions, percentile
from bench.typed_lines import LINES, ROOT, TypedLine, sources, typed_lines
from engine.errors import InputError
from infill.complete.completion import Completer
from infill.complete.loaded_model import LoadedModel
from infill.request import InfillRequest, InfillResult
from infill.settings import Settings
from train.program import reports_errors

STARTS = 3
STAGES = ("context", "encode", "denoise", "checks")
READY = """
import json, sys, time
started = time.perf_counter()
from infill.complete.completion import Completer
from infill.complete.loaded_model import LoadedModel
from infill.settings import Settings
imported = time.perf_counter()
settings = Settings(model=sys.argv[1])
completer = Completer(LoadedModel.load(settings), settings)
loaded = time.perf_counter()
print(json.dumps({"import_ms": 1000 * (imported - started), "load_ms": 1000 * (loaded - imported)}), flush=True)
sys.stdin.read()
"""


class Completes(Protocol):
    def complete(self, request: InfillRequest) -> InfillResult: ...


def type_on(completer: Completes, line: TypedLine, keystrokes: int) -> list[dict[str, float]]:
    """Times of a request and of one after each of the next `keystrokes`: ms by stage, steps, tokens encoded.

    total: wall-clock time. cpu: CPU time of this process on all cores, which depends less on other work.
    """
    taken = []
    for more in range(keystrokes + 1):
        started, worked = time.perf_counter(), time.process_time()
        result = completer.complete(line.request(more))
        total, cpu = 1000 * (time.perf_counter() - started), 1000 * (time.process_time() - worked)
        stages = {stage: result.timings_ms[stage] for stage in STAGES}
        taken.append(
            {"total": total, "cpu": cpu, **stages, "steps": result.steps, "encoded_tokens": result.encoded_tokens}
        )
    return taken


def start_up(model: str) -> dict[str, float | None]:
    """Loads the model in a new process: ms from start to ready, of these import and load; peak MiB."""
    started = time.perf_counter()
    command = [sys.executable, "-c", READY, model]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None and child.stdout is not None
        output = child.stdout.readline()
        ready = 1000 * (time.perf_counter() - started)
        memory = peak_memory(child.pid)
        child.stdin.close()
    if not output:
        raise InputError(f"The model {model} could not be loaded; see the messages above.")
    return {"ready_ms": ready, **json.loads(output), "peak_mib": memory}


def peak_memory(process: int | str = "self") -> float | None:
    """Peak memory of a process in MiB; None if the system does not report it."""
    try:
        status = Path(f"/proc/{process}/status").read_text("utf-8")
    except OSError:
        return None
    lines = (line.split() for line in status.splitlines())
    return next((int(words[1]) / 1024 for words in lines if words[:1] == ["VmHWM:"]), None)


def summary(requests: Sequence[dict[str, float]]) -> dict[str, Any]:
    """p50 and p95 of total and CPU time, and means of all values."""
    figures: dict[str, Any] = {"requests": len(requests)}
    for prefix, name in (("", "total"), ("cpu_", "cpu")):
        samples = [request[name] for request in requests]
        figures |= {f"{prefix}p50": percentile(samples, 0.5), f"{prefix}p95": percentile(samples, 0.95)}
    means = {name: statistics.mean(request[name] for request in requests) for name in requests[0]}
    return {**figures, "mean": means}


def main(
    model: Annotated[str, typer.Option(help="Name or folder of the model.")] = "pocket",
    file: Annotated[list[Path] | None, typer.Option(help="Files or corpus shards; default: this repository.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Lines to type.")] = 25,
    keystrokes: Annotated[int, typer.Option(min=1, help="Characters typed on each line.")] = 4,
    seed: Annotated[int, typer.Option(help="Seed for choosing lines.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; default: chosen by the engine.")] = None,
    out: Annotated[Path | None, typer.Option(help="FILE.json for the figures; also writes FILE.md.")] = None,
) -> None:
    """Measure completions while a line is typed, and the start."""
    if threads is not None:
        os.environ["GESSO_THREADS"] = str(threads)
    lines = typed_lines(sources(file or []), count, seed)
    starts = [start_up(model) for _ in range(STARTS)]
    settings = Settings(model=model)
    completer = Completer(LoadedModel.load(settings), settings)
    type_on(completer, lines[0], keystrokes)
    completer.denoiser.cache.clear()
    first: list[dict[str, float]] = []
    warm: list[dict[str, float]] = []
    after_first = None
    for line in track(lines, "lines"):
        taken = type_on(completer, line, keystrokes)
        after_first = after_first or peak_memory()
        first.append(taken[0])
        warm.extend(taken[1:])
    figures: dict[str, Any] = {
        "model": model,
        "start": starts,
        "first request": summary(first),
        "next keystroke": summary(warm),
        "first_file_mib": after_first,
        "peak_mib": peak_memory(),
    }
    times = ("p50, ms", "p95, ms", "CPU p50, ms", "CPU p95, ms")
    header = ("what", *times, *(f"{stage}, ms" for stage in STAGES), "steps", "tokens encoded")
    rows = [_row(name, figures[name]) for name in ("first request", "next keystroke")]
    title, notes = f"Completing a line with {model}", _notes(figures, lines, keystrokes)
    report = Report(title, conditions(), header, rows, notes, figures)
    report.show()
    if out is not None:
        for written in report.write(out.stem, out.parent):
            print(written)


def _row(name: str, figure: dict[str, Any]) -> list[str]:
    mean = figure["mean"]
    stages = [f"{mean[stage]:.1f}" for stage in STAGES]
    return [
        name,
        f"{figure['p50']:.0f}",
        f"{figure['p95']:.0f}",
        f"{figure['cpu_p50']:.0f}",
        f"{figure['cpu_p95']:.0f}",
        *stages,
        f"{mean['steps']:.1f}",
        f"{mean['encoded_tokens']:.0f}",
    ]


def _notes(figures: dict[str, Any], lines: Sequence[TypedLine], keystrokes: int) -> list[str]:
    def starts(name: str) -> str:
        known = [start[name] for start in figures["start"] if start[name] is not None]
        return str(Spread.of(known)) if known else "unknown"

    return [
        f"{len(lines)} lines in the middle of files of {LINES[0]} to {LINES[1]} lines, a third typed; one "
        f"request, then one after each of {keystrokes} characters. Stages, steps and tokens are means; CPU is the time "
        "of this process on all cores.",
        f"From process start to a loaded model, with a warm disk cache: {starts('ready_ms')} ms, of these import "
        f"{starts('import_ms')} and load {starts('load_ms')} ({STARTS} processes). Peak memory of such a process: "
        f"{starts('peak_mib')} MiB; of this one: {figures['first_file_mib'] or 0:.0f} MiB after the first file and "
        f"{figures['peak_mib'] or 0:.0f} MiB after {len(lines)} lines in {len({line.source.path for line in lines})}.",
        f"PyTorch ran with {torch.get_num_threads()} threads.",
    ]


if __name__ == "__main__":
    typer.run(reports_errors(main))
