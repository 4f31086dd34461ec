"""How well does a model fill holes in projects that it was not trained on?

`python -m bench.quality.run --corpus DIR` cuts holes into the held-out files of a corpus made by `train.corpus`, fills
them with the shipped pipeline and the baselines, and compares every answer with the original text. The holes are the
same for every model. Projects that `train.calibrate` learns from are left out; languages that have no other project
are listed under `calibrated`.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Sequence
from dataclasses import replace
from enum import StrEnum
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bench.quality.baselines import Causal, Copy, FixedLength, Method, Pipeline, Question, TrueLength
from bench.quality.judge import Outcome, judge
from bench.quality.report import QualityReport
from bench.report import json_text
from engine.errors import InputError, UsageError
from infill.cli.support import INTERRUPTED, errors_to_exit_codes, load_completer
from infill.code.languages import LANGUAGES as KNOWN_LANGUAGES
from infill.complete.completion import Completer
from infill.complete.pipeline import AnyCompleter
from infill.model_store import resolve
from infill.settings import Settings
from train.held_out import (
    KINDS,
    LANGUAGES,
    HeldOutHole,
    Neighbourhood,
    cut_holes,
    for_judging,
    is_for_calibration,
    read_held_out,
)

CANVAS_ALONE = "canvas alone"


class Baseline(StrEnum):
    """The baselines of the pipeline."""

    copy = "copy"
    causal = "causal"
    true_length = "true-length"
    fixed_length = "fixed-length"


def pipeline_name(settings: Settings) -> str:
    """The name of the pipeline in tables, by its sources of candidates."""
    if not settings.copy_drafts and not settings.causal_draft:
        return CANVAS_ALONE
    if settings.copy_drafts and settings.causal_draft:
        return "pipeline"
    return "canvas and copies" if settings.copy_drafts else "canvas and draft"


def methods(
    completer: AnyCompleter, baselines: Sequence[Baseline], neighbours: bool, compare_neighbours: bool
) -> list[Method]:
    """The pipeline first. The length baselines are compared with the canvas alone, so they add that method.

    Raises InputError for a baseline that needs a denoiser, if the model has none.
    """

    def diffusion() -> Completer:
        if not isinstance(completer, Completer):
            raise InputError(f"The model {completer.model.name} has no denoiser; only --baseline copy works with it.")
        return completer

    def alone() -> Completer:
        completer = diffusion()
        return Completer(completer.model, replace(completer.settings, copy_drafts=False, causal_draft=False))

    name = pipeline_name(completer.settings)
    chosen: list[Method] = [Pipeline(name, completer, neighbours)]
    if compare_neighbours:
        words = "without neighbours" if neighbours else "with neighbours"
        chosen.append(Pipeline(f"{name} {words}", completer, not neighbours))
    if name != CANVAS_ALONE and {Baseline.true_length, Baseline.fixed_length} & {*baselines}:
        chosen.append(Pipeline(CANVAS_ALONE, alone(), neighbours))
    for baseline in dict.fromkeys(baselines):
        if baseline is Baseline.copy:
            chosen.append(Copy(neighbours))
        elif baseline is Baseline.causal:
            chosen.append(Causal(diffusion(), neighbours))
        elif baseline is Baseline.true_length:
            chosen.append(TrueLength(alone(), neighbours))
        else:
            chosen.append(FixedLength(alone(), neighbours))
    return chosen


def batches(groups: Sequence[Sequence[HeldOutHole]], size: int) -> Iterator[Sequence[HeldOutHole]]:
    """At most `size` holes of one language and kind at a time. The groups take turns, so that an interrupted run is a
    fair sample."""
    cut = [[group[at : at + size] for at in range(0, len(group), size)] for group in groups]
    for turn in zip_longest(*cut):
        yield from (batch for batch in turn if batch)


def answer_all(
    chosen: Sequence[Method],
    groups: Sequence[Sequence[HeldOutHole]],
    size: int,
    neighbourhood: Neighbourhood,
    completer: AnyCompleter,
    outcomes: list[Outcome],
) -> bool:
    """Adds the outcomes of all methods to `outcomes`, batch by batch. Returns False if Ctrl-C interrupted it."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("holes", total=sum(map(len, groups)))
        try:
            for batch in batches(groups, size):
                progress.update(task, description=f"{batch[0].language}, {batch[0].kind}")
                outcomes += _judged(chosen, batch, neighbourhood, completer)
                progress.advance(task, len(batch))
        except KeyboardInterrupt:
            return False
    return True


def _judged(
    chosen: Sequence[Method], batch: Sequence[HeldOutHole], neighbourhood: Neighbourhood, completer: AnyCompleter
) -> list[Outcome]:
    found = []
    for method in chosen:
        if batch[0].kind not in method.kinds:
            continue
        questions = [Question.of(hole, neighbourhood.of(hole) if method.neighbours else ()) for hole in batch]
        for hole, attempt in zip(batch, method.fill(questions), strict=True):
            found.append(judge(method.name, hole, attempt, completer.family.tokens))
    return found


def weights_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of the weight files according to SHA256SUMS in the model folder; empty without that file."""
    sums = folder / "SHA256SUMS"
    entries = [line.split(maxsplit=1) for line in sums.read_text("utf-8").splitlines()] if sums.is_file() else []
    return {name.strip(): digest for digest, name in entries if name.strip().endswith(".safetensors")}


def _checked(languages: Sequence[str], kinds: Sequence[str], files: Sequence[Path | None]) -> None:
    """Raises now for input that would fail only after the work."""
    for name, known in ((language, KNOWN_LANGUAGES) for language in languages):
        if name not in known:
            raise UsageError(f"There is no language {name!r}; choose from {', '.join(known)}.")
    for kind in kinds:
        if kind not in KINDS:
            raise UsageError(f"There is no kind of hole {kind!r}; choose from {', '.join(KINDS)}.")
    for file in files:
        if file is not None and not file.absolute().parent.is_dir():
            raise InputError(
                f"{file} cannot be written because there is no folder {file.absolute().parent}; create it first."
            )


@errors_to_exit_codes
def main(
    corpus: Annotated[Path, typer.Option(help="Folder written by train.corpus.")],
    model: Annotated[str, typer.Option(help="Model to judge: name, hub id or folder.")] = "pocket",
    language: Annotated[
        list[str] | None, typer.Option(help=f"Repeatable; {', '.join(LANGUAGES)}, or all. Default: python.")
    ] = None,
    kind: Annotated[list[str] | None, typer.Option(help=f"Repeatable; {', '.join(KINDS)}. Default: all.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Holes per kind and language.")] = 100,
    seed: Annotated[int, typer.Option(help="Seed for choosing holes.")] = 1,
    batch: Annotated[int, typer.Option(min=1, help="Holes per batch; 1 measures single requests.")] = 8,
    copies: Annotated[bool, typer.Option(help="Use candidates copied from the context.")] = True,
    draft: Annotated[bool, typer.Option(help="Use candidates of the causal encoder.")] = True,
    neighbours: Annotated[bool, typer.Option(help="Send up to three other files of the project.")] = False,
    compare_neighbours: Annotated[bool, typer.Option(help="Also run the pipeline the other way.")] = False,
    baseline: Annotated[list[Baseline] | None, typer.Option(help="Repeatable; fills the same holes.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads at most.")] = 8,
    calibrate: Annotated[
        float | None, typer.Option(min=0, max=1, help="Find the lowest threshold with this precision.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Write conditions and tables as JSON.")] = None,
    outcomes_file: Annotated[
        Path | None, typer.Option("--outcomes", help="Write single outcomes as JSON lines.")
    ] = None,
    texts: Annotated[bool, typer.Option(help="Add the texts written and the truths to --outcomes.")] = False,
    markdown: Annotated[Path | None, typer.Option(help="Write the tables as Markdown.")] = None,
) -> None:
    """Judge a model on held-out projects."""
    names = [*dict.fromkeys(language or ["python"])]
    names = [*LANGUAGES] if names == ["all"] else names
    kinds = [*dict.fromkeys(kind or KINDS)]
    _checked(names, kinds, (output, outcomes_file, markdown))
    files = for_judging(read_held_out(corpus, names))
    completer = load_completer(Settings(model=model, copy_drafts=copies, causal_draft=draft, threads=threads))
    chosen = methods(completer, baseline or [], neighbours, compare_neighbours)
    groups = [cut_holes(files, name, one, count, seed) for name in names for one in kinds]
    outcomes: list[Outcome] = []
    finished = answer_all(chosen, groups, batch, Neighbourhood(files), completer, outcomes)
    if not outcomes and not finished:
        raise KeyboardInterrupt
    if not outcomes:
        raise InputError("The held-out files have no hole of these kinds; choose other kinds or languages.")
    conditions = {
        "model": model,
        "weights": weights_digests(resolve(model)),
        "seed": seed,
        "holes": count,
        "languages": names,
        "projects": len({file.project for file in files}),
        "calibrated": sorted({file.language for file in files if is_for_calibration(file.project)}),
        "kinds": kinds,
        "methods": [method.name for method in chosen],
        "neighbours": neighbours,
        "batch": batch,
        "steps": completer.model.sampling.max_steps if isinstance(completer, Completer) else None,
        "threshold": completer.min_confidence,
        "interrupted": not finished,
        **_versions(completer),
    }
    gap = FixedLength.name, CANVAS_ALONE, TrueLength.name
    report = QualityReport(conditions, outcomes, chosen[0].name, completer.min_confidence, gap, calibrate)
    report.show()
    if output is not None:
        output.write_text(json_text(report.summary()), "utf-8")
    if outcomes_file is not None:
        lines = (json.dumps(one) + "\n" for one in report.outcome_rows(texts))
        outcomes_file.write_text("".join(lines), "utf-8")
    if markdown is not None:
        markdown.write_text(report.markdown(), "utf-8")
    if not finished:
        raise typer.Exit(INTERRUPTED)


def _versions(completer: AnyCompleter) -> dict[str, Any]:
    decoder = completer.model.decoder
    return {
        "device": decoder.device.type,
        "dtype": str(decoder.model.kv_dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    typer.run(main)
