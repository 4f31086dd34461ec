"""Exports a training checkpoint as a model folder that the engine loads.

`python -m train.export --run RUN --tokenizer FILE --out FOLDER`. Must not know how the model was trained.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer
from rich.console import Console

from engine.checkpoints.export import save_model, write_checksums
from engine.config import ModelConfig
from engine.errors import InputError
from engine.models.diffusion_gemma import DiffusionGemma
from train.program import reports_errors

SHARD_BYTES = 14 << 20


def read_checkpoint(run: Path) -> tuple[DiffusionGemma, dict[str, Any]]:
    """The model of a run in float32, and the state of its training. Raises InputError without a checkpoint."""
    checkpoint = run / "checkpoint.pt"
    if not checkpoint.is_file():
        raise InputError(f"There is no {checkpoint}; name a folder written by `python -m train.run`.")
    state: dict[str, Any] = torch.load(checkpoint, map_location="cpu", weights_only=True)
    model = DiffusionGemma(ModelConfig.from_json(state["config"]))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(state["masters"][name])
    return model, state


def export(
    run: Path, tokenizer: Path, out: Path, dtype: Literal["float32", "bfloat16", "int8"], sampling: Path
) -> None:
    """Writes config, sampling settings, weights, tokenizer and checksums to `out`."""
    for file in (tokenizer, sampling):
        if not file.is_file():
            raise InputError(f"There is no {file}; name another file.")
    model, state = read_checkpoint(run)
    generation = json.loads(sampling.read_text())
    config = state["config"]
    config["gesso"] |= generation.pop("gesso")
    config["gesso"]["trained"] = {name: state["progress"][name] for name in ("step", "tokens")}
    out.mkdir(parents=True, exist_ok=True)
    save_model(model, config, generation, out, dtype, SHARD_BYTES)
    shutil.copyfile(tokenizer, out / "tokenizer.json")
    write_checksums(out)


def main(
    run: Annotated[Path, typer.Option(help="Folder of the training run.")],
    tokenizer: Annotated[Path, typer.Option(help="tokenizer.json used for training.")],
    out: Annotated[Path, typer.Option(help="Folder to write the model to.")],
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or int8.")] = "bfloat16",
    sampling: Annotated[Path, typer.Option(help="Sampling settings to ship.")] = Path("train/pocket_generation.json"),
) -> None:
    """Export a trained checkpoint as a model folder."""
    if dtype not in ("float32", "bfloat16", "int8"):
        raise InputError(f"There is no number type {dtype!r}; choose float32, bfloat16 or int8.")
    export(run, tokenizer, out, dtype, sampling)  # type: ignore[arg-type]
    size = sum(file.stat().st_size for file in out.iterdir())
    Console(highlight=False).print(f"{out}: {size / 2**20:.1f} MiB")


if __name__ == "__main__":
    typer.run(reports_errors(main))
