"""The length of a hole: found by the denoiser itself, or by null slots, if the model is trained to leave slots empty,
else by probing.

Probing: scores of several lengths after few steps, after LR-DLLM, CAL and PILL. Knows layouts; must not know text or
whether a filling is good.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from engine.blocks import denoise_in_blocks
from engine.canvas_run import CanvasDenoiser, CanvasRun, DenoiseRequest, DenoiseResult, StepCallback, Timings
from infill.prompts.prompt import Family, Layout

Choose = Callable[[Sequence[float]], Sequence[int]]
"""From the mean entropies of all canvases after a probe to the indices of those that are worth further steps."""

PROBE_LENGTHS = (4, 8, 16, 32, 64, 128)
PROBE_STEPS = 2
FINALISTS = 2


@dataclass(frozen=True)
class FillTask:
    """One canvas to fill. lay_out: from slots per hole to a layout. slots, most: initial and maximum slots per hole.

    warm: the layout of a hole whose text is almost known, which starts from it and needs no other length.
    """

    lay_out: Callable[[Sequence[int]], Layout]
    request: Callable[[Layout], DenoiseRequest]
    slots: tuple[int, ...]
    most: tuple[int, ...]
    warm: Layout | None = None


@dataclass(frozen=True)
class FilledCanvas:
    """A denoised canvas with its layout and request. steps: in total, over all lengths. is_warm: see `FillTask`."""

    layout: Layout
    request: DenoiseRequest
    result: DenoiseResult
    steps: int
    encoded_tokens: int
    is_warm: bool = False


class HoleLengths(Protocol):
    def fill(self, tasks: Sequence[FillTask], on_step: StepCallback | None = None) -> list[FilledCanvas]:
        """Denoises the canvas of each task and finds the lengths of its holes."""
        ...


class Runner(Protocol):
    """Denoises canvases, and scores what came out."""

    max_canvas: int

    def run(self, requests: Sequence[DenoiseRequest], on_step: StepCallback | None = None) -> list[DenoiseResult]: ...

    def probe(
        self, requests: Sequence[DenoiseRequest], steps: int, choose: Choose, on_step: StepCallback | None = None
    ) -> list[DenoiseResult]:
        """Makes `steps` of every request, and the other steps only of those that `choose` picks by their entropies.

        on_step: gets the runs of these. Returns the results of all.
        """
        ...

    def likelihoods(self, requests: Sequence[DenoiseRequest], results: Sequence[DenoiseResult]) -> list[float]:
        """Higher is better; compares results for layouts of one plan with different lengths."""
        ...


class CanvasRunner:
    """Denoises requests as one batch; canvases wider than `max_canvas` run one by one, block after block.

    timings: the sum over all runs since the caller last reset it.
    """

    def __init__(self, denoiser: CanvasDenoiser, max_canvas: int) -> None:
        self.denoiser, self.max_canvas = denoiser, max_canvas
        self.scorer = denoiser.scorer()
        self.timings = Timings()

    def run(self, requests: Sequence[DenoiseRequest], on_step: StepCallback | None = None) -> list[DenoiseResult]:
        narrow = [request for request in requests if request.canvas.width <= self.max_canvas]
        together = self.denoiser.run(narrow, on_step) if narrow else []
        if narrow:
            self._add_timings()
        results, at = [], 0
        for request in requests:
            if request.canvas.width <= self.max_canvas:
                results.append(together[at])
                at += 1
            else:
                results.append(denoise_in_blocks(self.denoiser, request, self.max_canvas, on_step))
                self._add_timings()
        return results

    def probe(
        self, requests: Sequence[DenoiseRequest], steps: int, choose: Choose, on_step: StepCallback | None = None
    ) -> list[DenoiseResult]:
        """Those that are not chosen end after the probe; the others go on from it."""
        chosen: list[int] = []

        def watch(runs: Sequence[CanvasRun]) -> bool | None:
            if not chosen and all(run.steps >= steps or run.finished for run in runs):
                chosen.extend(choose([float(run.entropy.mean()) for run in runs]))
                for index, run in enumerate(runs):
                    if index not in chosen:
                        run.finished = run.finished or "cancelled"
            return on_step([runs[index] for index in chosen]) if chosen and on_step is not None else None

        return self.run(requests, watch)

    def likelihoods(self, requests: Sequence[DenoiseRequest], results: Sequence[DenoiseResult]) -> list[float]:
        """Mean log-probability of what the scorer scores from the first hole on; -inf if a hole was not reached."""
        found = [-math.inf] * len(results)
        reached = [index for index, result in enumerate(results) if int(result.tokens.min()) >= 0]
        if reached:
            first = int(results[reached[0]].columns[0])
            ends = [int(results[index].columns[-1]) + 1 for index in reached]
            tokens = [results[index].tokens.tolist() for index in reached]
            texts = [one[first:end] for one, end in zip(tokens, ends, strict=True)]
            request = requests[reached[0]]
            before, after = tokens[0][:first], tokens[0][ends[0] :]
            scores = self.scorer.text_scores(request.prompt, before, texts, after, stop=request.stop)
            for index, score in zip(reached, scores, strict=True):
                found[index] = float(score.mean())
        return found

    def _add_timings(self) -> None:
        self.timings.encode += self.denoiser.timings.encode
        self.timings.denoise += self.denoiser.timings.denoise


class Growing:
    """Lets the denoiser change the lengths while it denoises, from the initial slots up to the most."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner

    def fill(self, tasks: Sequence[FillTask], on_step: StepCallback | None = None) -> list[FilledCanvas]:
        starts = [task.lay_out(task.slots) if task.warm is None else task.warm for task in tasks]
        results = self.runner.run([task.request(start) for task, start in zip(tasks, starts, strict=True)], on_step)
        filled = []
        for task, start, result in zip(tasks, starts, results, strict=True):
            layout = start if result.sizes is None else task.lay_out(result.sizes)
            request, is_warm = task.request(layout), task.warm is not None
            filled.append(FilledCanvas(layout, request, result, result.steps, result.encoded_tokens, is_warm))
        return filled


class NullSlots:
    """Lays out more slots than needed; a hole without a null slot at its end was too short and gets twice as many.

    If the deadline or the caller ends the longer canvas, the shorter one is the result.
    """

    def __init__(self, runner: Runner, null_token: int) -> None:
        self.runner, self.null_token = runner, null_token

    def fill(self, tasks: Sequence[FillTask], on_step: StepCallback | None = None) -> list[FilledCanvas]:
        layouts = [task.lay_out(task.slots) if task.warm is None else task.warm for task in tasks]
        requests = [task.request(layout) for task, layout in zip(tasks, layouts, strict=True)]
        results = self.runner.run(requests, on_step)
        return [
            self._lengthened(
                task,
                FilledCanvas(layout, request, result, result.steps, result.encoded_tokens, layout is task.warm),
                on_step,
            )
            for task, layout, request, result in zip(tasks, layouts, requests, results, strict=True)
        ]

    def _lengthened(self, task: FillTask, filled: FilledCanvas, on_step: StepCallback | None) -> FilledCanvas:
        slots = task.slots
        while filled.result.finish not in ("deadline", "cancelled"):
            full = self._full(filled)
            longer = tuple(
                min(2 * size, most) if is_full else size
                for size, most, is_full in zip(slots, task.most, full, strict=True)
            )
            if longer == slots:
                break
            slots = longer
            layout = task.lay_out(slots)
            request = task.request(layout)
            result = self.runner.run([request], on_step)[0]
            steps, encoded = filled.steps + result.steps, filled.encoded_tokens + result.encoded_tokens
            if result.finish in ("deadline", "cancelled"):
                return replace(filled, steps=steps, encoded_tokens=encoded)
            filled = FilledCanvas(layout, request, result, steps, encoded)
        return filled

    def _full(self, filled: FilledCanvas) -> list[bool]:
        tokens = filled.result.tokens
        return [int(tokens[hole.stop - 1]) != self.null_token for hole in filled.layout.holes]


class Probing:
    """Denoises several lengths as one batch for a few steps, finishes the best, and the causal encoder chooses.

    The score of a length is its mean negative entropy, less a linear trend over log length fitted to this hole, since
    longer holes start out more certain. All holes of a canvas get the same length, up to twice the initial slots if
    the canvas is not wider than `max_canvas`.
    """

    def __init__(self, runner: Runner, lengths: Sequence[int] = PROBE_LENGTHS, steps: int = PROBE_STEPS) -> None:
        self.runner, self.lengths, self.steps = runner, lengths, steps

    def fill(self, tasks: Sequence[FillTask], on_step: StepCallback | None = None) -> list[FilledCanvas]:
        return [self._fill(task, on_step) for task in tasks]

    def _fill(self, task: FillTask, on_step: StepCallback | None) -> FilledCanvas:
        if task.warm is not None:
            request = task.request(task.warm)
            (result,) = self.runner.run([request], on_step)
            return FilledCanvas(task.warm, request, result, result.steps, result.encoded_tokens, is_warm=True)
        longest = min(max(task.most), 2 * max(task.slots))
        lengths: list[int] = []
        layouts: list[Layout] = []
        for length in sorted(self.lengths):
            layout = task.lay_out([length] * len(task.slots))
            if not lengths or (length <= longest and layout.canvas.width <= self.runner.max_canvas):
                lengths.append(length)
                layouts.append(layout)
        requests = [task.request(layout) for layout in layouts]
        best: list[int] = []

        def choose(entropies: Sequence[float]) -> list[int]:
            best[:] = self.finalists(length_scores(lengths, entropies))
            return best

        results = self.runner.probe(requests, self.steps, choose, on_step)
        likelihoods = self.runner.likelihoods([requests[i] for i in best], [results[i] for i in best])
        chosen = best[likelihoods.index(max(likelihoods))]
        steps, encoded = (sum(one) for one in zip(*((r.steps, r.encoded_tokens) for r in results), strict=True))
        return FilledCanvas(layouts[chosen], requests[chosen], results[chosen], steps, encoded)

    def finalists(self, scores: Sequence[float]) -> list[int]:
        """The indices of the lengths that are denoised to the end. scores: of all lengths, the shortest first."""
        return sorted(range(len(scores)), key=lambda index: -scores[index])[:FINALISTS]


def hole_lengths(family: Family, runner: Runner) -> HoleLengths:
    """How the lengths of holes are found with models of `family`."""
    if family.grows:
        return Growing(runner)
    return Probing(runner) if family.null_token is None else NullSlots(runner, family.null_token)


def length_scores(lengths: Sequence[int], entropies: Sequence[float]) -> list[float]:
    """Negative entropy less its linear trend over log length (least squares)."""
    negative = -np.asarray(entropies, dtype=float)
    if len(lengths) < 3:
        return negative.tolist()
    x = np.log(np.asarray(lengths, dtype=float))
    slope, intercept = np.polyfit(x, negative, 1)
    return (negative - (slope * x + intercept)).tolist()
