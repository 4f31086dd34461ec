"""Speed of a code model in this engine and in llama.cpp, from the same GGUF file.

`python -m bench.speed.coder` measures a cold prompt, a decoded token, and the next keystroke as llama.vim asks for it
and as this project's pipeline answers it. The two sides take turns, each turn in a process of its own
(`coder_engine.py`, `coder_llama.py`), with the same number of threads. Must not judge the completions;
`bench.quality.run` does.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import track

from bench.report import Report, Spread, conditions, percentile, ratios
from bench.typed_lines import LINES, ROOT, TypedLine, sources, typed_lines
from engine.device import usable_cores
from engine.errors import InputError
from infill.complete.code_model import is_code_model
from infill.model_store import GGUF, absolute, resolve
from train.program import reports_errors

PROMPT_TOKENS, DECODED_TOKENS = 1000, 32
REPEATS = 2  # of the cold prompt and of the decoded tokens in a turn
LINES_PER_TURN = 2
AIMS = {"cold prompt": 2.5, "decoded token": 1.0, "next key, p50": 10.0}  # times as fast as llama.cpp
ENGINE, LLAMA = "engine", "llama.cpp"
COMMANDS = {
    ENGINE: [sys.executable, "-m", "bench.speed.coder_engine"],
    LLAMA: [sys.executable, str(Path(__file__).with_name("coder_llama.py"))],
}


@dataclass(frozen=True)
class Task:
    """What one turn measures. A side reads it as JSON from standard input and writes its `Times` as the last line of
    standard output.

    model: its name or path. file: its GGUF file. text: its first `prompt_tokens` tokens are the cold prompt. lines: per
    line the requests before and after each key, each as a text with a cursor (an offset in characters).
    """

    model: str
    file: str
    threads: int
    text: str
    prompt_tokens: int
    decoded_tokens: int
    repeats: int
    lines: list[list[dict[str, Any]]]


@dataclass(frozen=True)
class Times:
    """Milliseconds, wall-clock. cold: of the prompt and one token. token: per token after that prompt.

    first: of the first request on each line. key: of the requests after it; key_tokens: prompt tokens that each of
    these had to read. version, threads: of the side.
    """

    version: str
    threads: int
    cold: list[float]
    token: list[float]
    first: list[float]
    key: list[float]
    key_tokens: list[int]

    def and_then(self, later: Times) -> Times:
        """The times of two turns of the same side."""
        samples = ("cold", "token", "first", "key", "key_tokens")
        joined = {name: [*getattr(self, name), *getattr(later, name)] for name in samples}
        return Times(self.version, self.threads, **joined)


def requests(line: TypedLine, keys: int) -> list[dict[str, Any]]:
    """The request before the first key, and one after each key, as in `Task.lines`."""
    made = [line.request(more) for more in range(keys + 1)]
    return [
        {"text": one.text, "cursor": one.holes[0].start, "language": one.language, "path": one.path} for one in made
    ]


def take_turn(side: str, task: Task) -> Times:
    """Runs one side in a new process; raises InputError if it fails."""
    # The engine makes waiting threads sleep (engine/__init__.py). llama.cpp keeps its own default, which is faster on
    # an idle machine.
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment["GESSO_THREADS"] = str(task.threads)
    run = subprocess.run(
        COMMANDS[side],
        input=json.dumps(asdict(task)),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
    )
    if run.returncode:
        sys.stderr.write(run.stderr)
        raise InputError(f"The process that measures {side} failed; see the messages above.")
    return Times(**json.loads(run.stdout.splitlines()[-1]))


def measure(sides: Sequence[str], tasks: Sequence[Task]) -> dict[str, Times]:
    """The times of each side over all tasks; the sides take turns."""
    found: dict[str, Times] = {}
    for task in track(tasks, "rounds"):
        for side in sides:
            times = take_turn(side, task)
            found[side] = found[side].and_then(times) if side in found else times
    return found


def rows(found: Mapping[str, Times]) -> list[list[str]]:
    """The table: per measurement both sides in their unit, the ratio of the times, and the aim for the ratio."""
    ours, theirs = found[ENGINE], found.get(LLAMA)

    def spread(label: str, name: str) -> list[str]:
        def read(times: Times) -> str:
            return str(Spread.of(getattr(times, name)))

        ratio = str(ratios(getattr(theirs, name), getattr(ours, name))) if theirs else "–"
        return [f"{label}, ms", read(theirs) if theirs else "–", read(ours), ratio, _aim(label)]

    def share(label: str, name: str, quantile: float) -> list[str]:
        mine = percentile(getattr(ours, name), quantile)
        other = percentile(getattr(theirs, name), quantile) if theirs else None
        ratio = f"{other / mine:.1f}" if other is not None else "–"
        return [f"{label}, ms", f"{other:.0f}" if other is not None else "–", f"{mine:.0f}", ratio, _aim(label)]

    def median(label: str, values: Mapping[str, Sequence[float]]) -> list[str]:
        texts = [f"{percentile(values[side], 0.5):.0f}" if side in values else "–" for side in (LLAMA, ENGINE)]
        return [label, *texts, "", ""]

    speeds = {side: [1000 * PROMPT_TOKENS / cold for cold in times.cold] for side, times in found.items()}
    return [
        spread("cold prompt", "cold"),
        median("cold prompt, tokens per second", speeds),
        spread("decoded token", "token"),
        share("first request in a file, p50", "first", 0.5),
        share("next key, p50", "key", 0.5),
        share("next key, p95", "key", 0.95),
        median("prompt tokens read per key, p50", {side: times.key_tokens for side, times in found.items()}),
    ]


def _aim(label: str) -> str:
    return f"{AIMS[label]:.1f}" if label in AIMS else ""


def figures(found: Mapping[str, Times]) -> dict[str, Any]:
    """Per side: milliseconds, with quartiles or as percentiles."""
    return {
        side: {
            "version": times.version,
            "threads": times.threads,
            "cold_ms": Spread.of(times.cold),
            "token_ms": Spread.of(times.token),
            "first_ms": _percentiles(times.first),
            "key_ms": _percentiles(times.key),
            "key_tokens": _percentiles(times.key_tokens),
            "keys": len(times.key),
        }
        for side, times in found.items()
    }


def _percentiles(samples: Sequence[float]) -> dict[str, float]:
    return {"p50": percentile(samples, 0.5), "p95": percentile(samples, 0.95)}


def notes(found: Mapping[str, Times], rounds: int, keys: int) -> list[str]:
    ours, theirs = found[ENGINE], found.get(LLAMA)
    said = [
        f"Rounds: {rounds}; in each, one process of this engine and then one of llama.cpp. This engine used "
        f"{ours.threads} threads and {ours.version}.",
        f"Cold prompt: {PROMPT_TOKENS} tokens of Python with an empty cache, and the first token after them; twice per "
        f"process. Decoded token: greedy, one continuation, the mean of {DECODED_TOKENS} after that prompt. Median "
        "(quartiles).",
        f"Keys: {LINES_PER_TURN} lines per round, each in the middle of another file of {LINES[0]} to {LINES[1]} lines "
        f"and a third typed; a request, then one more after each of {keys} characters. Each key waits for its answer. "
        "Nothing is answered from suggestions already shown, which both editors' plugins would do.",
        "llama.cpp: `/infill` as llama.vim sends it, with 256 lines before, 64 after, no other files, n_predict 128, "
        "t_max_predict_ms 250 and cache_prompt, on a server with the settings of its `--fim-qwen-*-default` options "
        "(batch 1024, cache reuse 256). It writes until the limit of time, which holds after a line break. This "
        "engine: the whole pipeline for the rest of the line, with several candidates, their scores and the checks, "
        "and a prompt as long as its measured speed allows.",
        "Ratio: time of llama.cpp by time of this engine; above 1, this engine is faster.",
    ]
    if theirs is None:
        return [*said, "llama.cpp was not measured: that needs the package xllamacpp and a GGUF file."]
    return [*said, f"llama.cpp used {theirs.threads} threads: {theirs.version}."]


def main(
    model: Annotated[str, typer.Option(help="Name or GGUF file of the code model.")] = "coder",
    keys: Annotated[int, typer.Option(min=1, help="Characters typed on each line.")] = 5,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each side, two lines each.")] = 3,
    write: Annotated[str | None, typer.Option(help="Write bench/results/NAME.json and .md.")] = None,
) -> None:
    """Measure a code model in this engine and, if xllamacpp is installed, in llama.cpp."""
    place = resolve(absolute(model, Path())).resolve()
    if not is_code_model(place):
        raise InputError(f"{model} is not a code model; choose one, such as coder.")
    files = sources([])
    lines = typed_lines(files, LINES_PER_TURN * rounds, seed=0)
    text = "".join(source.text for source in files[:2])
    threads = int(os.environ.get("GESSO_THREADS") or usable_cores())
    tasks = [
        Task(
            str(place) if model.endswith(GGUF) else model,
            str(place),
            threads,
            text,
            PROMPT_TOKENS,
            DECODED_TOKENS,
            REPEATS,
            [requests(line, keys) for line in lines[number * LINES_PER_TURN :][:LINES_PER_TURN]],
        )
        for number in range(rounds)
    ]
    both = place.suffix == GGUF and importlib.util.find_spec("xllamacpp")
    sides = [ENGINE, LLAMA] if both else [ENGINE]
    found = measure(sides, tasks)
    header = ("what", "llama.cpp", "this engine", "ratio", "aim")
    title = f"{model} in this engine and in llama.cpp"
    report = Report(title, conditions(), header, rows(found), notes(found, rounds, keys), figures(found))
    report.show()
    for written in report.write(write) if write else ():
        print(written)


if __name__ == "__main__":
    typer.run(reports_errors(main))
