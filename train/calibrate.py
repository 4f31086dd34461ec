"""Learns from held-out projects how sure to be of a candidate, and from where on to show it; stores it with the model.

`python -m train.calibrate --corpus DIR/corpus --model FOLDER`. A logistic model over the evidence that the pipeline
collects (infill/complete/confidence.py), fitted on one half of the held-out projects; bench.quality.run judges on the other half.
Must not know how candidates are made.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from engine.checkpoints.export import write_checksums
from engine.errors import GessoError, InputError
from infill.cli.support import errors_to_exit_codes, load_completer
from infill.complete.completion import Completer
from infill.complete.confidence import Calibration, evidence_values
from infill.model_store import resolve
from infill.request import Evidence, Hole, InfillRequest, Lines
from infill.settings import Settings
from train.held_out import KINDS, HeldOutHole, Neighbourhood, cut_holes, is_for_calibration, read_held_out
from train.logistic import fit_logistic

console = Console(highlight=False)
NAMES = tuple(field.name for field in fields(Evidence))
BATCH = 8
LEAST_RIGHT = 30  # right candidates without which nothing can be learnt


@dataclass(frozen=True)
class Judged:
    """A candidate that passed all checks but the bar: of which hole, its evidence, whether it is what stood there."""

    hole: int
    evidence: Evidence
    exact: bool


def collect(completer: Completer, holes: Sequence[HeldOutHole], neighbourhood: Neighbourhood) -> list[Judged]:
    """All candidates for all holes; the completer's bar must be 0."""
    judged = []
    for start in track(range(0, len(holes), BATCH), "candidates", console=console, transient=True):
        group = holes[start : start + BATCH]
        requests = [_request(hole, neighbourhood) for hole in group]
        for index, (hole, result) in enumerate(zip(group, completer.complete_batch(requests), strict=True)):
            if isinstance(result, GessoError):
                continue
            for candidate in result.completions[0].candidates:
                if candidate.reason is None:
                    exact = candidate.text.strip() == hole.truth.strip()
                    judged.append(Judged(start + index, candidate.evidence, exact))
    return judged


def _request(hole: HeldOutHole, neighbourhood: Neighbourhood) -> InfillRequest:
    at = Hole(len(hole.before), len(hole.before))
    lines: Lines = "one" if hole.one_line else "block"
    text = hole.before + hole.after
    return InfillRequest(text, (at,), hole.language, hole.path, lines, neighbours=neighbourhood.of(hole))


def fit(judged: Sequence[Judged], penalty: float = 1.0) -> Calibration:
    """Logistic regression by LBFGS over standardized evidence with an L2 penalty; the weights are those of the evidence
    as it comes. Raises InputError where too few candidates were right."""
    if sum(one.exact for one in judged) < LEAST_RIGHT:
        raise InputError(f"Fewer than {LEAST_RIGHT} candidates were right, too few to learn from; take more holes.")
    x = torch.tensor([[*evidence_values(one.evidence).values()] for one in judged], dtype=torch.float64)
    y = torch.tensor([one.exact for one in judged], dtype=torch.float64)
    weights, intercept = fit_logistic(x, y, penalty)
    return Calibration(dict(zip(NAMES, weights, strict=True)), intercept)


def best_of_each_hole(judged: Sequence[Judged], calibration: Calibration) -> tuple[NDArray[Any], NDArray[Any]]:
    """(confidence, exact) of each hole's best candidate."""
    best: dict[int, tuple[float, bool]] = {}
    for one in judged:
        confidence = calibration.confidence(one.evidence)
        if confidence > best.get(one.hole, (-1.0, False))[0]:
            best[one.hole] = confidence, one.exact
    values = [*best.values()]
    return np.array([value for value, _ in values]), np.array([exact for _, exact in values])


def lowest_bar(confidence: NDArray[Any], exact: NDArray[Any], precision: float) -> float:
    """The lowest confidence from which on at least `precision` of all are exact; just above all where there is none."""
    order = np.argsort(-confidence)
    right = np.cumsum(exact[order]) / np.arange(1, len(order) + 1)
    reached = np.flatnonzero(right >= precision)
    return float(confidence[order][reached[-1]]) if len(reached) else float(confidence.max(initial=0.0)) + 1e-6


def store(folder: Path, calibration: Calibration, bar: float) -> None:
    """Into the model's config.json, with its checksum."""
    file = folder / "config.json"
    config = json.loads(file.read_text())
    gesso = config.setdefault("gesso", {})
    weights = {name: round(weight, 4) for name, weight in calibration.weights.items()}
    gesso["confidence"] = {"weights": weights, "intercept": round(calibration.intercept, 4)}
    gesso["min_confidence"] = round(bar, 3)
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    write_checksums(folder)


@errors_to_exit_codes
def main(
    corpus: Annotated[Path, typer.Option(help="Folder that train.corpus wrote.")],
    model: Annotated[str, typer.Option(help="Model to calibrate: a name or a folder.")] = "pocket",
    language: Annotated[list[str] | None, typer.Option(help="May be repeated; python by default.")] = None,
    count: Annotated[int, typer.Option(help="Holes of each kind and language.")] = 200,
    seed: Annotated[int, typer.Option(help="Choice of holes.")] = 7,
    precision: Annotated[float, typer.Option(help="Share of what is shown that is to be exact.")] = 0.5,
    threads: Annotated[int, typer.Option(help="Most CPU threads.")] = 8,
    dry: Annotated[bool, typer.Option("--dry", help="Show what would be stored.")] = False,
) -> None:
    """Fit the confidence of a model and its bar, and store them with it."""
    languages = language or ["python"]
    files = [file for file in read_held_out(corpus, languages) if is_for_calibration(file.project)]
    settings = Settings(model=model, min_confidence=0.0, threads=threads)
    completer = load_completer(settings)
    holes = [hole for name in languages for kind in KINDS for hole in cut_holes(files, name, kind, count, seed)]
    judged = collect(completer, holes, Neighbourhood(files))
    calibration = fit(judged)
    single = [one for one in judged if holes[one.hole].one_line]
    confidence, exact = best_of_each_hole(single, calibration)
    bar = lowest_bar(confidence, exact, precision)
    console.print(f"{len(judged)} candidates for {len(holes)} holes, {sum(one.exact for one in judged)} right")
    for name, weight in calibration.weights.items():
        console.print(f"  {name:12} {weight:+.3f}")
    shown = confidence >= bar
    console.print(
        f"bar {bar:.3f}: {shown.mean():.1%} of the single-line holes shown, {exact[shown].mean():.1%} of them exact; "
        f"best candidate exact: {exact.sum() / sum(hole.one_line for hole in holes):.1%}"
    )
    if not dry:
        store(resolve(model), calibration, bar)


if __name__ == "__main__":
    typer.run(main)
