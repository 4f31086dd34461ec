"""From a request to its completion: context, canvas, denoising, checks, repair, ranking.

The one place that knows the order of the steps; each step is another module's. Must not know of editors, command
lines or files on disk other than the model's own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from engine.checkpoint import load_model, read_config, read_sampling
from engine.config import SamplingConfig
from engine.denoiser import CanvasRun, Denoiser, DenoiseRequest, DenoiseResult
from engine.device import choose_device, choose_dtype, set_threads
from engine.errors import GessoError, InputError
from engine.prefix_cache import PrefixCache
from engine.scorer import causal_log_probabilities
from infill.canvas_text import HoleText, filled_text, step_view
from infill.check_context import CheckContext
from infill.checks import first_refusal
from infill.context import show_context
from infill.copy_draft import drafts
from infill.hole_length import Canvases, Filled, FillTask, HoleLengths, NullSlots, Probing
from infill.indentation import expects_block
from infill.languages import detect
from infill.model_store import resolve
from infill.parse_check import cut_back, error_spans_within, parse_worse
from infill.prompt import Family, Layout, TextHole, load_family
from infill.request import Candidate, Hole, HoleCompletion, InfillRequest, InfillResult, OnStep

COPY_DRAFTS = 2
REPAIR_STEPS = 4
LONGEST = {True: 128, False: 512}  # slots, for a line and for a block


@dataclass(frozen=True)
class Settings:
    """min_confidence: what a candidate needs to be shown. dtype and device as `engine.device` takes them."""

    device: str = "auto"
    dtype: str = "auto"
    threads: int = 8
    min_confidence: float | None = None
    copy_drafts: bool = True


@dataclass
class _Work:
    """One request (or one of its holes, where they do not fit together) on its way."""

    request: InfillRequest
    text: str
    holes: tuple[Hole, ...]
    kinds: tuple[TextHole, ...]
    language: str | None
    deadline: float | None

    def before(self, index: int) -> str:
        return self.text[: self.holes[index].start]

    def after(self, index: int) -> str:
        return self.text[self.holes[index].end :]


class Completer:
    """A loaded model that fills holes. One caller at a time."""

    def __init__(self, denoiser: Denoiser, family: Family, sampling: SamplingConfig, model: str, settings: Settings) -> None:
        self.denoiser, self.family, self.sampling = denoiser, family, sampling
        self.model, self.settings = model, settings
        self.min_confidence = settings.min_confidence or 0.0
        canvases = Canvases(denoiser, family.max_canvas)
        self.lengths: HoleLengths = (
            Probing(canvases) if family.null_token is None else NullSlots(canvases, family.null_token)
        )

    @staticmethod
    def load(
        model: str = "pocket",
        settings: Settings | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Completer:
        """Loads a model by name, hub id or folder; raises ModelError with what to do where that fails."""
        settings = settings or Settings()
        folder = resolve(model)
        device = choose_device(settings.device)
        set_threads(device, settings.threads)
        weights = load_model(folder, device, choose_dtype(device, settings.dtype), on_progress)
        if settings.min_confidence is None:
            settings = replace(settings, min_confidence=_stored_confidence(folder))
        family = load_family(read_config(folder).family, folder)
        return Completer(Denoiser(weights, PrefixCache(weights)), family, read_sampling(folder), model, settings)

    def complete(self, request: InfillRequest, on_step: OnStep | None = None) -> InfillResult:
        """Fills the holes of one request; in one canvas where they fit, otherwise from the top down."""
        started = time.perf_counter()
        work = self._work(request)
        if len(work.holes) > 1 and not self._fits(work):
            return self._one_after_another(request, work, on_step, started)
        return self._finish(work, self._fill([work], on_step), started)

    def complete_batch(self, requests: Sequence[InfillRequest]) -> list[InfillResult | GessoError]:
        """All requests in one batch; a request that cannot be used has its error in its place."""
        started = time.perf_counter()
        results: list[InfillResult | GessoError | None] = [None] * len(requests)
        works: list[tuple[int, _Work]] = []
        for index, request in enumerate(requests):
            try:
                work = self._work(request)
                if len(work.holes) > 1:
                    results[index] = self.complete(request)
                else:
                    works.append((index, work))
            except GessoError as error:
                results[index] = error
        filled = self._fill([work for _, work in works], None) if works else []
        at = 0
        for index, work in works:
            count = max(1, work.request.candidates)
            results[index] = self._finish(work, filled[at : at + count], started)
            at += count
        return [result for result in results if result is not None]

    def _work(self, request: InfillRequest) -> _Work:
        text = request.text
        if not request.holes:
            raise InputError("The request has no hole; say where to fill.")
        ordered = sorted(request.holes, key=lambda hole: hole.start)
        ends = [0, *(hole.end for hole in ordered)]
        for hole, previous in zip(ordered, ends, strict=False):
            if not previous <= hole.start <= hole.end <= len(text):
                raise InputError(f"The hole {hole.start}-{hole.end} lies outside the text or within another hole.")
        unix = text.replace("\r\n", "\n")
        holes = tuple(Hole(*(at - text.count("\r\n", 0, at) for at in (hole.start, hole.end))) for hole in ordered)
        language = request.language or detect(request.path, unix.partition("\n")[0])
        deadline = None if request.deadline_ms is None else time.monotonic() + request.deadline_ms / 1000
        kinds = tuple(_hole_kind(unix, hole, request, language) for hole in holes)
        return _Work(request, unix, holes, kinds, language, deadline)

    def _fits(self, work: _Work) -> bool:
        task = self._task(work, 0)
        return task.lay_out(task.slots).canvas.width <= self.family.max_canvas

    def _task(self, work: _Work, variant: int) -> FillTask:
        """`variant` 0 is the model's own way; others sample with other seeds."""
        first, last = work.holes[0].start, work.holes[-1].end
        between = [work.text[a.end : b.start] for a, b in zip(work.holes, work.holes[1:], strict=False)]
        context = show_context(
            work.text, first, last, work.language, work.request.path, work.request.neighbours, self.family.budget
        )
        sampling = self.sampling.with_steps(work.request.steps)
        if variant:
            sampling = replace(sampling, token_choice="sample", t_min=max(sampling.t_min, 0.6), t_max=max(sampling.t_max, 0.9))

        def request(layout: Layout) -> DenoiseRequest:
            banned = torch.tensor(layout.banned, dtype=torch.long)
            return DenoiseRequest(
                layout.prompt, layout.canvas, sampling, work.request.seed + variant, banned, work.deadline
            )

        return FillTask(
            lay_out=lambda slots: self.family.lay_out(context, work.kinds, between, slots),
            request=request,
            slots=tuple(self.family.slots[0 if kind.one_line else 1] for kind in work.kinds),
            most=tuple(LONGEST[kind.one_line] for kind in work.kinds),
        )

    def _fill(self, works: Sequence[_Work], on_step: OnStep | None) -> list[Filled]:
        """`candidates` fillings for each work, in order."""
        tasks = [self._task(work, variant) for work in works for variant in range(max(1, work.request.candidates))]

        def step(runs: Sequence[CanvasRun]) -> bool | None:
            return on_step(step_view(runs[0], self.family)) if on_step is not None else None

        return self.lengths.fill(tasks, step if on_step is not None else None)

    def _finish(self, work: _Work, filled: Sequence[Filled], started: float) -> InfillResult:
        timings = self.denoiser.timings
        denoised = time.perf_counter()
        completions = []
        for index, hole in enumerate(work.holes):
            candidates = self._candidates(work, index, filled)
            best = candidates[0]
            completions.append(
                HoleCompletion(_original(work, hole), best.text, best.shown, best.reason, best.confidence, candidates)
            )
        now = time.perf_counter()
        first = filled[0]
        return InfillResult(
            completions=tuple(completions),
            steps=first.steps,
            prompt_tokens=first.result.prompt_tokens,
            encoded_tokens=sum(one.encoded_tokens for one in filled),
            canvas=first.layout.canvas.width,
            hole=sum(hole.stop - hole.start for hole in first.layout.holes),
            timings_ms={
                "context": max(0.0, 1000 * (denoised - started) - timings.encode - timings.denoise),
                "encode": timings.encode,
                "denoise": timings.denoise,
                "checks": 1000 * (now - denoised),
                "total": 1000 * (now - started),
            },
            model=self.model,
            seed=work.request.seed,
        )

    def _candidates(self, work: _Work, index: int, filled: Sequence[Filled]) -> tuple[Candidate, ...]:
        """Everything that could stand in hole `index`, what may be shown first, then by confidence."""
        found: dict[str, Candidate] = {}
        for one in filled:
            candidate = self._model_candidate(work, index, one)
            if candidate.text not in found:
                found[candidate.text] = candidate
        if self.settings.copy_drafts and len(work.holes) == 1:
            for candidate in self._copies(work, filled[0].layout):
                found.setdefault(candidate.text, candidate)
        return tuple(sorted(found.values(), key=lambda candidate: (not candidate.shown, -candidate.confidence)))

    def _model_candidate(self, work: _Work, index: int, filled: Filled) -> Candidate:
        hole = filled_text(self.family, filled.layout, filled.result, index, work.kinds[index])
        context = self._check_context(work, index, hole.text, hole.confidence)
        reason = first_refusal(context)
        if reason and hole.text.strip() and parse_worse(context):
            hole, reason = self._mended(work, index, filled, hole, reason)
        return self._candidate(work, hole.text, hole.confidence, reason, "model", hole.tokens)

    def _mended(
        self, work: _Work, index: int, filled: Filled, hole: HoleText, reason: str
    ) -> tuple[HoleText, str | None]:
        """Re-noises what stands under parse errors and denoises a little more; then cuts back to what parses."""
        before, after = work.before(index), work.after(index)
        late = work.deadline is not None and time.monotonic() >= work.deadline
        spans = error_spans_within(before, hole.text, after, work.language)
        if spans and not late and filled.layout.canvas.width <= self.family.max_canvas:
            result = self._renoised(work, index, filled, hole, [(span.start, span.end) for span in spans])
            again = filled_text(self.family, filled.layout, result, index, work.kinds[index])
            if not (refusal := first_refusal(self._check_context(work, index, again.text, again.confidence))):
                return again, None
            reason = refusal if again.text == hole.text else reason
        shorter = cut_back(before, hole.text, after, work.language)
        if shorter.strip() and shorter != hole.text:
            cut = hole.cut(len(shorter))
            return cut, first_refusal(self._check_context(work, index, cut.text, cut.confidence))
        return hole, reason

    def _renoised(
        self, work: _Work, index: int, filled: Filled, hole: HoleText, spans: Sequence[tuple[int, int]]
    ) -> DenoiseResult:
        """A few more steps from the filled canvas, with noise on the tokens of hole `index` that touch `spans`."""
        tokens = filled.result.tokens.clone()
        columns = filled.layout.holes[index]
        for slot, (start, end) in enumerate(hole.token_spans):
            if any(start < last and first < end for first, last in spans):
                tokens[columns.start + slot] = -1
        request = self._task(work, 0).request(filled.layout)
        canvas = replace(filled.layout.canvas, tokens=tokens)
        sampling = request.sampling.with_steps(REPAIR_STEPS)
        return self.denoiser.run([replace(request, canvas=canvas, sampling=sampling)])[0]

    def _copies(self, work: _Work, layout: Layout) -> list[Candidate]:
        """Drafts from the file and its neighbours, as likely as the causal encoder finds them."""
        before, after = work.before(0), work.after(0)
        sources = [neighbour.text for neighbour in work.request.neighbours]
        found = drafts(before, after, work.language, sources, COPY_DRAFTS, work.kinds[0].one_line)
        first = layout.holes[0]
        known = layout.canvas.tokens.tolist()[: first.start]
        copies = []
        for draft in found:
            tokens = self.family.tokens.encode(first.healed + draft.text)
            if not tokens:
                continue
            scores = causal_log_probabilities(
                self.denoiser.model, self.denoiser.cache, layout.prompt, known, tokens
            )
            confidence = float(scores.mean().exp())
            reason = first_refusal(self._check_context(work, 0, draft.text, confidence))
            copies.append(self._candidate(work, draft.text, confidence, reason, "copy", len(tokens)))
        return copies

    def _check_context(self, work: _Work, index: int, text: str, confidence: float) -> CheckContext:
        hole = work.holes[index]
        return CheckContext(
            before=work.before(index),
            text=text,
            after=work.after(index),
            language=work.language,
            confidence=confidence,
            min_confidence=self.min_confidence,
            replaced=work.text[hole.start : hole.end],
        )

    def _candidate(
        self, work: _Work, text: str, confidence: float, reason: str | None, source: Any, tokens: int
    ) -> Candidate:
        if work.text is not work.request.text and "\r\n" in work.request.text:
            text = text.replace("\n", "\r\n")
        return Candidate(text, round(confidence, 4), reason is None, reason, source, tokens)

    def _one_after_another(
        self, request: InfillRequest, work: _Work, on_step: OnStep | None, started: float
    ) -> InfillResult:
        """Each hole with a canvas of its own; what was filled above stands as text for those below."""
        text, shift, parts = request.text, 0, []
        for original in sorted(request.holes, key=lambda hole: hole.start):
            hole = Hole(original.start + shift, original.end + shift)
            left = None if work.deadline is None else max(1.0, 1000 * (work.deadline - time.monotonic()))
            part = self.complete(replace(request, text=text, holes=(hole,), deadline_ms=left), on_step)
            completion = part.completions[0]
            parts.append(replace(part, completions=(replace(completion, hole=original),)))
            if completion.shown:
                text = text[: hole.start] + completion.text + text[hole.end :]
                shift += len(completion.text) - (hole.end - hole.start)
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


def _hole_kind(text: str, hole: Hole, request: InfillRequest, language: str | None) -> TextHole:
    """Whole lines where the hole begins and ends at line starts; one line unless a block is asked for or expected."""
    before, after = text[: hole.start], text[hole.end :]
    at_start = not before or before.endswith("\n")
    at_next_line = not after or (not after.startswith("\n") and (not text[hole.start : hole.end] or text[hole.end - 1] == "\n"))
    lines = request.lines
    if lines == "auto":
        several = "\n" in text[hole.start : hole.end].rstrip("\n")
        lines = "block" if several or expects_block(before + after, hole.start, language) else "one"
    return TextHole(one_line=lines == "one", whole_lines=at_start and at_next_line)


def _original(work: _Work, hole: Hole) -> Hole:
    ordered = sorted(work.request.holes, key=lambda original: original.start)
    return ordered[work.holes.index(hole)]


def _stored_confidence(folder: Path) -> float:
    """The threshold that was calibrated with the model, 0 where there is none."""
    config = json.loads((folder / "config.json").read_text())
    return float((config.get("gesso") or {}).get("min_confidence", 0.0))
