"""The judge for models with a denoiser: how much likelier it finds an edit than the original when it sees neither.

On a clean canvas the denoiser sees the token at a position as its own input, so the position becomes a hole of noise
with both sides visible. Must not know kinds of findings, nor thresholds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from engine.canvas_run import CanvasDenoiser, CanvasRun, DenoiseRequest
from engine.config import Sampling
from engine.errors import Stop, leave_if
from infill.code.context import ContextBudget, show_context
from infill.findings import LintRequest, Range
from infill.lint.judge import Gain, IsPossible, ranked
from infill.lint.kinds import Edit
from infill.prompts.prompt import Family, HoleKind, Layout

MAX_SLOTS = 16  # slots of a hole
BATCH = 16  # positions at once
MIN_GAIN = 0.0  # nats


class DenoiserJudge:
    """A `Judge`. stop: polled before every pass; once it returns True, Cancelled is raised."""

    def __init__(self, denoiser: CanvasDenoiser, family: Family, sampling: Sampling, stop: Stop | None = None) -> None:
        self.denoiser, self.family, self.stop = denoiser, family, stop
        self.sampling = sampling.with_steps(1)
        budget = family.budget
        self.budget = ContextBudget(budget.prefix // 4, budget.suffix // 2, 0)

    def gains(
        self,
        request: LintRequest,
        ranges: Sequence[Range],
        edits: Iterable[Edit],
        is_possible: IsPossible | None = None,
    ) -> dict[Edit, Gain]:
        """See `Judge`. Positions are hidden one at a time, for all their edits. Edits that are too long are left out,
        and so are those that change the number of tokens if the model has no null token."""
        positions: defaultdict[Range, list[Edit]] = defaultdict(list)
        for edit in edits:
            if self._is_short(request, edit):
                positions[edit.start, edit.end].append(edit)
        waiting, found = [*positions.values()], dict[Edit, Gain]()
        for start in range(0, len(waiting), BATCH):
            found |= self._batch(request, waiting[start : start + BATCH])
        return ranked(found)

    def _batch(self, request: LintRequest, positions: Sequence[Sequence[Edit]]) -> dict[Edit, Gain]:
        started: list[tuple[CanvasRun, Layout, Sequence[Edit]]] = []
        gains: dict[Edit, Gain] = {}
        try:
            for edits in positions:
                leave_if(self.stop)
                layout = self._lay_out(request, edits)
                started.append((self.denoiser.start(self._request(layout)), layout, edits))
            leave_if(self.stop)
            self.denoiser.step([run for run, _, _ in started])
            for run, layout, edits in started:
                assert run.logits is not None
                rows = torch.log_softmax(run.logits.float(), dim=-1)
                for edit in edits:
                    gain = self._gain(request, layout, rows, edit)
                    if gain is not None and gain.total > MIN_GAIN:
                        gains[edit] = gain
        finally:
            for run, _, _ in started:
                self.denoiser.close(run)
        return gains

    def _gain(self, request: LintRequest, layout: Layout, rows: Tensor, edit: Edit) -> Gain | None:
        """rows: log-probabilities [slots, vocab]."""
        columns, null = layout.holes[0], self.family.null_token
        encode = self.family.tokens.encode
        fillings = request.text[edit.start : edit.end], edit.replacement
        old, new = (encode(columns.healed + filling) for filling in fillings)
        width = columns.stop - columns.start
        if max(len(old), len(new)) > width or (null is None and len(old) != len(new)):
            return None
        if null is not None:
            old, new = (filled + [null] * (width - len(filled)) for filled in (old, new))
        at = torch.arange(len(old), device=rows.device)
        first = next((index for index, (a, b) in enumerate(zip(old, new, strict=True)) if a != b), 0)
        gain = rows[at, new] - rows[at, old]
        return Gain(float(gain.sum()), surprisal=float(-rows[at, old].sum()), first_gain=float(gain[first]))

    def _is_short(self, request: LintRequest, edit: Edit) -> bool:
        fillings = request.text[edit.start : edit.end], edit.replacement
        return all("\n" not in one and len(self.family.tokens.encode(one)) < MAX_SLOTS for one in fillings)

    def _lay_out(self, request: LintRequest, edits: Sequence[Edit]) -> Layout:
        """The canvas with the position of the edits hidden."""
        text, encode = request.text, self.family.tokens.encode
        start, end = edits[0].start, edits[0].end
        shown = show_context(text, start, end, request.language, request.path, (), self.budget, self.stop)
        slots = max(len(encode(one)) for one in (text[start:end], *(edit.replacement for edit in edits))) + 1
        return self.family.plan(shown, (HoleKind(True, False),), ()).lay_out((slots,))

    def _request(self, layout: Layout) -> DenoiseRequest:
        return DenoiseRequest(layout.prompt, layout.canvas, self.sampling, banned=layout.banned, stop=self.stop)
