"""Trains small runs that differ in one setting each, to choose the recipe by measurement.

`python -m train.ablations --data DIR/tokens --tokenizer DIR/tokenizer.json --out DIR/ablations` trains the variants of
train/ablations.toml that have no result yet, one after another, and prints a table. Run it again to continue an
interrupted series. Must not know how a run trains (train/run.py): it starts runs and reads their logs.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from engine.errors import InputError
from train.program import reports_errors

console = Console(highlight=False)
LOSSES = ("valid_causal", "valid_hole", "valid_hole_first")


@dataclass(frozen=True)
class Variant:
    """One run. question: what it answers. tokens: millions. start: the variant that gives its initial weights. data:
    another folder of tokens with its own tokenizer.json, in the parent folder of --data."""

    name: str
    question: str
    tokens: float
    start: str | None = None
    data: str | None = None
    changes: dict[str, dict[str, Any]] = field(default_factory=dict)


def read_variants(path: Path) -> tuple[dict[str, dict[str, Any]], list[Variant]]:
    """The base recipe and the variants, in order. Raises InputError for an invalid list."""
    try:
        content = tomllib.loads(path.read_text())
        base = {section: content["base"][section] for section in ("model", "layout", "run")}
        variants = [_variant(entry) for entry in content["variant"]]
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise InputError(
            f"The list of variants {path} cannot be read ({error!r}); see train/ablations.toml."
        ) from error
    for index, variant in enumerate(variants):
        earlier = {other.name for other in variants[:index]}
        if variant.name in earlier:
            raise InputError(f"{path} has two variants named {variant.name!r}; rename one.")
        if variant.start is not None and variant.start not in earlier:
            raise InputError(
                f"The variant {variant.name!r} starts from {variant.start!r}, which must come before it; move it up."
            )
    return base, variants


def _variant(entry: dict[str, Any]) -> Variant:
    changes: dict[str, dict[str, Any]] = {
        section: entry.pop(section) for section in ("model", "layout", "run") if section in entry
    }
    return Variant(**entry, changes=changes)


def recipe_text(base: dict[str, dict[str, Any]], changes: dict[str, dict[str, Any]]) -> str:
    """The base with the changes, as TOML."""
    lines = []
    for section, values in base.items():
        lines += [
            f"[{section}]",
            *(f"{k} = {json.dumps(v)}" for k, v in (values | changes.get(section, {})).items()),
            "",
        ]
    return "\n".join(lines)


def train_variant(
    variant: Variant, base: dict[str, dict[str, Any]], data: Path, tokenizer: Path, out: Path
) -> dict[str, Any]:
    """Trains in out/NAME and returns the last record of the log."""
    folder = out / variant.name
    folder.mkdir(parents=True, exist_ok=True)
    recipe = folder / "recipe.toml"
    recipe.write_text(recipe_text(base, variant.changes))
    if variant.data is not None:
        data = data.parent / variant.data
        tokenizer = data / "tokenizer.json"
    command = [sys.executable, "-m", "train.run", "--data", data, "--tokenizer", tokenizer, "--out", folder]
    command += ["--recipe", recipe, "--tokens", str(variant.tokens)]
    if variant.start is not None:
        command += ["--start-from", out / variant.start / "checkpoint.pt"]
    finished = subprocess.run([str(part) for part in command], check=False)
    if finished.returncode:
        raise InputError(f"The run {variant.name!r} failed with exit code {finished.returncode}; see its output above.")
    last: dict[str, Any] = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])
    return last


def results_table(variants: list[Variant], results: dict[str, dict[str, Any]]) -> Table:
    table = Table("question", "variant", "M tokens", "minutes", *(name.removeprefix("valid_") for name in LOSSES))
    for variant in variants:
        if (found := results.get(variant.name)) is not None:
            losses = [f"{found[name]:.3f}" for name in LOSSES]
            tokens, minutes = f"{found['tokens'] / 1e6:.1f}", f"{found['seconds'] / 60:.0f}"
            table.add_row(variant.question, variant.name, tokens, minutes, *losses)
    return table


def main(
    data: Annotated[Path, typer.Option(help="Folder written by train.prepare.")],
    tokenizer: Annotated[Path, typer.Option(help="tokenizer.json used for --data.")],
    out: Annotated[Path, typer.Option(help="Folder for the runs and results.json.")],
    variants: Annotated[Path, typer.Option(help="List of variants.")] = Path("train/ablations.toml"),
    only: Annotated[list[str] | None, typer.Option(help="Only these variants; repeatable.")] = None,
) -> None:
    """Train the variants that have no result yet, and show all results."""
    base, listed = read_variants(variants)
    out.mkdir(parents=True, exist_ok=True)
    store = out / "results.json"
    results: dict[str, dict[str, Any]] = json.loads(store.read_text()) if store.is_file() else {}
    for variant in listed:
        if variant.name in results or (only and variant.name not in only):
            continue
        console.rule(f"{variant.name}: {variant.question}")
        results[variant.name] = train_variant(variant, base, data, tokenizer, out)
        store.write_text(json.dumps(results, indent=1))
    console.print(results_table(listed, results))


if __name__ == "__main__":
    typer.run(reports_errors(main))
