"""Milliseconds per denoise step at the true 26B shapes, beside the bytes that a step must move, on one GPU.

Run `python -m bench.gpu.step` on a machine with a GPU; nothing is downloaded. Each format, canvas and context gives a row:
a step run eagerly and as a CUDA graph, the least bytes over the copy bandwidth measured in the same run, their ratio,
memory; and with `--profile` where the time goes by kernel. Results are written after every row, so a run may be
interrupted. `bench.gpu.step_beside` is the comparison with transformers.

`TRITON_INTERPRET=1 python -m bench.gpu.step --tiny` is a dry run on a CPU; its times mean nothing.
"""

from __future__ import annotations

import gc
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import torch
import typer

from bench.gpu.step_shapes import BUILDS, TINY, TRUE_26B, random_keys, random_model, step_bytes
from bench.report import RESULTS, Report, Spread, conditions
from engine.config import ModelConfig, SamplingConfig
from engine.errors import InputError
from engine.graphs.fixed_step import MOST_STEPS, Bucket, FixedStep, KeyRoom, Row
from engine.graphs.recorded_steps import CudaGraphs
from engine.graphs.step_stats import TOP, few
from engine.key_values import KeyValues
from engine.models.text_model import TextModel
from engine.models.fused import FusedModel

COPIED_BYTES = 2**31
NEVER = -1.0  # nats: no canvas is ever so sure
HEADER = (
    "format",
    "canvas",
    "context",
    "eager, ms",
    "graph, ms",
    "floor, ms",
    "graph / floor",
    "GB read",
    "memory, GiB",
)


def engine_step(model: TextModel, kv: KeyValues, canvas: int) -> FixedStep:
    """The engine's own step for one canvas that is all hole, behind the prompt of `kv`, ready to be made many times."""
    config, device = model.config, kv.device
    bucket = Bucket(1, canvas, canvas, kv.length, "none")
    step = FixedStep(model, bucket, KeyRoom(config, bucket, device, kv.dtype), few)
    tokens = torch.randint(0, config.vocab_size, (canvas,), device=device)
    nothing = torch.zeros_like(model.embed(tokens))
    row = Row(
        kv=kv, sampling=SamplingConfig(max_steps=MOST_STEPS, confidence_threshold=NEVER), canvas=tokens,
        columns=torch.arange(canvas, device=device), known_belief=nothing, tokens=tokens, argmax=tokens, belief=nothing,
        noise=torch.randint(0, config.vocab_size, (MOST_STEPS, canvas), device=device),
        uniform=torch.rand(MOST_STEPS, canvas, device=device), bias=None, steps=0, unchanged=0,
    )  # fmt: skip
    step.load([row])
    return step


def timed(work: Callable[[], object], device: torch.device, repeats: int, warm_up: int = 3) -> Spread:
    """Milliseconds of `work`, by device events on a GPU."""
    for _ in range(warm_up):
        work()
    samples = []
    for _ in range(repeats):
        if device.type != "cuda":
            started = perf_counter()
            work()
            samples.append(1000 * (perf_counter() - started))
            continue
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        end.synchronize()
        samples.append(start.elapsed_time(end))
    return Spread.of(samples)


def copy_bandwidth(device: torch.device, size: int) -> float:
    """Bytes read and written a second by a copy of random numbers on the device."""
    source = torch.randint(0, 256, (size,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / (timed(lambda: target.copy_(source), device, 20).median / 1000)


def by_kernel(work: Callable[[], object], most: int = 20) -> list[dict[str, Any]]:
    """Microseconds and calls of the kernels of one run, the dearest first."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as profiler:
        work()
        torch.cuda.synchronize()
    events = [event for event in profiler.key_averages() if event.self_device_time_total > 0]
    events.sort(key=lambda event: -event.self_device_time_total)
    return [{"kernel": e.key[:120], "us": e.self_device_time_total, "calls": e.count} for e in events[:most]]


def measure(
    model: FusedModel, kv: KeyValues, canvas: int, bandwidth: float, repeats: int, profile: bool
) -> dict[str, Any]:
    """The figures of one row."""
    device = kv.device
    step = engine_step(model, kv, canvas)
    read = step_bytes(model, kv, canvas)
    eager = timed(step, device, repeats)
    assert bool(step.belief.isfinite().all()), "a step gave numbers that are not finite"
    figures: dict[str, Any] = {
        "bytes": asdict(read) | {"total": read.total},
        "floor_ms": 1000 * read.total / bandwidth,
        "eager_ms": eager.to_json(),
        "memory_bytes": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
    }
    best = eager
    if device.type == "cuda":
        try:
            best = timed(CudaGraphs()(step), device, repeats)
            figures["graph_ms"] = best.to_json()
        except Exception as trouble:  # a driver's own kind: the eager step is a result too
            print(f"No CUDA graph: {reason(trouble)}", flush=True)
    figures["over_floor"] = best.median / figures["floor_ms"]
    if profile and device.type == "cuda":
        try:
            figures["kernels"] = by_kernel(step)
        except RuntimeError as trouble:  # where the machine does not let itself be profiled
            print(f"No profile: {reason(trouble)}", flush=True)
    return figures


def reason(trouble: Exception) -> str:
    """What went wrong, in a line."""
    return f"{type(trouble).__name__}: {str(trouble).strip().partition(chr(10))[0][:120]}"


def row(name: str, canvas: int, context: int, figures: dict[str, Any]) -> list[str]:
    graph, memory = figures.get("graph_ms"), figures["memory_bytes"]
    return [
        name,
        str(canvas),
        str(context),
        f"{figures['eager_ms']['median']:.2f}",
        f"{graph['median']:.2f}" if graph else "–",
        f"{figures['floor_ms']:.2f}",
        f"{figures['over_floor']:.2f}",
        f"{figures['bytes']['total'] / 1e9:.1f}",
        f"{memory / 2**30:.1f}" if memory else "–",
    ]


def choose_place(tiny: bool) -> tuple[torch.device, torch.dtype]:
    """Device and number type; raises InputError where the kernels cannot run."""
    if torch.cuda.is_available():
        return torch.device("cuda"), torch.bfloat16
    import triton

    if not (tiny and triton.knobs.runtime.interpret):
        raise InputError(
            "There is no GPU here; for a dry run on the CPU run `TRITON_INTERPRET=1 python -m bench.gpu.step --tiny`."
        )
    return torch.device("cpu"), torch.float32


@torch.inference_mode()
def main(
    formats: Annotated[list[str] | None, typer.Option("--format", help=f"Of {', '.join(BUILDS)}; else all.")] = None,
    canvases: Annotated[list[int] | None, typer.Option("--canvas", help="Canvas columns.")] = None,
    contexts: Annotated[list[int] | None, typer.Option("--context", help="Prompt tokens.")] = None,
    repeats: Annotated[int, typer.Option(min=2, help="Measured steps of each row.")] = 30,
    profile: Annotated[bool, typer.Option(help="Also list the time by kernel.")] = False,
    tiny: Annotated[bool, typer.Option(help="Small shapes, to try the program.")] = False,
    name: Annotated[str, typer.Option(help="Name of the result files.")] = "step",
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Measures a denoise step at the true shapes of the 26B."""
    device, dtype = choose_place(tiny)
    config_json = TINY if tiny else TRUE_26B
    config = ModelConfig.from_json(config_json)
    canvases = canvases or ([8] if tiny else [256, 128, 64])
    contexts = contexts or ([20] if tiny else [512, 2048, 8192])
    bandwidth = copy_bandwidth(device, 2**20 if tiny else COPIED_BYTES)
    told = notes(bandwidth, repeats, tiny)
    report = Report("A denoise step of the 26B", {**conditions(), **card(device)}, HEADER, [], told, {})
    kinds = chosen(formats)
    rows: list[list[str]] = []
    figures: dict[str, Any] = {"bandwidth": bandwidth, "rows": {}}
    for kind in kinds:
        model = random_model(config, BUILDS[kind], device, dtype)
        for canvas in canvases:
            for context in contexts:
                if device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                kv = random_keys(config, context, canvas, device, dtype)
                found = measure(model, kv, canvas, bandwidth, repeats, profile)
                figures["rows"][f"{kind}, {canvas}, {context}"] = found
                rows.append(row(kind, canvas, context, found))
                _save(report, rows, figures, name, out)
        del model, kv
        give_back()


def chosen(formats: Sequence[str] | None) -> list[str]:
    """The formats of a bench, all without a choice; raises InputError for one that there is not."""
    if unknown := set(formats or ()) - BUILDS.keys():
        raise InputError(f"There is no format {sorted(unknown)[0]!r}; choose among {', '.join(BUILDS)}.")
    return list(formats or BUILDS)


def give_back() -> None:
    """The memory of a model that nobody holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def card(device: torch.device) -> dict[str, Any]:
    """The GPU and what drives it."""
    import triton

    found = {"triton": triton.__version__, "cuda": torch.version.cuda}
    if device.type == "cuda":
        found |= {"gpu": torch.cuda.get_device_name(device), "driver": _driver()}
    return found


def _driver() -> str:
    """As the driver's own tool tells it, where it is there."""
    try:
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip().partition("\n")[0]
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def notes(bandwidth: float, repeats: int, tiny: bool) -> list[str]:
    told = [
        f"Random weights made on the device. A batch of one, the whole canvas a hole; medians of {repeats} steps after "
        "warm-up, by device events.",
        f"Floor: the least bytes a step must read over the copy bandwidth measured in this run, {bandwidth / 1e12:.2f} "
        "TB/s. Of the experts those that are chosen by anyone if all are as likely.",
        "fp8: experts and projections; nvfp4: experts only; int4: experts in groups of 32, projections in fp8. "
        "Embedding, head, router and self-conditioning are bfloat16 throughout.",
        f"Self-conditioning takes the {TOP} likeliest tokens.",
    ]
    return [*told, "A dry run at tiny shapes: the times mean nothing."] if tiny else told


def _save(report: Report, rows: list[list[str]], figures: dict[str, Any], name: str, out: Path) -> None:
    done = Report(report.title, report.conditions, report.header, rows, report.notes, figures)
    files = done.write(name, out)
    print(" | ".join(rows[-1]), "->", files[1], flush=True)


if __name__ == "__main__":
    typer.run(main)
