"""How good is a model's lint? Seeded bugs and clean code of projects that neither it nor its bars were learnt from.

`python -m bench.lint.run --corpus DIR/corpus`. What is found and rightly mended, kind by kind; false alarms on clean code;
precision where one function in a hundred has a bug; the same along the bar; against methods without the model or
without what was learnt, each with as many false alarms; and the time it takes.
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

from bench.quality.run import weights_digests
from bench.report import RESULTS, Report, Spread, conditions
from engine.errors import InputError
from infill.cli.support import errors_to_exit_codes, load_completer
from infill.code.syntax import parse
from infill.findings import LintRequest
from infill.lint.edits import find_edits
from infill.lint.evidence import LintEvidence
from infill.lint.habits import Habit, Habits
from infill.lint.hidden import Hidden
from infill.lint.kinds import KINDS, Edit
from infill.lint.linter import Judged, Linter
from infill.lint.survey import Survey
from infill.model_store import resolve
from infill.settings import Settings
from train.held_out import for_judging, is_for_calibration, read_held_out
from train.lint.samples import CleanSample, SeededSample, judge, kinds_of
from train.lint.thresholds import scores

RATE = 0.01  # bugs a function
EASIER = (-2.0, -1.0, 0.0, 1.0, 2.0, 3.0)  # log-odds by which all bars are lowered
HEADER = ("kind", "shown", "bugs", "looked at", "found", "right fix", "alarms", "per 1,000 lines", "precision")


@dataclass(frozen=True)
class Measured:
    """Of one kind, or of all together. found: a finding touched the bug; right: and mended it."""

    bugs: int
    looked: int
    found: int
    right: int
    alarms: int
    lines: int
    functions: int

    @property
    def recall(self) -> float:
        return self.found / self.bugs if self.bugs else 0.0

    @property
    def per_thousand(self) -> float:
        return 1000 * self.alarms / max(1, self.lines)

    @property
    def precision(self) -> float | None:
        """Share of what is shown that touches a bug, where RATE of the functions have one (of these kinds alike)."""
        right, wrong = RATE * self.recall, self.alarms / max(1, self.functions)
        return right / (right + wrong) if right + wrong else None


def measure(
    linter: Linter, clean: Sequence[CleanSample], seeded: Sequence[SeededSample], easier: float = 0.0
) -> dict[str, Measured]:
    """By kind, and under `all` for all the kinds that are shown."""
    lines, functions = sum(one.lines for one in clean), sum(one.functions for one in clean)
    alarms = dict.fromkeys(KINDS, 0)
    for sample in clean:
        for shown in linter.select(_request(sample), sample.judged, easier):
            alarms[shown.edit.code] += 1
    rows: dict[str, Measured] = {}
    for code in KINDS:
        own = [sample for sample in seeded if sample.bug.code == code]
        found = right = 0
        for bug in own:
            near = [one for one in linter.select(_seeded_request(bug), bug.judged, easier) if bug.is_near(one)]
            found += bool(near)
            right += any(bug.is_right(one) for one in near)
        looked = sum(any(bug.is_right(one) for one in bug.judged) for bug in own)
        rows[code] = Measured(len(own), looked, found, right, alarms[code], lines, functions)
    shown_rows = [row for code, row in rows.items() if code in linter.shown]

    def total(name: str) -> int:
        return sum(getattr(row, name) for row in shown_rows)

    together = Measured(
        total("bugs"), total("looked"), total("found"), total("right"), total("alarms"), lines, functions
    )
    return {**rows, "all": together}


@dataclass(frozen=True)
class Baseline:
    """Ranks edits without bars: found and right of the seeded bugs of `codes`, with `alarms` on the clean code."""

    name: str
    found: int
    right: int
    bugs: int
    alarms: int


Rated = list[tuple[float, Edit]]


def baseline(
    name: str,
    clean: Sequence[CleanSample],
    seeded: Sequence[SeededSample],
    alarms: int,
    rate: Callable[[CleanSample | SeededSample], Rated],
) -> Baseline:
    """With the bar that gives as many alarms on this same clean code: the best that the ranking can do here."""
    worst = sorted((score for one in clean for score in _best_of_places(rate(one)).values()), reverse=True)
    least = worst[alarms] if alarms < len(worst) else -math.inf
    found = right = 0
    for bug in seeded:
        near = [(score, edit) for score, edit in rate(bug) if bug.is_near(Judged(edit, LintEvidence()))]
        score, best = max(near, key=lambda pair: pair[0], default=(-math.inf, None))
        if best is not None and score > least:
            found += 1
            right += bug.is_right(Judged(best, LintEvidence()))
    return Baseline(name, found, right, len(seeded), alarms)


def easier_for(linter: Linter, clean: Sequence[CleanSample], alarms: int) -> float:
    """By how many log-odds all bars can be lowered for at most `alarms` on the clean code, to a twentieth."""

    def raised(easier: float) -> int:
        return sum(len(linter.select(_request(sample), sample.judged, easier)) for sample in clean)

    low, high = EASIER[0], 2 * EASIER[-1]
    while high - low > 0.05:
        middle = (low + high) / 2
        low, high = (middle, high) if raised(middle) <= alarms else (low, middle)
    return low


def alone(
    linter: Linter, clean: Sequence[CleanSample], seeded: Sequence[SeededSample], alarms: int
) -> dict[str, float]:
    """Share of the bugs of each shown kind that it would rightly mend, were it given all the `alarms`, and its bar
    chosen on this very code."""
    assert linter.bars is not None
    found = {}
    for code in sorted(linter.shown):
        ranked = scores(linter.bars.bars[code], code, clean, seeded)
        least = ranked.alarms[alarms] + 1e-3 if alarms < len(ranked.alarms) else -math.inf
        found[code] = ranked.recall(least)
    return found


def _best_of_places(rated: Rated) -> dict[tuple[int, int], float]:
    best: dict[tuple[int, int], float] = {}
    for score, edit in rated:
        place = edit.start, edit.end
        best[place] = max(best.get(place, -math.inf), score)
    return best


def by_evidence(score: Callable[[LintEvidence], float], codes: frozenset[str]) -> Callable[[Any], Rated]:
    """Rates what the linter looked at by a plain formula over its evidence."""

    def rate(sample: CleanSample | SeededSample) -> Rated:
        return [(score(one.evidence), one.edit) for one in sample.judged if one.edit.code in codes]

    return rate


def by_counting(codes: frozenset[str]) -> Callable[[Any], Rated]:
    """Rates every edit without a model: a name that stands there once, and word pairs that the file has or has not."""

    def score(habit: Habit) -> float:
        return habit.habit + 2 * habit.lonely - habit.defined + habit.unused

    def rate(sample: CleanSample | SeededSample) -> Rated:
        request = _request(sample) if isinstance(sample, CleanSample) else _seeded_request(sample)
        tree = parse(request.text, request.language)
        assert tree is not None
        survey = Survey(tree)
        habits = Habits(survey)
        edits = find_edits(tree, survey, request.ranges or ((0, len(request.text)),))
        return [(score(habits.of(edit)), edit) for edit in edits if edit.code in codes]

    return rate


def by_masking(linter: Linter, codes: frozenset[str]) -> Callable[[Any], Rated]:
    """Rates what the linter looked at by the denoiser alone, the place hidden."""
    completer = linter.completer
    hidden = Hidden(completer.denoiser, completer.family, completer.model.sampling)

    def rate(sample: CleanSample | SeededSample) -> Rated:
        request = _request(sample) if isinstance(sample, CleanSample) else _seeded_request(sample)
        edits = [one.edit for one in sample.judged if one.edit.code in codes]
        rated: Rated = []
        for at in range(0, len(edits), 8):
            batch = edits[at : at + 8]
            rated += zip(hidden.gains(request, batch), batch, strict=True)
        return rated

    return rate


def _request(sample: CleanSample | SeededSample) -> LintRequest:
    return LintRequest(sample.file.text, sample.file.language, sample.file.path)


def _seeded_request(sample: SeededSample) -> LintRequest:
    return LintRequest(sample.bug.text, sample.file.language, sample.file.path, (sample.bug.scope,))


def _row(name: str, shown: bool, one: Measured) -> list[str]:
    precision = "" if one.precision is None or not shown else f"{one.precision:.0%}"
    share = f"{one.right / one.found:.0%}" if one.found else ""
    found = f"{one.recall:.0%}" if one.bugs else ""
    looked = f"{one.looked / one.bugs:.0%}" if one.bugs else ""
    alarms = [str(one.alarms), f"{one.per_thousand:.2f}"] if shown else ["", ""]
    return [name, "yes" if shown else "no", str(one.bugs), looked, found if shown else "", share, *alarms, precision]


def _curve_words(curve: dict[float, Measured]) -> str:
    points = [f"{one.per_thousand:.2f} alarms, {one.recall:.0%} found" for one in curve.values()]
    return f"Along the bar, {EASIER[0]:+g} to {EASIER[-1]:+g} log-odds easier, per 1,000 lines: {'; '.join(points)}."


def _baseline_words(one: Baseline) -> str:
    return f"{one.name}: {one.found / one.bugs:.0%} found, {one.right / one.bugs:.0%} rightly mended."


def judged_report(
    linter: Linter,
    clean: Sequence[CleanSample],
    seeded: Sequence[SeededSample],
    known: Mapping[str, Any],
    masked: bool,
) -> Report:
    """What the samples say of the linter and of the baselines. known: conditions to be named with it."""
    rows = measure(linter, clean, seeded)
    curve = {easier: measure(linter, clean, seeded, easier)["all"] for easier in EASIER}
    shown = linter.shown
    bugs = [bug for bug in seeded if bug.bug.code in shown]
    rankings: dict[str, Callable[[Any], Rated]] = {
        "Counting alone, no model": by_counting(shown),
        "Gain by the text before, one scale for all kinds": by_evidence(lambda one: one.own, shown),
        "Gain of the whole, one scale for all kinds": by_evidence(lambda one: one.gain, shown),
    }
    if masked:
        rankings["The denoiser alone with the place hidden"] = by_masking(linter, shown)
    ours = rows["all"]
    alarms = max(ours.alarms, ours.lines // 1000)
    easier = easier_for(linter, clean, alarms)
    eased = measure(linter, clean, seeded, easier)["all"]
    kinds = alone(linter, clean, seeded, ours.lines // 1000)
    console = Console(stderr=True)
    plain = [
        baseline(name, clean, bugs, alarms, rate)
        for name, rate in track(rankings.items(), "baselines", console=console, transient=True)
    ]
    total = sum(one.seconds for one in clean)
    functions = Spread.of([1000 * one.seconds for one in seeded] or [0.0])
    notes = [
        "looked at: the right edit was among those that the model read. found: a finding touched the bug; right fix: "
        "of these, it made the code what it was. precision: of what is shown, touching a bug, where one function in a "
        "hundred has one, all kinds alike.",
        _curve_words(curve),
        f"With {alarms} alarms, bars chosen on this very code: ours {eased.recall:.0%} found, "
        f"{eased.right / max(1, eased.bugs):.0%} rightly mended. " + " ".join(_baseline_words(one) for one in plain),
        f"Rightly mended by a kind that is given one alarm in 1,000 lines for itself: "
        f"{', '.join(f'{code} {share:.0%}' for code, share in kinds.items())}.",
        f"Time: {1000 * total / max(1, ours.lines) * 1000:,.0f} ms per 1,000 lines, {functions} ms a function.",
    ]
    conditions_of_all = {
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
        "curve": {str(easier): vars(one) for easier, one in curve.items()},
        "eased": {"easier": easier, **vars(eased)},
        "baselines": [vars(one) for one in plain],
        "alone": kinds,
        "seconds_per_1000_lines": 1000 * total / max(1, ours.lines),
        "function_ms": functions.to_json() | {"samples": len(seeded)},
    }
    table = [_row(code, code in shown, rows[code]) for code in KINDS if rows[code].bugs] + [
        _row("all shown", True, ours)
    ]
    content = json.loads(json.dumps(figures))
    return Report("Lint of held-out projects", conditions_of_all, HEADER, table, notes, content)


@errors_to_exit_codes
def main(
    corpus: Annotated[Path, typer.Option(help="Folder that train.corpus wrote.")],
    model: Annotated[str, typer.Option(help="Model to judge: a name, a hub id or a folder.")] = "pocket",
    language: Annotated[str, typer.Option(help="Language of the held-out files.")] = "python",
    lines: Annotated[int, typer.Option(min=100, help="Lines of clean code.")] = 10_000,
    count: Annotated[int, typer.Option(min=1, help="Bugs of each kind.")] = 60,
    kind: Annotated[list[str] | None, typer.Option(help="A kind to look for; may be repeated; all by default.")] = None,
    samples: Annotated[
        Path | None, typer.Option(help="A file of your own where what was judged is kept, and taken from again.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Choice of files and bugs.")] = 1,
    masked: Annotated[bool, typer.Option(help="Compare with the denoiser alone; slow.")] = False,
    threads: Annotated[int, typer.Option(min=1, help="Most CPU threads.")] = 8,
    write: Annotated[bool, typer.Option(help="Write bench/results/lint.json and lint.md.")] = False,
) -> None:
    """Judge a model's lint on held-out projects."""
    files = for_judging(read_held_out(corpus, [language]))
    linter = Linter(load_completer(Settings(model=model, threads=threads)))
    if not linter.can_lint:
        raise InputError(f"The model {model} has no bars to judge; learn some with `python -m train.lint.thresholds`.")
    judged = judge(linter, files, lines, count, seed, kinds_of(kind), samples)
    clean, seeded = judged.clean, judged.seeded
    report = judged_report(linter, clean, seeded, {"model": model, "language": language, "seed": seed}, masked)
    report.show()
    if write:
        report.write("lint", RESULTS)


if __name__ == "__main__":
    typer.run(main)
