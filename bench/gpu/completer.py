"""Milliseconds and peak memory of whole requests with the 26B on one GPU: from the text of a file to the suggestion.

`python -m bench.gpu.completer` downloads nothing: true shapes, random weights, a made-up tokenizer of the true size. It
runs the pipeline as shipped: context, probing of lengths, the finalists, the choice between them, repair, scores.
Random weights do not show how many steps a trained model needs, so that number is fixed. `--tiny` is a dry run at small
shapes, also on a CPU; its times mean nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import torch
import typer

from bench.gpu.common import NEVER, choose_device, choose_formats
from bench.gpu.infill import make_model
from bench.gpu.step_shapes import BUILDS, TINY, TRUE_26B
from bench.report import DRY_RUN, RESULTS, Report, Spread, conditions, free_memory, peak_gpu_bytes, percentile
from bench.speed.large_vocabulary import large_tokenizer
from bench.speed.passes import AFTER, BEFORE
from engine.config import ModelConfig, SamplingConfig
from engine.denoiser import Denoiser
from engine.memory_use import DRIVER_BYTES, reserved_bytes
from engine.models.text_model import TextModel
from infill.complete.completion import Completer
from infill.complete.last_draft import LastDraft
from infill.complete.loaded_model import LoadedModel
from infill.prompts.chat import ChatPrompt
from infill.prompts.text_tokens import TextTokens
from infill.request import Hole, InfillRequest, InfillResult
from infill.settings import Settings
from train.program import reports_errors

TINY_VOCAB = 2048  # the least that `large_tokenizer` makes
TYPED = "t", "to"  # of the hole's line, by the first request and by that of the next key
HEADER = ("format", "request", "steps", "p50, ms", "p95, ms", "prompt, ms", "steps, ms", "GiB at most", "by account")


def shapes(tiny: bool) -> ModelConfig:
    if not tiny:
        return ModelConfig.from_json(TRUE_26B)
    return ModelConfig.from_json({**TINY, "text_config": {**TINY["text_config"], "vocab_size": TINY_VOCAB}})


def make_completer(model: TextModel, tokens: TextTokens, steps: int) -> Completer:
    sampling = SamplingConfig(max_steps=steps, confidence_threshold=NEVER)
    loaded = LoadedModel("random 26b", Denoiser(model), ChatPrompt(tokens), sampling)
    return Completer(loaded, Settings(copy_drafts=False, min_confidence=0.0))


def request(typed: str, lines: str = "one") -> InfillRequest:
    text = f"{BEFORE}def sums(items):\n    total = {typed}"
    return InfillRequest(text + AFTER, (Hole(len(text), len(text)),), "python", lines=lines)  # type: ignore[arg-type]


def measure(completer: Completer, repeats: int, warm_up: int) -> dict[str, list[tuple[float, InfillResult]]]:
    """First requests and next keystrokes in turns: milliseconds and result of each after warm-up."""
    found: dict[str, list[tuple[float, InfillResult]]] = {"first": [], "next keystroke": []}
    never: Callable[[], bool] = lambda: False  # noqa: E731 - as a service, which may cancel
    for turn in range(warm_up + repeats):
        completer.denoiser.cache.clear()
        completer.last_draft = LastDraft()
        for (name, into), typed in zip(found.items(), TYPED, strict=True):
            started = perf_counter()
            result = completer.complete(request(typed), stop=never)
            elapsed = 1000 * (perf_counter() - started)
            assert (result.encoded_tokens == 0) == (name == "next keystroke"), "the prompt is read once"
            if turn >= warm_up:
                into.append((elapsed, result))
    return found


def figures_of(times: list[tuple[float, InfillResult]]) -> dict[str, Any]:
    whole = [elapsed for elapsed, _ in times]
    parts = {
        stage: Spread.of([result.timings_ms[stage] for _, result in times])
        for stage in ("context", "encode", "denoise", "checks")
    }
    found = {"p50_ms": percentile(whole, 0.5), "p95_ms": percentile(whole, 0.95)}
    return {**found, "steps": times[0][1].steps, "prompt_tokens": times[0][1].prompt_tokens, "parts_ms": parts}


def row(kind: str, name: str, figures: dict[str, Any]) -> list[str]:
    parts, peak = figures["parts_ms"], figures["memory_bytes"]
    return [
        kind, name, str(figures["steps"]), f"{figures['p50_ms']:.1f}", f"{figures['p95_ms']:.1f}",
        f"{parts['encode'].median:.1f}", f"{parts['denoise'].median:.1f}",
        f"{peak / 2**30:.1f}" if peak else "–", f"{figures['account_bytes'] / 2**30:.1f}",
    ]  # fmt: skip


@torch.inference_mode()
def main(
    formats: Annotated[list[str] | None, typer.Option("--format", help=f"{', '.join(BUILDS)}; default: all.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps per canvas of a first request.")] = 12,
    repeats: Annotated[int, typer.Option(min=2, help="Measured requests of each kind.")] = 20,
    warm_up: Annotated[int, typer.Option(min=1, help="Requests of each kind before that.")] = 3,
    tiny: Annotated[bool, typer.Option(help="Dry run at small shapes.")] = False,
    name: Annotated[str, typer.Option(help="Name of the result files.")] = "completer_gpu",
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Measure whole requests with a random 26B."""
    device, kinds, config = choose_device(tiny, "bench.gpu.completer"), choose_formats(formats), shapes(tiny)
    tokens = TextTokens(large_tokenizer(config.vocab_size, config.vocab_size // 2))
    rows: list[list[str]] = []
    figures: dict[str, Any] = {}
    for kind in kinds:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        completer = make_completer(make_model(kind, config, device), tokens, steps)
        denoiser = completer.model.denoiser
        assert isinstance(denoiser, Denoiser)
        model, is_cuda = denoiser.model, device.type == "cuda"
        element = model.embed_tokens.weight.itemsize
        account = model.weight_bytes + reserved_bytes(config, element, model.kv_dtype.itemsize, is_cuda)
        for asked, times in measure(completer, repeats, warm_up).items():
            measured = {"memory_bytes": peak_gpu_bytes(device), "account_bytes": account}
            is_recorded = denoiser.recorded is not None and denoiser.recorded.are_recorded
            found = figures[f"{kind}, {asked}"] = figures_of(times) | measured | {"recorded": is_recorded}
            rows.append(row(kind, asked, found))
            print(" | ".join(rows[-1]), flush=True)
        Report("Whole requests with the 26B", conditions(device), HEADER, rows, notes(repeats, tiny), figures).write(
            name, out
        )
        del completer, denoiser, model
        free_memory()


def notes(repeats: int, tiny: bool) -> list[str]:
    return [
        f"{repeats} requests of each kind in turns, after warm-up. first: a line in the middle of a file with an empty "
        "prompt cache. next keystroke: one more letter. Steps: of all canvases of a request.",
        "Without a grammar, as on a rented machine, nothing is repaired. Random weights do not show how many steps a "
        "trained model needs: none stops early.",
        "By account: weights and what `engine.memory_use` reserves beside them, without the "
        f"{DRIVER_BYTES / 2**30:.1f} GiB of the driver. GiB at most: tensors of PyTorch; the prompt cache and "
        "batches may take more than the account where there is more.",
        *([DRY_RUN] if tiny else []),
    ]


if __name__ == "__main__":
    typer.run(reports_errors(main))
