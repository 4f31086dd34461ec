"""Writes the model card (MODEL_CARD.md) and the list of training sources (sources.json) into a model folder.

`python -m train.card --run RUN --quality quality.json --out FOLDER`. All figures come from training logs, the manifest
of the corpus and the summaries that `bench.quality.run --output` wrote. Must not measure anything.
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
from engine.checkpoints.export import write_checksums
from engine.errors import InputError
from engine.models.diffusion_gemma import DiffusionGemma
from train.corpus import manifest_text
from train.curves import read_run
from train.program import reports_errors

SOURCES_FILE = "sources.json"
SOURCE_FIELDS = ("ecosystem", "name", "version", "license", "bytes", "split")
LOSSES = {"valid_causal": "encoder", "valid_hole": "holes", "valid_hole_first": "holes, all noise"}  # log to card

CARD = """# The pocket model

A block-diffusion language model for code infilling with the architecture of DiffusionGemma and {millions:.1f} million
parameters, trained from scratch and shipped with Gesso. It fills short holes (a few tokens, the rest of a line, a
line) in Python, and less well in JavaScript, TypeScript, Go, Rust, Java, C and C++. The same weights denoise a canvas
and, as a causal encoder, draft token by token. Both kinds of candidates, and copies from the context, are ranked by a
confidence learned on held-out projects.

**The model is small and weak: it was trained for {minutes:.0f} minutes on a computer without a GPU, on {tokens:.0f}
million tokens.** The tables below say how often it is right. Read its suggestions before you accept them.

## Quality

Measured on projects kept out of training, by `python -m bench.quality.run`. "Exact" means equal to the original text,
except for white space at its ends.
{quality}
## Training

Losses in nats per token, on held-out projects, at the end of each run. Every run starts from the weights of the one
before. Tokens include padding.

{training}

The recipe of the last run is `train/{recipe}` in Gesso's repository.

## Limits

The model was trained on windows of {prompt} prompt tokens and canvases of {canvas}; it has never seen longer ones. It
knows English comments and popular libraries best. It may reproduce short passages of its training data. Nothing filters
unsafe code.

## Sources

{sources}
"""


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows))


def quality_table(summary: dict[str, Any], column: str) -> str:
    """One row per kind of hole of the first language, or per language over all kinds. column: "kind" or "language"."""
    conditions = summary["conditions"]
    fixed, value = ("language", conditions["languages"][0]) if column == "kind" else ("kind", "all")
    groups: dict[str, dict[str, Any]] = {}
    for row in summary["table"]:
        if row[fixed] == value:
            groups.setdefault(row[column], {})[row["method"]] = row
    first, *others = conditions["methods"]
    header = ["hole" if column == "kind" else column, "holes", f"exact: {first} (95 %)", *others]
    rows = []
    for name, by_method in groups.items():
        best = by_method[first]
        low, high = best["interval"]
        exact = [f"{best['exact']:.1%} ({100 * low:.1f}–{100 * high:.1f})"]
        exact += [f"{by_method[method]['exact']:.1%}" if method in by_method else "" for method in others]
        right = "" if best["exact_of_shown"] is None else f"{best['exact_of_shown']:.1%}"
        rows.append([name, str(best["holes"]), *exact, f"{best['parses']:.1%}", f"{best['shown']:.1%}", right])
    return table([*header, "parses", "shown", "right among shown"], rows)


def threshold_table(calibration: dict[str, Any]) -> str:
    rows = []
    for point in calibration["points"]:
        in_use = " (in use)" if point["threshold"] == calibration["threshold"] else ""
        right = "" if point["precision"] is None else f"{point['precision']:.1%}"
        rows.append([f"{point['threshold']:.3f}{in_use}", f"{point['shown']:.1%}", right])
    return table(("threshold", "shown", "right among shown"), rows)


def conditions_line(summary: dict[str, Any]) -> str:
    run = summary["conditions"]
    weights = ", ".join(f"{name} {digest[:12]}" for name, digest in run["weights"].items()) or "unknown"
    calibrated = ", ".join(run["calibrated"])
    return (
        f"Conditions: {run['holes']} holes of each kind and language from {run['projects']} projects, seed "
        f"{run['seed']}, {run['steps']} steps, threshold {run['threshold']:g}; weights {weights}; {run['device']}, "
        f"{run['dtype']}, PyTorch {run['torch']}."
        + (f" The confidence was also calibrated on these projects for {calibrated}." if calibrated else "")
    )


def quality_text(python: dict[str, Any], languages: dict[str, Any] | None, lengths: dict[str, Any] | None) -> str:
    """The section's tables from the summaries that are given."""
    parts = [quality_table(python, "kind"), conditions_line(python)]
    area = python["calibration"]["area"]
    if area is not None:
        parts.append(f"Area under the ROC curve of the confidence: {area:.2f}. Thresholds of the confidence:")
        parts.append(threshold_table(python["calibration"]))
    if languages is not None:
        parts += ["All languages, over all kinds of holes:", quality_table(languages, "language")]
        parts.append(conditions_line(languages))
    if lengths is not None and (gap := lengths["length_gap"]) is not None:
        fixed, null, true = (f"{share:.1%}" for share in gap["exact"])
        parts.append(
            f"The canvas alone, without copies and drafts, on {gap['holes']} one-line holes: {fixed} exact with a "
            f"fixed length, {null} with null slots, {true} with the true length."
        )
    return "\n" + "\n\n".join(parts) + "\n"


def training_table(runs: Sequence[Path]) -> tuple[str, float, int]:
    """The last state of each run; minutes and tokens of all runs together."""
    rows, minutes, tokens = [], 0.0, 0
    for number, run in enumerate(runs, 1):
        records = read_run(run, run.name).records
        last = records[-1]
        losses = [next((f"{r[name]:.3f}" for r in reversed(records) if name in r), "") for name in LOSSES]
        spent = (str(last["step"]), f"{last['tokens'] / 1e6:.1f} M", f"{last['seconds'] / 60:.0f}")
        rows.append([str(number), *spent, *losses])
        minutes, tokens = minutes + last["seconds"] / 60, tokens + last["tokens"]
    return table(("run", "steps", "tokens", "minutes", *LOSSES.values()), rows), minutes, tokens


def read_sources(manifest: Path) -> list[dict[str, Any]]:
    """The projects that were kept, by ecosystem and name."""
    kept = [entry for entry in json.loads(manifest.read_text()) if "skipped" not in entry]
    kept.sort(key=lambda entry: (entry["ecosystem"], entry["name"]))
    return [{field: entry[field] for field in SOURCE_FIELDS} for entry in kept]


def sources_text(sources: Sequence[dict[str, Any]]) -> str:
    licenses = ", ".join(f"{name} ({count})" for name, count in Counter(s["license"] for s in sources).most_common(8))
    held_out = sum(source["split"] == "valid" for source in sources)
    return (
        f"{len(sources)} projects under permissive licenses, {sum(source['bytes'] for source in sources) / 1e6:.0f} MB "
        f"of text; {held_out} of them (split `valid`) were kept out of training. Most common licenses: {licenses}. "
        f"[{SOURCES_FILE}]({SOURCES_FILE}) lists name, version, license and size of every project."
    )


def write_card(
    runs: Sequence[Path],
    manifest: Path,
    quality: Path,
    recipe: Path,
    out: Path,
    languages: Path | None = None,
    lengths: Path | None = None,
) -> None:
    """Writes MODEL_CARD.md, sources.json and SHA256SUMS. runs: folders or logs, in the order of training."""
    for file in (manifest, quality, recipe, languages, lengths):
        if file is not None and not file.is_file():
            raise InputError(f"There is no {file}; the card is written from it, so name the right file.")
    training, minutes, tokens = training_table(runs)
    window = json.loads((out / "config.json").read_text())["gesso"]["window"]
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in DiffusionGemma(read_config(out)).parameters())
    by_language, by_length = (None if file is None else json.loads(file.read_text()) for file in (languages, lengths))
    sources = read_sources(manifest)
    card = CARD.format(
        millions=parameters / 1e6,
        minutes=minutes,
        tokens=tokens / 1e6,
        quality=quality_text(json.loads(quality.read_text()), by_language, by_length),
        training=training,
        recipe=recipe.name,
        prompt=window["prompt"],
        canvas=window["canvas"],
        sources=sources_text(sources),
    )
    (out / "MODEL_CARD.md").write_text(card)
    (out / SOURCES_FILE).write_text(manifest_text(sources))
    write_checksums(out)


def main(
    run: Annotated[list[Path], typer.Option(help="Folder or log of a training run; repeatable, in order of training.")],
    quality: Annotated[Path, typer.Option(help="Summary written by `bench.quality.run --output`.")],
    out: Annotated[Path, typer.Option(help="The model folder.")],
    languages: Annotated[Path | None, typer.Option(help="Summary of a run with `--language all`.")] = None,
    lengths: Annotated[Path | None, typer.Option(help="Summary of a run with the length baselines.")] = None,
    manifest: Annotated[Path, typer.Option(help="Manifest of the corpus.")] = Path("train/manifest.json"),
    recipe: Annotated[Path, typer.Option(help="Recipe of the last run.")] = Path("train/pocket.toml"),
) -> None:
    """Write the model card and the list of sources into a model folder."""
    write_card(run, manifest, quality, recipe, out, languages, lengths)
    Console(highlight=False).print(f"{out / 'MODEL_CARD.md'}, {out / SOURCES_FILE}")


if __name__ == "__main__":
    typer.run(reports_errors(main))
