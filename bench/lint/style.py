"""Measures the style findings of lint: how many in held-out code, and how many seeded deviations it finds.

`python -m bench.lint.style --corpus DIR/corpus`. All findings are listed for review, since no program can decide
whether a maintainer would agree.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track

from bench.lint.seeded_style import SEEDED, SeededStyle, seed_style
from bench.report import RESULTS, Report, conditions
from infill.cli.support import errors_to_exit_codes
from infill.code.syntax import parse
from infill.findings import Range
from infill.lint.kinds import STYLE
from infill.lint.style import find_style
from infill.lint.symbols import SymbolTable
from train.held_out import HeldOutFile, read_held_out
from train.lint.samples import round_robin

HEADER = ("kind", "shown", "per 1,000 lines", "seeded", "found", "right fix")
AROUND = 300  # characters linted on either side of a deviation


@dataclass(frozen=True)
class Seeded:
    """found: a finding overlaps it. right: the fix restores the original."""

    deviation: SeededStyle
    found: bool
    right: bool


def shown_in(file: HeldOutFile) -> list[dict[str, Any]]:
    """The findings in an unchanged file."""
    tree = parse(file.text, file.language)
    if tree is None or tree.root.has_error:
        return []
    rows = []
    for one in find_style(tree, SymbolTable(tree), frozenset(STYLE), [(0, len(file.text))]):
        line = file.text.count("\n", 0, one.edit.start)
        rows.append(
            {
                "code": one.edit.code,
                "path": f"{file.project}/{file.path}",
                "line": line + 1,
                "old": file.text[one.edit.start : one.edit.end],
                "new": one.edit.replacement,
                "ranges": len(one.ranges),
                "same": one.same,
                "other": one.other,
                "text": file.text.split("\n")[line].strip(),
            }
        )
    return rows


def measure_seeded(file: HeldOutFile, deviation: SeededStyle) -> Seeded:
    """Lints the lines around the deviation, for a name the whole file."""
    around: Range = 0, len(deviation.text)
    if deviation.code != "style-naming":
        around = max(0, deviation.start - AROUND), min(len(deviation.text), deviation.end + AROUND)
    tree = parse(deviation.text, file.language)
    assert tree is not None
    found = find_style(tree, SymbolTable(tree), frozenset((deviation.code,)), [around])
    near = [one for one in found if one.edit.start < deviation.end and deviation.start < one.edit.end]
    right = any(one.edit.start == deviation.start and one.edit.replacement == deviation.right for one in near)
    return Seeded(deviation, bool(near), right)


def style_report(
    lines: int, clean: Sequence[dict[str, Any]], seeded: Sequence[Seeded], known: dict[str, Any]
) -> Report:
    """clean: the rows of `shown_in` for all files."""
    shown = Counter(row["code"] for row in clean)
    table, figures = [], {}
    for code in [*STYLE, "all"]:
        of_kind = [one for one in seeded if code in (one.deviation.code, "all")]
        count = shown.total() if code == "all" else shown[code]
        found, right = sum(one.found for one in of_kind), sum(one.right for one in of_kind)
        figures[code] = {
            "shown": count,
            "seeded": {"deviations": len(of_kind), "found": found, "right": right},
        }
        share = f"{found / len(of_kind):.0%}" if of_kind else ""
        fixes = f"{right / found:.0%}" if found else ""
        rate = f"{1000 * count / max(1, lines):.3f}"
        table.append([code, str(count), rate, str(len(of_kind)), share, fixes])
    notes = [
        "found: share of the seeded deviations that a finding overlaps.",
        *(
            f"{row['path']}:{row['line']}: {row['code']} ({row['same']}:{row['other']}): `{row['old']}` -> "
            f"`{row['new']}`"
            for row in clean
        ),
    ]
    content = {"lines": lines, "kinds": figures, "rows": list(clean)}
    return Report("Lint of style", {**known, "lines": lines, **conditions()}, HEADER, table, notes, content)


@errors_to_exit_codes
def main(
    corpus: Annotated[Path, typer.Option(help="Folder that train.corpus wrote.")],
    language: Annotated[list[str] | None, typer.Option(help="Language of the held-out files; repeatable.")] = None,
    lines: Annotated[int, typer.Option(min=100, help="Maximum number of lines of clean code.")] = 1_000_000,
    count: Annotated[int, typer.Option(min=0, help="Deviations per kind.")] = 40,
    seed: Annotated[int, typer.Option(help="Seed for the choice of files and deviations.")] = 1,
    write: Annotated[bool, typer.Option(help="Write bench/results/lint_style.json and lint_style.md.")] = False,
) -> None:
    """Measure the style findings on held-out projects."""
    languages = language or ["python"]
    files = round_robin(read_held_out(corpus, languages), seed)
    clean: list[dict[str, Any]] = []
    total = 0
    console = Console(stderr=True)
    for file in track(files, "clean", console=console, transient=True):
        if total >= lines:
            break
        total += file.text.count("\n")
        clean += shown_in(file)
    rng, seeded = random.Random(seed), list[Seeded]()
    for code in SEEDED:
        of_kind = 0
        for file in track(files, code, console=console, transient=True):
            if of_kind == count:
                break
            if (deviation := seed_style(file.text, file.language, code, rng)) is not None:
                seeded.append(measure_seeded(file, deviation))
                of_kind += 1
    known = {"seed": seed, "languages": " ".join(languages)}
    known["projects"] = str(len({file.project for file in files}))
    report = style_report(total, clean, seeded, known)
    report.show()
    if write:
        report.write("lint_style", RESULTS)


if __name__ == "__main__":
    typer.run(main)
