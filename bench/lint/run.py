"""Measures lint with seeded bugs and clean code of projects that its thresholds were not learnt on.

`python -m bench.lint.run --samples FILE.jsonl`, with samples that `python -m train.lint.samples --measure` wrote. Per
kind: bugs found, bugs fixed, false positives on clean code, and precision if one function in a hundred has a bug. Then
the same by language, the trade-off along the threshold, baselines by one number at the same false positives, and time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.report import RESULTS, Report, conditions
from engine.errors import InputError
from infill.cli.support import errors_to_exit_codes
from infill.lint.kinds import KINDS, is_structural
from infill.lint.thresholds import EditEvidence, Thresholds, language_group
from train.held_out import is_for_calibration
from train.lint.samples import Found, Sample, read_samples
from train.lint.thresholds import NEVER

BUG_RATE = 0.01  # bugs per function
OFFSETS = (-2.0, -1.0, 0.0, 1.0, 2.0)  # log-odds by which all thresholds are lowered
HEADER = ("kind", "bugs", "read", "found", "right fix", "false positives", "per 1,000 lines", "precision")
Margin = Callable[[Found, str], float]


@dataclass(frozen=True)
class Figures:
    """For one kind or all together. read: the model read the fix. found: a finding overlaps the bug. right: and fixes
    it."""

    bugs: int
    read: int
    found: int
    right: int
    false_positives: int
    lines: int
    functions: int

    @property
    def recall(self) -> float:
        return self.found / self.bugs if self.bugs else 0.0

    @property
    def per_thousand(self) -> float:
        return 1000 * self.false_positives / max(1, self.lines)

    @property
    def precision(self) -> float | None:
        """Share of the findings that overlap a bug if BUG_RATE of the functions have one, of all kinds equally
        often."""
        right, wrong = BUG_RATE * self.recall, self.false_positives / max(1, self.functions)
        return right / (right + wrong) if right + wrong else None


def margins(thresholds: Thresholds) -> Margin:
    """Log-odds of a candidate above the threshold of its kind; 0 for kinds that need no model."""

    def margin(one: Found, language: str) -> float:
        if is_structural(one.candidate.edit.code, language):
            return 0.0
        threshold = thresholds.kinds.get(one.candidate.edit.code)
        minimum = threshold.minimums.get(language_group(language) or "") if threshold is not None else None
        if threshold is None or minimum is None:
            return -NEVER
        return threshold.log_odds(one.candidate.evidence) - minimum

    return margin


def by_evidence(score: Callable[[EditEvidence], float]) -> Margin:
    """Ranks the candidates by a formula over their evidence."""
    return lambda one, language: score(one.candidate.evidence)


def measure(samples: Sequence[Sample], margin: Margin, least: float = 0.0) -> dict[str, Figures]:
    """Figures by kind, and under `all`, of the candidates with at least this margin."""
    clean = [one for one in samples if one.bugs is None]
    lines, functions = sum(one.lines for one in clean), sum(one.functions for one in clean)
    wrong = dict.fromkeys([*KINDS, "all"], 0)
    for sample in clean:
        for one in shown(sample.candidates, sample.language, margin, least):
            wrong[one.candidate.edit.code] += 1
            wrong["all"] += 1
    rows = {}
    for code in [*KINDS, "all"]:
        bugs = [(one, bug) for one in samples for bug in one.bugs or () if code in (bug.code, "all")]
        found = right = 0
        for sample, bug in bugs:
            near = shown(bug.candidates, sample.language, margin, least)
            found += bool(near)
            right += bug.right is not None and bug.candidates[bug.right] in near
        read = sum(bug.right is not None for _, bug in bugs)
        rows[code] = Figures(len(bugs), read, found, right, wrong[code], lines, functions)
    return rows


def shown(candidates: Sequence[Found], language: str, margin: Margin, least: float) -> list[Found]:
    """The candidates with at least this margin, without overlaps: the better of two is kept."""
    rated = sorted(((margin(one, language), index) for index, one in enumerate(candidates)), reverse=True)
    kept: list[Found] = []
    for score, index in rated:
        edit = candidates[index].candidate.edit
        taken = [one.candidate.edit for one in kept]
        if score >= least and all(edit.end <= other.start or other.end <= edit.start for other in taken):
            kept.append(candidates[index])
    return kept


def least_for(samples: Sequence[Sample], margin: Margin, false_positives: int) -> float:
    """The lowest margin with at most this many false positives."""
    clean = [one for one in samples if one.bugs is None]
    scores = sorted(
        (
            margin(one, sample.language)
            for sample in clean
            for one in shown(sample.candidates, sample.language, margin, -NEVER + 1)
        ),
        reverse=True,
    )
    return scores[false_positives] + 1e-6 if false_positives < len(scores) else -NEVER + 1


def _row(name: str, one: Figures) -> list[str]:
    def share(part: int, whole: int) -> str:
        return f"{part / whole:.0%}" if whole else ""

    return [
        name,
        str(one.bugs),
        share(one.read, one.bugs),
        share(one.found, one.bugs),
        share(one.right, one.found),
        str(one.false_positives),
        f"{one.per_thousand:.2f}",
        "" if one.precision is None else f"{one.precision:.0%}",
    ]


def lint_report(samples: Sequence[Sample], thresholds: Thresholds, known: Mapping[str, Any]) -> Report:
    """The results with `thresholds`. known: conditions to report."""
    margin = margins(thresholds)
    rows = measure(samples, margin)
    languages = sorted({language_group(one.language) or "" for one in samples})
    by_language = {
        name: measure([one for one in samples if language_group(one.language) == name], margin)["all"]
        for name in languages
    }
    curve = {offset: measure(samples, margin, -offset)["all"] for offset in OFFSETS}
    ours = rows["all"]
    budget = max(ours.false_positives, ours.lines // 2000)
    rankings: dict[str, Margin] = {
        "these weights": margin,
        "gain of the line alone": by_evidence(lambda one: one.edit_gain),
        "gain of the whole text alone": by_evidence(lambda one: one.total_gain),
    }
    at_budget = {
        name: measure(samples, ranking, least_for(samples, ranking, budget))["all"]
        for name, ranking in rankings.items()
    }
    seconds = sum(one.seconds for one in samples if one.bugs is None)
    points = (f"{one.per_thousand:.2f} false positives, {one.recall:.0%} found" for one in curve.values())
    notes = [
        "read: the model read the right edit. found: a finding overlaps the bug; right fix: share of these that "
        "restore the code. precision: share of the findings that overlap a bug if one function in a hundred has one, "
        "of all kinds equally often.",
        f"Thresholds lowered by {OFFSETS[0]:+g} to {OFFSETS[-1]:+g} log-odds, per 1,000 lines: {'; '.join(points)}.",
        f"With {budget} false positives, one threshold chosen on this code: "
        + "; ".join(f"{name} {one.recall:.0%} found" for name, one in at_budget.items())
        + ".",
        f"Time: {1e3 * seconds / max(1, ours.lines):,.0f} s per 1,000 lines, on a machine that did other work too.",
    ]
    all_conditions = {
        **known,
        "lines": ours.lines,
        "functions": ours.functions,
        "projects": len({one.project for one in samples}),
        "also learnt on": any(is_for_calibration(one.project) for one in samples),
        **conditions(),
    }
    figures = {
        "kinds": {code: vars(one) for code, one in rows.items()},
        "languages": {name: vars(one) for name, one in by_language.items()},
        "curve": {str(offset): vars(one) for offset, one in curve.items()},
        "at_budget": {name: vars(one) for name, one in at_budget.items()},
        "seconds_per_1000_lines": 1e3 * seconds / max(1, ours.lines),
    }
    table = [_row(code, rows[code]) for code in KINDS if rows[code].bugs]
    table += [_row(f"all, {name}", one) for name, one in by_language.items()]
    table.append(_row("all", ours))
    return Report("Lint of held-out projects", all_conditions, HEADER, table, notes, json.loads(json.dumps(figures)))


@errors_to_exit_codes
def main(
    samples: Annotated[Path, typer.Option(help="File that train.lint.samples wrote with --measure.")],
    model: Annotated[str, typer.Option(help="Name of the model that judged them.")] = "coder",
    write: Annotated[bool, typer.Option(help="Write bench/results/lint_coder.json and lint_coder.md.")] = False,
) -> None:
    """Measure lint on held-out projects."""
    thresholds = Thresholds.read(model)
    if thresholds is None:
        raise InputError("There are no thresholds; fit them with `python -m train.lint.thresholds`.")
    report = lint_report(read_samples(samples), thresholds, {"model": model})
    report.show()
    if write:
        report.write("lint_coder", RESULTS)


if __name__ == "__main__":
    typer.run(main)
