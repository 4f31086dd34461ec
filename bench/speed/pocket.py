"""How fast a line is completed as it is typed, and what it takes to get ready: time, memory, stages.

Run `python -m bench.speed.pocket`. A user types on in the middle of a file: a request, then one more after every
character. The first one reads the prompt, the others find it in the cache. Start and memory are measured in processes
of their own. Must not judge what is written; `bench.quality.run` does.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol

import torch
import typer
from rich.progress import track

from bench.report import Report, Spread, conditions
from engine.errors import InputError
from infill.code.languages import detect
from infill.complete.completion import Completer
from infill.complete.loaded_model import LoadedModel
from infill.request import Hole, InfillRequest, InfillResult
from infill.settings import Settings

ROOT = Path(__file__).parents[2]
OWN_FOLDERS = ("engine", "infill", "train", "bench", "tests")
LINES = (250, 350)  # a file of about 300 lines
MIDDLE = (1 / 3, 2 / 3)  # where in it the cursor stands
LEAST_CODE = 12  # characters of a line that is typed
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


@dataclass(frozen=True)
class Source:
    """A file of which lines are typed anew."""

    path: str
    text: str
    language: str | None


@dataclass(frozen=True)
class Typing:
    """A line of `source` that is being typed: [start, end) of the text, of which `typed` characters stand there."""

    source: Source
    start: int
    end: int
    typed: int

    def request(self, more: int) -> InfillRequest:
        """After `more` further characters, with nothing behind the cursor on its line."""
        cursor = min(self.start + self.typed + more, self.end)
        text = self.source.text[:cursor] + self.source.text[self.end :]
        return InfillRequest(text, (Hole(cursor, cursor),), self.source.language, self.source.path, lines="one")


class Completes(Protocol):
    def complete(self, request: InfillRequest) -> InfillResult: ...


def sources(files: Sequence[Path]) -> list[Source]:
    """Of each file the text; of a corpus (`.jsonl.gz`) every row that is not for training. Without files: this
    repository's own. Only those of LINES lines. Raises InputError where none are left."""
    own = [file for folder in OWN_FOLDERS for file in sorted((ROOT / folder).rglob("*.py"))]
    found = [source for file in files or own for source in _read(file)]
    found = [source for source in found if LINES[0] <= source.text.count("\n") <= LINES[1]]
    if not found:
        raise InputError(f"No file has {LINES[0]} to {LINES[1]} lines; name others with --file.")
    return found


def _read(file: Path) -> Iterator[Source]:
    try:
        if file.name.endswith(".jsonl.gz"):
            with gzip.open(file, "rt", encoding="utf-8") as stream:
                rows = [json.loads(line) for line in stream]
            yield from (Source(row["path"], row["text"], row["language"]) for row in rows if row["split"] != "train")
        else:
            yield Source(file.name, text := file.read_text("utf-8"), detect(file.name, text.partition("\n")[0]))
    except (OSError, ValueError, KeyError) as reason:
        raise InputError(f"{file} cannot be read ({reason}); name a source file or a corpus.") from reason


def typings(found: Sequence[Source], count: int, seed: int) -> list[Typing]:
    """`count` lines of code from the middles of the files, each a third typed."""
    chosen = random.Random(seed)
    made = []
    for number in range(count):
        source = found[number % len(found)] if count >= len(found) else chosen.choice(found)
        lines = source.text.splitlines(keepends=True)
        middle = range(int(MIDDLE[0] * len(lines)), int(MIDDLE[1] * len(lines)))
        long = [index for index in middle if len(lines[index].strip()) >= LEAST_CODE] or list(middle)
        index = chosen.choice(long)
        line = lines[index].rstrip("\n")
        start = sum(len(line) for line in lines[:index])
        code = len(line.strip())
        made.append(Typing(source, start, start + len(line), len(line.rstrip()) - code + code // 3))
    return made


def type_on(completer: Completes, typing: Typing, keystrokes: int) -> list[dict[str, float]]:
    """What the request and those after each of the next `keystrokes` took: ms by stage, steps, tokens read.

    total: of the clock; cpu: of this process on all its cores, which other work on the machine disturbs less.
    """
    taken = []
    for more in range(keystrokes + 1):
        started, worked = time.perf_counter(), time.process_time()
        result = completer.complete(typing.request(more))
        total, cpu = 1000 * (time.perf_counter() - started), 1000 * (time.process_time() - worked)
        stages = {stage: result.timings_ms[stage] for stage in STAGES}
        taken.append(
            {"total": total, "cpu": cpu, **stages, "steps": result.steps, "encoded_tokens": result.encoded_tokens}
        )
    return taken


def start_up(model: str) -> dict[str, float | None]:
    """A process that loads the model: ms from its start to ready, of that import and load; peak MiB."""
    started = time.perf_counter()
    command = [sys.executable, "-c", READY, model]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None and child.stdout is not None
        said = child.stdout.readline()
        ready = 1000 * (time.perf_counter() - started)
        memory = peak_memory(child.pid)
        child.stdin.close()
    if not said:
        raise InputError(f"The model {model} could not be loaded; see what was printed above.")
    return {"ready_ms": ready, **json.loads(said), "peak_mib": memory}


def peak_memory(process: int | str = "self") -> float | None:
    """The most memory that a process has held at once, in MiB; None where the system does not tell."""
    try:
        status = Path(f"/proc/{process}/status").read_text("utf-8")
    except OSError:
        return None
    lines = (line.split() for line in status.splitlines())
    return next((int(words[1]) / 1024 for words in lines if words[:1] == ["VmHWM:"]), None)


def percentile(samples: Sequence[float], share: float) -> float:
    """The least sample that at least `share` of them do not exceed (nearest rank)."""
    ordered = sorted(samples)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def summary(requests: Sequence[dict[str, float]]) -> dict[str, Any]:
    """p50 and p95 of the totals and of the CPU's time, and means of all that was counted."""
    figures: dict[str, Any] = {"requests": len(requests)}
    for prefix, name in (("", "total"), ("cpu_", "cpu")):
        samples = [request[name] for request in requests]
        figures |= {f"{prefix}p50": percentile(samples, 0.5), f"{prefix}p95": percentile(samples, 0.95)}
    means = {name: statistics.mean(request[name] for request in requests) for name in requests[0]}
    return {**figures, "mean": means}


def main(
    model: Annotated[str, typer.Option(help="Name or folder of the model.")] = "pocket",
    file: Annotated[list[Path] | None, typer.Option(help="Source files or a corpus; else this repository's.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Lines that are typed.")] = 25,
    keystrokes: Annotated[int, typer.Option(min=1, help="Characters typed on each.")] = 4,
    seed: Annotated[int, typer.Option(help="Of the choice of lines.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; else the engine's own choice.")] = None,
    out: Annotated[Path | None, typer.Option(help="FILE.json for the figures; FILE.md is written beside it.")] = None,
) -> None:
    """Measures the time of completions while a line is typed, and of the start."""
    if threads is not None:
        os.environ["GESSO_THREADS"] = str(threads)
    lines = typings(sources(file or []), count, seed)
    starts = [start_up(model) for _ in range(STARTS)]
    settings = Settings(model=model)
    completer = Completer(LoadedModel.load(settings), settings)
    type_on(completer, lines[0], keystrokes)
    completer.denoiser.cache.clear()
    first: list[dict[str, float]] = []
    warm: list[dict[str, float]] = []
    after_first = None
    for typing in track(lines, "lines"):
        taken = type_on(completer, typing, keystrokes)
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
        "samples": {"first request": first, "next keystroke": warm},
    }
    times = ("p50, ms", "p95, ms", "CPU p50, ms", "CPU p95, ms")
    header = ("what", *times, *(f"{stage}, ms" for stage in STAGES), "steps", "tokens read")
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


def _notes(figures: dict[str, Any], lines: Sequence[Typing], keystrokes: int) -> list[str]:
    def of_starts(name: str) -> str:
        known = [start[name] for start in figures["start"] if start[name] is not None]
        return str(Spread.of(known)) if known else "unknown"

    return [
        f"{len(lines)} lines in the middle of files of {LINES[0]} to {LINES[1]} lines, a third typed; the first "
        f"request of a line, then one after each of {keystrokes} characters. Stages, steps and tokens are means; CPU "
        "is the time of this process on all its cores.",
        f"From process start to a loaded model, disk cache warm: {of_starts('ready_ms')} ms, of that import "
        f"{of_starts('import_ms')} and load {of_starts('load_ms')} ({STARTS} processes); most memory of such a process "
        f"{of_starts('peak_mib')} MiB, of this one {figures['first_file_mib'] or 0:.0f} MiB after the first file and "
        f"{figures['peak_mib'] or 0:.0f} MiB after {len(lines)} lines in {len({line.source.path for line in lines})}.",
        f"Torch ran with {torch.get_num_threads()} threads.",
    ]


if __name__ == "__main__":
    typer.run(main)
