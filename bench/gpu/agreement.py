"""Does the engine compute the same as transformers, and a device the same as the CPU, with the weights of a folder?

`python -m bench.gpu.agreement FOLDER` compares the logits of a first step with transformers; the models are loaded one
after the other. `--with cpu` compares tokens and log probabilities of whole runs with those on the CPU, in float32.
Must not measure times.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from transformers import DiffusionGemmaForBlockDiffusion

from bench.gpu.step_beside import our_logits, same_likeliest, their_logits
from bench.report import free_memory
from engine.canvas import Canvas, Known, Slots
from engine.checkpoints.checkpoint import load_model
from engine.checkpoints.config_files import read_sampling
from engine.denoiser import Denoiser, DenoiseRequest, DenoiseResult
from engine.device import choose_device, choose_dtype
from train.program import reports_errors

FIRST, LAST = 1000, 8000  # random tokens are drawn from this range
CANVAS = Canvas.of(Known(range(400, 440)), Slots(32), Known(range(500, 540)))
SMALL_CANVAS = Canvas.of(Known(range(600, 610)), Slots(9))


class Other(StrEnum):
    transformers = "transformers"
    cpu = "cpu"


def with_transformers(folder: Path, device: torch.device) -> tuple[float, float]:
    """(share of columns with the same likeliest token, largest difference of logits)."""
    dtype = choose_dtype(device, "auto")
    generator = torch.Generator().manual_seed(0)
    prompt, canvas = (torch.randint(FIRST, LAST, (n,), generator=generator).to(device) for n in (1500, 64))
    theirs: Any = DiffusionGemmaForBlockDiffusion.from_pretrained(folder, dtype=dtype)
    expected = their_logits(theirs.to(device).eval(), prompt, canvas).float().cpu()
    del theirs
    free_memory()
    found = our_logits(load_model(folder, device, dtype), prompt, canvas).float().cpu()
    return same_likeliest(found, expected), float((found - expected).abs().max())


def with_cpu(folder: Path, device: torch.device) -> list[tuple[bool, float]]:
    """(same tokens, largest difference of log probabilities) of one canvas, and of a batch of two unequal ones."""

    def run(device: torch.device) -> list[DenoiseResult]:
        denoiser = Denoiser(load_model(folder, device, torch.float32))
        sampling = read_sampling(folder)
        requests = [
            DenoiseRequest(range(32, 332), CANVAS, sampling, seed=1),
            DenoiseRequest([2], SMALL_CANVAS, sampling),
        ]
        return denoiser.run(requests[:1]) + denoiser.run(requests)

    pairs = zip(run(torch.device("cpu")), run(device), strict=True)
    return [
        (torch.equal(a.tokens, b.tokens), float((a.log_probabilities - b.log_probabilities).abs().max()))
        for a, b in pairs
    ]


def main(
    folder: Annotated[Path, typer.Argument(help="Model folder.")],
    other: Annotated[Other, typer.Option("--with", help="What to compare with.")] = Other.transformers,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Compare the engine with transformers, or a device with the CPU."""
    chosen = choose_device(device)
    if other is Other.transformers:
        same, difference = with_transformers(folder, chosen)
        print(f"same likeliest token: {same:.1%}, largest difference of logits: {difference:.2g}")
        return
    for tokens, difference in with_cpu(folder, chosen):
        print(f"same tokens: {'yes' if tokens else 'no'}, largest difference of log probabilities: {difference:.1e}")


if __name__ == "__main__":
    typer.run(reports_errors(main))
