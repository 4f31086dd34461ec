"""How quiet is lint about style, and how much does it find? Held-out code as it is, and with one slip of style put in.

`python -m bench.lint.style --corpus DIR/corpus`. What counting alone would show, and what
of that the model finds likelier, too; all of it is listed, to be looked at, since no program can tell whether a
maintainer would agree.
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
from infill.cli.support import errors_to_exit_codes, load_completer
from infill.code.syntax import parse
from infill.findings import LintRequest
from infill.lint.kinds import STYLE
from infill.lint.linter import Linter
from infill.lint.style import STYLE_GAIN, find_style
from infill.lint.symbols import Survey
from infill.settings import Settings
from train.held_out import HeldOutFile, read_held_out
from train.lint.samples import in_turns

HEADER = ("kind", "by counting", "shown", "per 1,000 lines", "seeded", "counted", "found", "right fix")


@dataclass(frozen=True)
class Seeded:
    """counted: counting alone would show it; found: it is shown; right: with the fix that makes it what it was."""

    slip: SeededStyle
    counted: bool
    found: bool
    right: bool


def shown_in(linter: Linter, file: HeldOutFile) -> list[dict[str, Any]]:
    """What counting finds in a file as it is, with the gain by the model; None where it found that too unlikely."""
    tree = parse(file.text, file.language)
    if tree is None or tree.root.has_error:
        return []
    gains = linter.judge_style(LintRequest(file.text, file.language, file.path), frozenset(STYLE))
    rows = []
    for one in find_style(tree, Survey(tree), frozenset(STYLE), [(0, len(file.text))]):
        line = file.text.count("\n", 0, one.edit.start)
        rows.append(
            {
                "code": one.edit.code,
                "path": f"{file.project}/{file.path}",
                "line": line + 1,
                "old": file.text[one.edit.start : one.edit.end],
                "new": one.edit.replacement,
                "places": len(one.places),
                "same": one.same,
                "other": one.other,
                "gain": None if one not in gains else round(gains[one], 2),
                "text": file.text.split("\n")[line].strip(),
            }
        )
    return rows


def judge_seeded(linter: Linter, file: HeldOutFile, slip: SeededStyle) -> Seeded:
    """Whether the slip is found; asked about the lines around it, and of a name about the whole file."""
    around = () if slip.code == "style-naming" else ((max(0, slip.start - 300), min(len(slip.text), slip.end + 300)),)
    request = LintRequest(slip.text, file.language, file.path, around)
    tree = parse(slip.text, file.language)
    assert tree is not None
    ranges = around or ((0, len(slip.text)),)
    counted = find_style(tree, Survey(tree), frozenset((slip.code,)), ranges)
    near = [one for one in counted if one.edit.start < slip.end and slip.start < one.edit.end]
    gains = linter.judge_style(request, frozenset((slip.code,))) if near else {}
    shown = [one for one in near if gains.get(one, -1.0) >= STYLE_GAIN]
    right = any(one.edit.start == slip.start and one.edit.replacement == slip.right for one in shown)
    return Seeded(slip, bool(near), bool(shown), right)


def style_report(
    lines: int, clean: Sequence[dict[str, Any]], seeded: Sequence[Seeded], known: dict[str, Any]
) -> Report:
    """clean: as `shown_in` has it, of all files together."""
    counted = Counter(row["code"] for row in clean)
    shown = Counter(row["code"] for row in clean if _is_shown(row))
    table, figures = [], {}
    for code in [*STYLE, "all"]:
        own = [one for one in seeded if code in (one.slip.code, "all")]
        by_counting = counted.total() if code == "all" else counted[code]
        count = shown.total() if code == "all" else shown[code]
        found, right = sum(one.found for one in own), sum(one.right for one in own)
        looked = sum(one.counted for one in own)
        figures[code] = {
            "counted": by_counting,
            "shown": count,
            "seeded": {"slips": len(own), "counted": looked, "found": found, "right": right},
        }
        shares = [f"{part / len(own):.0%}" for part in (looked, found)] if own else ["", ""]
        fixes = f"{right / found:.0%}" if found else ""
        rate = f"{1000 * count / max(1, lines):.3f}"
        table.append([code, str(by_counting), str(count), rate, str(len(own)), *shares, fixes])
    notes = [
        "by counting: what is against a clear habit; shown: of these, what the model finds likelier the file's way. "
        "counted: share of the seeded slips that are against a clear habit of their file.",
        *(
            f"{'shown' if _is_shown(row) else 'not shown'}: {row['path']}:{row['line']}: {row['code']} "
            f"({row['same']}:{row['other']}, {row['gain']}): `{row['old']}` -> `{row['new']}`"
            for row in clean
        ),
    ]
    content = {"lines": lines, "kinds": figures, "rows": list(clean)}
    return Report("Lint of style", {**known, "lines": lines, **conditions()}, HEADER, table, notes, content)


def _is_shown(row: dict[str, Any]) -> bool:
    return row["gain"] is not None and row["gain"] >= STYLE_GAIN


@errors_to_exit_codes
def main(
    corpus: Annotated[Path, typer.Option(help="Folder that train.corpus wrote.")],
    model: Annotated[str, typer.Option(help="Model to judge: a name, a hub id or a folder.")] = "pocket",
    language: Annotated[list[str] | None, typer.Option(help="Language of the held-out files; repeatable.")] = None,
    lines: Annotated[int, typer.Option(min=100, help="Lines of clean code, at most.")] = 1_000_000,
    count: Annotated[int, typer.Option(min=0, help="Slips of each kind.")] = 40,
    seed: Annotated[int, typer.Option(help="Choice of files and slips.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="Most CPU threads.")] = 8,
    write: Annotated[bool, typer.Option(help="Write bench/results/lint_style.json and lint_style.md.")] = False,
) -> None:
    """Judge lint of style on held-out projects."""
    languages = language or ["python"]
    linter = Linter(load_completer(Settings(model=model, threads=threads)))
    files = in_turns(read_held_out(corpus, languages), seed)
    clean: list[dict[str, Any]] = []
    total = 0
    console = Console(stderr=True)
    for file in track(files, "clean", console=console, transient=True):
        if total >= lines:
            break
        total += file.text.count("\n")
        clean += shown_in(linter, file)
    rng, seeded = random.Random(seed), list[Seeded]()
    for code in SEEDED:
        own = 0
        for file in track(files, code, console=console, transient=True):
            if own == count:
                break
            if (slip := seed_style(file.text, file.language, code, rng)) is not None:
                seeded.append(judge_seeded(linter, file, slip))
                own += 1
    known = {"model": model, "seed": seed, "languages": " ".join(languages)}
    known["projects"] = str(len({file.project for file in files}))
    report = style_report(total, clean, seeded, known)
    report.show()
    if write:
        report.write("lint_style", RESULTS)


if __name__ == "__main__":
    typer.run(main)
