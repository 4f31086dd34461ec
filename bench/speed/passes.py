"""Forward passes and tokens per pass of a whole infill with a scaled-down 26B: cold, and for the next keystroke.

`python -m bench.speed.passes` counts them; a pass of the 26B reads all its weights, so their number is the time of an
infill on any device. The weights are random, so the number of steps is fixed. Must not know times.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from bench.report import RESULTS, Report, conditions
from bench.speed.large_vocabulary import large_tokenizer
from engine.config import ModelConfig, SamplingConfig
from engine.denoiser import Denoiser
from engine.key_values import PromptMemory
from engine.memory import Memory
from engine.models.diffusion_gemma import DiffusionGemma
from engine.released import TRUE_26B
from infill.complete.completion import Completer
from infill.complete.loaded_model import LoadedModel
from infill.prompts.chat import ChatPrompt
from infill.prompts.text_tokens import TextTokens
from infill.request import Hole, InfillRequest
from infill.settings import Settings
from train.program import reports_errors

VOCAB, STEPS = 2048, 8
SAMPLING = SamplingConfig(max_steps=STEPS, confidence_threshold=-1.0)
SMALL = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "global_head_dim": 32,
    "num_global_key_value_heads": 1,
    "num_experts": 4,
    "top_k_experts": 2,
    "moe_intermediate_size": 16,
    "layer_types": ["sliding_attention", "full_attention"],
}
BEFORE = "".join(f"def part_{n}(item):\n    value = item + {n}\n    return value\n\n\n" for n in range(36))
AFTER = "\n    return total\n\n\n" + BEFORE[: len(BEFORE) // 4]


@dataclass(frozen=True)
class Passes:
    """The tokens of every pass: over parts of the prompt, over canvases, over texts to score."""

    prompt: list[int]
    denoise: list[int]
    score: list[int]

    @property
    def count(self) -> int:
        return len(self.prompt) + len(self.denoise) + len(self.score)

    def figures(self) -> dict[str, Any]:
        return {"passes": self.count, "prompt": self.prompt, "denoise": self.denoise, "score": self.score}


def small_model() -> DiffusionGemma:
    """The architecture of the 26B with few random weights."""
    model = DiffusionGemma(
        ModelConfig.from_json({**TRUE_26B, "text_config": {**TRUE_26B["text_config"], **SMALL}})
    ).requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.normal_(0, parameter.shape[-1] ** -0.5, generator=generator)
    return model.eval()


def count_passes() -> dict[str, Passes]:
    """Of an infill with an empty prompt cache, and of the one after the next key."""
    model, noted = small_model(), Passes([], [], [])
    encode, denoise = model.encode, model.denoise

    def noting_encode(tokens: Tensor, positions: Tensor, masks: Any, memory: Memory, keys_only: bool = False) -> Tensor:
        (noted.prompt if isinstance(memory, PromptMemory) else noted.score).append(tokens.numel())
        return encode(tokens, positions, masks, memory, keys_only)

    def noting_denoise(tokens: Tensor, *rest: Any) -> Tensor:
        noted.denoise.append(tokens.numel())
        return denoise(tokens, *rest)

    model.encode, model.denoise = noting_encode, noting_denoise  # type: ignore[assignment, method-assign]
    tokenizer = large_tokenizer(VOCAB, VOCAB // 3)
    loaded = LoadedModel("small 26b", Denoiser(model), ChatPrompt(TextTokens(tokenizer)), SAMPLING)
    completer = Completer(loaded, Settings(copy_drafts=False, min_confidence=0.0))
    never: Callable[[], bool] = lambda: False  # noqa: E731 - as a service, which may cancel
    found = {}
    for name, typed in (("cold", "t"), ("next keystroke", "to")):
        text = f"{BEFORE}def sums(items):\n    total = {typed}"
        request = InfillRequest(text + AFTER, (Hole(len(text), len(text)),), "python", lines="one")
        for passes in (noted.prompt, noted.denoise, noted.score):
            passes.clear()
        completer.complete(request, stop=never)
        found[name] = replace(noted, prompt=[*noted.prompt], denoise=[*noted.denoise], score=[*noted.score])
    return found


def main(out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS) -> None:
    """Count the passes of an infill; writes passes.md and passes.json."""
    torch.set_num_threads(1)
    found = count_passes()
    rows = [
        [name, str(one.count), *(f"{len(part)}: {_shown(part)}" for part in (one.prompt, one.denoise, one.score))]
        for name, one in found.items()
    ]
    report = Report(TITLE, conditions(), HEADER, rows, NOTES, {name: one.figures() for name, one in found.items()})
    report.show()
    for file in report.write("passes", out):
        print(file)


TITLE = "Forward passes of one infill with the 26B"
HEADER = ("", "passes", "prompt", "canvases", "scores")
NOTES = (
    f"A line in the middle of a file, {STEPS} steps per canvas, random weights, on a CPU, where a prompt is read in "
    "parts of 256 tokens (on a GPU of 1,024); the number of tokens of each pass, with padding.",
)


def _shown(tokens: list[int]) -> str:
    groups: list[tuple[int, int]] = []
    for count in tokens:
        times = groups.pop()[0] + 1 if groups and groups[-1][1] == count else 1
        groups.append((times, count))
    return ", ".join(f"{times} × {count}" if times > 1 else str(count) for times, count in groups) or "–"


if __name__ == "__main__":
    typer.run(reports_errors(main))
