"""Learns from held-out projects which edits to believe, and from where on to show them; stores it with the model.

`python -m train.lint.thresholds --corpus DIR/corpus --model FOLDER`. For each kind a logistic model over the evidence
(infill/lint/evidence.py): edits that mend a seeded bug against edits of clean code. The bars are set on the clean code
alone, so that all kinds together are expected to raise at most `--false-alarms` a thousand lines; the alarms are given
to the kinds where they find most. bench.lint.run judges on the projects that nothing is learnt from here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from engine.checkpoints.export import write_checksums
from infill.cli.support import errors_to_exit_codes, load_completer
from infill.lint.kinds import KINDS
from infill.lint.linter import Judged, Linter
from infill.lint.thresholds import Bar, Bars, LintEvidence
from infill.model_store import resolve
from infill.settings import Settings
from train.held_out import is_for_calibration, read_held_out
from train.lint.samples import CleanSample, SeededSample, judge, kinds_of
from train.logistic import fit_logistic

NAMES = tuple(field.name for field in fields(LintEvidence))
LEAST_RIGHT = 8  # bugs that were looked at, without which a kind cannot be learnt
LEAST_WRONG = 50  # edits of clean code, with fewer of which those of other kinds are taken too
SURE = 0.95  # share of what is found that a bar keeps where clean code sets none
LEAST_RECALL = 0.05  # share of the seeded bugs that a kind must find to be shown
NEVER = 99.0  # log-odds that no edit reaches


def fit(
    right: Sequence[LintEvidence],
    wrong: Sequence[LintEvidence],
    borrowed: Sequence[LintEvidence] = (),
    penalty: float = 2.0,
) -> Bar:
    """Logistic regression by LBFGS over standardized evidence, L2 penalty; both classes weigh the same, and so do what
    is wrong of its own kind and what is `borrowed` from others."""
    groups = [group for group in (wrong, borrowed) if group]
    x = torch.tensor([[*one.values().values()] for group in (right, *groups) for one in group], dtype=torch.float64)
    y = torch.tensor([1.0] * len(right) + [0.0] * sum(map(len, groups)), dtype=torch.float64)
    shares = [len(right) / len(groups) / len(group) for group in groups for _ in group]
    weight = torch.tensor([1.0] * len(right) + shares, dtype=torch.float64)
    weights, intercept = fit_logistic(x, y, penalty, weight)
    return Bar(dict(zip(NAMES, weights, strict=True)), intercept, NEVER, False)


@dataclass(frozen=True)
class Scores:
    """Of one kind, log-odds: alarms, the best edit of each place of clean code, descending; found, of each seeded bug
    where the best edit of its function mends it; bugs: how many there were."""

    alarms: list[float]
    found: list[float]
    bugs: int

    def recall(self, least: float) -> float:
        return sum(score >= least for score in self.found) / max(1, self.bugs)


def scores(bar: Bar, code: str, clean: Sequence[CleanSample], seeded: Sequence[SeededSample]) -> Scores:
    """How `bar` ranks edits of its kind."""
    alarms: list[float] = []
    for sample in clean:
        places: dict[tuple[int, int], float] = {}
        for one in _of(sample.judged, code):
            place = one.edit.start, one.edit.end
            places[place] = max(places.get(place, -math.inf), bar.odds(one.evidence))
        alarms += places.values()
    own = [sample for sample in seeded if sample.bug.code == code]
    found = []
    for bug in own:
        judged = [one for one in _of(bug.judged, code) if bug.is_near(one)]
        best = max(judged, key=lambda one: bar.odds(one.evidence), default=None)
        if best is not None and bug.is_right(best):
            found.append(bar.odds(best.evidence))
    return Scores(sorted(alarms, reverse=True), found, len(own))


def set_bars(ranked: Mapping[str, Scores], alarms: int) -> dict[str, float]:
    """For each kind the lowest log-odds to show, NEVER where it is to stay off. `alarms`, which new code of the same
    size is expected to raise, are handed out to the kinds that find most bugs for each alarm they need for it.

    A bar that k places of clean code clear lies above the (k+1)-th best of them, so on new code k+1 are expected to
    clear it (order statistics): a kind that raised none is not free of alarms.
    """
    spent = dict.fromkeys(ranked, 0)
    while True:
        best: tuple[float, str, int] | None = None
        for code, own in ranked.items():
            for more in range(1, alarms - sum(spent.values()) + 1):
                gain = own.recall(_least(own, spent[code] + more)) - own.recall(_least(own, spent[code]))
                if gain > 0 and (best is None or gain / more > best[0]):
                    best = gain / more, code, more
        if best is None:
            return {code: _least(own, spent[code]) for code, own in ranked.items()}
        spent[best[1]] += best[2]


def _least(own: Scores, expected: int) -> float:
    """The bar that `expected` places of new clean code will clear, with a little room; never so low that it lets
    through the most doubtful of what is found."""
    if expected == 0 or not own.found:
        return NEVER
    sure = sorted(own.found)[int((1 - SURE) * len(own.found))]
    return max(own.alarms[expected - 1] + 1e-3, sure) if expected <= len(own.alarms) else sure


def learn(clean: Sequence[CleanSample], seeded: Sequence[SeededSample], per_thousand: float) -> dict[str, Bar]:
    """A bar for every kind that could be learnt; shown are those that find at least LEAST_RECALL of their bugs."""
    ranked: dict[str, Scores] = {}
    bars: dict[str, Bar] = {}
    for code in KINDS:
        bar = _fitted(code, clean, seeded)
        if bar is not None:
            bars[code] = bar
            ranked[code] = unseen_scores(bar, code, clean, seeded)
    alarms = int(per_thousand * sum(sample.lines for sample in clean) / 1000)
    for code, least in set_bars(ranked, alarms).items():
        useful = ranked[code].recall(least) >= LEAST_RECALL
        bars[code] = Bar(bars[code].weights, bars[code].intercept, least, useful)
    return bars


def _fitted(code: str, clean: Sequence[CleanSample], seeded: Sequence[SeededSample]) -> Bar | None:
    """None where too few bugs were looked at. Where clean code has hardly an edit of the kind, those of the
    others stand for what is wrong too."""
    own = [sample for sample in seeded if sample.bug.code == code]
    right = [one.evidence for bug in own for one in _of(bug.judged, code) if bug.is_right(one)]
    wrong = [one.evidence for sample in clean for one in _of(sample.judged, code)]
    others: list[LintEvidence] = []
    if len(wrong) < LEAST_WRONG:
        others = [one.evidence for sample in clean for one in sample.judged if one.edit.code != code]
    return fit(right, wrong, others) if len(right) >= LEAST_RIGHT else None


def unseen_scores(bar: Bar, code: str, clean: Sequence[CleanSample], seeded: Sequence[SeededSample]) -> Scores:
    """How edits are ranked by bars that did not see their project: each project by a fit of all others. `bar` ranks
    where that leaves too few bugs to fit."""
    projects = {one.file.project for one in clean} | {one.file.project for one in seeded}
    parts = []
    for project in sorted(projects):
        fitted = _fitted(
            code,
            [one for one in clean if one.file.project != project],
            [one for one in seeded if one.file.project != project],
        )
        own_clean = [one for one in clean if one.file.project == project]
        own_seeded = [one for one in seeded if one.file.project == project]
        parts.append(scores(fitted or bar, code, own_clean, own_seeded))
    alarms = sorted((alarm for part in parts for alarm in part.alarms), reverse=True)
    return Scores(alarms, [found for part in parts for found in part.found], sum(part.bugs for part in parts))


def in_figures(bars: Bars, clean: Sequence[CleanSample], seeded: Sequence[SeededSample]) -> dict[str, Any]:
    """What the bars were learnt from and what they do there: to be stored beside them."""
    kinds = {}
    for code, bar in bars.bars.items():
        ranked = scores(bar, code, clean, seeded)
        alarms = sum(score >= bar.least for score in ranked.alarms)
        kinds[code] = {"bugs": ranked.bugs, "found": round(ranked.recall(bar.least), 3), "alarms": alarms}
    return {"lines": sum(sample.lines for sample in clean), "bugs": len(seeded), "kinds": kinds}


def _of(judged: Sequence[Judged], code: str) -> list[Judged]:
    return [one for one in judged if one.edit.code == code]


@errors_to_exit_codes
def main(
    corpus: Annotated[Path, typer.Option(help="Folder that train.corpus wrote.")],
    model: Annotated[str, typer.Option(help="Model to learn for: a name or a folder.")] = "pocket",
    language: Annotated[list[str] | None, typer.Option(help="May be repeated; python by default.")] = None,
    lines: Annotated[int, typer.Option(min=1000, help="Lines of clean code.")] = 20_000,
    count: Annotated[int, typer.Option(min=LEAST_RIGHT, help="Bugs of each kind.")] = 120,
    false_alarms: Annotated[
        float, typer.Option(help="Most in 1,000 lines of clean code, expected of all kinds together.")
    ] = 0.5,
    kind: Annotated[list[str] | None, typer.Option(help="A kind to look for; may be repeated; all by default.")] = None,
    samples: Annotated[
        Path | None, typer.Option(help="A file of your own where what was judged is kept, and taken from again.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Choice of files and bugs.")] = 7,
    threads: Annotated[int, typer.Option(min=1, help="Most CPU threads.")] = 8,
    unasked: Annotated[
        bool, typer.Option("--unasked", help="The findings are good enough to be shown to those who did not ask.")
    ] = False,
    dry: Annotated[bool, typer.Option("--dry", help="Show what would be stored.")] = False,
) -> None:
    """Fit the bars of a model's lint, and store them with it."""
    languages = language or ["python"]
    files = [file for file in read_held_out(corpus, languages) if is_for_calibration(file.project)]
    linter = Linter(load_completer(Settings(model=model, threads=threads)))
    judged = judge(linter, files, lines, count, seed, kinds_of(kind), samples)
    clean, seeded = judged.clean, judged.seeded
    bars = Bars(learn(clean, seeded, false_alarms), frozenset(languages), unasked)
    measured = {"projects": len({file.project for file in files}), "false_alarms": false_alarms, "seed": seed}
    measured |= in_figures(bars, clean, seeded)
    Console(highlight=False).print_json(json.dumps(measured))
    if not dry:
        folder = resolve(model)
        bars.write(folder, measured)
        write_checksums(folder)


if __name__ == "__main__":
    typer.run(main)
