"""A denoise step compared with transformers: the same weights, prompt and canvas width, in one process, in turns.

`python -m bench.gpu.step_beside` downloads nothing. It needs a GPU with about 100 GiB while transformers builds its
model, then 60 (the experts are shared). The time of a step is the difference between a run of many steps and a run of
one, per step in between, so encoding the prompt does not count. Before that, the likeliest tokens of both are compared.
`--tiny` is a dry run at small shapes, also on a CPU; its times mean nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn
from transformers import DynamicCache

from bench.gpu.common import NEVER, choose_device
from bench.gpu.step_shapes import TINY, TRUE_26B
from bench.gpu.step_theirs import STEPS, generate, random_theirs
from bench.report import DRY_RUN, RESULTS, Report, Spread, conditions, ratios
from engine.canvas import Canvas, Slots
from engine.checkpoints.tensor_views import checkpoint_views
from engine.config import ModelConfig, SamplingConfig
from engine.denoiser import Denoiser, DenoiseRequest
from engine.device_setup import prepare_for_device
from engine.key_values import CanvasMemory
from engine.models.diffusion_gemma import DiffusionGemma
from engine.models.text_model import TextModel
from engine.prefix_cache import PrefixCache
from train.program import reports_errors

HEADER = ("canvas", "context", "this engine, ms", "transformers, ms", "ratio", "same likeliest token")


def sharing(theirs: Any, config: ModelConfig, device: torch.device) -> DiffusionGemma:
    """This engine's model with the weights of `theirs`; it shares the memory of the experts."""
    state: dict[str, Tensor] = theirs.state_dict()
    with torch.device("meta"):
        model = DiffusionGemma(config).to(theirs.dtype)
    for index, layer in enumerate(model.layers):
        for name in ("gate_up_proj", "down_proj"):
            shared = state[f"model.decoder.layers.{index}.experts.{name}"]
            setattr(layer.experts, name, nn.Parameter(shared, requires_grad=False))
    for module in model.modules():
        for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            if tensor.is_meta:
                made = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
                is_weight = isinstance(tensor, nn.Parameter)
                setattr(module, name, nn.Parameter(made, requires_grad=False) if is_weight else made)
    for name, view in checkpoint_views(model).items():
        if ".experts." not in name:
            view.copy_(state[name])
    return model.eval().requires_grad_(False)


@torch.inference_mode()
def our_logits(model: TextModel, prompt: Tensor, canvas: Tensor) -> Tensor:
    """Logits [canvas, vocab] of this engine's first step over `canvas`, a tensor of noise."""
    with PrefixCache(model).encoded(prompt.tolist()) as lease:
        memory = CanvasMemory(lease.kv, len(canvas))
        belief = torch.zeros_like(model.embed(canvas[None]))
        return model.logits(model.denoise(canvas[None], belief, memory.positions(), memory.masks(), memory))[0]


@torch.inference_mode()
def their_logits(model: Any, prompt: Tensor, canvas: Tensor) -> Tensor:
    """The same of transformers' model."""
    cache = DynamicCache(config=model.config.text_config)
    logits: Tensor = model(input_ids=prompt[None], decoder_input_ids=canvas[None], past_key_values=cache).logits[0]
    return logits


def same_likeliest(found: Tensor, expected: Tensor) -> float:
    """The share of columns with the same likeliest token. found, expected: logits [canvas, vocab]."""
    return float((found.argmax(-1) == expected.argmax(-1)).float().mean())


def per_step(run: Callable[[int], object]) -> Callable[[], float]:
    """Milliseconds per step of `run`, which takes a number of steps and waits for the result."""

    def timed(steps: int) -> float:
        started = perf_counter()
        run(steps)
        return 1000 * (perf_counter() - started)

    def measure() -> float:
        many = timed(STEPS)
        return (many - timed(1)) / (STEPS - 1)

    return measure


@torch.no_grad()  # not inference mode, whose tensors torch.compile may not accept
def main(
    compiled: Annotated[bool, typer.Option(help="transformers with a static cache, for which it compiles.")] = False,
    canvas: Annotated[int, typer.Option(min=1, help="Canvas columns, all hole.")] = 256,
    context: Annotated[int, typer.Option(min=1, help="Prompt tokens.")] = 2048,
    repeats: Annotated[int, typer.Option(min=2, help="Measured pairs.")] = 10,
    tiny: Annotated[bool, typer.Option(help="Dry run at small shapes.")] = False,
    name: Annotated[str, typer.Option(help="Name of the result files.")] = "step_beside",
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Measure both sides in turns."""
    device = choose_device(tiny, "bench.gpu.step_beside")
    canvas, context = (8, 20) if tiny else (canvas, context)
    config_json = TINY if tiny else TRUE_26B
    theirs = random_theirs(config_json, canvas, device)
    ours = prepare_for_device(sharing(theirs, ModelConfig.from_json(config_json), device))
    denoiser = Denoiser(ours)
    generator = torch.Generator().manual_seed(0)
    prompt = torch.randint(3, 250, (context,), generator=generator).to(device)
    noise = torch.randint(3, 250, (canvas,), generator=generator).to(device)
    same = same_likeliest(our_logits(ours, prompt, noise), their_logits(theirs, prompt, noise))

    def run_ours(steps: int) -> None:
        sampling = SamplingConfig(max_steps=steps, confidence_threshold=NEVER)
        denoiser.run([DenoiseRequest(prompt.tolist(), Canvas.of(Slots(canvas)), sampling)])

    our_step = per_step(run_ours)
    their_step = per_step(lambda steps: generate(theirs, prompt[None], canvas, steps, compiled))
    our_step(), their_step()
    fast, slow = zip(*((our_step(), their_step()) for _ in range(repeats)), strict=True)
    spreads = Spread.of(fast), Spread.of(slow), ratios(slow, fast)
    rows = [[str(canvas), str(context), *map(str, spreads), f"{same:.1%}"]]
    figures = {
        "ours_ms": spreads[0], "theirs_ms": spreads[1], "ratio": spreads[2],
        "same_likeliest_token": same, "compiled": compiled, "kernels": ours.has_kernels,
        "recorded": denoiser.recorded is not None and denoiser.recorded.are_recorded,
    }  # fmt: skip
    mode = "compiled with a static cache" if compiled else "eager with its default cache"
    notes = [
        f"Medians and quartiles of {repeats} pairs. The same random weights of the true shapes on both sides, in "
        f"{str(theirs.dtype).removeprefix('torch.')}; the whole canvas is a hole; transformers {mode}.",
        f"This engine runs {'with kernels' if ours.has_kernels else 'in plain PyTorch'}, "
        f"{'with' if figures['recorded'] else 'without'} CUDA graphs.",
        "Same likeliest token: share of columns in a first step. Random weights make near ties likely.",
        *([DRY_RUN] if tiny else []),
    ]
    report = Report("A step compared with transformers", conditions(device), HEADER, rows, notes, figures)
    report.write(name, out)
    report.show()


if __name__ == "__main__":
    typer.run(reports_errors(main))
