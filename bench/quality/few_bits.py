"""What quantization costs: distributions of quantized and full weights on the same windows of real files.

`python -m bench.quality.few_bits --corpus DIR --model FOLDER --other FOLDER …` compares builds of `gesso model
quantize`, keys and values in fp8, and self-conditioning by the likeliest tokens only. Likelihood of the original text
and divergence of the distributions show smaller differences than exact matches do. Everything runs in float32 on the
CPU, so that only the bits differ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from bench.report import RESULTS, Report, conditions
from engine.canvas import Canvas, Known, Slots
from engine.checkpoints.checkpoint import load_model
from engine.checkpoints.config_files import read_sampling
from engine.config import SamplingConfig
from engine.denoiser import Denoiser, DenoiseRequest
from engine.errors import InputError
from engine.graphs.recorded_steps import RecordedSteps
from engine.graphs.step_stats import TOP, ComputeStats, StepStats, exact_stats, top_stats
from engine.logit_bias import LogitBias
from engine.models.text_model import TextModel
from engine.prefix_cache import PrefixCache
from engine.scorer import causal_log_probabilities
from infill.model_store import absolute, resolve
from infill.prompts.text_tokens import TextTokens
from train.held_out import for_judging, read_held_out
from train.program import reports_errors

PROMPT, BEFORE, HOLE, AFTER = 192, 24, 16, 24  # tokens of a window
STEPS = 3
HEADER = ("build", "MiB", "causal, nats", "denoised, nats", "same likeliest", "KL, nats", "KL after 3 steps")


@dataclass(frozen=True)
class Outputs:
    """causal: mean log p of the text after the prompt, by the encoder. steps: log probabilities [windows * HOLE, vocab]
    of the first and of the last step. truth: [windows * HOLE]."""

    causal: float
    steps: tuple[Tensor, Tensor]
    truth: Tensor

    @property
    def denoised(self) -> float:
        """Mean log p of the truth in the holes, in the first step."""
        return float(self.steps[0].gather(1, self.truth[:, None]).mean())

    def divergence_from(self, other: Outputs, step: int) -> float:
        """Mean KL(other || self) in nats."""
        reference, own = other.steps[step], self.steps[step]
        return float((reference.exp() * (reference - own)).sum(dim=-1).mean())

    def same_likeliest(self, other: Outputs) -> float:
        return float((self.steps[0].argmax(-1) == other.steps[0].argmax(-1)).float().mean())


def windows(texts: Sequence[list[int]], count: int) -> list[list[int]]:
    """`count` windows of tokens. The texts take turns; windows of one text are as far apart as possible."""
    size = PROMPT + BEFORE + HOLE + AFTER
    long = [text for text in texts if len(text) >= size]
    if not long:
        raise InputError(f"No held-out file has {size} tokens; use a larger corpus.")
    rounds = -(-count // len(long))
    found = []
    for turn in range(rounds):
        for text in long:
            start = (len(text) - size) * turn // max(1, rounds - 1)
            found.append(text[start : start + size])
    return found[:count]


def renormalized_stats(
    model: TextModel, hidden: Tensor, temperature: Tensor, uniform: Tensor, bias: LogitBias | None
) -> StepStats:
    """`top_stats`, with a mean over the likeliest tokens alone."""
    found = top_stats(model, hidden, temperature, uniform, bias)
    logits = model.logits(hidden) if bias is None else bias.added(model.logits(hidden))
    share = torch.softmax(logits / temperature[:, None], dim=-1).topk(TOP, dim=-1).values.sum(dim=-1)
    return replace(found, belief=found.belief / share[:, None])


def pins_later(model: TextModel) -> TextModel:
    """With the self-conditioning of pinned tokens from the second step on, as in the release."""
    model.config = replace(model.config, believes_pins_at_once=False)
    return model


@torch.inference_mode()
def run_model(model: TextModel, sampling: SamplingConfig, chosen: Sequence[list[int]], read: ComputeStats) -> Outputs:
    denoiser = Denoiser(model, PrefixCache(model))
    denoiser.recorded = RecordedSteps(model, denoiser.own_draws, None, read)
    sampling = SamplingConfig(STEPS, sampling.entropy_bound, sampling.t_min, sampling.t_max, 1, -1.0, "argmax")
    causal: list[float] = []
    first: list[Tensor] = []
    last: list[Tensor] = []
    truth: list[int] = []
    for number, window in enumerate(chosen):
        prompt, canvas, after = window[:PROMPT], window[PROMPT : PROMPT + BEFORE], window[-AFTER:]
        hidden = window[PROMPT + BEFORE : -AFTER]
        request = DenoiseRequest(prompt, Canvas.of(Known(canvas), Slots(HOLE), Known(after)), sampling, number)
        rows = causal_log_probabilities(model, denoiser.cache, prompt, [], [window[PROMPT:]])[0]
        causal.append(float(rows[1:].mean()))
        run = denoiser.start(request)
        for step in range(STEPS):
            denoiser.step([run])
            if step in (0, STEPS - 1):
                logits = run.logits
                assert logits is not None
                (first if step == 0 else last).append(torch.log_softmax(logits.float(), dim=-1))
        denoiser.close(run)
        truth += hidden
    return Outputs(sum(causal) / len(causal), (torch.cat(first), torch.cat(last)), torch.tensor(truth))


def row(name: str, mib: float, found: Outputs, reference: Outputs) -> tuple[list[str], dict[str, Any]]:
    figures = {
        "bytes": int(mib * 2**20),
        "causal_nats": -found.causal,
        "denoised_nats": -found.denoised,
        "same_likeliest": found.same_likeliest(reference),
        "kl_first": found.divergence_from(reference, 0),
        "kl_last": found.divergence_from(reference, 1),
    }
    cells = [name, f"{mib:.1f}", f"{figures['causal_nats']:.3f}", f"{figures['denoised_nats']:.3f}"]
    cells += [f"{figures['same_likeliest']:.1%}", f"{figures['kl_first']:.4f}", f"{figures['kl_last']:.4f}"]
    return cells, figures


def main(
    corpus: Annotated[Path, typer.Option(help="Folder written by train.corpus.")],
    model: Annotated[str, typer.Option(help="Model with the full weights.")],
    other: Annotated[list[Path] | None, typer.Option(help="Builds of the same weights; repeatable.")] = None,
    count: Annotated[int, typer.Option(min=2, help="Windows.")] = 60,
    name: Annotated[str, typer.Option(help="Name of the result files.")] = "few_bits",
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Measure what quantization changes."""
    folder, device = resolve(absolute(model, Path())), torch.device("cpu")
    tokens = TextTokens.read(folder / "tokenizer.json")
    files = for_judging(read_held_out(corpus, ["python"]))[: 4 * count]
    chosen = windows([tokens.encode(file.text) for file in files], count)
    sampling = read_sampling(folder)

    def loaded(build: Path, fp8_keys: bool = False) -> TextModel:
        return load_model(build, device, torch.float32, fp8_keys=fp8_keys)

    builds: dict[str, tuple[Callable[[], TextModel], Path, ComputeStats]] = {
        "in full": (lambda: loaded(folder), folder, exact_stats),
        "keys in fp8": (lambda: loaded(folder, True), folder, exact_stats),
        "32 likeliest tokens": (lambda: loaded(folder), folder, top_stats),
        "32 likeliest, renormalized": (lambda: loaded(folder), folder, renormalized_stats),
        "pins from the second step on": (lambda: pins_later(loaded(folder)), folder, exact_stats),
    }
    for path in other or []:
        builds[path.name] = (lambda path=path: loaded(path)), path, exact_stats  # type: ignore[misc]
    rows: list[list[str]] = []
    figures: dict[str, Any] = {}
    reference: Outputs | None = None
    for build, (load, path, read) in builds.items():
        found = run_model(load(), sampling, chosen, read)
        reference = reference or found
        size = sum(file.stat().st_size for file in path.glob("*.safetensors")) / 2**20
        cells, figures[build] = row(build, size, found, reference)
        rows.append(cells)
        print(" | ".join(cells), flush=True)
    notes = [
        f"{len(chosen)} windows of held-out Python files: a prompt of {PROMPT} tokens, {BEFORE} known, a hole of "
        f"{HOLE}, {AFTER} known. Products in float32 with dequantized weights.",
        "causal: nats per token of the text after the prompt, by the encoder; denoised: nats per token of the truth in "
        "the hole, in the first step. Same likeliest and KL: compared with the full weights, at temperature 1.",
        f"KL after {STEPS} steps: in the last step, after the canvases have diverged.",
    ]
    Report("What few bits cost", {**conditions(), "model": folder.name}, HEADER, rows, notes, figures).write(name, out)


if __name__ == "__main__":
    typer.run(reports_errors(main))
