"""How good is a model at filling holes in projects that it has not seen?

Cuts holes into the held-out files of a corpus of `train.corpus`, fills them with the shipped pipeline and with what it
is to be compared with, and judges every answer by what stood there. The holes are the same for every model. Projects
that train.calibrate learns from are left out; a language that has no others is named under `calibrated`.
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
from bench.quality.report import QualityReport, drawing_library
from engine.errors import InputError, UsageError
from infill.cli.support import INTERRUPTED, errors_to_exit_codes, load_completer
from infill.code.languages import LANGUAGES as KNOWN_LANGUAGES
from infill.complete.completion import Completer
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
    """What the pipeline can be compared with."""

    copy = "copy"
    causal = "causal"
    true_length = "true-length"
    fixed_length = "fixed-length"


def pipeline_name(settings: Settings) -> str:
    """What the tables call the pipeline with what is left of its sources."""
    if not settings.copy_drafts and not settings.causal_draft:
        return CANVAS_ALONE
    if settings.copy_drafts and settings.causal_draft:
        return "pipeline"
    return "canvas and copies" if settings.copy_drafts else "canvas and draft"


def methods(
    completer: Completer, baselines: Sequence[Baseline], neighbours: bool, compare_neighbours: bool
) -> list[Method]:
    """The pipeline first. Lengths are compared on what the canvas alone says, so then it is judged too."""

    def alone() -> Completer:
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
            chosen.append(Causal(completer, neighbours))
        elif baseline is Baseline.true_length:
            chosen.append(TrueLength(alone(), neighbours))
        else:
            chosen.append(FixedLength(alone(), neighbours))
    return chosen


def batches(groups: Sequence[Sequence[HeldOutHole]], size: int) -> Iterator[Sequence[HeldOutHole]]:
    """At most `size` holes of one language and kind at a time, in turns, so that what was done when it is stopped
    is a fair part of the whole."""
    cut = [[group[at : at + size] for at in range(0, len(group), size)] for group in groups]
    for turn in zip_longest(*cut):
        yield from (batch for batch in turn if batch)


def answer_all(
    chosen: Sequence[Method],
    groups: Sequence[Sequence[HeldOutHole]],
    size: int,
    neighbourhood: Neighbourhood,
    completer: Completer,
    outcomes: list[Outcome],
) -> bool:
    """Adds to `outcomes` batch by batch, each with the answers of all methods; False where Ctrl-C cut it short."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("holes", total=sum(map(len, groups)))
        try:
            for batch in batches(groups, size):
                progress.update(task, description=f"{batch[0].language}, {batch[0].kind}")
                outcomes += _answers(chosen, batch, neighbourhood, completer)
                progress.advance(task, len(batch))
        except KeyboardInterrupt:
            return False
    return True


def _answers(
    chosen: Sequence[Method], batch: Sequence[HeldOutHole], neighbourhood: Neighbourhood, completer: Completer
) -> list[Outcome]:
    found = []
    for method in chosen:
        if batch[0].kind not in method.kinds:
            continue
        questions = [Question.of(hole, neighbourhood.of(hole) if method.neighbours else ()) for hole in batch]
        for hole, answer in zip(batch, method.fill(questions), strict=True):
            found.append(judge(method.name, hole, answer, completer.family.tokens))
    return found


def weights_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of the weight files as SHA256SUMS of the model's folder has them; empty where it has none."""
    sums = folder / "SHA256SUMS"
    entries = [line.split(maxsplit=1) for line in sums.read_text("utf-8").splitlines()] if sums.is_file() else []
    return {name.strip(): digest for digest, name in entries if name.strip().endswith(".safetensors")}


def _checked(languages: Sequence[str], kinds: Sequence[str], files: Sequence[Path | None], plot: Path | None) -> None:
    """Raises before any work for what would fail after it."""
    for name, known in ((language, KNOWN_LANGUAGES) for language in languages):
        if name not in known:
            raise UsageError(f"There is no language {name!r}; known are {', '.join(known)}.")
    for kind in kinds:
        if kind not in KINDS:
            raise UsageError(f"There is no kind of hole {kind!r}; known are {', '.join(KINDS)}.")
    for file in files:
        if file is not None and not file.absolute().parent.is_dir():
            raise InputError(
                f"{file} cannot be written, for there is no folder {file.absolute().parent}; make it first."
            )
    if plot is not None:
        drawing_library(plot)


@errors_to_exit_codes
def main(
    corpus: Annotated[Path, typer.Option(help="Folder that train.corpus wrote.")],
    model: Annotated[str, typer.Option(help="Model to judge: a name, a hub id or a folder.")] = "pocket",
    language: Annotated[
        list[str] | None, typer.Option(help=f"May be repeated; python by default, {', '.join(LANGUAGES)}, or all.")
    ] = None,
    kind: Annotated[
        list[str] | None, typer.Option(help=f"May be repeated; all by default: {', '.join(KINDS)}.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Holes of each kind in each language.")] = 100,
    seed: Annotated[int, typer.Option(help="Choice of holes.")] = 1,
    batch: Annotated[int, typer.Option(min=1, help="Holes the pipeline fills together; 1 for times of requests.")] = 8,
    copies: Annotated[bool, typer.Option(help="Let drafts copied from context compete.")] = True,
    draft: Annotated[bool, typer.Option(help="Let what the causal encoder writes compete.")] = True,
    neighbours: Annotated[bool, typer.Option(help="Show up to three other files of the project.")] = False,
    compare_neighbours: Annotated[bool, typer.Option(help="The pipeline with and without neighbours.")] = False,
    baseline: Annotated[list[Baseline] | None, typer.Option(help="On the same holes too; may be repeated.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Most CPU threads to use.")] = 8,
    calibrate: Annotated[
        float | None, typer.Option(min=0, max=1, help="Find the lowest bar with this share of the shown right.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="JSON: conditions, tables, every outcome.")] = None,
    texts: Annotated[bool, typer.Option(help="Keep what was written and what stood there in the JSON.")] = False,
    markdown: Annotated[Path | None, typer.Option(help="The tables as Markdown.")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="The bar as a picture (.svg, .png, .pdf); needs matplotlib.")
    ] = None,
) -> None:
    """Judge a model on held-out projects."""
    names = [*dict.fromkeys(language or ["python"])]
    names = [*LANGUAGES] if names == ["all"] else names
    kinds = [*dict.fromkeys(kind or KINDS)]
    _checked(names, kinds, (output, markdown, plot), plot)
    files = for_judging(read_held_out(corpus, names))
    completer = load_completer(Settings(model=model, copy_drafts=copies, causal_draft=draft, threads=threads))
    chosen = methods(completer, baseline or [], neighbours, compare_neighbours)
    groups = [cut_holes(files, name, one, count, seed) for name in names for one in kinds]
    outcomes: list[Outcome] = []
    finished = answer_all(chosen, groups, batch, Neighbourhood(files), completer, outcomes)
    if not outcomes and not finished:
        raise KeyboardInterrupt
    if not outcomes:
        raise InputError("No hole of these kinds can be cut into the held-out files; ask for others.")
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
        "steps": completer.model.sampling.max_steps,
        "bar": completer.min_confidence,
        "interrupted": not finished,
        **_versions(completer),
    }
    gap = FixedLength.name, CANVAS_ALONE, TrueLength.name
    report = QualityReport(conditions, outcomes, chosen[0].name, completer.min_confidence, gap, calibrate)
    report.show()
    if output is not None:
        output.write_text(json.dumps(report.to_json(texts), indent=1) + "\n", "utf-8")
    if markdown is not None:
        markdown.write_text(report.markdown(), "utf-8")
    if plot is not None:
        report.plot(plot)
    if not finished:
        raise typer.Exit(INTERRUPTED)


def _versions(completer: Completer) -> dict[str, Any]:
    weight = completer.denoiser.model.embed_tokens.weight
    return {
        "device": weight.device.type,
        "dtype": str(weight.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    typer.run(main)
