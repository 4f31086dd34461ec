"""Quality by the number of tokens that a masked model fills in a pass, on held-out projects.

`python -m bench.quality.masked_steps --model FOLDER --corpus DIR` fills the same holes with 1, 2 and 4 tokens a pass,
and with all tokens whose probability reaches a threshold. Published for DreamOn, single-line HumanEval-Infilling: 92,
87 and 79 % at 1, 2 and 4. The weights must be real: with random ones, all rows are zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from bench.quality.baselines import Pipeline
from bench.quality.judge import Outcome, rows
from bench.quality.run import answer_all
from bench.report import Report, conditions
from engine.errors import InputError, UsageError
from engine.masked.config import MaskedSampling
from infill.cli.support import errors_to_exit_codes, load_completer
from infill.complete.completion import Completer
from infill.settings import Settings
from train.held_out import KINDS, Neighbourhood, cut_holes, for_judging, read_held_out

TOKENS = (1, 2, 4)
THRESHOLDS = (0.95, 0.9, 0.7)


def variants(completer: Completer) -> list[tuple[str, Completer]]:
    """A name and a pipeline for each way of filling; copies are left out, because they need no pass."""
    sampling = completer.model.sampling
    if not isinstance(sampling, MaskedSampling):
        raise UsageError(f"The model {completer.model.name} does not fill masks; give the folder of one that does.")
    found = [(f"{count} a pass", replace(sampling, tokens_per_step=count, threshold=None)) for count in TOKENS]
    found += [(f"above {share}", replace(sampling, tokens_per_step=1, threshold=share)) for share in THRESHOLDS]
    settings = replace(completer.settings, copy_drafts=False)
    return [(name, Completer(replace(completer.model, sampling=one), settings)) for name, one in found]


def table(outcomes: Sequence[Outcome]) -> tuple[list[str], list[list[str]]]:
    header = ["holes", "filled", "count", "exact (95 %)", "parses", "passes a hole", "tokens a pass", "ms a hole"]
    tokens = {
        (row.kind, row.method): sum(
            one.tokens for one in outcomes if one.method == row.method and row.kind in (one.kind, "all")
        )
        for row in rows(outcomes)
    }
    cells = []
    for row in rows(outcomes):
        low, high = row.interval
        passes = max(1e-9, row.steps * row.holes)
        cells.append(
            [
                row.kind, row.method, str(row.holes), f"{row.exact:.1%} ({low:.0%}–{high:.0%})", f"{row.parses:.0%}",
                f"{row.steps:.1f}", f"{tokens[row.kind, row.method] / passes:.1f}", f"{row.ms:.0f}",
            ]
        )  # fmt: skip
    return header, cells


@errors_to_exit_codes
def main(
    model: Annotated[str, typer.Option(help="Folder or hub ID of a masked model.")],
    corpus: Annotated[Path, typer.Option(help="Folder written by train.corpus.")],
    language: Annotated[str, typer.Option()] = "python",
    kind: Annotated[list[str] | None, typer.Option(help=f"Repeatable; {', '.join(KINDS)}. Default: line.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Holes per kind.")] = 100,
    exact: Annotated[bool, typer.Option(help="Compute everything again in every pass.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    write: Annotated[str | None, typer.Option(help="Name of the result files.")] = None,
) -> None:
    """Print quality by tokens a pass."""
    files = for_judging(read_held_out(corpus, [language]))
    completer = load_completer(Settings(model=model, exact=exact, device=device, min_confidence=0.0))
    if not isinstance(completer, Completer):
        raise UsageError(f"The model {model} does not fill masks; give the folder of one that does.")
    methods = [Pipeline(name, one) for name, one in variants(completer)]
    outcomes: list[Outcome] = []
    groups = [cut_holes(files, language, one, count, seed=1) for one in kind or ["line"]]
    answer_all(methods, groups, 1, Neighbourhood(files), completer, outcomes)
    if not outcomes:
        raise InputError("The held-out files have no hole of these kinds; choose other kinds.")
    header, cells = table(outcomes)
    what = {"model": model, "language": language, "holes": count, "exact": exact}
    notes = ["Published for DreamOn on single-line HumanEval-Infilling: 92, 87 and 79 % at 1, 2 and 4 tokens a pass."]
    figures = [asdict(row) for row in rows(outcomes)]
    at = conditions(completer.denoiser.device)
    report = Report("Masked models: quality by tokens a pass", {**at, **what}, header, cells, notes, figures)
    report.show()
    if write is not None:
        report.write(write)


if __name__ == "__main__":
    typer.run(main)
