"""What few bits cost a model: its answers beside those of the same weights in full, on the same windows of real files.

Run `python -m bench.quality.few_bits --corpus DIR --model FOLDER --other FOLDER …`. Compared are builds of `gesso model
quantize`, keys and values in fp8, and self-conditioning by the likeliest tokens alone. Finer than exact matches, which
move by whole holes: likelihood of what stood there, and how far the distributions are apart. In float32 on the CPU, so
that nothing but the bits differs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from bench.report import RESULTS, Report, conditions
from engine.canvas import Canvas, Hole, Known
from engine.checkpoints.checkpoint import load_model
from engine.checkpoints.config_files import read_sampling
from engine.config import SamplingConfig
from engine.denoiser import Denoiser, DenoiseRequest
from engine.errors import InputError
from engine.graphs.recorded_steps import RecordedSteps
from engine.graphs.step_stats import Read, few, full
from engine.models.text_model import TextModel
from engine.prefix_cache import PrefixCache
from engine.scorer import causal_log_probabilities
from infill.model_store import resolve
from infill.prompts.text_tokens import TextTokens
from train.held_out import for_judging, read_held_out

PROMPT, BEFORE, HOLE, AFTER = 192, 24, 16, 24  # tokens of a window
STEPS = 3
HEADER = ("build", "MiB", "causal, nats", "denoised, nats", "same likeliest", "KL, nats", "KL after 3 steps")


@dataclass(frozen=True)
class Looks:
    """causal: mean log p of what follows the prompt, as the encoder reads it. steps: of the first and of the last step
    log probabilities [windows * HOLE, vocab]; truth [windows * HOLE]."""

    causal: float
    steps: tuple[Tensor, Tensor]
    truth: Tensor

    @property
    def denoised(self) -> float:
        """Mean log p of what stood in the holes, in the first step."""
        return float(self.steps[0].gather(1, self.truth[:, None]).mean())

    def divergence_from(self, other: Looks, step: int) -> float:
        """Mean KL(other || self) in nats."""
        theirs, mine = other.steps[step], self.steps[step]
        return float((theirs.exp() * (theirs - mine)).sum(dim=-1).mean())

    def same_likeliest(self, other: Looks) -> float:
        return float((self.steps[0].argmax(-1) == other.steps[0].argmax(-1)).float().mean())


def windows(texts: Sequence[list[int]], count: int) -> list[list[int]]:
    """`count` windows of tokens, one from each text in turn, as far apart within it as can be."""
    size = PROMPT + BEFORE + HOLE + AFTER
    long = [text for text in texts if len(text) >= size]
    if not long:
        raise InputError(f"No held-out file has {size} tokens; name a larger corpus.")
    rounds = -(-count // len(long))
    found = []
    for turn in range(rounds):
        for text in long:
            start = (len(text) - size) * turn // max(1, rounds - 1)
            found.append(text[start : start + size])
    return found[:count]


@torch.inference_mode()
def look(model: TextModel, sampling: SamplingConfig, chosen: Sequence[list[int]], read: Read) -> Looks:
    """What the model says of each window."""
    denoiser = Denoiser(model, PrefixCache(model))
    denoiser.recorded = RecordedSteps(model, denoiser.own_draws, None, read)
    sampling = SamplingConfig(STEPS, sampling.entropy_bound, sampling.t_min, sampling.t_max, 1, -1.0, "argmax")
    causal: list[float] = []
    first: list[Tensor] = []
    last: list[Tensor] = []
    truth: list[int] = []
    for number, window in enumerate(chosen):
        prompt, canvas, behind = window[:PROMPT], window[PROMPT : PROMPT + BEFORE], window[-AFTER:]
        hidden = window[PROMPT + BEFORE : -AFTER]
        request = DenoiseRequest(prompt, Canvas.of(Known(canvas), Hole(HOLE), Known(behind)), sampling, number)
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
    return Looks(sum(causal) / len(causal), (torch.cat(first), torch.cat(last)), torch.tensor(truth))


def row(name: str, mib: float, mine: Looks, reference: Looks) -> tuple[list[str], dict[str, Any]]:
    figures = {
        "bytes": int(mib * 2**20),
        "causal_nats": -mine.causal,
        "denoised_nats": -mine.denoised,
        "same_likeliest": mine.same_likeliest(reference),
        "kl_first": mine.divergence_from(reference, 0),
        "kl_last": mine.divergence_from(reference, 1),
    }
    cells = [name, f"{mib:.1f}", f"{figures['causal_nats']:.3f}", f"{figures['denoised_nats']:.3f}"]
    cells += [f"{figures['same_likeliest']:.1%}", f"{figures['kl_first']:.4f}", f"{figures['kl_last']:.4f}"]
    return cells, figures


def main(
    corpus: Annotated[Path, typer.Option(help="Folder of `train.corpus`.")],
    model: Annotated[str, typer.Option(help="The weights in full.")],
    other: Annotated[list[Path] | None, typer.Option(help="Builds of the same weights; may be repeated.")] = None,
    count: Annotated[int, typer.Option(min=2, help="Windows.")] = 60,
    name: Annotated[str, typer.Option(help="Name of the result files.")] = "few_bits",
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Measures what few bits change."""
    folder, device = resolve(model), torch.device("cpu")
    tokens = TextTokens(folder / "tokenizer.json")
    files = for_judging(read_held_out(corpus, ["python"]))[: 4 * count]
    chosen = windows([tokens.encode(file.text) for file in files], count)
    sampling = read_sampling(folder)

    def loaded(place: Path, fp8_keys: bool = False) -> TextModel:
        return load_model(place, device, torch.float32, fp8_keys=fp8_keys)

    builds: dict[str, tuple[Callable[[], TextModel], Path, Read]] = {
        "in full": (lambda: loaded(folder), folder, full),
        "keys in fp8": (lambda: loaded(folder, True), folder, full),
        "32 likeliest tokens": (lambda: loaded(folder), folder, few),
    }
    for place in other or []:
        builds[place.name] = (lambda place=place: loaded(place)), place, full  # type: ignore[misc]
    rows: list[list[str]] = []
    figures: dict[str, Any] = {}
    reference: Looks | None = None
    for build, (load, place, read) in builds.items():
        mine = look(load(), sampling, chosen, read)
        reference = reference or mine
        size = sum(file.stat().st_size for file in place.glob("*.safetensors")) / 2**20
        cells, figures[build] = row(build, size, mine, reference)
        rows.append(cells)
        print(" | ".join(cells), flush=True)
    told = [
        f"{len(chosen)} windows of held-out Python files: a prompt of {PROMPT} tokens, {BEFORE} known, a hole of "
        f"{HOLE}, {AFTER} known. Products in float32 with the weights that the bits stand for.",
        "causal: nats a token of what follows the prompt, read by the encoder; denoised: nats a token of what stood in "
        "the hole, in the first step. Same likeliest and KL: beside the weights in full, at temperature 1.",
        f"KL after {STEPS} steps: of the last step, where the canvases have gone their own ways.",
    ]
    Report("What few bits cost", {**conditions(), "model": folder.name}, HEADER, rows, told, figures).write(name, out)


if __name__ == "__main__":
    typer.run(main)
