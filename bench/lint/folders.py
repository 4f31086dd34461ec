"""How often lint cries wolf in code as it lies on a disk: installed packages, a repository.

`python -m bench.lint.folders FOLDER…`. Such code was released and runs, so that what is found is taken to be false;
all of it is listed, to be looked at. Tests and files that lint leaves alone are passed over. Nothing is learnt from it.
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

from bench.report import RESULTS, Report, conditions
from engine.errors import InputError
from infill.cli.support import errors_to_exit_codes, load_completer
from infill.code.languages import detect
from infill.findings import LintRequest
from infill.lint.linter import Linter
from infill.lint.quiet import is_left_alone
from infill.settings import Settings
from train.lint.samples import LARGEST

HEADER = ("folder", "lines", "alarms", "per 1,000 lines")


@dataclass(frozen=True)
class Source:
    """A file of a folder; its text has "\\n" line ends."""

    folder: str
    path: str
    language: str
    text: str

    @property
    def lines(self) -> int:
        return self.text.count("\n")


def read_sources(folder: Path, languages: frozenset[str], most: int, seed: int) -> list[Source]:
    """Files of the folder, in an order that follows from the seed, until they have `most` lines.

    Raises InputError where there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}; check the name.")
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and detect(file.name) in languages]
    found: list[Source] = []
    for file in random.Random(seed).sample(files, len(files)):
        path = f"{folder.resolve().name}/{file.relative_to(folder).as_posix()}"
        try:
            text = file.read_text("utf-8").replace("\r\n", "\n")
        except (OSError, UnicodeDecodeError):
            continue
        if "test" in path or not text.strip() or len(text) > LARGEST or is_left_alone(path, text):
            continue
        if sum(one.lines for one in found) >= most:
            break
        found.append(Source(folder.resolve().name, path, detect(file.name) or "", text))
    return found


def alarms(linter: Linter, source: Source) -> list[dict[str, Any]]:
    """What is shown in a file, each with its line."""
    found = []
    for one in linter.lint(LintRequest(source.text, source.language, source.path)):
        line = source.text.count("\n", 0, one.start) + 1
        shown = source.text.split("\n")[line - 1].strip()
        old = source.text[one.start : one.end]
        found.append(
            {"path": source.path, "line": line, "code": one.code, "old": old, "new": one.replacement, "text": shown}
        )
    return found


def folders_report(
    sources: Sequence[Source], found: Sequence[Sequence[dict[str, Any]]], known: dict[str, Any]
) -> Report:
    """found: of each source what is shown in it."""
    rows: dict[str, list[int]] = {}
    for source, mine in zip(sources, found, strict=True):
        row = rows.setdefault(source.folder, [0, 0])
        row[0] += source.lines
        row[1] += len(mine)
    rows["all"] = [sum(row[at] for row in rows.values()) for at in (0, 1)]
    table = [
        [name, f"{lines:,}", str(count), f"{1000 * count / max(1, lines):.2f}"] for name, (lines, count) in rows.items()
    ]
    shown = [one for mine in found for one in mine]
    notes = [f"{one['path']}:{one['line']}: {one['code']}: `{one['old']}` -> `{one['new']}`" for one in shown]
    content = {"folders": {name: {"lines": row[0], "alarms": row[1]} for name, row in rows.items()}, "shown": shown}
    return Report("Lint of folders of code that runs", {**known, **conditions()}, HEADER, table, notes, content)


@errors_to_exit_codes
def main(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER…", help="Packages, or other folders of code.")],
    model: Annotated[str, typer.Option(help="Model to judge: a name, a hub id or a folder.")] = "pocket",
    most: Annotated[int, typer.Option(min=1, help="Lines of each folder, about, at most.")] = 1_000_000,
    seed: Annotated[int, typer.Option(help="Choice of files.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="Most CPU threads.")] = 8,
    write: Annotated[str | None, typer.Option(metavar="NAME", help="Write bench/results/NAME.json and .md.")] = None,
) -> None:
    """Count what lint shows in code that runs."""
    linter = Linter(load_completer(Settings(model=model, threads=threads)))
    if not linter.can_lint:
        raise InputError(f"The model {model} has no bars to judge; learn some with `python -m train.lint.thresholds`.")
    sources = [one for folder in folders for one in read_sources(folder, linter.languages, most, seed)]
    started = time.process_time()
    console = Console(stderr=True)
    found = [alarms(linter, one) for one in track(sources, "files", console=console, transient=True)]
    seconds = time.process_time() - started
    lines = sum(one.lines for one in sources)
    known = {"model": model, "seed": seed, "CPU ms per 1,000 lines": round(1e6 * seconds / max(1, lines))}
    report = folders_report(sources, found, known)
    report.show()
    if write is not None:
        report.write(write, RESULTS)


if __name__ == "__main__":
    typer.run(main)
