"""Milliseconds of a whole infill of the 26B on one GPU: the first one, and the next keystroke.

Run `python -m bench.gpu.infill` on a machine with a GPU; nothing is downloaded. The engine as it ships, from a request
to its tokens: prompt read, canvas laid out, steps, answer on the CPU. True shapes, random weights: they say how long a
number of steps takes, nothing of how many a real model needs. So the steps are fixed, and nothing stops early.
`--tiny` is a dry run at small shapes, on a CPU too; its times mean nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from time import perf_counter
from typing import Annotated, Any

import torch
import typer

from bench.gpu.step import NEVER, card, chosen, give_back
from bench.gpu.step_shapes import BUILDS, TINY, TRUE_26B, random_model, random_plain_model
from bench.report import RESULTS, Report, Spread, conditions
from engine.canvas import Canvas, Hole, Known
from engine.config import ModelConfig, SamplingConfig
from engine.denoiser import Denoiser, DenoiseRequest, DenoiseResult
from engine.errors import InputError
from engine.models.text_model import TextModel
from engine.prefix_cache import PrefixCache

KNOWN = 24, 40  # columns of the canvas before and behind the hole
HEADER = ("format", "request", "steps", "p50, ms", "p95, ms", "prompt, ms", "steps, ms", "memory, GiB")


@dataclass(frozen=True)
class Shape:
    """Prompt tokens, slots of the hole, steps of a first request and of the next keystroke."""

    context: int
    hole: int
    steps: int
    warm_steps: int


@dataclass(frozen=True)
class Times:
    """Milliseconds of each request, and of its parts as the engine tells them."""

    whole: list[float]
    encode: list[float]
    denoise: list[float]

    def to_json(self) -> dict[str, Any]:
        percent = percentiles(self.whole)
        return {
            "p50_ms": percent[0],
            "p95_ms": percent[1],
            "samples": [round(sample, 3) for sample in self.whole],
            "encode_ms": Spread.of(self.encode).to_json(),
            "denoise_ms": Spread.of(self.denoise).to_json(),
        }


def percentiles(samples: list[float]) -> tuple[float, float]:
    """p50 and p95, linear between the two samples around them."""
    cuts = quantiles(samples, n=20, method="inclusive")
    return cuts[9], cuts[18]


class Typist:
    """Asks for infills of one file: `first` with nothing known of its prompt, `next` after one more key."""

    def __init__(self, model: TextModel, shape: Shape) -> None:
        self.denoiser = Denoiser(model, PrefixCache(model))
        self.shape, self.vocab = shape, model.config.vocab_size
        self._generator = torch.Generator().manual_seed(0)
        self._prompt: list[int] = []
        self._known: list[int] = []
        self._after: list[int] = self._tokens(KNOWN[1])

    def first(self) -> DenoiseResult:
        """A new prompt, whose keys are not there; noise in the hole."""
        self.denoiser.cache.clear()
        self._prompt, self._known = self._tokens(self.shape.context), self._tokens(KNOWN[0])
        return self._ask(Hole(self.shape.hole), self.shape.steps)

    def next(self, last: DenoiseResult) -> DenoiseResult:
        """The first token of the last answer was typed; the rest of it is the draft. The prompt is as it was."""
        answer = last.tokens[last.columns].tolist()
        self._known = [*self._known[1:], answer[0]]
        return self._ask(Hole(self.shape.hole, answer[1:]), self.shape.warm_steps)

    def _ask(self, hole: Hole, steps: int) -> DenoiseResult:
        sampling = SamplingConfig(max_steps=steps, confidence_threshold=NEVER)
        canvas = Canvas.of(Known(self._known), hole, Known(self._after))
        return self.denoiser.run([DenoiseRequest(self._prompt, canvas, sampling)])[0]

    def _tokens(self, count: int) -> list[int]:
        return torch.randint(3, self.vocab, (count,), generator=self._generator).tolist()


def measure(typist: Typist, repeats: int, warm_up: int) -> dict[str, Times]:
    """First requests and next keystrokes in turns, after a warm-up that compiles and records."""
    shape = typist.shape
    times = {"first": Times([], [], []), "next keystroke": Times([], [], [])}
    result: DenoiseResult | None = None
    for turn in range(warm_up + repeats):
        for name, into in times.items():
            started = perf_counter()
            result = typist.first() if name == "first" or result is None else typist.next(result)
            elapsed = 1000 * (perf_counter() - started)
            wanted = shape.steps if name == "first" else shape.warm_steps
            assert result.steps == wanted and bool(result.log_probabilities.isfinite().all())
            assert result.encoded_tokens == (shape.context if name == "first" else 0)
            if turn >= warm_up:
                into.whole.append(elapsed)
                into.encode.append(typist.denoiser.timings.encode)
                into.denoise.append(typist.denoiser.timings.denoise)
    return times


def made(kind: str, config: ModelConfig, device: torch.device) -> TextModel:
    """A random model in the format `kind`: by kernels on a GPU, plain on a CPU."""
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
        f"{figures['encode_ms']['median']:.1f}",
        f"{figures['denoise_ms']['median']:.1f}",
        f"{memory / 2**30:.1f}" if memory else "–",
    ]


def notes(shape: Shape, repeats: int, tiny: bool) -> list[str]:
    told = [
        f"{repeats} requests of each kind in turns, after warm-up: a prompt of {shape.context} tokens, a canvas of "
        f"{KNOWN[0]} known tokens, a hole of {shape.hole}, {KNOWN[1]} known tokens. From the call to the tokens on the "
        "CPU; tokenizing, context and checks of the code are not in it.",
        f"first: the whole prompt is read, then {shape.steps} steps. next keystroke: the prompt is in the cache, the "
        f"hole begins with the last answer, then {shape.warm_steps} steps, a number that was chosen and not measured.",
        "Of the parts, what a GPU still has to do of the prompt when its last pass was launched counts as steps.",
        "Random weights of the true shapes: how many steps a real model needs is not said by them.",
    ]
    return [*told, "A dry run at tiny shapes: the times mean nothing."] if tiny else told


@torch.inference_mode()
def main(
    formats: Annotated[list[str] | None, typer.Option("--format", help=f"Of {', '.join(BUILDS)}; else all.")] = None,
    context: Annotated[int, typer.Option(min=1, help="Prompt tokens.")] = 2048,
    hole: Annotated[int, typer.Option(min=2, help="Slots of the hole.")] = 64,
    steps: Annotated[int, typer.Option(min=1, help="Steps of a first request.")] = 12,
    warm_steps: Annotated[int, typer.Option(min=1, help="Steps of the next keystroke.")] = 6,
    repeats: Annotated[int, typer.Option(min=2, help="Measured requests of each kind.")] = 40,
    warm_up: Annotated[int, typer.Option(min=1, help="Requests of each kind before that.")] = 4,
    tiny: Annotated[bool, typer.Option(help="Small shapes, to try the program.")] = False,
    name: Annotated[str, typer.Option(help="Name of the result files.")] = "infill_gpu",
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Measures whole infills at the true shapes of the 26B."""
    if not (tiny or torch.cuda.is_available()):
        raise InputError("There is no GPU here; for a dry run on the CPU run `python -m bench.gpu.infill --tiny`.")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kinds = chosen(formats)
    shape = Shape(20, 6, 3, 2) if tiny else Shape(context, hole, steps, warm_steps)
    config = ModelConfig.from_json(TINY if tiny else TRUE_26B)
    rows: list[list[str]] = []
    figures: dict[str, Any] = {}
    for kind in kinds:
        model = made(kind, config, device)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        typist = Typist(model, shape)
        times = measure(typist, repeats, warm_up)
        is_recorded = typist.denoiser.recorded is not None and typist.denoiser.recorded.are_recorded
        memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
        for request, taken in times.items():
            found = taken.to_json() | {"memory_bytes": memory, "recorded": is_recorded}
            figures[f"{kind}, {request}"] = found
            count = shape.steps if request == "first" else shape.warm_steps
            rows.append(row(kind, request, count, found, memory))
            print(" | ".join(rows[-1]), flush=True)
        told = notes(shape, repeats, tiny)
        Report("An infill of the 26B", {**conditions(), **card(device)}, HEADER, rows, told, figures).write(name, out)
        if device.type == "cuda" and not is_recorded:
            print(f"{kind}: steps ran WITHOUT CUDA graphs.", flush=True)
        del model, typist
        give_back()


if __name__ == "__main__":
    typer.run(main)
