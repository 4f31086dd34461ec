"""From a request to its completion: context, canvas, denoising, checks, repair, ranking.

The one place that knows the order of the steps; each step is another module's. Must not know of editors,
command lines or files on disk other than the model's own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice

import torch

from engine.denoiser import CanvasRun, DenoiseRequest, Timings
from engine.errors import GessoError, Stop, leave_if
from infill.checks.checks import first_refusal
from infill.checks.context import CheckContext
from infill.complete.canvas_text import step_view
from infill.complete.hole_length import CanvasRunner, Filled, FillTask, HoleLengths, NullSlots, Probing
from infill.complete.loaded_model import LoadedModel
from infill.complete.proposals import Proposal, Proposals
from infill.complete.work import Work, make_ready, one_by_one
from infill.prompts.prompt import Layout
from infill.request import Candidate, Evidence, Hole, HoleCompletion, InfillRequest, InfillResult, OnStep, StepView
from infill.settings import Settings

SAMPLED_T = (0.6, 0.9)  # least t_min and t_max of further candidates
LONGEST = {True: 128, False: 512}  # slots, for a line and for a block


class Completer:
    """The pipeline that fills holes with a loaded model. Cheap to make; for one caller at a time."""

    def __init__(self, model: LoadedModel, settings: Settings) -> None:
        self.model, self.settings = model, settings
        self.denoiser, self.family = model.denoiser, model.family
        self.min_confidence = model.min_confidence if settings.min_confidence is None else settings.min_confidence
        self.canvases = CanvasRunner(self.denoiser, self.family.max_canvas)
        null_token = self.family.null_token
        self.lengths: HoleLengths = (
            Probing(self.canvases) if null_token is None else NullSlots(self.canvases, null_token)
        )
        self.proposals = Proposals(self.denoiser, self.canvases, self.family, settings)

    def complete(self, request: InfillRequest, on_step: OnStep | None = None, stop: Stop | None = None) -> InfillResult:
        """Fills the holes of one request; in one canvas where they fit, otherwise from the top down.

        Once `on_step` returned False it is not asked again, and what stands in the holes then is the result.
        stop: for an answer that may become unwanted. It is asked between all stages and before every pass of the
        model, so it must be cheap and may be asked from this thread at any time; once it answers True, Cancelled is
        raised, and what was read of the prompts stays in the cache.
        """
        started = time.perf_counter()
        leave_if(stop)
        work = make_ready(request, self.family.budget, stop)
        leave_if(stop)
        watch = _until_stopped(on_step) if on_step is not None else None
        if len(work.holes) > 1 and not self._fits(work):
            return self._one_after_another(work, watch, stop, started)
        self.canvases.timings = Timings()
        filled = self._fill(self._tasks(work), watch)
        return self._finish(work, filled, started, time.perf_counter())

    def complete_batch(self, requests: Sequence[InfillRequest]) -> list[InfillResult | GessoError]:
        """All requests in one batch; a request that cannot be used has its error in its place."""
        started = time.perf_counter()
        results: dict[int, InfillResult | GessoError] = {}
        works: dict[int, tuple[Work, list[FillTask]]] = {}
        for index, request in enumerate(requests):
            try:
                work = make_ready(request, self.family.budget)
                if len(work.holes) > 1:
                    results[index] = self.complete(request)
                else:
                    works[index] = work, self._tasks(work)
            except GessoError as error:
                results[index] = error
        self.canvases.timings = Timings()
        filled = iter(self._fill([task for _, tasks in works.values() for task in tasks], None))
        filled_works = [(index, work, list(islice(filled, len(tasks)))) for index, (work, tasks) in works.items()]
        denoised = time.perf_counter()
        for index, work, fillings in filled_works:
            results[index] = self._finish(work, fillings, started, denoised)
        return [results[index] for index in range(len(requests))]

    def _fits(self, work: Work) -> bool:
        task = self._task(work, 0)
        return task.lay_out(task.slots).canvas.width <= self.family.max_canvas

    def _tasks(self, work: Work) -> list[FillTask]:
        """One for each candidate that is asked for."""
        return [self._task(work, variant) for variant in range(max(1, work.request.candidates))]

    def _task(self, work: Work, variant: int) -> FillTask:
        """`variant` 0 is the model's own way; others sample with other seeds."""
        return FillTask(
            lay_out=lambda slots: self.family.lay_out(work.shown, work.kinds, work.between, slots),
            request=self._denoise_request(work, variant),
            slots=tuple(self.family.slots[0 if kind.one_line else 1] for kind in work.kinds),
            most=tuple(LONGEST[kind.one_line] for kind in work.kinds),
        )

    def _denoise_request(self, work: Work, variant: int) -> Callable[[Layout], DenoiseRequest]:
        """How a layout of this work is to be denoised."""
        sampling = self.model.sampling.with_steps(work.request.steps)
        if variant:
            t_min, t_max = max(sampling.t_min, SAMPLED_T[0]), max(sampling.t_max, SAMPLED_T[1])
            sampling = replace(sampling, token_choice="sample", t_min=t_min, t_max=t_max)

        def denoise(layout: Layout) -> DenoiseRequest:
            banned = torch.tensor(layout.banned, dtype=torch.long)
            return DenoiseRequest(
                layout.prompt, layout.canvas, sampling, work.request.seed + variant, banned, work.deadline, work.stop
            )

        return denoise

    def _fill(self, tasks: Sequence[FillTask], on_step: OnStep | None) -> list[Filled]:
        if on_step is None:
            return self.lengths.fill(tasks)

        def step(runs: Sequence[CanvasRun]) -> bool | None:
            return on_step(step_view(runs[0], self.family))

        return self.lengths.fill(tasks, step)

    def _finish(self, work: Work, filled: Sequence[Filled], started: float, denoised: float) -> InfillResult:
        encode, denoise = self.canvases.timings.encode, self.canvases.timings.denoise
        checked = time.perf_counter()
        completions = []
        for index, hole in enumerate(work.originals):
            candidates = self._candidates(work, index, filled)
            best = candidates[0]
            work.fillings.append(best.text.replace("\r\n", "\n") if best.shown else "")
            completions.append(HoleCompletion(hole, best.text, best.shown, best.reason, best.confidence, candidates))
        now = time.perf_counter()
        repair = self.canvases.timings.encode + self.canvases.timings.denoise - encode - denoise
        first = filled[0]
        return InfillResult(
            completions=tuple(completions),
            steps=first.steps,
            prompt_tokens=first.result.prompt_tokens,
            encoded_tokens=sum(one.encoded_tokens for one in filled),
            canvas=first.layout.canvas.width,
            hole=sum(hole.stop - hole.start for hole in first.layout.holes),
            timings_ms={
                "context": max(0.0, 1000 * (denoised - started) - encode - denoise),
                "encode": encode,
                "denoise": denoise + repair,
                "checks": max(0.0, 1000 * (now - checked) - repair),
                "total": 1000 * (now - started),
            },
            model=self.model.name,
            seed=work.request.seed,
        )

    def _candidates(self, work: Work, index: int, filled: Sequence[Filled]) -> tuple[Candidate, ...]:
        """Everything that could stand in hole `index`, what may be shown first, then by confidence."""
        found = [self._judged(work, index, *one) for one in self.proposals.find(work, index, filled)]
        return tuple(sorted(found, key=lambda candidate: (not candidate.shown, -candidate.confidence)))

    def _judged(self, work: Work, index: int, proposal: Proposal, evidence: Evidence) -> Candidate:
        leave_if(work.stop)
        confidence = self.model.calibration.confidence(evidence)
        before, after = work.near(index)
        context = CheckContext(
            before=before,
            text=proposal.text,
            after=after,
            language=work.language,
            confidence=confidence,
            min_confidence=min(1.0, self.min_confidence * work.request.caution),
            rejected=frozenset(work.request.rejected),
            replaced=work.replaced(index),
        )
        reason = first_refusal(context)
        text = proposal.text.replace("\n", work.line_end)
        return Candidate(
            text, round(confidence, 4), reason is None, reason, proposal.sources[0], proposal.tokens, evidence
        )

    def _one_after_another(self, work: Work, on_step: OnStep | None, stop: Stop | None, started: float) -> InfillResult:
        """Each hole with a canvas of its own; what was filled above stands as text for those below."""
        parts = []
        for request, original in one_by_one(work):
            left = None if work.deadline is None else max(1.0, 1000 * (work.deadline - time.monotonic()))
            part = self.complete(replace(request, deadline_ms=left), on_step, stop)
            completion = _with_line_end(part.completions[0], original, work.line_end)
            work.fillings.append(part.completions[0].text if completion.shown else "")
            parts.append(replace(part, completions=(completion,)))
        stages = parts[0].timings_ms
        timings = {stage: sum(part.timings_ms[stage] for part in parts) for stage in stages}
        return replace(
            parts[0],
            completions=tuple(part.completions[0] for part in parts),
            steps=sum(part.steps for part in parts),
            encoded_tokens=sum(part.encoded_tokens for part in parts),
            hole=sum(part.hole for part in parts),
            timings_ms={**timings, "total": 1000 * (time.perf_counter() - started)},
        )


def _until_stopped(on_step: OnStep) -> OnStep:
    """The callback, and False for ever once it said so."""
    stopped = False

    def step(view: StepView) -> bool:
        nonlocal stopped
        stopped = stopped or on_step(view) is False
        return not stopped

    return step


def _with_line_end(completion: HoleCompletion, hole: Hole, line_end: str) -> HoleCompletion:
    """The completion of `hole` with "\n" turned into `line_end`."""
    candidates = tuple(replace(one, text=one.text.replace("\n", line_end)) for one in completion.candidates)
    text = completion.text.replace("\n", line_end)
    return replace(completion, hole=hole, text=text, candidates=candidates)
