"""Small runs that differ from each other in one thing, for choosing the recipe by evidence.

`python -m train.ablations --data DIR/tokens --tokenizer DIR/tokenizer.json --out DIR/ablations` trains every variant of
train/ablations.toml that has no result yet, one after the other, and writes a table. Stopped and run again, it goes on.
Must not know how a run trains (train/run.py): it starts runs and reads their logs.
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

from engine.errors import GessoError, InputError

console = Console(highlight=False)
LOSSES = ("valid_causal", "valid_hole", "valid_hole_first")


@dataclass(frozen=True)
class Variant:
    """One run. question: what it is compared for; start: the variant whose weights it begins with; tokens: in millions;
    data: another folder of tokens with a tokenizer.json of its own, below --data's parent."""

    name: str
    question: str
    tokens: float
    start: str | None = None
    data: str | None = None
    changes: dict[str, dict[str, Any]] = field(default_factory=dict)


def read_variants(path: Path) -> tuple[dict[str, dict[str, Any]], list[Variant]]:
    """The base recipe and the variants, in order. Raises InputError where a name is missing, twice, or not known."""
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
            raise InputError(f"The variant {variant.name!r} is there twice in {path}; rename one.")
        if variant.start is not None and variant.start not in earlier:
            raise InputError(f"The variant {variant.name!r} starts from {variant.start!r}, which must stand above it.")
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
    """Runs it in out/NAME and returns the last line of its log."""
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
        raise InputError(f"The run {variant.name!r} failed ({finished.returncode}); its output above says why.")
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
    data: Annotated[Path, typer.Option(help="Folder that train.prepare wrote.")],
    tokenizer: Annotated[Path, typer.Option(help="tokenizer.json it was made with.")],
    out: Annotated[Path, typer.Option(help="Folder of the runs and of results.json.")],
    variants: Annotated[Path, typer.Option(help="The list of variants.")] = Path("train/ablations.toml"),
    only: Annotated[list[str] | None, typer.Option(help="Only these variants.")] = None,
) -> None:
    """Train the variants that have no result yet, and show all results."""
    try:
        base, wanted = read_variants(variants)
        out.mkdir(parents=True, exist_ok=True)
        store = out / "results.json"
        results: dict[str, dict[str, Any]] = json.loads(store.read_text()) if store.is_file() else {}
        for variant in wanted:
            if variant.name in results or (only and variant.name not in only):
                continue
            console.rule(f"{variant.name}: {variant.question}")
            results[variant.name] = train_variant(variant, base, data, tokenizer, out)
            store.write_text(json.dumps(results, indent=1))
        console.print(results_table(wanted, results))
    except GessoError as error:
        console.print(f"[red]{error}[/]")
        raise typer.Exit(3) from error


if __name__ == "__main__":
    typer.run(main)
