"""The model card: what the pocket model is, what it was trained on, how good it is. Written from the run's own files.

`python -m train.card --run RUN --out infill/models/pocket`. Figures come from the log and from
what `bench.quality.run --markdown` wrote; nothing is typed in by hand.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from engine.checkpoints.config_files import read_config
from engine.errors import GessoError, InputError
from engine.models.diffusion_gemma import DiffusionGemma

console = Console(highlight=False)

INTRODUCTION = """# The pocket model

A block-diffusion language model for code infilling, of the architecture of DiffusionGemma, with {millions:.1f} million
parameters, trained from nothing and shipped with Gesso. It fills short holes (a few tokens, the rest of a line, a line)
in Python, and less well in JavaScript, TypeScript, Go, Rust, Java, C and C++. The same weights are used in two ways: to
denoise a canvas, and, by the causal encoder, to draft token by token; candidates of both kinds, and copies from the
context, are weighed by a confidence that was learnt on held-out projects.

**It was trained for {minutes:.0f} minutes on a computer without a GPU, on {tokens:.0f} million tokens, and it is small
and weak.** The table below says how often it is right. Do not take its suggestions without reading them.
"""

LIMITS = """## Limits

Trained on windows of {prompt} prompt tokens and canvases of {canvas}; longer ones were never seen. Knows English
comments and popular libraries best. It may reproduce short passages of its training data. No filter for unsafe code
was applied.
"""


def loss_lines(log: Path) -> tuple[list[str], dict[str, Any]]:
    """The held-out losses as table rows, and the last record of the log."""
    records = [json.loads(line) for line in log.read_text().splitlines()]
    names = {"valid_causal": "encoder", "valid_hole": "holes", "valid_hole_first": "holes, all noise"}
    rows = [f"| phase | minutes | tokens | {' | '.join(names.values())} |", "|---|---|---|" + "---|" * len(names)]
    measured = [record for record in records if "valid_causal" in record]
    step = max(1, len(measured) // 10)
    for record in [*measured[:-1:step], *measured[-1:]]:
        losses = [f"{record[name]:.3f}" if name in record else "" for name in names]
        rows.append(
            f"| {record['phase']} | {record['seconds'] / 60:.0f} | {record['tokens'] / 1e6:.1f} M | "
            + " | ".join(losses)
            + " |"
        )
    return rows, records[-1]


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


def write_card(runs: Sequence[Path], manifest: Path, quality: Path, recipe: Path, out: Path) -> None:
    """`runs`: folders in the order they were trained in, each from the weights of the one before."""
    for file in (*(run / "log.jsonl" for run in runs), manifest, quality, recipe):
        if not file.is_file():
            raise InputError(f"There is no {file}, which the card is written from.")
    config = read_config(out)
    parts = [loss_lines(run / "log.jsonl") for run in runs]
    minutes = sum(last["seconds"] for _, last in parts) / 60
    tokens = sum(last["tokens"] for _, last in parts) / 1e6
    window = json.loads((out / "config.json").read_text())["gesso"]["window"]
    with torch.device("meta"):
        millions = sum(parameter.numel() for parameter in DiffusionGemma(config).parameters()) / 1e6
    lines = [
        INTRODUCTION.format(millions=millions, minutes=minutes, tokens=tokens),
        "## Quality\n",
        "On projects kept out of training, by `python -m bench.quality.run`; docs/training.md says what columns mean.\n",
        quality.read_text().strip(),
        "\n## Training\n",
        "Losses in nats a token, on held-out projects. Tokens count padding too.\n",
    ]
    for number, (rows, last) in enumerate(parts, 1):
        spent = f"{last['step']} steps, {last['tokens'] / 1e6:.1f} M tokens, {last['seconds'] / 60:.0f} minutes"
        begun = "" if number == 1 else ", from the weights of the run before"
        lines += [f"Run {number}: {spent}{begun}.\n", *rows, ""]
    lines += [
        f"Recipe of the last run (`train/{recipe.name}`):\n\n```toml",
        recipe.read_text().strip(),
        "```\n",
        LIMITS.format(prompt=window["prompt"], canvas=window["canvas"]),
        "## Sources\n",
        *source_lines(manifest),
        "",
    ]
    (out / "MODEL_CARD.md").write_text("\n".join(lines))


def main(
    run: Annotated[list[Path], typer.Option(help="Folder of the training run; several in their order.")],
    quality: Annotated[Path, typer.Option(help="The tables that `bench.quality.run --markdown` wrote.")],
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
