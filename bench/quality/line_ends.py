"""A line hole of a model without null tokens gets a length from probing: what if that is wrong?

`python -m bench.quality.line_ends --corpus DIR` gives the pocket model the layout of such a model (no null token, so
lengths are probed) and compares ways out: none, where a hole that is too long must be filled; a line break inside the
hole ends the text; and the next shorter length as the second finalist. Must not know how a canvas is denoised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from bench.report import RESULTS, Report, conditions
from engine.canvas_run import DenoiseRequest, DenoiseResult
from infill.cli.support import load_completer
from infill.code.context import ShownContext
from infill.complete import hole_length
from infill.complete.completion import Completer
from infill.complete.hole_length import CanvasRunner, Probing
from infill.prompts.prompt import Family, HoleKind, LayoutPlan
from infill.request import Hole, InfillRequest
from infill.settings import Settings
from train.held_out import HeldOutHole, cut_holes, for_judging, read_held_out
from train.program import reports_errors

WAYS = ("none", "a line break ends it", "a shorter length", "both")


class WithoutNull:
    """A `Family` that lays out holes as `inner` does, without its null token. breaks: whether a hole of one line may
    hold line breaks."""

    null_token = None

    def __init__(self, inner: Family, breaks: bool) -> None:
        self.inner, self.breaks, self.null = inner, breaks, inner.null_token

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def plan(self, context: ShownContext, holes: Sequence[HoleKind], between: Sequence[str]) -> LayoutPlan:
        plan = self.inner.plan(context, holes, between)
        banned = {*plan.banned.tolist(), self.null}
        if self.breaks:
            banned -= {*self.inner.tokens.line_breaks}
        return replace(plan, banned=torch.tensor(sorted(banned)))


class EndingRunner(CanvasRunner):
    """Scores texts up to the first line break."""

    line_breaks: frozenset[int] = frozenset()

    def likelihoods(self, requests: Sequence[DenoiseRequest], results: Sequence[DenoiseResult]) -> list[float]:
        if not self.line_breaks:
            return super().likelihoods(requests, results)
        found = []
        for request, result in zip(requests, results, strict=True):
            first, end = int(result.columns[0]), int(result.columns[-1]) + 1
            tokens = result.tokens.tolist()
            text = tokens[first:end]
            cut = next((index for index, token in enumerate(text) if token in self.line_breaks), len(text))
            (scores,) = self.scorer.text_scores(request.prompt, tokens[:first], [text[:cut]], tokens[end:])
            found.append(float(scores.mean()))
        return found


class ShorterProbing(Probing):
    """Its second finalist is the next shorter length."""

    def finalists(self, scores: Sequence[float]) -> list[int]:
        best = max(range(len(scores)), key=lambda index: scores[index])
        return [best, best - 1] if best else super().finalists(scores)


@dataclass
class Sums:
    requests: int = 0
    exact: int = 0
    first: int = 0  # texts that begin with the same word as the truth
    steps: int = 0


def completer_for(base: Completer, way: str) -> Completer:
    breaks, shorter = way in WAYS[1::2], way in WAYS[2:]
    family = WithoutNull(base.family, breaks)
    made = Completer(replace(base.model, family=family), base.settings)
    made.runner = EndingRunner(made.denoiser, family.max_canvas)
    made.runner.line_breaks = frozenset(base.family.tokens.line_breaks) if breaks else frozenset()
    made.lengths = (ShorterProbing if shorter else Probing)(made.runner)
    made.proposer.runner = made.runner
    return made


def measure(completers: dict[str, Completer], holes: Sequence[HeldOutHole]) -> dict[str, Sums]:
    found = {way: Sums() for way in completers}
    for hole in holes:
        at, truth = len(hole.before), hole.truth.strip()
        request = InfillRequest(hole.before + hole.after, (Hole(at, at),), hole.language, hole.path, "one")
        for way, completer in completers.items():
            completer.last_draft = replace(completer.last_draft, canvas=None)
            result = completer.complete(request)
            text, sums = result.completions[0].text.strip(), found[way]
            sums.requests += 1
            sums.exact += text == truth
            sums.first += text.split(maxsplit=1)[:1] == truth.split(maxsplit=1)[:1]
            sums.steps += result.steps
    return found


def main(
    corpus: Annotated[Path, typer.Option(help="Folder written by train.corpus.")],
    count: Annotated[int, typer.Option(help="Lines.")] = 80,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Compare ways out of a wrong length; writes line_ends.*."""
    settings = Settings(model="pocket", threads=1, copy_drafts=False, causal_draft=False, min_confidence=0.0)
    base = load_completer(settings)
    assert isinstance(base, Completer), "a model with a denoiser"
    holes = cut_holes(for_judging(read_held_out(corpus, ["python"])), "python", "rest of line", count, seed=11)
    found = measure({way: completer_for(base, way) for way in WAYS} | {"null slots": base}, holes)
    rows = [
        [way, f"{s.exact / s.requests:.1%}", f"{s.first / s.requests:.1%}", f"{s.steps / s.requests:.1f}"]
        for way, s in found.items()
    ]
    notes = [
        f"{count} held-out lines of Python; the denoiser's text alone. Lengths {hole_length.PROBE_LENGTHS} are probed, "
        "two are finished, the causal encoder chooses. null slots: the shipped layout of the pocket model.",
        "Steps: of all canvases of a request.",
    ]
    figures = {way: vars(sums) for way, sums in found.items()}
    report = Report("Ways out of a wrong length of a line", conditions(), HEADER, rows, notes, figures)
    report.show()
    for file in report.write("line_ends", out):
        print(file)


HEADER = ("way out", "exact", "first word", "steps a request")


if __name__ == "__main__":
    typer.run(reports_errors(main))
