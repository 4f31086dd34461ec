"""Counts false positives of lint in folders of released code, such as installed packages or a repository.

`python -m bench.lint.folders FOLDER…`. The code runs, so every finding counts as false; all are listed for review.
Tests and files that lint skips are left out. Nothing is learned from this code.
"""

from __future__ import annotations

import json
import random
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
from infill.lint.linter import Linter
from infill.lint.suppressions import is_skipped
from train.held_out import HeldOutFile
from train.lint.samples import MAX_FILE, Sample, clean_sample, read_samples

OFFSET = 0.5  # log-odds below the thresholds within which candidates are kept
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


def samples_of(linter: Linter, sources: Sequence[SourceFile], cache: Path) -> list[Sample]:
    """The candidates in each source. cache: a file that is continued with those it does not have yet."""
    made = {(one.project, one.path): one for one in read_samples(cache)} if cache.is_file() else {}
    with cache.open("a", encoding="utf-8") as file:
        for one in track(sources, "files", console=Console(stderr=True), transient=True):
            if (one.folder, one.path) not in made:
                held = HeldOutFile(one.folder, one.path, one.language, one.text)
                made[one.folder, one.path] = sample = clean_sample(linter, held, (0, len(one.text)), offset=OFFSET)
                file.write(json.dumps(sample.to_json()) + "\n")
                file.flush()
    return [made[one.folder, one.path] for one in sources]


def findings_in(linter: Linter, source: SourceFile, sample: Sample) -> list[dict[str, Any]]:
    """The findings in a file, each with its line."""
    request = LintRequest(source.text, source.language, source.path)
    found = []
    for one in linter.select(request, [found.candidate for found in sample.candidates]):
        line = source.text.count("\n", 0, one.edit.start) + 1
        shown = source.text.split("\n")[line - 1].strip()
        old = source.text[one.edit.start : one.edit.end]
        margin = round(linter.margin(one, source.language), 2)
        found.append(
            {
                "path": source.path,
                "line": line,
                "code": one.edit.code,
                "old": old,
                "new": one.edit.replacement,
                "margin": margin,
                "text": shown,
            }
        )
    return found


def folders_report(
    sources: Sequence[SourceFile], found: Sequence[Sequence[dict[str, Any]]], known: dict[str, Any]
) -> Report:
    """found: the findings in each source."""
    rows: dict[str, list[int]] = {}
    languages: dict[str, list[int]] = {}
    for source, findings in zip(sources, found, strict=True):
        for row in (rows.setdefault(source.folder, [0, 0]), languages.setdefault(f"all, {source.language}", [0, 0])):
            row[0] += source.lines
            row[1] += len(findings)
    rows |= languages
    rows["all"] = [sum(row[at] for row in languages.values()) for at in (0, 1)]
    table = [
        [name, f"{lines:,}", str(count), f"{1000 * count / max(1, lines):.2f}"] for name, (lines, count) in rows.items()
    ]
    shown = [one for findings in found for one in findings]
    notes = [
        f"{one['path']}:{one['line']}: {one['code']}: `{_line(one['old'])}` -> `{_line(one['new'])}`" for one in shown
    ]
    content = {
        "folders": {name: {"lines": row[0], "false_positives": row[1]} for name, row in rows.items()},
        "shown": shown,
    }
    return Report("Lint of released code", {**known, **conditions()}, HEADER, table, notes, content)


def _line(code: str) -> str:
    return " ".join(code.split())


@errors_to_exit_codes
def main(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER…", help="Packages or other folders of code.")],
    cache: Annotated[Path, typer.Option(help="File of the evidence; a run continues where another one stopped.")],
    language: Annotated[list[str] | None, typer.Option(help="Repeatable; default: all that lint judges.")] = None,
    model: Annotated[str, typer.Option(help="Model to measure: a name, a hub id or a folder.")] = "coder",
    max_lines: Annotated[int, typer.Option(min=1, help="About how many lines per folder.")] = 1_000_000,
    seed: Annotated[int, typer.Option(help="Seed for the choice of files.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
    write: Annotated[str | None, typer.Option(metavar="NAME", help="Write bench/results/NAME.json and .md.")] = None,
) -> None:
    """Count the findings of lint in released code."""
    linter = load_linter(model, threads)
    languages = frozenset(language or linter.languages)
    sources = [one for folder in folders for one in read_sources(folder, languages, max_lines, seed)]
    samples = samples_of(linter, sources, cache)
    found = [findings_in(linter, one, sample) for one, sample in zip(sources, samples, strict=True)]
    seconds = sum(one.seconds for one in samples)
    lines = sum(one.lines for one in sources)
    known = {"model": model, "seed": seed, "ms per 1,000 lines": round(1e6 * seconds / max(1, lines))}
    report = folders_report(sources, found, known)
    report.show()
    if write is not None:
        report.write(write, RESULTS)


if __name__ == "__main__":
    typer.run(main)
