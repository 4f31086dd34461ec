"""Milliseconds per denoise step and per infill: this engine and transformers' `generate` with the same weights.

`python -m bench.speed.parity` gives both sides the same prompt, canvas width and number of steps. They never stop early
and run in turns in one process. Without --model the weights are random, which is enough for speed.
"""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.progress import Progress, track
from transformers import DiffusionGemmaForBlockDiffusion
from transformers.models.diffusion_gemma.generation_diffusion_gemma import EntropyBoundSamplerConfig
from transformers.utils import logging as transformers_logging

from bench.report import RESULTS, Report, Spread, conditions, interleaved, ratios
from engine.canvas import Canvas, Known, Slots
from engine.checkpoints.checkpoint import load_model
from engine.checkpoints.export import save_model
from engine.config import ModelConfig, SamplingConfig
from engine.denoiser import Denoiser, DenoiseRequest
from engine.device import choose_dtype, set_threads
from engine.models.diffusion_gemma import DiffusionGemma
from train.program import reports_errors

CPU = torch.device("cpu")
NEVER = 1e-12  # nats; a mean entropy that no canvas reaches, so that no run stops early
TYPED = 1  # tokens that the next keystroke adds to the canvas
SMALL_VISION = {
    "model_type": "gemma4_vision",
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
}


def whole_runs(canvas: int, steps: int) -> dict[str, Any]:
    """Options with which transformers' generate takes all steps over one canvas."""
    return {
        "max_new_tokens": canvas,
        "max_denoising_steps": steps,
        "sampler_config": EntropyBoundSamplerConfig(0.1),
        "t_min": 0.4,
        "t_max": 0.8,
        "stability_threshold": 1,
        "confidence_threshold": NEVER,
        "eos_token_id": None,
    }


def random_config(hidden: int, layers: int, intermediate: int, experts: int, top_k: int, size: int) -> dict[str, Any]:
    """A config.json like that of train/pocket.toml: heads of 64; every third layer and the last are full."""
    kinds = ["full_attention" if i % 3 == 2 or i == layers - 1 else "sliding_attention" for i in range(layers)]
    text = {
        "model_type": "diffusion_gemma_text",
        "vocab_size": 8192,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 64,
        "num_key_value_heads": hidden // 128,
        "head_dim": 64,
        "global_head_dim": 64,
        "num_global_key_value_heads": hidden // 128,
        "layer_types": kinds,
        "sliding_window": 256,
        "num_experts": experts,
        "top_k_experts": top_k,
        "moe_intermediate_size": size,
        "max_position_embeddings": 4096,
    }
    return {"model_type": "diffusion_gemma", "tie_word_embeddings": True, "text_config": text}


RANDOM_MODELS = {
    "pocket, one expert": random_config(256, 6, 704, 1, 1, 128),
    "pocket, 8 experts top 2": random_config(256, 6, 704, 8, 2, 128),
    "34 M, one expert": random_config(512, 8, 1408, 1, 1, 256),
}


@dataclass(frozen=True)
class Task:
    """The task of both sides: prompt tokens, canvas columns, hole columns, steps."""

    prompt: int
    canvas: int
    hole: int
    steps: int

    def tokens(self, vocab: int) -> list[int]:
        generator = torch.Generator().manual_seed(0)
        return torch.randint(32, vocab, (self.prompt,), generator=generator).tolist()

    def line(self, keystrokes: int = 0) -> Canvas:
        """Known tokens, the hole (smaller by the tokens typed), known tokens."""
        before = (self.canvas - self.hole) // 2
        after = self.canvas - self.hole - before
        left = self.hole - TYPED * keystrokes
        return Canvas.of(Known([40] * before + [41] * (self.hole - left)), Slots(left), Known([42] * after))

    def all_hole(self) -> Canvas:
        return Canvas.of(Slots(self.canvas))


class Ours:
    """This engine, with its prefix cache and pinned known tokens."""

    def __init__(self, folder: Path, dtype: torch.dtype, task: Task) -> None:
        self.model = load_model(folder, CPU, dtype)
        self.denoiser = Denoiser(self.model)
        self.prompt = task.tokens(self.model.config.vocab_size)

    def infill(self, canvas: Canvas, steps: int) -> int:
        sampling = SamplingConfig(steps, confidence_threshold=NEVER)
        result = self.denoiser.run([DenoiseRequest(self.prompt, canvas, sampling)])[0]
        assert result.steps == steps, "a run that stops early measures nothing"
        return result.encoded_tokens

    def cold(self, canvas: Canvas, steps: int) -> None:
        """With an empty cache, as for the first request in a file."""
        self.denoiser.cache.clear()
        encoded = self.infill(canvas, steps)
        assert encoded == len(self.prompt)

    def warm(self, canvas: Canvas, steps: int) -> None:
        """With the prompt in the cache, as for the next keystroke."""
        encoded = self.infill(canvas, steps)
        assert encoded == 0


class Theirs:
    """transformers' generate over one canvas. It cannot pin tokens, so the whole canvas is a hole."""

    def __init__(self, folder: Path, dtype: torch.dtype, task: Task) -> None:
        self.model: Any = DiffusionGemmaForBlockDiffusion.from_pretrained(folder, dtype=dtype).eval()
        self.task = task
        self.prompt = torch.tensor([task.tokens(self.model.config.text_config.vocab_size)])
        passes: list[int] = []
        hook = self.model.model.decoder.register_forward_hook(lambda *rest: passes.append(1))
        self.kept = self._generate(self.prompt[:, :-1], task.steps).past_key_values
        hook.remove()
        assert len(passes) == task.steps, "a run that stops early measures nothing"
        attention = self.model.config.text_config._attn_implementation
        self.implementation = f"attention {attention}, experts {self.model.config._experts_implementation}"

    def cold(self, steps: int) -> None:
        self._generate(self.prompt, steps)

    def with_kept_keys(self, steps: int) -> None:
        """With a copy of the keys of all but the last prompt token, as a caller may keep them."""
        self._generate(self.prompt[:, -1:], steps, past_key_values=copy.deepcopy(self.kept))

    def _generate(self, tokens: torch.Tensor, steps: int, **more: Any) -> Any:
        return self.model.generate(tokens, **whole_runs(self.task.canvas, steps), **more)


def measure(folder: Path, dtype: torch.dtype, task: Task, repeats: int, warm_up: int) -> dict[str, Any]:
    """Milliseconds of every contestant, and the ratios."""
    ours, theirs = Ours(folder, dtype, task), Theirs(folder, dtype, task)
    whole, line, typed = task.all_hole(), task.line(), task.line(keystrokes=1)
    steps = task.steps
    contestants: dict[str, Callable[[], object]] = {
        "theirs, infill": lambda: theirs.cold(steps),
        "ours, infill, all hole": lambda: ours.cold(whole, steps),
        "ours, infill, line": lambda: ours.cold(line, steps),
        "ours, next keystroke, line": lambda: ours.warm(typed, steps),
        "ours, next keystroke, all hole": lambda: ours.warm(whole, steps),
        "theirs, next keystroke with kept keys": lambda: theirs.with_kept_keys(steps),
        "theirs, one step": lambda: theirs.cold(1),
        "ours, one step, all hole": lambda: ours.cold(whole, 1),
        "ours, one step, line": lambda: ours.cold(line, 1),
    }
    with Progress(transient=True) as progress:
        measuring = progress.add_task("measuring", total=(warm_up + repeats) * len(contestants))
        interleaved(contestants, warm_up, lambda: progress.advance(measuring))
        times = interleaved(contestants, repeats, lambda: progress.advance(measuring))
    for side in ("theirs", "ours"):
        for canvas in ("",) if side == "theirs" else (", all hole", ", line"):
            pairs = zip(times[f"{side}, infill{canvas}"], times[f"{side}, one step{canvas}"], strict=True)
            times[f"{side}, step{canvas}"] = [(many - one) / (steps - 1) for many, one in pairs]
    comparisons = {
        "step, all hole": ("theirs, step", "ours, step, all hole"),
        "step, line": ("theirs, step", "ours, step, line"),
        "infill, all hole": ("theirs, infill", "ours, infill, all hole"),
        "infill, line": ("theirs, infill", "ours, infill, line"),
        "next keystroke, line": ("theirs, infill", "ours, next keystroke, line"),
        "next keystroke, line, keys kept": (
            "theirs, next keystroke with kept keys",
            "ours, next keystroke, line",
        ),
        "next keystroke, all hole, keys kept": (
            "theirs, next keystroke with kept keys",
            "ours, next keystroke, all hole",
        ),
    }
    return {
        "parameters": sum(parameter.numel() for parameter in ours.model.parameters()),
        "dtype": str(dtype).removeprefix("torch."),
        "transformers": theirs.implementation,
        "ms": {name: Spread.of(samples) for name, samples in times.items()},
        "ratios": {name: ratios(times[slow], times[fast]) for name, (slow, fast) in comparisons.items()},
        "rows": [
            [name, str(Spread.of(times[slow])), str(Spread.of(times[fast])), str(ratios(times[slow], times[fast]))]
            for name, (slow, fast) in comparisons.items()
        ],
    }


def write_random(config_json: dict[str, Any], folder: Path) -> None:
    """A float32 model folder with random weights."""
    torch.manual_seed(0)
    model = DiffusionGemma(ModelConfig.from_json(config_json)).requires_grad_(False)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.normal_(0, 0.02)
    save_model(model, config_json, {}, folder, "float32")


def write_float(source: Path, folder: Path, canvas: int) -> None:
    """The model of `source` as a float32 folder that transformers also loads, with a canvas of this width."""
    config_json = json.loads((source / "config.json").read_text("utf-8"))
    config_json = {"vision_config": SMALL_VISION, **config_json, "canvas_length": canvas}
    model = load_model(source, CPU, torch.float32)
    assert isinstance(model, DiffusionGemma)
    save_model(model, config_json, {}, folder, "float32")


def notes(task: Task, repeats: int) -> list[str]:
    return [
        f"Prompt {task.prompt} tokens, canvas {task.canvas} columns, {task.steps} steps, batch of one, early "
        f"stopping off; median (quartiles) of {repeats} repeats in turns after warm-up.",
        "Step: (time of all steps - time of one step) per step in between. Infill: a whole request with an empty "
        "cache. Ratios are of neighbouring runs; above 1, this engine is faster.",
        "All hole: both sides write the whole canvas. Line: this engine pins known tokens and computes logits of a "
        f"hole of {task.hole} columns; transformers cannot pin and writes the whole canvas, so the two sides do "
        "different work for the same line.",
        "Next keystroke: the same prompt, one more known token. This engine takes the prompt's keys from its cache; "
        "generate encodes the prompt again. Keys kept: a caller of transformers copies the keys of all prompt tokens "
        "but one and passes them as past_key_values.",
        "Both sides sample on the CPU with the released settings and compute logits in the type of the weights.",
        "Target: 2.5 times per step, 5 times per infill.",
    ]


def main(
    model: Annotated[Path | None, typer.Option(help="Model folder instead of random weights.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Measured runs of each contestant.")] = 15,
    warm_up: Annotated[int, typer.Option(min=1, help="Runs before measuring.")] = 2,
    prompt: Annotated[int, typer.Option(min=2, help="Prompt tokens.")] = 320,
    canvas: Annotated[int, typer.Option(min=4, help="Canvas columns.")] = 96,
    hole: Annotated[int, typer.Option(min=2, help="Columns of the hole in the line rows.")] = 32,
    steps: Annotated[int, typer.Option(min=2, help="Denoising steps.")] = 8,
    only: Annotated[str, typer.Option(help="Only models whose name contains this.")] = "",
    dtype: Annotated[list[str] | None, typer.Option(help="float32 or bfloat16; default: what suits this CPU.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Measure this engine and transformers with the same weights."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    set_threads()
    task = Task(prompt, canvas, min(hole, canvas), steps)
    dtypes = [choose_dtype(CPU, name) for name in dtype or dict.fromkeys(("float32", "auto"))]
    figures: dict[str, Any] = {}
    rows: list[Sequence[str]] = []
    with tempfile.TemporaryDirectory() as scratch:
        names = [model.resolve().name] if model else [name for name in RANDOM_MODELS if only in name]
        for index, name in enumerate(track(names, "models")):
            folder = Path(scratch) / str(index)
            if model:
                write_float(model, folder, canvas)
            else:
                random = {**RANDOM_MODELS[name], "canvas_length": canvas, "vision_config": SMALL_VISION}
                write_random(random, folder)
            for kind in dict.fromkeys(dtypes):
                result = measure(folder, kind, task, repeats, warm_up)
                label = f"{name}, {result['dtype']}"
                rows += [("" if later else label, *row) for later, row in enumerate(result.pop("rows"))]
                figures[label] = result
    header = ("model", "what", "transformers, ms", "this engine, ms", "ratio")
    used = sorted({result["transformers"] for result in figures.values()})
    said = [*notes(task, repeats), f"transformers ran with {'; '.join(used)}."]
    report = Report("Speed compared with transformers", conditions(), header, rows, said, figures)
    report.show()
    for file in report.write("parity_speed", out):
        print(file)


if __name__ == "__main__":
    typer.run(reports_errors(main))
