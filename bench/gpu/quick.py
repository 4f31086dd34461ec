"""Everything that needs a GPU, the most important first, within the time for which a card is rented.

`bench/gpu/quick` runs the entries below, each in a process of its own, and writes what an entry finds as soon as it is
found. An entry that fails or takes too long is recorded with its error, and the next one runs. Called again, it
continues with the entries that have no record. Nothing is downloaded. `--dry-run` runs every entry at tiny sizes on the
CPU, with Triton's interpreter; its times mean nothing. Must not know how anything is measured.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

RESULTS = Path(__file__).parents[1] / "results" / "gpu"
STATE = "quick.json"
SECONDS = 780.0  # 13 of the 15 minutes for which a card is lent
LEAST_S = 20.0  # an entry with less time left is not started
POLL_S = 0.05
ON_GPU, ANYWHERE = "tests/kernels/test_on_gpu.py", "tests/engine/test_canvas.py"
FORMATS = ("int4", "nvfp4", "fp8", "bf16")

Work = Callable[[bool, Path], None]
"""Whether to use tiny sizes on the CPU, and the folder of the results. Raises what goes wrong."""


@dataclass(frozen=True)
class Entry:
    """seconds: after which it is stopped."""

    name: str
    seconds: float
    work: Work


def versions(tiny: bool, out: Path) -> None:
    import torch

    from bench.gpu.common import choose_device
    from bench.report import Report, conditions
    from infill.version import installed_version

    device = choose_device(tiny, "bench.gpu.quick")
    found = {**conditions(device), "numpy": installed_version("numpy"), "pytest": installed_version("pytest")}
    found["triton"] = installed_version("triton")
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        found |= {"capability": f"{card.major}.{card.minor}", "multiprocessors": card.multi_processor_count}
        found["memory_gib"] = round(card.total_memory / 2**30, 1)
    rows = [[name, str(value)] for name, value in found.items()]
    Report("The machine", {}, ("what", "value"), rows, [], found).write("versions", out)


def kernels(tiny: bool, out: Path) -> None:
    """The self-check of the engine: every kernel against plain PyTorch."""
    import torch

    from bench.gpu.common import choose_device
    from bench.report import Report, conditions
    from engine import self_check

    device = choose_device(tiny, "bench.gpu.quick", kernels=True)
    if tiny:
        self_check.SAMPLED_ROWS, self_check.SHARE_ERROR = 32, 0.3
    failure = self_check.kernel_failure(device, torch.float32 if tiny else torch.bfloat16)
    rows = [["all kernels", failure or "right"]]
    Report("Kernels against plain PyTorch", conditions(device), ("what", "result"), rows, [], failure).write(
        "self_check", out
    )
    if failure:
        raise RuntimeError(failure)


def tests(tiny: bool, out: Path) -> None:
    import pytest

    code = pytest.main(["-q", "-p", "no:cacheprovider", "-rs", ANYWHERE if tiny else ON_GPU])
    if code:
        raise RuntimeError(f"pytest ended with exit code {int(code)}")


def kernels_at_size(only: str) -> Work:
    def work(tiny: bool, out: Path) -> None:
        from bench.gpu import step_kernels

        step_kernels.main(repeats=1 if tiny else 20, only=only, tiny=tiny, name=f"step_kernels_{only}", out=out)

    return work


def step(kind: str) -> Work:
    def work(tiny: bool, out: Path) -> None:
        from bench.gpu import step

        sizes: dict[str, Any] = {} if tiny else {"canvases": [128], "contexts": [2048]}
        step.main([kind], **sizes, repeats=1 if tiny else 30, profile=not tiny, tiny=tiny, name=f"step_{kind}", out=out)

    return work


def more_steps(tiny: bool, out: Path) -> None:
    from bench.gpu import step

    sizes: dict[str, Any] = {} if tiny else {"canvases": [256, 64], "contexts": [512, 8192]}
    step.main(["int4", "bf16"], **sizes, repeats=1 if tiny else 20, tiny=tiny, name="steps", out=out)


def requests(kind: str) -> Work:
    def work(tiny: bool, out: Path) -> None:
        from bench.gpu import completer

        counts = {"steps": 3, "repeats": 2, "warm_up": 1} if tiny else {}
        completer.main([kind], **counts, tiny=tiny, name=f"completer_{kind}", out=out)

    return work


def infill(kind: str) -> Work:
    def work(tiny: bool, out: Path) -> None:
        from bench.gpu import infill

        infill.main([kind], repeats=1 if tiny else 40, tiny=tiny, name=f"infill_{kind}", out=out)

    return work


def batch(kind: str) -> Work:
    def work(tiny: bool, out: Path) -> None:
        from bench.gpu import batch

        sizes: dict[str, Any] = {"context": 20, "hole": 6, "steps": 2, "repeats": 2} if tiny else {}
        batches = [2] if tiny else [2, 8]
        batch.main([kind], batches=batches, **sizes, tiny=tiny, name=f"batch_{kind}", out=out)

    return work


def masked(tiny: bool, out: Path) -> None:
    from bench.speed import masked

    if tiny:
        masked.main(shape="tiny", context=[40], slots=4, repeats=1, device="cpu", threads=1, write="masked_7b", out=out)
    else:
        masked.main(shape="7b", context=[512, 1536], device="cuda", write="masked_7b", out=out)


def beside(compiled: bool) -> Work:
    def work(tiny: bool, out: Path) -> None:
        from bench.gpu import step_beside

        name = "step_beside_compiled" if compiled else "step_beside"
        step_beside.main(compiled and not tiny, repeats=1 if tiny else 10, tiny=tiny, name=name, out=out)

    return work


ENTRIES = (
    Entry("versions", 60, versions),
    Entry("kernels", 120, kernels),
    Entry("experts", 150, kernels_at_size("mixture")),
    *(Entry(f"step {kind}", 120, step(kind)) for kind in FORMATS),
    *(Entry(f"requests {kind}", 120, requests(kind)) for kind in ("int4", "bf16")),
    Entry("batch int4", 90, batch("int4")),
    Entry("masked 7b", 120, masked),
    Entry("tests", 300, tests),
    *(Entry(f"{only} at size", 240, kernels_at_size(only)) for only in ("product", "attention", "vocabulary")),
    *(Entry(f"requests {kind}", 240, requests(kind)) for kind in ("nvfp4", "fp8")),
    *(Entry(f"infill {kind}", 240, infill(kind)) for kind in FORMATS),
    Entry("batch bf16", 240, batch("bf16")),
    Entry("more steps", 590, more_steps),
    *(Entry("step beside compiled" if one else "step beside", 590, beside(one)) for one in (False, True)),
)


class Record:
    """How each entry ended, in a file of the results' folder that is written after every entry."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / STATE
        try:
            self.entries: dict[str, dict[str, Any]] = json.loads(self.file.read_text("utf-8"))
        except (OSError, ValueError):
            self.entries = {}

    def add(self, name: str, seconds: float, error: str | None) -> None:
        self.entries[name] = {"status": "failed" if error else "done", "seconds": round(seconds, 1), "error": error}
        partial = self.file.with_suffix(".partial")
        partial.write_text(json.dumps(self.entries, indent=1) + "\n", "utf-8")
        partial.replace(self.file)

    @property
    def failures(self) -> Mapping[str, str]:
        return {name: entry["error"] for name, entry in self.entries.items() if entry["status"] == "failed"}

    def forget_failures(self) -> None:
        self.entries = {name: entry for name, entry in self.entries.items() if entry["status"] == "done"}


def run_all(entries: Sequence[Entry], folder: Path, seconds: float, tiny: bool) -> Record:
    """Runs what has no record yet until `seconds` are over; an entry that this ends gets no record."""
    record, end = Record(folder), time.monotonic() + seconds
    for entry in entries:
        left = end - time.monotonic()
        if entry.name in record.entries:
            continue
        if left < min(LEAST_S, seconds / 2):
            break
        print(f"== {entry.name}", flush=True)
        started = time.monotonic()
        error = run_apart(entry, folder, min(entry.seconds, left), tiny)
        spent = time.monotonic() - started
        if error is not None and (spent >= left or entry is entries[0]):  # without the first one none can run
            print(f"Stopped in {entry.name}: {error}", flush=True)
            break
        record.add(entry.name, spent, error)
        print(f"== {entry.name}: {f'FAILED: {error}' if error else 'done'} ({spent:.0f} s)", flush=True)
    return record


def run_apart(entry: Entry, folder: Path, seconds: float, tiny: bool) -> str | None:
    """Runs the entry in a child, which a crash of a driver or a kernel ends, and not this process. Returns its error.

    A fork, because importing PyTorch again takes seconds; this process never uses the GPU.
    """
    log = folder / f"{entry.name.replace(' ', '_')}.log"
    child = os.fork()
    if not child:
        _in_child(entry, folder, log, tiny)
    end = time.monotonic() + seconds
    try:
        while True:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                break
            if time.monotonic() >= end:
                _kill(child)
                return f"it took more than {seconds:.0f} s"
            time.sleep(POLL_S)
    except BaseException:
        _kill(child)
        raise
    code = os.waitstatus_to_exitcode(status)
    return None if code == 0 else _last_line(log) or f"it ended with {code}"


def _in_child(entry: Entry, folder: Path, log: Path, tiny: bool) -> None:
    """Never returns."""
    code = 1
    try:
        os.setsid()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout = sys.stderr = os.fdopen(output, "w", buffering=1)
        entry.work(tiny, folder)
        code = 0
    except typer.Exit as ended:  # a program that has said why
        code = ended.exit_code
    except BaseException as error:
        traceback.print_exc()
        print(f"{type(error).__name__}: {error}".strip().partition("\n")[0])
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _kill(child: int) -> None:
    """Ends the child and what it started."""
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:  # it has not made its group yet
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def _last_line(log: Path) -> str:
    lines = log.read_text("utf-8", "replace").strip().splitlines()
    return lines[-1].strip()[:300] if lines else ""


def main(
    dry_run: Annotated[bool, typer.Option(help="Tiny sizes on the CPU; the times mean nothing.")] = False,
    seconds: Annotated[float, typer.Option(min=1, help="Time limit; call it again to continue.")] = SECONDS,
    retry: Annotated[bool, typer.Option(help="Run the entries that failed again.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder of the results.")] = None,
) -> None:
    """Run every measurement that needs a GPU, the most important first."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "COLUMNS": "200", "TOKENIZERS_PARALLELISM": "false"}
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # otherwise to ask for a GPU keeps children from using it
    if dry_run:  # before anything imports Triton
        os.environ |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # which also ends the entry that runs
    folder = out or (Path(tempfile.mkdtemp(prefix="gesso-quick-")) if dry_run else RESULTS)
    folder.mkdir(parents=True, exist_ok=True)
    import bench.gpu.completer  # noqa: F401 - imported once for all children

    if retry:
        record = Record(folder)
        record.forget_failures()
        record.file.write_text(json.dumps(record.entries), "utf-8")
    entries = [replace(entry, seconds=seconds) for entry in ENTRIES] if dry_run else ENTRIES  # a busy CPU is slow
    record = run_all(entries, folder, seconds, dry_run)
    left = [entry.name for entry in ENTRIES if entry.name not in record.entries]
    for name, error in record.failures.items():
        print(f"FAILED: {name}: {error}")
    if left:
        print(f"Left: {', '.join(left)}; run it again to continue.")
    print(f"Results: {folder}")
    raise typer.Exit(1 if left or record.failures else 0)


if __name__ == "__main__":
    typer.run(main)
