"""The pipeline from a request to its completion: context, canvas, denoising, proposals, checks, ranking.

Only this module knows the order of the steps; each step is in a module of its own. Must not know editors, command lines
or files.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice

from engine.canvas_run import CanvasRun, DenoiseRequest, Timings
from engine.errors import GessoError, Stop, leave_if
from infill.complete.canvas_text import hole_text, step_view, warm_layout
from infill.complete.hole_length import CanvasRunner, FilledCanvas, FillTask, hole_lengths
from infill.complete.judging import judge, one_after_another, until_stopped
from infill.complete.last_draft import LastDraft
from infill.complete.loaded_model import LoadedModel
from infill.complete.prepared import PreparedRequest, prepare
from infill.complete.proposals import Proposer
from infill.prompts.prompt import Layout, LayoutPlan
from infill.request import Candidate, HoleCompletion, InfillRequest, InfillResult, OnStep
from infill.settings import Settings

MOST_BETWEEN = 10_000  # characters between the holes of one canvas
LONGEST = {True: 128, False: 512}  # slots, by whether the hole has one line


class Completer:
    """The pipeline that fills holes with a loaded model. Cheap to make; for one caller at a time."""

    def __init__(self, model: LoadedModel, settings: Settings) -> None:
        self.model, self.settings = model, settings
        self.denoiser, self.family = model.denoiser, model.family
        self.min_confidence = model.min_confidence if settings.min_confidence is None else settings.min_confidence
        self.runner = CanvasRunner(self.denoiser, self.family.max_canvas)
        self.lengths = hole_lengths(self.family, self.runner)
        self.proposer = Proposer(self.denoiser, self.runner, self.family, settings)

    @property
    def last_draft(self) -> LastDraft:
        """See `Proposer`."""
        return self.proposer.last_draft

    @last_draft.setter
    def last_draft(self, draft: LastDraft) -> None:
        self.proposer.last_draft = draft

    def complete(self, request: InfillRequest, on_step: OnStep | None = None, stop: Stop | None = None) -> InfillResult:
        """Fills the holes of one request: in one canvas if they fit, otherwise one after the other from the top.

        on_step: gets the canvas after each step; once it returns False, it is not called again, and the current
        content of the holes is the result. stop: called between all stages and before every pass of the model; once
        it returns True, Cancelled is raised, and the encoded part of the prompt stays in the cache.
        """
        started = time.perf_counter()
        leave_if(stop)
        prepared = prepare(request, self.family.budget, stop)
        leave_if(prepared.stop)
        watch = until_stopped(on_step) if on_step is not None else None
        if len(prepared.holes) > 1 and sum(map(len, prepared.between)) > MOST_BETWEEN:  # too long to be encoded here
            return one_after_another(self.complete, prepared, watch, stop, started)
        tasks = self._tasks(prepared)
        if len(prepared.holes) > 1 and tasks[0].lay_out(tasks[0].slots).canvas.width > self.family.max_canvas:
            return one_after_another(self.complete, prepared, watch, stop, started)
        self.runner.timings = Timings()
        filled = self._fill(tasks, watch)
        result = self._finish(prepared, filled, started, time.perf_counter())
        self._remember(prepared, filled[0])
        return result

    def complete_batch(self, requests: Sequence[InfillRequest]) -> list[InfillResult | GessoError]:
        """Fills all requests in one batch; the result of an invalid request is its error."""
        started = time.perf_counter()
        results: dict[int, InfillResult | GessoError] = {}
        tasks: dict[int, tuple[PreparedRequest, list[FillTask]]] = {}
        for index, request in enumerate(requests):
            try:
                prepared = prepare(request, self.family.budget)
                if len(prepared.holes) > 1:
                    results[index] = self.complete(request)
                else:
                    tasks[index] = prepared, self._tasks(prepared)
            except GessoError as error:
                results[index] = error
        self.runner.timings = Timings()
        filled = iter(self._fill([task for _, group in tasks.values() for task in group], None))
        fillings = {index: list(islice(filled, len(group))) for index, (_, group) in tasks.items()}
        denoised = time.perf_counter()
        for index, (prepared, _) in tasks.items():
            results[index] = self._finish(prepared, fillings[index], started, denoised)
        return [results[index] for index in range(len(requests))]

    def read_ahead(self, request: InfillRequest, stop: Stop | None = None) -> int:
        """Reads what the model sees of a request, so that completing it there soon need not.

        stop: called between passes; once it returns True, Cancelled is raised, and what was read stays in the cache.
        Returns the number of tokens read.
        """
        task = self._tasks(prepare(replace(request, candidates=1), self.family.budget, stop))[0]
        return self.denoiser.read_ahead(task.request(task.lay_out(task.slots)))

    def _plan(self, prepared: PreparedRequest) -> LayoutPlan:
        return self.family.plan(prepared.shown, prepared.kinds, prepared.between)

    def _tasks(self, prepared: PreparedRequest) -> list[FillTask]:
        """One per requested candidate, which share the encoded text."""
        plan = self._plan(prepared)
        return [self._task(prepared, plan, variant) for variant in range(max(1, prepared.request.candidates))]

    def _task(self, prepared: PreparedRequest, plan: LayoutPlan, variant: int) -> FillTask:
        """variant: 0 for the model's own settings; others sample tokens, each with another seed."""
        warm = self._warm_layout(prepared, plan) if variant == 0 else None
        most = tuple(LONGEST[kind.one_line] for kind in prepared.kinds)
        return FillTask(
            lay_out=plan.lay_out,
            request=self._denoise_request(prepared, variant, most, warm is not None),
            slots=tuple(self.family.slots[0 if kind.one_line else 1] for kind in prepared.kinds),
            most=most,
            warm=warm,
        )

    def _warm_layout(self, prepared: PreparedRequest, plan: LayoutPlan) -> Layout | None:
        """The layout that starts from the last canvas of this client, if the hole of a line is within it."""
        last = self.last_draft.canvas
        if last is None or prepared.request.steps is not None:
            return None
        if len(prepared.holes) != 1 or not prepared.kinds[0].one_line:
            return None
        expected = last.expected(prepared.before(0), prepared.after(0))
        return None if expected is None else warm_layout(self.family, plan, *expected)

    def _remember(self, prepared: PreparedRequest, filled: FilledCanvas) -> None:
        """Keeps the text of the canvas for the next request of this client."""
        if len(prepared.holes) == 1:
            text = hole_text(self.family, filled.layout, filled.result, 0, prepared.kinds[0]).text
            canvas = LastDraft.at(prepared.before(0), text, prepared.after(0))
            self.last_draft = replace(self.last_draft, canvas=canvas)

    def _denoise_request(
        self, prepared: PreparedRequest, variant: int, most: Sequence[int], is_warm: bool
    ) -> Callable[[Layout], DenoiseRequest]:
        """From a layout to how it is denoised."""
        sampling = self.model.sampling.with_steps(prepared.request.steps)
        if is_warm:
            sampling = sampling.warm()
        if variant:
            sampling = sampling.varied()

        def denoise(layout: Layout) -> DenoiseRequest:
            return DenoiseRequest(
                layout.prompt,
                layout.canvas,
                sampling,
                prepared.request.seed + variant,
                layout.banned,
                prepared.deadline,
                prepared.stop,
                tuple((hole.stop - hole.start, limit) for hole, limit in zip(layout.holes, most, strict=True)),
            )

        return denoise

    def _fill(self, tasks: Sequence[FillTask], on_step: OnStep | None) -> list[FilledCanvas]:
        if on_step is None:
            return self.lengths.fill(tasks)

        def step(runs: Sequence[CanvasRun]) -> bool | None:
            return on_step(step_view(runs[0], self.family))

        return self.lengths.fill(tasks, step)

    def _finish(
        self, prepared: PreparedRequest, filled: Sequence[FilledCanvas], started: float, denoised: float
    ) -> InfillResult:
        encode, denoise = self.runner.timings.encode, self.runner.timings.denoise
        checked = time.perf_counter()
        completions = []
        for index, hole in enumerate(prepared.originals):
            candidates = self._candidates(prepared, index, filled)
            best = candidates[0]
            prepared.fillings.append(best.text.replace("\r\n", "\n") if best.shown else "")
            completions.append(HoleCompletion(hole, best.text, best.shown, best.reason, best.confidence, candidates))
        now = time.perf_counter()
        repair = self.runner.timings.encode + self.runner.timings.denoise - encode - denoise
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
            seed=prepared.request.seed,
        )

    def _candidates(
        self, prepared: PreparedRequest, index: int, filled: Sequence[FilledCanvas]
    ) -> tuple[Candidate, ...]:
        """All candidates for hole `index`: those to show first, then by confidence."""
        calibration = self.model.calibration
        proposals = self.proposer.find(prepared, index, filled)
        found = [judge(prepared, index, *one, calibration, self.min_confidence) for one in proposals]
        return tuple(sorted(found, key=lambda candidate: (not candidate.shown, -candidate.confidence)))
