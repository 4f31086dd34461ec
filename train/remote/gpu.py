"""A long training run on a machine with a GPU that is lent by the hour: nothing is installed, nothing is downloaded.

Started in the root of the repository; PACK is what `python -m train.remote.pack` wrote:

    python -m train.remote.gpu prepare PACK        unpacks the data and says what the machine has
    python -m train.remote.gpu probe 160 320       speed and memory at several numbers of windows a step
    python -m train.remote.gpu start 20            20 minutes of training, in the background; again: goes on
    python -m train.remote.gpu status              the last lines of the log; --follow 500: and what comes for so many seconds
    python -m train.remote.gpu stop                saves a checkpoint and ends the run
    python -m train.remote.gpu collect OUT         the model in small files, the log and the curves

All of it stands in one folder (--work). Must not know how a step is made: it only starts train.run and reads its log.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
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

console = Console(highlight=False, soft_wrap=True)
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

PACKAGES = ("torch", "triton", "numpy", "tokenizers", "safetensors", "matplotlib")
PIECE = 15 << 20  # bytes of one collected file at most
PROBE_STEPS = 80  # half of them causal; the log has a line for every 20
PROBE_SECONDS = 240.0  # and then it is stopped: compiling takes most of it

Work = Annotated[Path, typer.Option(help="Folder for data, run and probes.")]
RecipeFile = Annotated[Path, typer.Option(help="The recipe to train by.")]
Compiled = Annotated[bool, typer.Option("--compile/--no-compile", help="Compile layers and loss.")]
WORK, RECIPE = Path("/tmp/gesso-gpu"), Path("train/pocket_gpu.toml")


def training(work: Path, out: Path, recipe: Path, compiled: bool, *budget: str) -> subprocess.Popen[bytes]:
    """train.run in a session of its own, which outlives this one; what it prints goes to out/output.txt."""
    if not (work / "data" / "tokenizer.json").is_file():
        raise InputError(f"There is no data in {work}; begin with `python -m train.remote.gpu prepare PACK`.")
    if not recipe.is_file():
        raise InputError(f"There is no recipe {recipe}; name one with --recipe.")
    data, flag = work / "data", "--compile" if compiled else "--no-compile"
    command = [sys.executable, "-m", "train.run", "--data", data, "--tokenizer", data / "tokenizer.json"]
    command += ["--recipe", recipe, "--out", out, flag, *budget]
    environment = {
        "PYTHONUNBUFFERED": "1",
        "COLUMNS": "200",
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
        "TORCHINDUCTOR_CACHE_DIR": str(work.absolute() / "inductor"),  # what a probe compiled need not be again
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
    """The process of the run, where it is still at work."""
    try:
        process = int((run / "process").read_text())
        try:
            os.waitpid(process, os.WNOHANG)  # one that has ended and is a child of ours would seem to be there
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
    """GiB on the first GPU, of all processes; None without nvidia-smi."""
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
        return float(done.stdout.splitlines()[0]) / 1024
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def follow(run: Path, seconds: float, since: int) -> None:
    """Prints what the run prints, from byte `since` on, until the time is over or the run has ended."""
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
    """How far the run is and how fast; where it has ended, its last words."""
    process = running(run)
    for record in records(run)[-5:]:
        shown = {name: value for name, value in record.items() if name not in ("phase", "step", "seconds", "tokens")}
        figures = "  ".join(f"{name} {value:,.4g}" for name, value in shown.items())
        where = f"{record['phase']} step {record['step']}  {record['seconds'] / 60:.1f} min"
        console.print(f"{where}  {record['tokens'] / 1e6:.1f} M tokens  {figures}")
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
    """Unpack the data, and say what the machine has."""
    from train.remote.pack import unpack

    versions = [name if importlib.util.find_spec(name) else f"no {name}" for name in PACKAGES]
    versions = [f"{name} {importlib.metadata.version(name)}" if " " not in name else name for name in versions]
    console.print("  ".join((f"Python {sys.version.split()[0]}", *versions)))
    import torch

    device = "no GPU"
    if torch.cuda.is_available():
        about = torch.cuda.get_device_properties(0)
        device = f"{about.name}, {about.total_memory / 2**30:.0f} GiB"
    compiler = next((name for name in ("gcc", "cc", "g++", "clang") if shutil.which(name)), "none, so use --no-compile")
    console.print(f"{device}, {os.cpu_count()} cores, C compiler: {compiler}")
    for name, split in unpack(pack, work / "data").items():
        console.print(f"{name}: {len(split.files):,} files, {len(split.tokens) / 1e6:.2f} M tokens")


@app.command()
def probe(
    rows: Annotated[list[int], typer.Argument(help="Windows a step, one or several.")],
    work: Work = WORK,
    recipe: RecipeFile = RECIPE,
    compiled: Compiled = True,
    seconds: Annotated[float, typer.Option(help="At most for each, compiling included.")] = PROBE_SECONDS,
) -> None:
    """Speed and memory of a few steps in both phases, at several numbers of windows a step."""
    table = Table("windows a step", "phase", "tokens a second", "share of peak", "GPU memory, GiB", "seconds in all")
    for count in rows:
        out = work / f"probe-{count}"
        shutil.rmtree(out, ignore_errors=True)
        text = recipe.read_text() if recipe.is_file() else ""
        for name, value in (("rows", str(count)), ("causal_share", "0.5")):
            text, changed = re.subn(rf"(?m)^{name} *=.*$", f"{name} = {value}", text)
            if changed != 1:
                raise InputError(f"The recipe {recipe} has no line for {name}; add it under [run].")
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
            console.print(f"With {count} windows a step it ended after {spent:.0f} s without success:")
            console.print(last_lines(out, 12), markup=False)
    console.print(table)


@app.command()
def start(
    minutes: Annotated[float, typer.Argument(help="Training time in all, counted over resumptions.")],
    work: Work = WORK,
    recipe: RecipeFile = RECIPE,
    compiled: Compiled = True,
    seconds: Annotated[float, typer.Option("--follow", help="Print what it prints for so many seconds.")] = 10.0,
) -> None:
    """Train in the background; the same command goes on from the last checkpoint."""
    run = work / "run"
    if (process := running(run)) is not None:
        raise InputError(f"A run is at work (process {process}); see `status`, or end it with `stop`.")
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
    seconds: Annotated[float, typer.Option("--follow", help="Then print what it prints for so many seconds.")] = 0.0,
) -> None:
    """The last lines of the log, and whether the run is still at work."""
    run = work / "run"
    if not (run / "output.txt").is_file():
        raise InputError(f"No run was started in {work}; begin with `python -m train.remote.gpu start MINUTES`.")
    if seconds:
        follow(run, seconds, size_of_output(run))
    show(run)


@app.command()
def stop(work: Work = WORK) -> None:
    """Save a checkpoint and end the run."""
    run = work / "run"
    if (process := running(run)) is None:
        raise InputError(f"No run is at work in {work}.")
    _end(process, 120.0)
    show(run)


def _end(process: int, seconds: float) -> None:
    """SIGTERM, upon which train.run saves; after `seconds` the whole session is killed."""
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
    out: Annotated[Path, typer.Argument(help="Folder for the files; small ones, few of them.")],
    work: Work = WORK,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, int8; none for log and curves alone.")] = "bfloat16",
) -> None:
    """Export the newest checkpoint as pieces of one tar file, with the log and the curves beside them.

    `cat OUT/model.tar.* | tar x` makes the model's folder of them. Optimizer state is left out.
    """
    run = work / "run"
    if not (run / "log.jsonl").is_file():
        raise InputError(f"There is no log in {run} yet; see `python -m train.remote.gpu status`.")
    if dtype not in ("float32", "bfloat16", "int8", "none"):
        raise InputError(f"The type {dtype!r} is not known; choose float32, bfloat16, int8 or none.")
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


def main() -> None:
    try:
        app()
    except GessoError as error:
        console.print(str(error), style="red", markup=False)
        raise SystemExit(3) from None


if __name__ == "__main__":
    main()
