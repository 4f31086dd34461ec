"""Would another stop rule end a canvas earlier with the same text?

`python -m bench.quality.stop_rules --corpus DIR` denoises holes in held-out lines with all their steps, keeps what each
step computed, and applies every rule to these records. Rules: the shipped one; stability of the distributions, after
KLASS (arXiv 2511.05664): the argmax is unchanged and the mean KL divergence from the last step is below a bound; the
argmax alone. Must not know how a step is made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from bench.report import RESULTS, Report, conditions
from engine.canvas_run import CanvasRun, DenoiseRequest
from engine.config import SamplingConfig
from infill.cli.support import load_completer
from infill.complete.completion import Completer
from infill.complete.prepared import prepare
from infill.request import Hole, InfillRequest
from infill.settings import Settings
from train.held_out import HeldOutHole, cut_holes, for_judging, read_held_out
from train.program import reports_errors

BOUNDS = (0.001, 0.01, 0.1)  # nats
SHIPPED = "as shipped"


@dataclass(frozen=True)
class Step:
    """argmax [holes]; entropy: mean over the canvas, pinned columns as certain; divergence: mean over the holes of the
    KL divergence of the last step's distributions from this one's; infinite in the first step. In nats."""

    argmax: Tensor
    entropy: float
    divergence: float


@dataclass(frozen=True)
class Trace:
    """All steps of a canvas, and the text of each."""

    steps: list[Step]
    texts: list[str]
    truth: str

    def unchanged(self, number: int) -> bool:
        return number > 0 and torch.equal(self.steps[number].argmax, self.steps[number - 1].argmax)


Rule = Callable[[Trace, int], bool]
"""Whether a canvas is done after this step."""


def rules(threshold: float) -> dict[str, Rule]:
    """threshold: of the shipped rule."""

    def shipped(trace: Trace, number: int) -> bool:
        return trace.unchanged(number) and trace.steps[number].entropy < threshold

    def stable(bound: float, times: int) -> Rule:
        def rule(trace: Trace, number: int) -> bool:
            last = range(max(0, number - times + 1), number + 1)
            return trace.unchanged(number) and all(trace.steps[one].divergence < bound for one in last)

        return rule

    def either(other: Rule) -> Rule:
        return lambda trace, number: shipped(trace, number) or other(trace, number)

    found: dict[str, Rule] = {"all steps": lambda trace, number: False, SHIPPED: shipped}
    for bound in BOUNDS:
        found[f"KL below {bound}"] = stable(bound, 1)
        found[f"KL below {bound}, twice"] = stable(bound, 2)
        found[f"as shipped, or KL below {bound}"] = either(stable(bound, 1))
    found["argmax unchanged"] = lambda trace, number: trace.unchanged(number)
    return found


def stops_at(rule: Rule, trace: Trace) -> int:
    """The number of the last step."""
    return next((n for n in range(len(trace.steps)) if rule(trace, n)), len(trace.steps) - 1)


def trace_of(completer: Completer, hole: HeldOutHole) -> Trace:
    """All steps of one canvas for the hole; no rule ends them."""
    family, text = completer.family, hole.before + hole.after
    at = len(hole.before)
    prepared = prepare(InfillRequest(text, (Hole(at, at),), hole.language, hole.path, "one"), family.budget)
    plan = family.plan(prepared.shown, prepared.kinds, prepared.between)
    layout = plan.lay_out([family.slots[0]])
    sampling = completer.model.sampling
    assert isinstance(sampling, SamplingConfig), "a model with self-conditioning"
    steps: list[Step] = []
    texts: list[str] = []
    last: list[Tensor] = []

    def note(runs: Sequence[CanvasRun]) -> None:
        (run,) = runs
        assert run.logits is not None
        now = torch.log_softmax(run.logits.float(), dim=-1)
        divergence = float((last[-1].exp() * (last[-1] - now)).sum(-1).mean()) if last else float("inf")
        last[:] = [now]
        steps.append(Step(run.argmax.clone(), float(run.entropy.sum()) / len(run.canvas), divergence))
        tokens = [token for token in run.argmax.tolist() if token != family.null_token]
        texts.append(family.tokens.decode(tokens).removeprefix(layout.holes[0].healed).partition("\n")[0])

    never = replace(sampling, confidence_threshold=-1.0)
    completer.denoiser.run([DenoiseRequest(layout.prompt, layout.canvas, never, 0, layout.banned)], note)
    return Trace(steps, texts, hole.truth.rstrip("\n"))


def table(traces: Sequence[Trace], threshold: float) -> list[dict[str, Any]]:
    """Per rule: mean steps, and the shares of texts that are those of the shipped rule and that are exact."""
    found, judged = [], rules(threshold)
    shipped = [trace.texts[stops_at(judged[SHIPPED], trace)] for trace in traces]
    for name, rule in judged.items():
        ends = [stops_at(rule, trace) for trace in traces]
        texts = [trace.texts[end] for trace, end in zip(traces, ends, strict=True)]
        found.append(
            {
                "rule": name,
                "steps": sum(ends) / len(ends) + 1,
                "same": sum(a == b for a, b in zip(texts, shipped, strict=True)) / len(texts),
                "exact": sum(t.strip() == one.truth.strip() for t, one in zip(texts, traces, strict=True)) / len(texts),
            }
        )
    return found


def main(
    corpus: Annotated[Path, typer.Option(help="Folder written by train.corpus.")],
    count: Annotated[int, typer.Option(help="Lines.")] = 100,
    model: str = "pocket",
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Compare stop rules on the same canvases; writes stop_rules.*."""
    completer = load_completer(Settings(model=model, threads=1))
    assert isinstance(completer, Completer), "a model with a denoiser"
    holes = cut_holes(for_judging(read_held_out(corpus, ["python"])), "python", "rest of line", count, seed=9)
    sampling = completer.model.sampling
    assert isinstance(sampling, SamplingConfig), "a model with self-conditioning"
    found = table([trace_of(completer, hole) for hole in holes], sampling.confidence_threshold)
    rows = [[r["rule"], f"{r['steps']:.2f}", f"{r['same']:.1%}", f"{r['exact']:.1%}"] for r in found]
    notes = [f"{len(holes)} held-out lines of Python, one canvas each, at most {sampling.max_steps} steps."]
    report = Report("Stop rules", {**conditions(), "model": model}, HEADER, rows, notes, found)
    report.show()
    for file in report.write("stop_rules", out):
        print(file)


HEADER = ("rule", "steps", "same text as shipped", "exact")


if __name__ == "__main__":
    typer.run(reports_errors(main))
