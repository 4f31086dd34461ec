"""What stepping canvases together gains: milliseconds of a step and canvases a second against the size of the batch.

Run `python -m bench.speed.batch`: the engine alone, without a service. On a machine with a GPU the true 26B shapes with
random weights (nothing is downloaded), elsewhere the pocket model. Every canvas has a prompt of its own, which was read
before. The same canvases are filled in batches of each size in turns, and nothing stops early. A batch reads the
weights once for all; it computes as much as its canvases would one by one. So it gains where a step waits for memory.
Ctrl-C ends it with what was measured so far. Must not judge what is written.
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

from bench.gpu.infill import KNOWN
from bench.gpu.step import NEVER, card, chosen, give_back
from bench.gpu.step_shapes import BUILDS, TRUE_26B, random_model
from bench.report import RESULTS, Report, Spread, conditions, interleaved, ratios
from engine.canvas import Canvas, Hole, Known
from engine.config import ModelConfig, SamplingConfig
from engine.denoiser import Denoiser, DenoiseRequest
from engine.errors import InputError
from engine.prefix_cache import PrefixCache

BATCHES = (1, 2, 4, 8)
PROMPTS_BYTES = 2**34
HEADER = ("model", "at once", "a step, ms", "of it a canvas, ms", "steps of a canvas a second", "times one by one")


@dataclass(frozen=True)
class Shape:
    """Prompt tokens and slots of the hole of every canvas, and its steps."""

    context: int
    hole: int
    steps: int


def requests_of(vocab: int, count: int, shape: Shape) -> list[DenoiseRequest]:
    """`count` canvases of random tokens, each with a prompt of its own; the same in every call."""
    generator = torch.Generator().manual_seed(0)

    def tokens(length: int) -> list[int]:
        drawn: list[int] = torch.randint(3, vocab, (length,), generator=generator).tolist()
        return drawn

    def canvas() -> Canvas:
        return Canvas.of(Known(tokens(KNOWN[0])), Hole(shape.hole), Known(tokens(KNOWN[1])))

    sampling = SamplingConfig(max_steps=shape.steps, confidence_threshold=NEVER)
    return [DenoiseRequest(tokens(shape.context), canvas(), sampling, seed) for seed in range(count)]


def filled(denoiser: Denoiser, requests: Sequence[DenoiseRequest], at_once: int) -> None:
    """All of them, so many in a batch."""
    for first in range(0, len(requests), at_once):
        for result in denoiser.run(requests[first : first + at_once]):
            assert result.steps == requests[0].sampling.max_steps and bool(result.log_probabilities.isfinite().all())


def measure(denoiser: Denoiser, shape: Shape, batches: Sequence[int], repeats: int) -> dict[str, Any]:
    """Milliseconds of a step by the number of canvases, and of the reading of a prompt."""
    denoiser.cache = PrefixCache(denoiser.model, PROMPTS_BYTES)
    requests = requests_of(denoiser.model.config.vocab_size, max(batches), shape)
    ways: dict[str, Callable[[], object]] = {
        str(count): partial(filled, denoiser, requests, count) for count in batches
    }
    reading = []
    for request in requests:
        denoiser.run([request])
        reading.append(denoiser.timings.encode)
    for way in ways.values():
        way()
    times = interleaved(ways, repeats)
    one_by_one = times[str(batches[0])]
    steps = {}
    for count, rounds in times.items():
        step_ms = [taken * int(count) / (shape.steps * len(requests)) for taken in rounds]
        steps[count] = {"step_ms": Spread.of(step_ms).to_json(), "gain": ratios(one_by_one, rounds).to_json()}
    return {"prompt_ms": median(reading), "steps": steps}


def rows(name: str, found: dict[str, Any]) -> list[list[str]]:
    table = []
    for count, figures in found["steps"].items():
        a_canvas = figures["step_ms"]["median"] / int(count)
        times = [f"{a_canvas:.2f}", f"{1000 / a_canvas:.0f}", f"{figures['gain']['median']:.2f}"]
        table.append([name, count, str(Spread.of(figures["step_ms"]["samples"])), *times])
    return table


def notes(shape: Shape, repeats: int, found: dict[str, Any]) -> list[str]:
    reading = ", ".join(f"{name} {figures['prompt_ms']:.0f} ms" for name, figures in found.items())
    return [
        f"Every canvas: a prompt of {shape.context} tokens of its own, {KNOWN[0]} known tokens, a hole of "
        f"{shape.hole}, {KNOWN[1]} known tokens; {shape.steps} steps. Medians and quartiles of {repeats} rounds in "
        "turns; a step has its share of laying out the canvases and of reading their answers.",
        f"A prompt, which was read before and is not in it: {reading}.",
        "Random tokens; with the true 26B shapes random weights too: they say how long a step takes, and nothing else.",
    ]


@torch.inference_mode()
def main(
    formats: Annotated[
        list[str] | None, typer.Option("--format", help=f"Of the 26B on a GPU: {', '.join(BUILDS)}; else all.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="A model's name or folder, instead of the 26B's shapes.")] = None,
    batches: Annotated[list[int] | None, typer.Option("--batch", help="Canvases at once; repeatable.")] = None,
    context: Annotated[int, typer.Option(min=1, help="Prompt tokens.")] = 1024,
    hole: Annotated[int, typer.Option(min=2, help="Slots of the hole.")] = 64,
    steps: Annotated[int, typer.Option(min=1, help="Steps of a canvas.")] = 8,
    repeats: Annotated[int, typer.Option(min=2, help="Measured rounds.")] = 10,
    name: Annotated[str | None, typer.Option(help="Name of the files to write.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Measures batches of canvases in the engine alone."""
    shape, found = Shape(context, hole, steps), dict[str, Any]()
    try:
        for label, make in _models(formats, model):
            found[label] = measure(make(), shape, sorted({1, *(batches or BATCHES)}), repeats)
            give_back()
    except KeyboardInterrupt:
        print("interrupted; what was measured so far:")
    table = [row for label, figures in found.items() for row in rows(label, figures)]
    made = Report("Canvases stepped together", _conditions(), HEADER, table, notes(shape, repeats, found), found)
    made.show()
    if name:
        made.write(name, out)


def _models(formats: Sequence[str] | None, model: str | None) -> list[tuple[str, Callable[[], Denoiser]]]:
    kinds = chosen(formats)
    if model is not None or not torch.cuda.is_available():
        if formats:
            raise InputError("A format is chosen for the 26B's shapes on a GPU; leave out --format here.")
        return [(model or "pocket", partial(_shipped, model or "pocket"))]
    config, device = ModelConfig.from_json(TRUE_26B), torch.device("cuda")

    def random(kind: str) -> Denoiser:
        return Denoiser(random_model(config, BUILDS[kind], device, torch.bfloat16))

    return [(kind, partial(random, kind)) for kind in kinds]


def _shipped(model: str) -> Denoiser:
    from infill.complete.loaded_model import LoadedModel  # the 26B's shapes need nothing of it
    from infill.settings import Settings

    return LoadedModel.load(Settings(model=model)).denoiser


def _conditions() -> dict[str, Any]:
    return {**conditions(), **card(torch.device("cuda"))} if torch.cuda.is_available() else conditions()


if __name__ == "__main__":
    typer.run(main)
