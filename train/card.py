"""The model card: what the pocket model is, what it was trained on, how good it is. Written from the run's own files.

`python -m train.card --run RUN --out infill/models/pocket`. Figures come from the log and from
what `bench/quality.py` wrote; nothing is typed in by hand.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console

from engine.checkpoint import read_config
from engine.errors import GessoError, InputError
from engine.model import DiffusionGemma

console = Console(highlight=False)

INTRODUCTION = """# The pocket model

A block-diffusion language model for code infilling, of the architecture of DiffusionGemma, with about
{millions:.1f} million parameters, trained from nothing and shipped with Gesso. It fills short holes (a few tokens,
the rest of a line, a line) in Python, and less well in JavaScript, TypeScript, Go, Rust, Java, C and C++.

**It is a first model, trained for {minutes:.0f} minutes on two CPU cores, and it is weak.** Its lines are often
plausible and mostly wrong; the table below says how often they are right. It is here so that everything around it can
be run, tested and measured without a GPU. Do not take its suggestions without reading them.
"""

LIMITS = """## Limits

Trained on windows of {prompt} prompt tokens and canvases of {canvas}; longer ones were never seen. Knows English
comments and popular libraries best. It may reproduce short passages of its training data. No filter for unsafe code
was applied.
"""


def loss_lines(log: Path) -> tuple[list[str], dict[str, Any]]:
    """The validation losses as table rows, and the last record of the log."""
    records = [json.loads(line) for line in log.read_text().splitlines()]
    rows = ["| phase | minutes | tokens | encoder, valid | holes, valid |", "|---|---|---|---|---|"]
    measured = [record for record in records if "valid_causal" in record]
    for record in measured[:: max(1, len(measured) // 10)]:
        hole = f"{record['valid_hole']:.3f}" if "valid_hole" in record else ""
        rows.append(
            f"| {record['phase']} | {record['seconds'] / 60:.0f} | {record['tokens'] / 1e6:.1f} M "
            f"| {record['valid_causal']:.3f} | {hole} |"
        )
    return rows, records[-1]


def quality_lines(results: Path) -> list[str]:
    """Exact match and edit similarity by kind of hole, from the JSON of bench/quality.py."""
    outcomes = json.loads(results.read_text())
    names = ("language", "hole", "holes", "exact", "edit similarity", "parses", "shown", "exact of shown")
    rows = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    for language, kind in sorted({(one["language"], one["kind"]) for one in outcomes}):
        group = [one for one in outcomes if (one["language"], one["kind"]) == (language, kind)]
        shown = [one for one in group if one["shown"]]
        precision = f"{np.mean([one['exact'] for one in shown]):.1%}" if shown else "-"
        rows.append(
            f"| {language} | {kind} | {len(group)} | {np.mean([one['exact'] for one in group]):.1%} "
            f"| {np.mean([one['similarity'] for one in group]):.2f} | {np.mean([one['parses'] for one in group]):.1%} "
            f"| {len(shown) / len(group):.1%} | {precision} |"
        )
    right = [one for one in outcomes if one["exact"]]
    copied = sum(one["source"] == "copy" for one in right)
    rows.append(
        f"\nOf the {len(right)} exact ones {copied} were copied from the context, the others written by the model."
    )
    return rows


def source_lines(manifest: Path) -> list[str]:
    sources = [one for one in json.loads(manifest.read_text()) if "skipped" not in one]
    licenses = Counter(one["license"] for one in sources)
    common = ", ".join(f"{name} ({count})" for name, count in licenses.most_common(8))
    rows = [f"{len(sources)} projects; most common licenses: {common}. `valid` projects were not trained on.", ""]
    rows += ["| project | version | license | bytes | split |", "|---|---|---|---|---|"]
    for one in sorted(sources, key=lambda one: (one["ecosystem"], one["name"])):
        cells = (f"{one['name']} ({one['ecosystem']})", one["version"], one["license"], str(one["bytes"]), one["split"])
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def write_card(run: Path, manifest: Path, quality: Path, recipe: Path, out: Path) -> None:
    for file in (run / "log.jsonl", manifest, quality, recipe):
        if not file.is_file():
            raise InputError(f"There is no {file}, which the card is written from.")
    config = read_config(out)
    losses, last = loss_lines(run / "log.jsonl")
    with torch.device("meta"):
        millions = sum(parameter.numel() for parameter in DiffusionGemma(config).parameters()) / 1e6
    parts = [
        INTRODUCTION.format(millions=millions, minutes=last["seconds"] / 60),
        "## Quality\n",
        "Held-out projects (split by project), `bench/quality.py`, greedy sampling as in `generation_config.json`:\n",
        *quality_lines(quality),
        "\n## Training\n",
        f"{last['step']} steps, {last['tokens'] / 1e6:.1f} M tokens, {last['seconds'] / 60:.0f} minutes on two cores",
        "shared with other work. Causal first, then diffusion with the same weights; hybrid noise.",
        "Losses in nats a token:\n",
        *losses,
        "\nRecipe (`train/pocket.toml`):\n\n```toml",
        recipe.read_text().strip(),
        "```\n",
        LIMITS.format(prompt=320, canvas=config.canvas_length),
        "## Sources\n",
        *source_lines(manifest),
        "",
    ]
    (out / "MODEL_CARD.md").write_text("\n".join(parts))


def main(
    run: Annotated[Path, typer.Option(help="Folder of the training run.")],
    quality: Annotated[Path, typer.Option(help="JSON that bench/quality.py wrote.")],
    out: Annotated[Path, typer.Option(help="The model folder.")],
    manifest: Annotated[Path, typer.Option(help="Manifest of the corpus.")] = Path("train/manifest.json"),
    recipe: Annotated[Path, typer.Option(help="Recipe of the run.")] = Path("train/pocket.toml"),
) -> None:
    """Write MODEL_CARD.md into a model folder."""
    try:
        write_card(run, manifest, quality, recipe, out)
    except GessoError as error:
        console.print(f"[red]{error}[/]")
        raise typer.Exit(3) from error


if __name__ == "__main__":
    typer.run(main)
