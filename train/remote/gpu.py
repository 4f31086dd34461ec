"""Trains on a rented machine with a GPU, without installing or downloading anything there.

Run it in the root of the repository. PACK is the folder written by `python -m train.remote.pack`.

    python -m train.remote.gpu prepare PACK      unpacks the data and lists the machine's hardware and packages
    python -m train.remote.gpu probe 160 320     measures speed and memory for these numbers of windows per step
    python -m train.remote.gpu start 20          trains for 20 minutes in the background; run again to continue
    python -m train.remote.gpu status            prints the end of the log; --follow 500 prints new output for 500 s
    python -m train.remote.gpu stop              saves a checkpoint and stops the run
    python -m train.remote.gpu collect OUT       exports the model in small files, the log and the curves

All files are in one folder (--work). Must not know how a training step works: it starts train.run and reads its log.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from engine.errors import GessoError, InputError
from infill.version import installed_version
from train.program import FAILED

console = Console(highlight=False, soft_wrap=True)
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

PACKAGES = ("torch", "triton", "numpy", "tokenizers", "safetensors", "matplotlib")
PIECE = 15 << 20  # bytes of one collected file at most
PROBE_STEPS = 80  # half of them causal; the log has a line per 20 steps
PROBE_SECONDS = 240.0  # then the probe is stopped; compiling takes most of the time

Work = Annotated[Path, typer.Option(help="Folder for data, runs and probes.")]
RecipeFile = Annotated[Path, typer.Option(help="Training recipe.")]
Compiled = Annotated[bool, typer.Option("--compile/--no-compile", help="Compile layers and loss.")]
WORK, RECIPE = Path("/tmp/gesso-gpu"), Path("train/pocket_gpu.toml")


def training(work: Path, out: Path, recipe: Path, compiled: bool, *budget: str) -> subprocess.Popen[bytes]:
    """Starts train.run in a new session, which outlives this process. Its output goes to out/output.txt."""
    if not (work / "data" / "tokenizer.json").is_file():
        raise InputError(f"There is no data in {work}; start with `python -m train.remote.gpu prepare PACK`.")
    if not recipe.is_file():
        raise InputError(f"There is no recipe {recipe}; name one with --recipe.")
    data, flag = work / "data", "--compile" if compiled else "--no-compile"
    command = [sys.executable, "-m", "train.run", "--data", data, "--tokenizer", data / "tokenizer.json"]
    command += ["--recipe", recipe, "--out", out, flag, *budget]
    environment = {
        "PYTHONUNBUFFERED": "1",
        "COLUMNS": "200",
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
        "TORCHINDUCTOR_CACHE_DIR": str(work.absolute() / "inductor"),  # shared between probes and runs
    }
    out.mkdir(parents=True, exist_ok=True)
    with (out / "output.txt").open("ab") as output:
        return subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment | dict(os.environ),
            start_new_session=True,
        )


def running(run: Path) -> int | None:
    """The process id of the run; None if it has ended."""
    try:
        process = int((run / "process").read_text())
        try:
            os.waitpid(process, os.WNOHANG)  # otherwise an ended child would seem to run
        except ChildProcessError:
            pass
        os.kill(process, 0)
    except (OSError, ValueError):
        return None
    return process


def records(run: Path) -> list[dict[str, Any]]:
    log = run / "log.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []


def size_of_output(run: Path) -> int:
    output = run / "output.txt"
    return output.stat().st_size if output.is_file() else 0


def last_lines(run: Path, count: int) -> str:
    output = run / "output.txt"
    return "\n".join(output.read_text(errors="replace").splitlines()[-count:]) if output.is_file() else ""


def memory_used() -> float | None:
    """GiB in use on the first GPU, by all processes; None without nvidia-smi."""
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
        return float(done.stdout.splitlines()[0]) / 1024
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def follow(run: Path, seconds: float, since: int) -> None:
    """Prints the run's output from byte `since` on, for `seconds` or until the run ends."""
    ends = time.monotonic() + seconds
    with (run / "output.txt").open(errors="replace") as output:
        output.seek(since)
        while True:
            alive = running(run) is not None
            if text := output.read():
                console.print(text, end="", markup=False)
            if not alive or time.monotonic() >= ends:
                return
            time.sleep(min(0.5, max(0.0, ends - time.monotonic())))


def show(run: Path) -> None:
    """Prints progress and speed of the run; if it has ended, also its last output."""
    process = running(run)
    for record in records(run)[-5:]:
        shown = {name: value for name, value in record.items() if name not in ("phase", "step", "seconds", "tokens")}
        figures = "  ".join(f"{name} {value:,.4g}" for name, value in shown.items())
        position = f"{record['phase']} step {record['step']}  {record['seconds'] / 60:.1f} min"
        console.print(f"{position}  {record['tokens'] / 1e6:.1f} M tokens  {figures}")
    checkpoint = run / "checkpoint.pt"
    age = f"{time.time() - checkpoint.stat().st_mtime:.0f} s old" if checkpoint.is_file() else "none yet"
    used = memory_used()
    memory = "" if used is None else f", {used:.1f} GiB of GPU memory in use"
    console.print(f"{'running' if process else 'not running'}, checkpoint {age}{memory}")
    if process is None:
        console.print(last_lines(run, 8), markup=False)


@app.command()
def prepare(
    pack: Annotated[Path, typer.Argument(help="Folder with pack-00.xz, …")],
    work: Work = WORK,
) -> None:
    """Unpack the data, and list the machine's hardware and packages."""
    from train.remote.pack import unpack

    versions = [f"{name} {installed_version(name)}" for name in PACKAGES]
    console.print("  ".join((f"Python {sys.version.split()[0]}", *versions)))
    import torch

    device = "no GPU"
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        device = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    compiler = next((name for name in ("gcc", "cc", "g++", "clang") if shutil.which(name)), "none (use --no-compile)")
    console.print(f"{device}, {os.cpu_count()} cores, C compiler: {compiler}")
    for name, split in unpack(pack, work / "data").items():
        console.print(f"{name}: {len(split.files):,} files, {len(split.tokens) / 1e6:.2f} M tokens")


@app.command()
def probe(
    rows: Annotated[list[int], typer.Argument(help="Windows per step, one or more numbers.")],
    work: Work = WORK,
    recipe: RecipeFile = RECIPE,
    compiled: Compiled = True,
    seconds: Annotated[float, typer.Option(help="Time limit of each, with compilation.")] = PROBE_SECONDS,
) -> None:
    """Measure speed and memory of a few steps in both phases, for several numbers of windows per step."""
    table = Table("windows per step", "phase", "tokens/s", "share of peak", "GPU memory, GiB", "seconds in total")
    for count in rows:
        out = work / f"probe-{count}"
        shutil.rmtree(out, ignore_errors=True)
        text = recipe.read_text() if recipe.is_file() else ""
        for name, value in (("rows", str(count)), ("causal_share", "0.5")):
            text, changed = re.subn(rf"(?m)^{name} *=.*$", f"{name} = {value}", text)
            if changed != 1:
                raise InputError(f"The recipe {recipe} has no line for {name}; add one under [run].")
        out.mkdir(parents=True)
        (out / "recipe.toml").write_text(text)
        sizes = {"prompt": 320, "canvas": 128} | tomllib.loads(text).get("layout", {})
        tokens = PROBE_STEPS * count * (sizes["prompt"] + sizes["canvas"])
        begun, most = time.monotonic(), None
        process = training(work, out, out / "recipe.toml", compiled, "--tokens", str(tokens / 1e6))
        while process.poll() is None:
            used = memory_used()
            most = used if most is None else max(most, used or 0.0)
            if time.monotonic() - begun > seconds:
                process.terminate()
            if time.monotonic() - begun > seconds + 60:
                process.kill()
            time.sleep(0.2)
        spent = time.monotonic() - begun
        fastest: dict[str, dict[str, Any]] = {}
        for record in records(out):
            before = fastest.get(record["phase"], {}).get("tokens_per_second", 0.0)
            if record.get("tokens_per_second", 0.0) > before:
                fastest[record["phase"]] = record
        memory = "-" if most is None else f"{most:.1f}"
        for phase, record in fastest.items():
            speed, share = f"{record['tokens_per_second']:,.0f}", f"{record.get('share_of_peak', 0.0):.1%}"
            table.add_row(str(count), phase, speed, share, memory, f"{spent:.0f}")
        if process.returncode or not fastest:
            console.print(f"The probe with {count} windows per step failed after {spent:.0f} s:")
            console.print(last_lines(out, 12), markup=False)
    console.print(table)


@app.command()
def start(
    minutes: Annotated[float, typer.Argument(help="Training time in total, over all resumptions.")],
    work: Work = WORK,
    recipe: RecipeFile = RECIPE,
    compiled: Compiled = True,
    seconds: Annotated[float, typer.Option("--follow", help="Print output for this many seconds.")] = 10.0,
) -> None:
    """Train in the background. The same command continues from the last checkpoint."""
    run = work / "run"
    if (process := running(run)) is not None:
        raise InputError(f"A run is in progress (process {process}); see `status`, or stop it with `stop`.")
    since = size_of_output(run)
    process = training(work, run, recipe, compiled, "--minutes", str(minutes)).pid
    (run / "process").write_text(str(process))
    console.print(f"Started as process {process}; see `python -m train.remote.gpu status`.")
    follow(run, seconds, since)
    if running(run) is None:
        show(run)


@app.command()
def status(
    work: Work = WORK,
    seconds: Annotated[float, typer.Option("--follow", help="Print new output for this many seconds.")] = 0.0,
) -> None:
    """Print the end of the log and whether the run is in progress."""
    run = work / "run"
    if not (run / "output.txt").is_file():
        raise InputError(f"No run was started in {work}; start one with `python -m train.remote.gpu start MINUTES`.")
    if seconds:
        follow(run, seconds, size_of_output(run))
    show(run)


@app.command()
def stop(work: Work = WORK) -> None:
    """Save a checkpoint and stop the run."""
    run = work / "run"
    if (process := running(run)) is None:
        raise InputError(f"No run is in progress in {work}; there is nothing to stop.")
    _end(process, 120.0)
    show(run)


def _end(process: int, seconds: float) -> None:
    """Sends SIGTERM, on which train.run saves; after `seconds` kills the whole session."""
    os.kill(process, signal.SIGTERM)
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        try:
            if os.waitpid(process, os.WNOHANG)[0]:
                return
        except ChildProcessError:
            try:
                os.kill(process, 0)
            except ProcessLookupError:
                return
        time.sleep(0.1)
    os.killpg(process, signal.SIGKILL)


@app.command()
def collect(
    out: Annotated[Path, typer.Argument(help="Folder for the files.")],
    work: Work = WORK,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or int8; none for log and curves only.")] = "bfloat16",
) -> None:
    """Export the last checkpoint as pieces of a tar file, with the log and the curves.

    `cat OUT/model.tar.* | tar x` restores the model folder. The state of the optimizers is left out.
    """
    run = work / "run"
    if not (run / "log.jsonl").is_file():
        raise InputError(f"There is no log in {run} yet; see `python -m train.remote.gpu status`.")
    if dtype not in ("float32", "bfloat16", "int8", "none"):
        raise InputError(f"There is no number type {dtype!r}; choose float32, bfloat16, int8 or none.")
    from train.curves import draw, read_run

    out.mkdir(parents=True, exist_ok=True)
    for name in ("log.jsonl", "output.txt"):
        shutil.copyfile(run / name, out / name)
    try:
        draw([read_run(run, "run")], out / "curves.svg")
    except InputError as error:
        console.print(f"No curves: {error}", markup=False)
    if dtype != "none":
        _collect_model(work, out, dtype)
    for file in sorted(out.iterdir()):
        console.print(f"{file.stat().st_size / 2**20:7.2f} MiB  {file.name}")


def _collect_model(work: Path, out: Path, dtype: Any) -> None:
    from train.export import export

    folder, whole = work / "collected" / "model", work / "collected" / "model.tar"
    shutil.rmtree(folder.parent, ignore_errors=True)
    export(work / "run", work / "data" / "tokenizer.json", folder, dtype, Path("train/pocket_generation.json"))
    with tarfile.open(whole, "w") as archive:
        archive.add(folder, folder.name)
    for old in out.glob("model.tar.*"):
        old.unlink()
    with whole.open("rb") as source:
        number = 0
        while piece := source.read(PIECE):
            (out / f"model.tar.{number:02d}").write_bytes(piece)
            number += 1
    shutil.rmtree(folder.parent)


if __name__ == "__main__":
    try:
        app()
    except GessoError as error:
        console.print(str(error), style="red", markup=False)
        raise SystemExit(FAILED) from None
