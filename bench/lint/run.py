"""Measures lint with seeded bugs and clean code of projects that neither the model nor its thresholds were trained on.

`python -m bench.lint.run --corpus DIR/corpus`. Per kind: bugs found, bugs fixed, false positives on clean code, and
precision if one function in a hundred has a bug. Then the trade-off along the threshold, baselines without the model or
without training at the same number of false positives, and time.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track

from bench.lint.loading import load_linter
from bench.quality.run import weights_digests
from bench.report import RESULTS, Report, Spread, conditions
from infill.cli.support import errors_to_exit_codes
from infill.code.syntax import parse
from infill.findings import LintRequest
from infill.lint.edits import find_edits
from infill.lint.frequencies import Frequencies, FrequencyEvidence
from infill.lint.kinds import KINDS, Edit
from infill.lint.linter import EditCandidate, Linter
from infill.lint.masked import MaskedLikelihood
from infill.lint.symbols import SymbolTable
from infill.lint.thresholds import EditEvidence
from infill.model_store import resolve
from train.held_out import for_judging, is_for_calibration, read_held_out
from train.lint.samples import CleanSample, SeededSample, check_kinds, make_samples
from train.lint.thresholds import scores

BUG_RATE = 0.01  # bugs per function
OFFSETS = (-2.0, -1.0, 0.0, 1.0, 2.0, 3.0)  # log-odds by which all thresholds are lowered
MASKED_BATCH = 8
HEADER = ("kind", "shown", "bugs", "read", "found", "right fix", "false positives", "per 1,000 lines", "precision")


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


def measure(
    linter: Linter, clean: Sequence[CleanSample], seeded: Sequence[SeededSample], offset: float = 0.0
) -> dict[str, Figures]:
    """Figures by kind, and under `all` for the kinds that are shown. offset: see `Linter.select`."""
    lines, functions = sum(one.lines for one in clean), sum(one.functions for one in clean)
    false_positives = dict.fromkeys(KINDS, 0)
    for sample in clean:
        for finding in linter.select(_request(sample), sample.candidates, offset):
            false_positives[finding.edit.code] += 1
    rows: dict[str, Figures] = {}
    for code in KINDS:
        bugs = [sample for sample in seeded if sample.bug.code == code]
        found = right = 0
        for bug in bugs:
            near = [one for one in linter.select(_request(bug), bug.candidates, offset) if bug.is_near(one)]
            found += bool(near)
            right += any(bug.is_right(one) for one in near)
        read = sum(any(bug.is_right(one) for one in bug.candidates) for bug in bugs)
        rows[code] = Figures(len(bugs), read, found, right, false_positives[code], lines, functions)
    shown = [row for code, row in rows.items() if code in linter.shown]
    rows["all"] = Figures(
        bugs=sum(row.bugs for row in shown),
        read=sum(row.read for row in shown),
        found=sum(row.found for row in shown),
        right=sum(row.right for row in shown),
        false_positives=sum(row.false_positives for row in shown),
        lines=lines,
        functions=functions,
    )
    return rows


@dataclass(frozen=True)
class Baseline:
    """How many of the seeded bugs a ranking finds and fixes with `false_positives` on the clean code."""

    name: str
    found: int
    right: int
    bugs: int
    false_positives: int


Sample = CleanSample | SeededSample
Ranking = Callable[[Sample], list[tuple[float, Edit]]]


def baseline(
    name: str, clean: Sequence[CleanSample], seeded: Sequence[SeededSample], false_positives: int, rank: Ranking
) -> Baseline:
    """Results with the threshold chosen on this same clean code, which is the best that the ranking can do here."""
    worst = sorted((score for one in clean for score in _best_by_position(rank(one)).values()), reverse=True)
    minimum = worst[false_positives] if false_positives < len(worst) else -math.inf
    found = right = 0
    for bug in seeded:
        near = [(score, edit) for score, edit in rank(bug) if bug.is_near(EditCandidate(edit, EditEvidence()))]
        score, best = max(near, key=lambda pair: pair[0], default=(-math.inf, None))
        if best is not None and score > minimum:
            found += 1
            right += bug.is_right(EditCandidate(best, EditEvidence()))
    return Baseline(name, found, right, len(seeded), false_positives)


def offset_for(linter: Linter, clean: Sequence[CleanSample], false_positives: int) -> float:
    """The largest offset with at most `false_positives` on the clean code, to 0.05 log-odds."""

    def count(offset: float) -> int:
        return sum(len(linter.select(_request(sample), sample.candidates, offset)) for sample in clean)

    low, high = OFFSETS[0], 2 * OFFSETS[-1]
    while high - low > 0.05:
        middle = (low + high) / 2
        low, high = (middle, high) if count(middle) <= false_positives else (low, middle)
    return low


def recall_alone(
    linter: Linter, clean: Sequence[CleanSample], seeded: Sequence[SeededSample], false_positives: int
) -> dict[str, float]:
    """Share of its bugs that each shown kind fixes if it may have all `false_positives`, with its threshold chosen on
    this code."""
    assert linter.thresholds is not None
    found = {}
    for code in sorted(linter.shown):
        ranked = scores(linter.thresholds.kinds[code], code, clean, seeded)
        minimum = ranked.clean[false_positives] + 1e-3 if false_positives < len(ranked.clean) else -math.inf
        found[code] = ranked.recall(minimum)
    return found


def _best_by_position(rated: Sequence[tuple[float, Edit]]) -> dict[tuple[int, int], float]:
    best: dict[tuple[int, int], float] = {}
    for score, edit in rated:
        position = edit.start, edit.end
        best[position] = max(best.get(position, -math.inf), score)
    return best


def by_evidence(score: Callable[[EditEvidence], float], codes: frozenset[str]) -> Ranking:
    """Ranks the candidates by a formula over their evidence."""
    return lambda sample: [(score(one.evidence), one.edit) for one in sample.candidates if one.edit.code in codes]


def by_counting(codes: frozenset[str]) -> Ranking:
    """Ranks all edits without a model, by how often the file uses names and word pairs."""

    def score(evidence: FrequencyEvidence) -> float:
        return evidence.bigram_ratio + 2 * evidence.old_occurs_once - evidence.old_defined + evidence.new_unread

    def rank(sample: Sample) -> list[tuple[float, Edit]]:
        request = _request(sample)
        tree = parse(request.text, request.language)
        assert tree is not None
        symbols = SymbolTable(tree)
        frequencies = Frequencies(symbols)
        edits = find_edits(tree, symbols, request.ranges or ((0, len(request.text)),))
        return [(score(frequencies.evidence(edit)), edit) for edit in edits if edit.code in codes]

    return rank


def by_masking(linter: Linter, codes: frozenset[str]) -> Ranking:
    """Ranks the candidates by the denoiser alone, with the position masked."""
    completer = linter.completer
    masked = MaskedLikelihood(completer.denoiser, completer.family, completer.model.sampling)

    def rank(sample: Sample) -> list[tuple[float, Edit]]:
        edits = [one.edit for one in sample.candidates if one.edit.code in codes]
        rated: list[tuple[float, Edit]] = []
        for start in range(0, len(edits), MASKED_BATCH):
            batch = edits[start : start + MASKED_BATCH]
            rated += zip(masked.gains(_request(sample), batch), batch, strict=True)
        return rated

    return rank


def _request(sample: Sample) -> LintRequest:
    if isinstance(sample, CleanSample):
        return LintRequest(sample.file.text, sample.file.language, sample.file.path)
    return LintRequest(sample.bug.text, sample.file.language, sample.file.path, (sample.bug.scope,))


def _row(name: str, shown: bool, one: Figures) -> list[str]:
    precision = "" if one.precision is None or not shown else f"{one.precision:.0%}"
    share = f"{one.right / one.found:.0%}" if one.found else ""
    found = f"{one.recall:.0%}" if one.bugs else ""
    read = f"{one.read / one.bugs:.0%}" if one.bugs else ""
    false_positives = [str(one.false_positives), f"{one.per_thousand:.2f}"] if shown else ["", ""]
    return [
        name,
        "yes" if shown else "no",
        str(one.bugs),
        read,
        found if shown else "",
        share,
        *false_positives,
        precision,
    ]


def lint_report(
    linter: Linter,
    clean: Sequence[CleanSample],
    seeded: Sequence[SeededSample],
    known: Mapping[str, Any],
    masked: bool,
) -> Report:
    """The results of the linter and of the baselines. known: conditions to report."""
    rows = measure(linter, clean, seeded)
    curve = {offset: measure(linter, clean, seeded, offset)["all"] for offset in OFFSETS}
    shown = linter.shown
    bugs = [bug for bug in seeded if bug.bug.code in shown]
    rankings: dict[str, Ranking] = {
        "Counting alone, no model": by_counting(shown),
        "Gain by the text before, one scale for all kinds": by_evidence(lambda one: one.edit_gain, shown),
        "Gain of the whole text, one scale for all kinds": by_evidence(lambda one: one.total_gain, shown),
    }
    if masked:
        rankings["The denoiser alone, position masked"] = by_masking(linter, shown)
    ours = rows["all"]
    budget = max(ours.false_positives, ours.lines // 1000)
    offset = offset_for(linter, clean, budget)
    at_budget = measure(linter, clean, seeded, offset)["all"]
    alone = recall_alone(linter, clean, seeded, ours.lines // 1000)
    console = Console(stderr=True)
    baselines = [
        baseline(name, clean, bugs, budget, rank)
        for name, rank in track(rankings.items(), "baselines", console=console, transient=True)
    ]
    ms_per_1000_lines = 1e6 * sum(one.seconds for one in clean) / max(1, ours.lines)
    function_ms = Spread.of([1000 * one.seconds for one in seeded] or [0.0])
    points = (f"{one.per_thousand:.2f} false positives, {one.recall:.0%} found" for one in curve.values())
    notes = [
        "read: the model read the right edit. found: a finding overlaps the bug; right fix: share of these that "
        "restore the code. precision: share of the findings that overlap a bug if one function in a hundred has one, "
        "of all kinds equally often.",
        f"Thresholds lowered by {OFFSETS[0]:+g} to {OFFSETS[-1]:+g} log-odds, per 1,000 lines: {'; '.join(points)}.",
        f"With {budget} false positives, thresholds chosen on this code: ours {at_budget.recall:.0%} found, "
        f"{at_budget.right / max(1, at_budget.bugs):.0%} fixed. "
        + " ".join(
            f"{one.name}: {one.found / one.bugs:.0%} found, {one.right / one.bugs:.0%} fixed." for one in baselines
        ),
        "Fixed by a kind that alone may have one false positive per 1,000 lines: "
        f"{', '.join(f'{code} {share:.0%}' for code, share in alone.items())}.",
        f"Time: {ms_per_1000_lines:,.0f} ms per 1,000 lines, {function_ms} ms per function.",
    ]
    all_conditions = {
        **known,
        "weights": weights_digests(resolve(linter.completer.model.name)),
        "lines": ours.lines,
        "functions": ours.functions,
        "projects": len({one.file.project for one in clean}),
        "also calibrated on": any(is_for_calibration(one.file.project) for one in clean),
        **conditions(),
    }
    figures = {
        "kinds": {code: {**vars(one), "shown": code in shown or code == "all"} for code, one in rows.items()},
        "curve": {str(offset): vars(one) for offset, one in curve.items()},
        "at_budget": {"offset": offset, **vars(at_budget)},
        "baselines": [vars(one) for one in baselines],
        "alone": alone,
        "seconds_per_1000_lines": ms_per_1000_lines / 1000,
        "function_ms": function_ms.to_json() | {"samples": len(seeded)},
    }
    table = [_row(code, code in shown, rows[code]) for code in KINDS if rows[code].bugs]
    table.append(_row("all shown", True, ours))
    return Report("Lint of held-out projects", all_conditions, HEADER, table, notes, json.loads(json.dumps(figures)))


@errors_to_exit_codes
def main(
    corpus: Annotated[Path, typer.Option(help="Folder that train.corpus wrote.")],
    model: Annotated[str, typer.Option(help="Model to measure: a name, a hub id or a folder.")] = "pocket",
    language: Annotated[str, typer.Option(help="Language of the held-out files.")] = "python",
    lines: Annotated[int, typer.Option(min=100, help="Lines of clean code.")] = 10_000,
    count: Annotated[int, typer.Option(min=1, help="Seeded bugs per kind.")] = 60,
    kind: Annotated[list[str] | None, typer.Option(help="Kind to measure; repeatable; default: all.")] = None,
    samples: Annotated[Path | None, typer.Option(help="File of your own to cache the samples in.")] = None,
    seed: Annotated[int, typer.Option(help="Seed for the choice of files and bugs.")] = 1,
    masked: Annotated[bool, typer.Option(help="Also measure the denoiser alone; slow.")] = False,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 8,
    write: Annotated[bool, typer.Option(help="Write bench/results/lint.json and lint.md.")] = False,
) -> None:
    """Measure lint on held-out projects."""
    files = for_judging(read_held_out(corpus, [language]))
    linter = load_linter(model, threads)
    made = make_samples(linter, files, lines, count, seed, check_kinds(kind), samples)
    known = {"model": model, "language": language, "seed": seed}
    report = lint_report(linter, made.clean, made.seeded, known, masked)
    report.show()
    if write:
        report.write("lint", RESULTS)


if __name__ == "__main__":
    typer.run(main)
