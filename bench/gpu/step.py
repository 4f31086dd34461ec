"""Milliseconds per denoise step at the true 26B shapes on one GPU, compared with the bytes that a step must read.

`python -m bench.gpu.step` downloads nothing. Each format, canvas and context gives a row: a step run eagerly and as a
CUDA graph, the time to read its bytes at the copy bandwidth measured in the same run, the ratio, memory; with
`--profile` also the time by kernel. Results are written after every row, so a run may be interrupted.
`bench.gpu.step_beside` compares with transformers.

`TRITON_INTERPRET=1 python -m bench.gpu.step --tiny` is a dry run on a CPU; its times mean nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from bench.gpu.common import NEVER, choose_device, choose_formats, timed
from bench.gpu.step_shapes import BUILDS, TINY, TRUE_26B, random_keys, random_model, step_bytes
from bench.report import DRY_RUN, RESULTS, Report, conditions, free_memory, peak_gpu_bytes
from engine.config import ModelConfig, SamplingConfig
from engine.errors import describe_error
from engine.graphs.fixed_step import MOST_STEPS, Bucket, CanvasState, FixedStep, KeyValueBuffers
from engine.graphs.recorded_steps import CudaGraphs
from engine.graphs.step_stats import TOP, all_stats, top_stats
from engine.key_values import KeyValues
from engine.models.fused import FusedModel
from engine.models.text_model import TextModel
from train.program import reports_errors

COPIED_BYTES = 2**31
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


def engine_step(model: TextModel, kv: KeyValues, canvas: int, likeliest: bool = False) -> FixedStep:
    """The engine's step for one canvas that is all hole after the prompt of `kv`; may be called many times.

    likeliest: whether self-conditioning takes the TOP likeliest tokens instead of all.
    """
    config, device = model.config, kv.device
    bucket = Bucket(1, canvas, canvas, kv.length, 0)
    step = FixedStep(
        model, bucket, KeyValueBuffers(config, bucket, device, kv.dtype), top_stats if likeliest else all_stats
    )
    tokens = torch.randint(0, config.vocab_size, (canvas,), device=device)
    nothing = torch.zeros_like(model.embed(tokens))
    row = CanvasState(
        kv=kv, sampling=SamplingConfig(max_steps=MOST_STEPS, confidence_threshold=NEVER), canvas=tokens,
        columns=torch.arange(canvas, device=device), known_belief=nothing, believes_pins=True, tokens=tokens,
        argmax=tokens, belief=nothing,
        noise=torch.randint(0, config.vocab_size, (MOST_STEPS, canvas), device=device),
        uniform=torch.rand(MOST_STEPS, canvas, device=device), bias=None, steps=0, unchanged=0,
    )  # fmt: skip
    step.load([row])
    return step


def copy_bandwidth(device: torch.device, size: int) -> float:
    """Bytes read and written per second by a copy on the device."""
    source = torch.randint(0, 256, (size,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / (timed(lambda: target.copy_(source), device, 20).median / 1000)


def by_kernel(work: Callable[[], object], most: int = 20) -> list[dict[str, Any]]:
    """Microseconds and calls of the kernels of one run, the slowest first."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as profiler:
        work()
        torch.cuda.synchronize()
    events = [event for event in profiler.key_averages() if event.self_device_time_total > 0]
    events.sort(key=lambda event: -event.self_device_time_total)
    return [{"kernel": e.key[:120], "us": e.self_device_time_total, "calls": e.count} for e in events[:most]]


def measure(
    model: FusedModel, kv: KeyValues, canvas: int, bandwidth: float, repeats: int, profile: bool, likeliest: bool
) -> dict[str, Any]:
    device = kv.device
    step = engine_step(model, kv, canvas, likeliest)
    read = step_bytes(model, kv, canvas, likeliest)
    eager = timed(step, device, repeats)
    assert bool(step.belief.isfinite().all()), "a step produced NaN or infinity"
    figures: dict[str, Any] = {
        "bytes": asdict(read) | {"total": read.total},
        "floor_ms": 1000 * read.total / bandwidth,
        "eager_ms": eager,
        "memory_bytes": peak_gpu_bytes(device),
    }
    best = eager
    if device.type == "cuda":
        try:
            best = timed(CudaGraphs()(step), device, repeats)
            figures["graph_ms"] = best
        except Exception as error:  # drivers raise their own classes; the eager step still counts
            print(f"No CUDA graph: {describe_error(error)}", flush=True)
    figures["over_floor"] = best.median / figures["floor_ms"]
    if profile and device.type == "cuda":
        try:
            figures["kernels"] = by_kernel(step)
        except RuntimeError as error:  # the machine may not permit profiling
            print(f"No profile: {describe_error(error)}", flush=True)
    return figures


def row(name: str, canvas: int, context: int, figures: dict[str, Any]) -> list[str]:
    graph, memory = figures.get("graph_ms"), figures["memory_bytes"]
    return [
        name,
        str(canvas),
        str(context),
        f"{figures['eager_ms'].median:.2f}",
        f"{graph.median:.2f}" if graph else "–",
        f"{figures['floor_ms']:.2f}",
        f"{figures['over_floor']:.2f}",
        f"{figures['bytes']['total'] / 1e9:.1f}",
        f"{memory / 2**30:.1f}" if memory else "–",
    ]


@torch.inference_mode()
def main(
    formats: Annotated[list[str] | None, typer.Option("--format", help=f"{', '.join(BUILDS)}; default: all.")] = None,
    canvases: Annotated[list[int] | None, typer.Option("--canvas", help="Canvas columns.")] = None,
    contexts: Annotated[list[int] | None, typer.Option("--context", help="Prompt tokens.")] = None,
    repeats: Annotated[int, typer.Option(min=2, help="Measured steps per row.")] = 30,
    profile: Annotated[bool, typer.Option(help="Also list the time by kernel.")] = False,
    likeliest: Annotated[bool, typer.Option(help=f"Self-conditioning takes the {TOP} likeliest tokens.")] = False,
    tiny: Annotated[bool, typer.Option(help="Dry run at small shapes.")] = False,
    name: Annotated[str, typer.Option(help="Name of the result files.")] = "step",
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Measure a denoise step at the true shapes of the 26B."""
    device = choose_device(tiny, "bench.gpu.step", kernels=True)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    config = ModelConfig.from_json(TINY if tiny else TRUE_26B)
    canvases = canvases or ([8] if tiny else [256, 128, 64])
    contexts = contexts or ([20] if tiny else [512, 2048, 8192])
    bandwidth = copy_bandwidth(device, 2**20 if tiny else COPIED_BYTES)
    report = Report(
        "A denoise step of the 26B", conditions(device), HEADER, [], notes(bandwidth, repeats, likeliest, tiny), {}
    )
    rows: list[list[str]] = []
    figures: dict[str, Any] = {"bandwidth": bandwidth, "rows": {}}
    for kind in choose_formats(formats):
        model = random_model(config, BUILDS[kind], device, dtype)
        for canvas in canvases:
            for context in contexts:
                if device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                kv = random_keys(config, context, canvas, device, dtype)
                found = measure(model, kv, canvas, bandwidth, repeats, profile, likeliest)
                figures["rows"][f"{kind}, {canvas}, {context}"] = found
                rows.append(row(kind, canvas, context, found))
                files = replace(report, rows=rows, figures=figures).write(name, out)
                print(" | ".join(rows[-1]), "->", files[1], flush=True)
        del model, kv
        free_memory()


def notes(bandwidth: float, repeats: int, likeliest: bool, tiny: bool) -> list[str]:
    return [
        f"Random weights made on the device. A batch of one, the whole canvas is a hole; medians of {repeats} steps "
        "after warm-up, measured by device events.",
        f"Floor: bytes that a step must read, divided by the copy bandwidth measured in this run "
        f"({bandwidth / 1e12:.2f} TB/s). Experts count if any token chooses them, with all experts equally likely.",
        "fp8: experts and projections; nvfp4: experts only; int4: experts in groups of 32, projections in fp8. "
        "Embedding, head, router and self-conditioning are always bfloat16.",
        f"Self-conditioning takes {f'the {TOP} likeliest' if likeliest else 'all'} tokens.",
        *([DRY_RUN] if tiny else []),
    ]


if __name__ == "__main__":
    typer.run(reports_errors(main))
