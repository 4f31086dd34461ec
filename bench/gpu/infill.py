"""Milliseconds of a whole infill of the 26B on one GPU: a first request, and the next keystroke.

`python -m bench.gpu.infill` downloads nothing. It runs the engine as shipped, from a request to its tokens on the CPU,
with true shapes and random weights. Random weights show how long a step takes and not how many steps a trained model
needs, so the number of steps is fixed. `--tiny` is a dry run at small shapes, also on a CPU; its times mean nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import torch
import typer

from bench.gpu.common import NEVER, choose_device, choose_formats
from bench.gpu.step_shapes import BUILDS, TINY, TRUE_26B, random_model, random_plain_model
from bench.report import DRY_RUN, RESULTS, Report, Spread, conditions, free_memory, peak_gpu_bytes, percentile
from engine.canvas import Canvas, Known, Slots
from engine.config import ModelConfig, SamplingConfig
from engine.denoiser import Denoiser, DenoiseRequest, DenoiseResult
from engine.models.text_model import TextModel
from engine.prefix_cache import PrefixCache
from train.program import reports_errors

KNOWN = 24, 40  # columns of the canvas before and after the hole
HEADER = ("format", "request", "steps", "p50, ms", "p95, ms", "prompt, ms", "steps, ms", "memory, GiB")


@dataclass(frozen=True)
class Shape:
    """context: prompt tokens. hole: slots. steps: of a first request. warm_steps: of the next keystroke."""

    context: int
    hole: int
    steps: int
    warm_steps: int


@dataclass(frozen=True)
class Times:
    """Milliseconds of each request, and of its parts as reported by the engine."""

    whole: list[float]
    encode: list[float]
    denoise: list[float]

    def figures(self) -> dict[str, Any]:
        return {
            "p50_ms": percentile(self.whole, 0.5),
            "p95_ms": percentile(self.whole, 0.95),
            "encode_ms": Spread.of(self.encode),
            "denoise_ms": Spread.of(self.denoise),
        }


class Requests:
    """Infills of one file: `first` with an empty prompt cache, `next` after one more key."""

    def __init__(self, model: TextModel, shape: Shape) -> None:
        self.denoiser = Denoiser(model, PrefixCache(model))
        self.shape, self.vocab = shape, model.config.vocab_size
        self._generator = torch.Generator().manual_seed(0)
        self._prompt: list[int] = []
        self._known: list[int] = []
        self._after: list[int] = self._tokens(KNOWN[1])

    def first(self) -> DenoiseResult:
        """A new prompt that is not in the cache, and noise in the hole."""
        self.denoiser.cache.clear()
        self._prompt, self._known = self._tokens(self.shape.context), self._tokens(KNOWN[0])
        return self._run(Slots(self.shape.hole), self.shape.steps)

    def next(self, last: DenoiseResult) -> DenoiseResult:
        """The same prompt. The first token of the last result was typed; its other tokens are the draft."""
        written = last.tokens[last.columns].tolist()
        self._known = [*self._known[1:], written[0]]
        return self._run(Slots(self.shape.hole, written[1:]), self.shape.warm_steps)

    def _run(self, hole: Slots, steps: int) -> DenoiseResult:
        sampling = SamplingConfig(max_steps=steps, confidence_threshold=NEVER)
        canvas = Canvas.of(Known(self._known), hole, Known(self._after))
        return self.denoiser.run([DenoiseRequest(self._prompt, canvas, sampling)])[0]

    def _tokens(self, count: int) -> list[int]:
        return torch.randint(3, self.vocab, (count,), generator=self._generator).tolist()


def measure(requests: Requests, repeats: int, warm_up: int) -> dict[str, Times]:
    """First requests and next keystrokes in turns, after a warm-up that compiles kernels and records graphs."""
    shape = requests.shape
    times = {"first": Times([], [], []), "next keystroke": Times([], [], [])}
    result: DenoiseResult | None = None
    for turn in range(warm_up + repeats):
        for name, into in times.items():
            started = perf_counter()
            result = requests.first() if name == "first" or result is None else requests.next(result)
            elapsed = 1000 * (perf_counter() - started)
            steps = shape.steps if name == "first" else shape.warm_steps
            assert result.steps == steps and bool(result.log_probabilities.isfinite().all())
            assert result.encoded_tokens == (shape.context if name == "first" else 0)
            if turn >= warm_up:
                into.whole.append(elapsed)
                into.encode.append(requests.denoiser.timings.encode)
                into.denoise.append(requests.denoiser.timings.denoise)
    return times


def make_model(kind: str, config: ModelConfig, device: torch.device) -> TextModel:
    """A random model in the format `kind`: with kernels on a GPU, in plain PyTorch on a CPU."""
    if device.type == "cuda":
        return random_model(config, BUILDS[kind], device, torch.bfloat16)
    return random_plain_model(config, BUILDS[kind], device, torch.float32)


def row(kind: str, name: str, steps: int, figures: dict[str, Any], memory: int | None) -> list[str]:
    return [
        kind,
        name,
        str(steps),
        f"{figures['p50_ms']:.1f}",
        f"{figures['p95_ms']:.1f}",
        f"{figures['encode_ms'].median:.1f}",
        f"{figures['denoise_ms'].median:.1f}",
        f"{memory / 2**30:.1f}" if memory else "–",
    ]


def notes(shape: Shape, repeats: int, tiny: bool) -> list[str]:
    return [
        f"{repeats} requests of each kind in turns, after warm-up: a prompt of {shape.context} tokens, a canvas of "
        f"{KNOWN[0]} known tokens, a hole of {shape.hole}, {KNOWN[1]} known tokens. Times from the call to the tokens "
        "on the CPU, without tokenizing, context and checks.",
        f"first: encodes the prompt, then {shape.steps} steps. next keystroke: the prompt is cached and the hole "
        f"starts with the last result, then {shape.warm_steps} steps, an assumed number.",
        "Work on the prompt that the GPU has not finished when its last pass is launched counts as steps.",
        "Random weights of the true shapes do not show how many steps a trained model needs.",
        *([DRY_RUN] if tiny else []),
    ]


@torch.inference_mode()
def main(
    formats: Annotated[list[str] | None, typer.Option("--format", help=f"{', '.join(BUILDS)}; default: all.")] = None,
    context: Annotated[int, typer.Option(min=1, help="Prompt tokens.")] = 2048,
    hole: Annotated[int, typer.Option(min=2, help="Slots of the hole.")] = 64,
    steps: Annotated[int, typer.Option(min=1, help="Steps of a first request.")] = 12,
    warm_steps: Annotated[int, typer.Option(min=1, help="Steps of the next keystroke.")] = 6,
    repeats: Annotated[int, typer.Option(min=2, help="Measured requests of each kind.")] = 40,
    warm_up: Annotated[int, typer.Option(min=1, help="Requests of each kind before that.")] = 4,
    tiny: Annotated[bool, typer.Option(help="Dry run at small shapes.")] = False,
    name: Annotated[str, typer.Option(help="Name of the result files.")] = "infill_gpu",
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Measure whole infills at the true shapes of the 26B."""
    device, kinds = choose_device(tiny, "bench.gpu.infill"), choose_formats(formats)
    shape = Shape(20, 6, 3, 2) if tiny else Shape(context, hole, steps, warm_steps)
    config = ModelConfig.from_json(TINY if tiny else TRUE_26B)
    rows: list[list[str]] = []
    figures: dict[str, Any] = {}
    for kind in kinds:
        model = make_model(kind, config, device)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        requests = Requests(model, shape)
        times = measure(requests, repeats, warm_up)
        is_recorded = requests.denoiser.recorded is not None and requests.denoiser.recorded.are_recorded
        memory = peak_gpu_bytes(device)
        for request, taken in times.items():
            found = taken.figures() | {"memory_bytes": memory, "recorded": is_recorded}
            figures[f"{kind}, {request}"] = found
            count = shape.steps if request == "first" else shape.warm_steps
            rows.append(row(kind, request, count, found, memory))
            print(" | ".join(rows[-1]), flush=True)
        said = notes(shape, repeats, tiny)
        Report("An infill of the 26B", conditions(device), HEADER, rows, said, figures).write(name, out)
        if device.type == "cuda" and not is_recorded:
            print(f"{kind}: steps ran WITHOUT CUDA graphs.", flush=True)
        del model, requests
        free_memory()


if __name__ == "__main__":
    typer.run(reports_errors(main))
