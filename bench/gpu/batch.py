"""The gain of stepping canvases together: time of a step and throughput by batch size.

`python -m bench.gpu.batch` measures the engine without a service: with a GPU the true 26B shapes with random weights
(nothing is downloaded), otherwise the pocket model. Every canvas has its own cached prompt. The same canvases are
filled in batches of each size, in turns, and nothing stops early. A batch reads the weights once and computes as much
as its canvases one by one, so it gains if a step is bound by memory. Ctrl-C ends the run and keeps the results so far.
Must not judge the results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer

from bench.gpu.common import NEVER, choose_formats
from bench.gpu.infill import KNOWN, make_model
from bench.gpu.step_shapes import BUILDS, TINY, TRUE_26B
from bench.report import DRY_RUN, RESULTS, Report, Spread, conditions, free_memory, interleaved, ratios
from engine.canvas import Canvas, Known, Slots
from engine.config import ModelConfig, SamplingConfig
from engine.denoiser import Denoiser, DenoiseRequest
from engine.errors import InputError
from engine.prefix_cache import PrefixCache
from train.program import reports_errors

BATCHES = (1, 2, 4, 8)
PROMPTS_BYTES = 2**34
HEADER = ("model", "batch", "step, ms", "per canvas, ms", "canvas steps per second", "gain")


@dataclass(frozen=True)
class Shape:
    """context: prompt tokens. hole: slots. steps: per canvas."""

    context: int
    hole: int
    steps: int


def requests_of(vocab: int, count: int, shape: Shape) -> list[DenoiseRequest]:
    """`count` canvases of random tokens, each with its own prompt; the same in every call."""
    generator = torch.Generator().manual_seed(0)

    def tokens(length: int) -> list[int]:
        drawn: list[int] = torch.randint(3, vocab, (length,), generator=generator).tolist()
        return drawn

    def canvas() -> Canvas:
        return Canvas.of(Known(tokens(KNOWN[0])), Slots(shape.hole), Known(tokens(KNOWN[1])))

    sampling = SamplingConfig(max_steps=shape.steps, confidence_threshold=NEVER)
    return [DenoiseRequest(tokens(shape.context), canvas(), sampling, seed) for seed in range(count)]


def fill(denoiser: Denoiser, requests: Sequence[DenoiseRequest], size: int) -> None:
    """Fills all canvases in batches of `size`."""
    for first in range(0, len(requests), size):
        for result in denoiser.run(requests[first : first + size]):
            assert result.steps == requests[0].sampling.max_steps and bool(result.log_probabilities.isfinite().all())


def measure(denoiser: Denoiser, shape: Shape, batches: Sequence[int], repeats: int) -> dict[str, Any]:
    """Milliseconds of a step by batch size, and of encoding a prompt."""
    denoiser.cache = PrefixCache(denoiser.model, PROMPTS_BYTES)
    requests = requests_of(denoiser.model.config.vocab_size, max(batches), shape)
    contestants: dict[str, Callable[[], object]] = {
        str(size): partial(fill, denoiser, requests, size) for size in batches
    }
    encoding = []
    for request in requests:
        denoiser.run([request])
        encoding.append(denoiser.timings.encode)
    for contestant in contestants.values():
        contestant()
    times = interleaved(contestants, repeats)
    one_by_one = times[str(batches[0])]
    steps = {}
    for count, rounds in times.items():
        step_ms = [taken * int(count) / (shape.steps * len(requests)) for taken in rounds]
        steps[count] = {"step_ms": Spread.of(step_ms), "gain": ratios(one_by_one, rounds)}
    return {"prompt_ms": median(encoding), "steps": steps}


def rows(name: str, found: dict[str, Any]) -> list[list[str]]:
    table = []
    for count, figures in found["steps"].items():
        per_canvas = figures["step_ms"].median / int(count)
        times = [f"{per_canvas:.2f}", f"{1000 / per_canvas:.0f}", f"{figures['gain'].median:.2f}"]
        table.append([name, count, str(figures["step_ms"]), *times])
    return table


def notes(shape: Shape, repeats: int, found: dict[str, Any]) -> list[str]:
    encoding = ", ".join(f"{name} {figures['prompt_ms']:.0f} ms" for name, figures in found.items())
    return [
        f"Every canvas: its own prompt of {shape.context} tokens, {KNOWN[0]} known tokens, a hole of {shape.hole}, "
        f"{KNOWN[1]} known tokens; {shape.steps} steps. Medians and quartiles of {repeats} rounds in turns; a step "
        "includes its share of laying out the canvases and reading the results.",
        f"Encoding a prompt, which is not included: {encoding}.",
        "Random tokens, and with the 26B shapes random weights: only the time of a step is meaningful.",
    ]


@torch.inference_mode()
def main(
    formats: Annotated[
        list[str] | None, typer.Option("--format", help=f"Of the 26B, on a GPU: {', '.join(BUILDS)}; default: all.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model name or folder instead of the 26B shapes.")] = None,
    batches: Annotated[list[int] | None, typer.Option("--batch", help="Batch size; repeatable.")] = None,
    context: Annotated[int, typer.Option(min=1, help="Prompt tokens.")] = 1024,
    hole: Annotated[int, typer.Option(min=2, help="Slots of the hole.")] = 64,
    steps: Annotated[int, typer.Option(min=1, help="Steps per canvas.")] = 8,
    repeats: Annotated[int, typer.Option(min=2, help="Measured rounds.")] = 10,
    tiny: Annotated[bool, typer.Option(help="Dry run of the 26B at small shapes.")] = False,
    name: Annotated[str | None, typer.Option(help="Name of the result files.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Measure batches of canvases in the engine."""
    shape, found = Shape(context, hole, steps), dict[str, Any]()
    try:
        for label, make in _models(formats, model, tiny):
            found[label] = measure(make(), shape, sorted({1, *(batches or BATCHES)}), repeats)
            free_memory()
    except KeyboardInterrupt:
        print("Interrupted. Results so far:")
    table = [row for label, figures in found.items() for row in rows(label, figures)]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    said = [*notes(shape, repeats, found), *([DRY_RUN] if tiny else [])]
    report = Report("Canvases stepped together", conditions(device), HEADER, table, said, found)
    report.show()
    if name:
        report.write(name, out)


def _models(
    formats: Sequence[str] | None, model: str | None, tiny: bool = False
) -> list[tuple[str, Callable[[], Denoiser]]]:
    kinds = choose_formats(formats)
    if model is not None or not (tiny or torch.cuda.is_available()):
        if formats:
            raise InputError("--format is for the 26B shapes on a GPU; leave it out.")
        return [(model or "pocket", partial(_shipped, model or "pocket"))]
    config = ModelConfig.from_json(TINY if tiny else TRUE_26B)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def random(kind: str) -> Denoiser:
        return Denoiser(make_model(kind, config, device))

    return [(kind, partial(random, kind)) for kind in kinds]


def _shipped(model: str) -> Denoiser:
    from infill.complete.loaded_model import LoadedModel  # not needed for the 26B shapes
    from infill.settings import Settings

    denoiser = LoadedModel.load(Settings(model=model)).denoiser
    assert isinstance(denoiser, Denoiser), "a model whose noise is tokens"
    return denoiser


if __name__ == "__main__":
    typer.run(reports_errors(main))
