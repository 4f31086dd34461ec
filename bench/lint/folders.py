"""Counts false positives of lint in folders of released code, such as installed packages or a repository.

`python -m bench.lint.folders FOLDER…`. The code runs, so every finding counts as false; all are listed for review.
Tests and files that lint skips are left out. Nothing is learned from this code.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track

from bench.lint.loading import load_linter
from bench.report import RESULTS, Report, conditions
from engine.errors import InputError
from infill.cli.support import errors_to_exit_codes
from infill.code.languages import detect
from infill.findings import LintRequest
from infill.lint.kinds import KINDS
from infill.lint.linter import Linter
from infill.lint.suppressions import is_skipped
from train.lint.samples import MAX_FILE

HEADER = ("folder", "lines", "false positives", "per 1,000 lines")


@dataclass(frozen=True)
class SourceFile:
    """A file of a folder. Its text has "\\n" line ends."""

    folder: str
    path: str
    language: str
    text: str

    @property
    def lines(self) -> int:
        return self.text.count("\n")


def read_sources(folder: Path, languages: frozenset[str], max_lines: int, seed: int) -> list[SourceFile]:
    """Files of the folder in an order given by the seed, up to about `max_lines` lines.

    Raises InputError if the folder does not exist.
    """
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}; check the name.")
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and detect(file.name) in languages]
    found: list[SourceFile] = []
    for file in random.Random(seed).sample(files, len(files)):
        path = f"{folder.resolve().name}/{file.relative_to(folder).as_posix()}"
        try:
            text = file.read_text("utf-8").replace("\r\n", "\n")
        except (OSError, UnicodeDecodeError):
            continue
        if "test" in path or not text.strip() or len(text) > MAX_FILE or is_skipped(path, text):
            continue
        if sum(one.lines for one in found) >= max_lines:
            break
        found.append(SourceFile(folder.resolve().name, path, detect(file.name) or "", text))
    return found


def findings_in(linter: Linter, source: SourceFile) -> list[dict[str, Any]]:
    """The findings in a file, each with its line."""
    found = []
    for one in linter.lint(LintRequest(source.text, source.language, source.path, on=frozenset(KINDS))):
        line = source.text.count("\n", 0, one.start) + 1
        shown = source.text.split("\n")[line - 1].strip()
        old = source.text[one.start : one.end]
        found.append(
            {"path": source.path, "line": line, "code": one.code, "old": old, "new": one.replacement, "text": shown}
        )
    return found


def folders_report(
    sources: Sequence[SourceFile], found: Sequence[Sequence[dict[str, Any]]], known: dict[str, Any]
) -> Report:
    """found: the findings in each source."""
    rows: dict[str, list[int]] = {}
    for source, findings in zip(sources, found, strict=True):
        row = rows.setdefault(source.folder, [0, 0])
        row[0] += source.lines
        row[1] += len(findings)
    rows["all"] = [sum(row[at] for row in rows.values()) for at in (0, 1)]
    table = [
        [name, f"{lines:,}", str(count), f"{1000 * count / max(1, lines):.2f}"] for name, (lines, count) in rows.items()
    ]
    shown = [one for findings in found for one in findings]
    notes = [f"{one['path']}:{one['line']}: {one['code']}: `{one['old']}` -> `{one['new']}`" for one in shown]
    content = {
        "folders": {name: {"lines": row[0], "false_positives": row[1]} for name, row in rows.items()},
        "shown": shown,
    }
    return Report("Lint of released code", {**known, **conditions()}, HEADER, table, notes, content)


@errors_to_exit_codes
def main(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER…", help="Packages or other folders of code.")],
    model: Annotated[str, typer.Option(help="Model to measure: a name, a hub id or a folder.")] = "pocket",
    max_lines: Annotated[int, typer.Option(min=1, help="About how many lines per folder.")] = 1_000_000,
    seed: Annotated[int, typer.Option(help="Seed for the choice of files.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 8,
    write: Annotated[str | None, typer.Option(metavar="NAME", help="Write bench/results/NAME.json and .md.")] = None,
) -> None:
    """Count the findings of lint in released code."""
    linter = load_linter(model, threads)
    sources = [one for folder in folders for one in read_sources(folder, linter.languages, max_lines, seed)]
    started = time.process_time()
    console = Console(stderr=True)
    found = [findings_in(linter, one) for one in track(sources, "files", console=console, transient=True)]
    seconds = time.process_time() - started
    lines = sum(one.lines for one in sources)
    known = {"model": model, "seed": seed, "CPU ms per 1,000 lines": round(1e6 * seconds / max(1, lines))}
    report = folders_report(sources, found, known)
    report.show()
    if write is not None:
        report.write(write, RESULTS)


if __name__ == "__main__":
    typer.run(main)
