"""Fits the evidence weights and thresholds of lint on held-out projects, and stores them for a model.

`python -m train.lint.thresholds --samples FILE.jsonl`, with the samples that train.lint.samples wrote, and those
without seeded bugs that `bench.lint.folders --cache` wrote for folders that nothing is measured on. For each kind, a
logistic model separates edits that fix a seeded bug from edits of clean code, by their evidence
(infill/lint/thresholds.py). The thresholds depend on clean code only: all kinds together are expected to show at most
`--false-positives` findings per 1,000 lines. bench.lint.run measures on other projects.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from infill.cli.support import errors_to_exit_codes
from infill.lint.kinds import KINDS, STRUCTURAL
from infill.lint.thresholds import EVIDENCE, EditEvidence, Threshold, Thresholds, language_group
from train.lint.samples import Found, Sample, read_samples
from train.logistic import fit_logistic

MIN_RIGHT = 2  # fixes of seeded bugs that a kind needs to be fitted
MIN_RECALL = 0.02  # share of the seeded bugs that a kind must find to be shown
NEVER = 99.0  # log-odds that no edit reaches
RELATED = {"typescript": "javascript"}  # languages whose minimums are at least those of another
FOLDS = 10
PENALTY, KIND_PENALTY = 4.0, 12.0  # of the model of all kinds, and of what a kind adds to it


def fit(
    right: Sequence[EditEvidence],
    wrong: Sequence[EditEvidence],
    common: Threshold | None = None,
    penalty: float = PENALTY,
    spread: torch.Tensor | None = None,
) -> Threshold:
    """A logistic model on standardized evidence with an L2 penalty, without minimums.

    common: a model of all kinds, from which the penalty counts. spread: standard deviations of the evidence."""
    rows = [*right, *wrong]
    x = _values(rows)
    y = torch.tensor([1.0] * len(right) + [0.0] * len(wrong), dtype=torch.float64)
    start = Threshold(dict.fromkeys(EVIDENCE, 0.0), 0.0, {}) if common is None else common
    offset = torch.tensor([start.log_odds(one) for one in rows], dtype=torch.float64)
    weights, intercept = fit_logistic(x, y, penalty, offset=offset, spread=spread)
    total = {name: start.weights[name] + more for name, more in zip(EVIDENCE, weights, strict=True)}
    return Threshold(total, start.intercept + intercept, {})


def _values(rows: Sequence[EditEvidence]) -> torch.Tensor:
    return torch.tensor([[*one.values().values()] for one in rows], dtype=torch.float64)


@dataclass(frozen=True)
class Scores:
    """Log-odds of the edits of one kind.

    clean: (the best edit at each position of clean code, language), descending. found: the best edit near each seeded
    bug, if it fixes the bug. bugs: how many were seeded.
    """

    clean: list[tuple[float, str]]
    found: list[float]
    bugs: int

    def recall(self, minimum: float) -> float:
        return sum(score >= minimum for score in self.found) / max(1, self.bugs)

    def false_positives(self, minimum: float, language: str | None = None) -> int:
        return sum(score >= minimum and language in (None, one) for score, one in self.clean)


def scores(threshold: Threshold, code: str, samples: Sequence[Sample]) -> Scores:
    """How `threshold` ranks the edits of its kind."""
    clean: list[tuple[float, str]] = []
    found, bugs = [], 0
    for sample in samples:
        best: dict[tuple[int, int], float] = {}
        for one in _of_kind(sample.candidates, code):
            edit = one.candidate.edit
            position = edit.start, edit.end
            best[position] = max(best.get(position, -math.inf), threshold.log_odds(one.candidate.evidence))
        clean += [(score, language_group(sample.language) or "") for score in best.values()]
        for bug in sample.bugs or ():
            if bug.code != code:
                continue
            bugs += 1
            right = bug.candidates[bug.right] if bug.right is not None else None
            near = _of_kind(bug.candidates, code)
            best_near = max(near, key=lambda one: threshold.log_odds(one.candidate.evidence), default=None)
            if right is not None and best_near is right:
                found.append(threshold.log_odds(right.candidate.evidence))
    return Scores(sorted(clean, reverse=True), found, bugs)


def common_minimum(ranked: Iterable[Scores], budget: int) -> float:
    """The log-odds that `budget` edits of new clean code of the same size are expected to reach, whatever their kind:
    log-odds of different kinds are comparable, and one threshold finds most bugs.

    A threshold with k edits of clean code above it lies above the (k+1)-th best, so k+1 are expected above it on new
    code (order statistics): code without false positives so far is not free of them.
    """
    clean = sorted((score for one in ranked for score, _ in one.clean), reverse=True)
    if budget == 0:
        return NEVER
    return clean[budget - 1] + 1e-3 if budget <= len(clean) else 0.0


def learn(samples: Sequence[Sample], per_thousand: float) -> dict[str, Threshold]:
    """A threshold for every kind with enough samples; kinds that find at least MIN_RECALL of their bugs get minimums.

    The minimums are the same, but for languages in which they show too much, or a related one does."""
    fitted, ranked = fit_all(samples), unseen_scores(samples)
    lines = clean_lines(samples)
    minimum = common_minimum(ranked.values(), round(per_thousand * lines.total() / 1000))
    common = {code: minimum for code, one in ranked.items() if one.recall(minimum) >= MIN_RECALL}
    minimums: dict[str, dict[str, float]] = {code: {} for code in fitted}
    by_language = {
        language: _within(common, ranked, language, math.ceil(per_thousand * its_lines / 1000))
        for language, its_lines in lines.items()
    }
    for language, own in by_language.items():
        related = by_language.get(RELATED.get(language, ""), own)
        for code, raised in own.items():
            minimums[code][language] = max(raised, related[code])
    return {code: Threshold(one.weights, one.intercept, minimums[code]) for code, one in fitted.items()}


def _within(common: Mapping[str, float], ranked: Mapping[str, Scores], language: str, budget: int) -> dict[str, float]:
    """The minimums for one language, raised until at most `budget` edits of its clean code reach them."""
    found = sorted(
        (score - common[code], score, code)
        for code in common
        for score, one in ranked[code].clean
        if one == language and score >= common[code]
    )
    own = dict(common)
    for _, score, code in found[: max(0, len(found) - budget)]:
        own[code] = max(own[code], score + 1e-3)
    return own


def clean_lines(samples: Sequence[Sample]) -> Counter[str]:
    """Lines of code without bugs near, by language."""
    found: Counter[str] = Counter()
    for one in samples:
        found[language_group(one.language) or ""] += one.lines
    return found


def fit_all(samples: Sequence[Sample]) -> dict[str, Threshold]:
    """A model for every kind that needs one, with MIN_RIGHT fixes that the judge read."""
    kinds = [code for code in KINDS if code not in STRUCTURAL]
    right: dict[str, list[EditEvidence]] = {code: [] for code in kinds}
    wrong: dict[str, list[EditEvidence]] = {code: [] for code in kinds}
    for sample in samples:
        for one in sample.candidates:
            if one.candidate.edit.code in wrong:
                wrong[one.candidate.edit.code].append(one.candidate.evidence)
        for bug in sample.bugs or ():
            if bug.right is not None and bug.code in right:
                right[bug.code].append(bug.candidates[bug.right].candidate.evidence)
    everything = [[one for members in part.values() for one in members] for part in (right, wrong)]
    if len(everything[0]) < MIN_RIGHT:
        return {}
    common = fit(everything[0], everything[1])
    spread = _values([*everything[0], *everything[1]]).std(0)
    return {
        code: fit(right[code], wrong[code], common, KIND_PENALTY, spread)
        for code in kinds
        if len(right[code]) >= MIN_RIGHT
    }


def unseen_scores(samples: Sequence[Sample]) -> dict[str, Scores]:
    """Cross-validated scores by kind: each project is ranked by models fitted on projects of other folds."""
    fitted = fit_all(samples)
    folds: defaultdict[int, list[Sample]] = defaultdict(list)
    for one in samples:
        folds[hashlib.sha256(one.project.encode()).digest()[1] % FOLDS].append(one)
    parts: dict[str, list[Scores]] = {code: [] for code in fitted}
    for number, inside in folds.items():
        others = fit_all([one for other, members in folds.items() if other != number for one in members])
        for code, threshold in fitted.items():
            parts[code].append(scores(others.get(code, threshold), code, inside))
    found = {}
    for code, of_folds in parts.items():
        clean = sorted((score for part in of_folds for score in part.clean), reverse=True)
        right = [score for part in of_folds for score in part.found]
        found[code] = Scores(clean, right, sum(part.bugs for part in of_folds))
    return found


def training_figures(thresholds: Thresholds, samples: Sequence[Sample]) -> dict[str, Any]:
    """The size of the training data and the cross-validated results on it, to be stored with the thresholds."""
    kinds, unseen = {}, unseen_scores(samples)
    for code, threshold in thresholds.kinds.items():
        ranked = unseen[code]
        least = min(threshold.minimums.values(), default=NEVER)
        kinds[code] = {
            "bugs": ranked.bugs,
            "found": round(ranked.recall(least), 3),
            "false_positives": ranked.false_positives(least),
        }
    bugs = sum(len(sample.bugs or ()) for sample in samples)
    return {"lines": dict(clean_lines(samples)), "bugs": bugs, "kinds": kinds}


def _of_kind(found: Sequence[Found], code: str) -> list[Found]:
    return [one for one in found if one.candidate.edit.code == code]


@errors_to_exit_codes
def main(
    samples: Annotated[list[Path], typer.Option(help="File of samples; repeatable.")],
    model: Annotated[str, typer.Option(help="Name of the model that judged them.")] = "coder",
    false_positives: Annotated[
        float, typer.Option(help="Maximum number of findings of all kinds in 1,000 lines of clean code.")
    ] = 0.5,
    on_by_default: Annotated[
        bool, typer.Option("--on-by-default", help="Show findings in editors to users who did not switch lint on.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the figures, store nothing.")] = False,
) -> None:
    """Fit the lint thresholds of a model and store them."""
    read = [one for file in samples for one in read_samples(file)]
    thresholds = Thresholds(learn(read, false_positives), on_by_default)
    measured = {
        "projects": len({one.project for one in read}),
        "false_positives_per_1000_lines": false_positives,
        **training_figures(thresholds, read),
    }
    Console(highlight=False).print_json(json.dumps(measured))
    if not dry_run:
        thresholds.write(model, measured)


if __name__ == "__main__":
    typer.run(main)
