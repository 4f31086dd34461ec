"""Fits a model's confidence and its threshold on held-out projects, and stores both in the model folder.

`python -m train.calibrate --corpus DIR/corpus --model FOLDER` fits a logistic regression over the evidence that the
pipeline collects (infill/complete/confidence.py) on half of the held-out projects; bench.quality.run measures on the
other half. Must not know how candidates are made.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
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
from infill.complete.code_model import CALIBRATIONS, is_code_model
from infill.complete.confidence import Calibration, evidence_values
from infill.complete.pipeline import AnyCompleter
from infill.model_store import absolute, resolve
from infill.request import Evidence, Hole, InfillRequest, Lines
from infill.settings import Settings
from train.held_out import KINDS, HeldOutHole, Neighbourhood, cut_holes, is_for_calibration, read_held_out
from train.logistic import fit_logistic

console = Console(highlight=False)
NAMES = tuple(field.name for field in fields(Evidence))
BATCH = 8
MIN_RIGHT = 30  # exact candidates needed for a fit


@dataclass(frozen=True)
class Judged:
    """A candidate that passed all checks except the threshold. hole: index of its hole. exact: equal to the truth."""

    hole: int
    evidence: Evidence
    exact: bool


def collect(
    completer: AnyCompleter, holes: Sequence[HeldOutHole], neighbourhood: Neighbourhood, file: Path | None = None
) -> list[Judged]:
    """All candidates for all holes. The completer's threshold must be 0.

    file: keeps them, a line for every BATCH holes, so that an interrupted run with the same holes continues.
    """
    batches = [] if file is None or not file.exists() else file.read_text("utf-8").splitlines()
    judged = [
        Judged(hole, Evidence(**evidence), exact) for batch in batches for hole, evidence, exact in json.loads(batch)
    ]
    for start in track(range(BATCH * len(batches), len(holes), BATCH), "candidates", console=console, transient=True):
        found = list(_judged(completer, holes[start : start + BATCH], start, neighbourhood))
        judged += found
        if file is not None:
            with file.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps([(one.hole, asdict(one.evidence), one.exact) for one in found]) + "\n")
    return judged


def _judged(
    completer: AnyCompleter, holes: Sequence[HeldOutHole], start: int, neighbourhood: Neighbourhood
) -> Iterator[Judged]:
    """The candidates for a batch of holes, which are numbered from `start`."""
    results = completer.complete_batch([_request(hole, neighbourhood) for hole in holes])
    for index, (hole, result) in enumerate(zip(holes, results, strict=True), start):
        if not isinstance(result, GessoError):
            for candidate in result.completions[0].candidates:
                if candidate.reason is None:
                    yield Judged(index, candidate.evidence, candidate.text.strip() == hole.truth.strip())


def _request(hole: HeldOutHole, neighbourhood: Neighbourhood) -> InfillRequest:
    at = Hole(len(hole.before), len(hole.before))
    lines: Lines = "one" if hole.one_line else "block"
    text = hole.before + hole.after
    return InfillRequest(text, (at,), hole.language, hole.path, lines, neighbours=neighbourhood.of(hole))


def fit(judged: Sequence[Judged], penalty: float = 1.0) -> Calibration:
    """Logistic regression with an L2 penalty. Raises InputError if too few candidates are right."""
    if sum(one.exact for one in judged) < MIN_RIGHT:
        raise InputError(f"Fewer than {MIN_RIGHT} candidates are right, which is too few for a fit; take more holes.")
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


def lowest_threshold(confidence: NDArray[Any], exact: NDArray[Any], precision: float) -> float:
    """The lowest threshold that shows at least a share `precision` of exact candidates; above all confidences if there
    is none."""
    order = np.argsort(-confidence)
    right = np.cumsum(exact[order]) / np.arange(1, len(order) + 1)
    reached = np.flatnonzero(right >= precision)
    return float(confidence[order][reached[-1]]) if len(reached) else float(confidence.max(initial=0.0)) + 1e-6


def store(name: str, calibration: Calibration, threshold: float) -> None:
    """Writes both into the model's config.json, and updates the checksums; for a code model, into CALIBRATIONS."""
    weights = {name: rounded for name, weight in calibration.weights.items() if (rounded := round(weight, 4))}
    confidence = {"weights": weights, "intercept": round(calibration.intercept, 4)}
    folder = resolve(absolute(name, Path()))
    if is_code_model(folder):
        stored = json.loads(CALIBRATIONS.read_text("utf-8"))
        stored[name] = {**confidence, "min_confidence": round(threshold, 3)}
        CALIBRATIONS.write_text(json.dumps(stored, indent=2, sort_keys=True) + "\n", "utf-8")
        return
    file = folder / "config.json"
    config = json.loads(file.read_text())
    gesso = config.setdefault("gesso", {})
    gesso["confidence"] = confidence
    gesso["min_confidence"] = round(threshold, 3)
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    write_checksums(folder)


@errors_to_exit_codes
def main(
    corpus: Annotated[Path, typer.Option(help="Folder written by train.corpus.")],
    model: Annotated[str, typer.Option(help="Model to calibrate: name or folder.")] = "pocket",
    language: Annotated[list[str] | None, typer.Option(help="Repeatable. Default: python.")] = None,
    count: Annotated[int, typer.Option(help="Holes per kind and language.")] = 200,
    seed: Annotated[int, typer.Option(help="Seed for choosing holes.")] = 7,
    precision: Annotated[float, typer.Option(help="Share of the shown candidates that should be exact.")] = 0.5,
    threads: Annotated[int, typer.Option(help="Maximum number of CPU threads.")] = 8,
    kept: Annotated[
        Path | None,
        typer.Option("--candidates", help="File that keeps the candidates; an interrupted run continues there."),
    ] = None,
    dry: Annotated[bool, typer.Option("--dry", help="Print the result without storing it.")] = False,
) -> None:
    """Fit a model's confidence and its threshold, and store them in its folder."""
    languages = language or ["python"]
    files = [file for file in read_held_out(corpus, languages) if is_for_calibration(file.project)]
    settings = Settings(model=model, min_confidence=0.0, threads=threads)
    completer = load_completer(settings)
    holes = [hole for name in languages for kind in KINDS for hole in cut_holes(files, name, kind, count, seed)]
    judged = collect(completer, holes, Neighbourhood(files), kept)
    calibration = fit(judged)
    single = [one for one in judged if holes[one.hole].one_line]
    confidence, exact = best_of_each_hole(single, calibration)
    threshold = lowest_threshold(confidence, exact, precision)
    console.print(f"{len(judged)} candidates for {len(holes)} holes, {sum(one.exact for one in judged)} right")
    for name, weight in calibration.weights.items():
        console.print(f"  {name:12} {weight:+.3f}")
    shown = confidence >= threshold
    console.print(
        f"threshold {threshold:.3f}: {shown.mean():.1%} of the one-line holes shown, {exact[shown].mean():.1%} of them "
        f"exact; best candidate exact: {exact.sum() / sum(hole.one_line for hole in holes):.1%}"
    )
    if not dry:
        store(model, calibration, threshold)


if __name__ == "__main__":
    typer.run(main)
