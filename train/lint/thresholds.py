"""Fits the evidence weights and thresholds of lint on held-out projects, and stores them with a model.

`python -m train.lint.thresholds --corpus DIR/corpus --model FOLDER`. For each kind, a logistic model separates edits
that fix a seeded bug from edits of clean code, by their evidence (infill/lint/thresholds.py). The thresholds depend on
clean code only: all kinds together are expected to show at most `--false-positives` findings per 1,000 lines, which go
to the kinds that find most bugs with them. bench.lint.run measures on other projects.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from engine.checkpoints.export import write_checksums
from infill.cli.support import errors_to_exit_codes, load_completer
from infill.lint.kinds import KINDS
from infill.lint.linter import EditCandidate, Linter
from infill.lint.thresholds import EVIDENCE, EditEvidence, Threshold, Thresholds
from infill.model_store import resolve
from infill.settings import Settings
from train.held_out import is_for_calibration, read_held_out
from train.lint.samples import CleanSample, SeededSample, check_kinds, make_samples
from train.logistic import fit_logistic

MIN_RIGHT = 8  # fixes of seeded bugs that a kind needs to be fitted
MIN_WRONG = 50  # edits of clean code; a kind with fewer also uses those of other kinds
KEPT_SHARE = 0.95  # of the bugs found, when clean code sets no threshold
MIN_RECALL = 0.05  # share of the seeded bugs that a kind must find to be shown
NEVER = 99.0  # log-odds that no edit reaches


def fit(
    right: Sequence[EditEvidence],
    wrong: Sequence[EditEvidence],
    other_wrong: Sequence[EditEvidence] = (),
    penalty: float = 2.0,
) -> Threshold:
    """A logistic model on standardized evidence with an L2 penalty, not shown yet. Right and wrong edits have the same
    total weight, and so have `wrong` and `other_wrong`, the wrong edits of other kinds."""
    groups = [group for group in (wrong, other_wrong) if group]
    x = torch.tensor([[*one.values().values()] for group in (right, *groups) for one in group], dtype=torch.float64)
    y = torch.tensor([1.0] * len(right) + [0.0] * sum(map(len, groups)), dtype=torch.float64)
    shares = [len(right) / len(groups) / len(group) for group in groups for _ in group]
    weight = torch.tensor([1.0] * len(right) + shares, dtype=torch.float64)
    weights, intercept = fit_logistic(x, y, penalty, weight)
    return Threshold(dict(zip(EVIDENCE, weights, strict=True)), intercept, NEVER, False)


@dataclass(frozen=True)
class Scores:
    """Log-odds of the edits of one kind.

    clean: the best edit at each position of clean code, descending. found: the best edit near each seeded bug, if it
    fixes the bug. bugs: how many were seeded.
    """

    clean: list[float]
    found: list[float]
    bugs: int

    def recall(self, minimum: float) -> float:
        return sum(score >= minimum for score in self.found) / max(1, self.bugs)

    def false_positives(self, minimum: float) -> int:
        return sum(score >= minimum for score in self.clean)


def scores(threshold: Threshold, code: str, clean: Sequence[CleanSample], seeded: Sequence[SeededSample]) -> Scores:
    """How `threshold` ranks the edits of its kind."""
    clean_scores: list[float] = []
    for sample in clean:
        best: dict[tuple[int, int], float] = {}
        for one in _of_kind(sample.candidates, code):
            position = one.edit.start, one.edit.end
            best[position] = max(best.get(position, -math.inf), threshold.log_odds(one.evidence))
        clean_scores += best.values()
    bugs = [sample for sample in seeded if sample.bug.code == code]
    found = []
    for bug in bugs:
        near = [one for one in _of_kind(bug.candidates, code) if bug.is_near(one)]
        best_near = max(near, key=lambda one: threshold.log_odds(one.evidence), default=None)
        if best_near is not None and bug.is_right(best_near):
            found.append(threshold.log_odds(best_near.evidence))
    return Scores(sorted(clean_scores, reverse=True), found, len(bugs))


def set_thresholds(ranked: Mapping[str, Scores], budget: int) -> dict[str, float]:
    """The lowest log-odds to show for each kind, NEVER for kinds that stay off. `budget`: the false positives expected
    on new code of the same size; each goes to the kind that finds most additional bugs with it.

    A threshold with k edits of clean code above it lies above the (k+1)-th best, so k+1 are expected above it on new
    code (order statistics): a kind without false positives so far is not free of them.
    """
    spent = dict.fromkeys(ranked, 0)
    while True:
        best: tuple[float, str, int] | None = None
        for code, one in ranked.items():
            for more in range(1, budget - sum(spent.values()) + 1):
                gain = one.recall(_minimum(one, spent[code] + more)) - one.recall(_minimum(one, spent[code]))
                if gain > 0 and (best is None or gain / more > best[0]):
                    best = gain / more, code, more
        if best is None:
            return {code: _minimum(one, spent[code]) for code, one in ranked.items()}
        spent[best[1]] += best[2]


def _minimum(ranked: Scores, expected: int) -> float:
    """The log-odds that `expected` edits of new clean code reach, but not so low that the least certain bugs found are
    shown."""
    if expected == 0 or not ranked.found:
        return NEVER
    certain = sorted(ranked.found)[int((1 - KEPT_SHARE) * len(ranked.found))]
    return max(ranked.clean[expected - 1] + 1e-3, certain) if expected <= len(ranked.clean) else certain


def learn(clean: Sequence[CleanSample], seeded: Sequence[SeededSample], per_thousand: float) -> dict[str, Threshold]:
    """A threshold for every kind with enough samples; kinds that find at least MIN_RECALL of their bugs are shown."""
    ranked: dict[str, Scores] = {}
    thresholds: dict[str, Threshold] = {}
    for code in KINDS:
        threshold = _fitted(code, clean, seeded)
        if threshold is not None:
            thresholds[code] = threshold
            ranked[code] = unseen_scores(threshold, code, clean, seeded)
    budget = int(per_thousand * sum(sample.lines for sample in clean) / 1000)
    for code, minimum in set_thresholds(ranked, budget).items():
        shown = ranked[code].recall(minimum) >= MIN_RECALL
        thresholds[code] = replace(thresholds[code], minimum=minimum, shown=shown)
    return thresholds


def _fitted(code: str, clean: Sequence[CleanSample], seeded: Sequence[SeededSample]) -> Threshold | None:
    """None if the model read too few fixes. If clean code has few edits of the kind, those of other kinds count as
    wrong too."""
    bugs = [sample for sample in seeded if sample.bug.code == code]
    right = [one.evidence for bug in bugs for one in _of_kind(bug.candidates, code) if bug.is_right(one)]
    wrong = [one.evidence for sample in clean for one in _of_kind(sample.candidates, code)]
    others: list[EditEvidence] = []
    if len(wrong) < MIN_WRONG:
        others = [one.evidence for sample in clean for one in sample.candidates if one.edit.code != code]
    return fit(right, wrong, others) if len(right) >= MIN_RIGHT else None


def unseen_scores(
    threshold: Threshold, code: str, clean: Sequence[CleanSample], seeded: Sequence[SeededSample]
) -> Scores:
    """Cross-validated scores: each project is ranked by a model fitted on all others. `threshold` ranks a project if
    the others have too few bugs for a fit."""
    projects = {one.file.project for one in clean} | {one.file.project for one in seeded}
    parts = []
    for project in sorted(projects):
        fitted = _fitted(
            code,
            [one for one in clean if one.file.project != project],
            [one for one in seeded if one.file.project != project],
        )
        project_clean = [one for one in clean if one.file.project == project]
        project_seeded = [one for one in seeded if one.file.project == project]
        parts.append(scores(fitted or threshold, code, project_clean, project_seeded))
    clean_scores = sorted((score for part in parts for score in part.clean), reverse=True)
    return Scores(clean_scores, [score for part in parts for score in part.found], sum(part.bugs for part in parts))


def training_figures(
    thresholds: Thresholds, clean: Sequence[CleanSample], seeded: Sequence[SeededSample]
) -> dict[str, Any]:
    """The size of the training data and the results on it, to be stored with the thresholds."""
    kinds = {}
    for code, threshold in thresholds.kinds.items():
        ranked = scores(threshold, code, clean, seeded)
        kinds[code] = {
            "bugs": ranked.bugs,
            "found": round(ranked.recall(threshold.minimum), 3),
            "false_positives": ranked.false_positives(threshold.minimum),
        }
    return {"lines": sum(sample.lines for sample in clean), "bugs": len(seeded), "kinds": kinds}


def _of_kind(candidates: Sequence[EditCandidate], code: str) -> list[EditCandidate]:
    return [one for one in candidates if one.edit.code == code]


@errors_to_exit_codes
def main(
    corpus: Annotated[Path, typer.Option(help="Folder that train.corpus wrote.")],
    model: Annotated[str, typer.Option(help="Model to fit: a name or a folder.")] = "pocket",
    language: Annotated[list[str] | None, typer.Option(help="Repeatable; default: python.")] = None,
    lines: Annotated[int, typer.Option(min=1000, help="Lines of clean code.")] = 20_000,
    count: Annotated[int, typer.Option(min=MIN_RIGHT, help="Seeded bugs per kind.")] = 120,
    false_positives: Annotated[
        float, typer.Option(help="Maximum number of findings of all kinds in 1,000 lines of clean code.")
    ] = 0.5,
    kind: Annotated[list[str] | None, typer.Option(help="Kind to fit; repeatable; default: all.")] = None,
    samples: Annotated[Path | None, typer.Option(help="File of your own to cache the samples in.")] = None,
    seed: Annotated[int, typer.Option(help="Seed for the choice of files and bugs.")] = 7,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 8,
    on_by_default: Annotated[
        bool, typer.Option("--on-by-default", help="Show findings to users who did not switch lint on.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the figures, store nothing.")] = False,
) -> None:
    """Fit the lint thresholds of a model and store them with it."""
    languages = language or ["python"]
    files = [file for file in read_held_out(corpus, languages) if is_for_calibration(file.project)]
    linter = Linter(load_completer(Settings(model=model, threads=threads)))
    made = make_samples(linter, files, lines, count, seed, check_kinds(kind), samples)
    fitted = learn(made.clean, made.seeded, false_positives)
    thresholds = Thresholds(fitted, frozenset(languages), on_by_default)
    measured = {
        "projects": len({file.project for file in files}),
        "false_positives_per_1000_lines": false_positives,
        "seed": seed,
        **training_figures(thresholds, made.clean, made.seeded),
    }
    Console(highlight=False).print_json(json.dumps(measured))
    if not dry_run:
        folder = resolve(model)
        thresholds.write(folder, measured)
        write_checksums(folder)


if __name__ == "__main__":
    typer.run(main)
