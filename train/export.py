"""A training checkpoint becomes a model folder that the engine (and transformers) load like any other.

`python -m train.export --run RUN --tokenizer FILE --out infill/models/pocket`. Must not know how it was trained.
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
from engine.errors import GessoError, InputError
from engine.models.diffusion_gemma import DiffusionGemma

console = Console(highlight=False)
SHARD_BYTES = 14 << 20


def export(
    run: Path, tokenizer: Path, out: Path, dtype: Literal["float32", "bfloat16", "int8"], sampling: Path
) -> None:
    """Writes config, generation settings, weights, tokenizer and checksums to `out`."""
    checkpoint = run / "checkpoint.pt"
    for file in (checkpoint, tokenizer, sampling):
        if not file.is_file():
            raise InputError(f"There is no {file}; train first with `python -m train.run`, or name the right one.")
    state: dict[str, Any] = torch.load(checkpoint, map_location="cpu", weights_only=True)
    model = DiffusionGemma(ModelConfig.from_json(state["config"]))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(state["masters"][name])
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
    tokenizer: Annotated[Path, typer.Option(help="tokenizer.json it was trained with.")],
    out: Annotated[Path, typer.Option(help="Folder to write the model to.")],
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or int8.")] = "bfloat16",
    sampling: Annotated[Path, typer.Option(help="Sampling settings to ship.")] = Path("train/pocket_generation.json"),
) -> None:
    """Export a trained checkpoint as a model folder."""
    try:
        if dtype not in ("float32", "bfloat16", "int8"):
            raise InputError(f"The type {dtype!r} is not known; choose float32, bfloat16 or int8.")
        export(run, tokenizer, out, dtype, sampling)  # type: ignore[arg-type]
    except GessoError as error:
        console.print(f"[red]{error}[/]")
        raise typer.Exit(3) from error
    size = sum(file.stat().st_size for file in out.iterdir())
    console.print(f"{out}: {size / 2**20:.1f} MiB")


if __name__ == "__main__":
    typer.run(main)
