"""How much likelier the denoiser finds an edit than the original when it cannot see either: one step, position masked.

On a clean canvas the denoiser sees the token at a position as its own input, so the position becomes a hole of noise
with both sides visible. Must not know kinds of findings, nor thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from engine.canvas_run import CanvasDenoiser, CanvasRun, DenoiseRequest
from engine.config import Sampling
from engine.errors import Stop, leave_if
from infill.code.context import ContextBudget, show_context
from infill.findings import LintRequest
from infill.lint.kinds import Edit
from infill.prompts.prompt import Family, HoleKind, Layout

MAX_SLOTS = 16  # slots of a hole


class MaskedLikelihood:
    """Queries one model. stop: polled before every pass; once it returns True, Cancelled is raised."""

    def __init__(self, denoiser: CanvasDenoiser, family: Family, sampling: Sampling, stop: Stop | None = None) -> None:
        self.denoiser, self.family, self.stop = denoiser, family, stop
        self.sampling = sampling.with_steps(1)
        budget = family.budget
        self.budget = ContextBudget(budget.prefix // 4, budget.suffix // 2, 0)

    def gains(self, request: LintRequest, edits: Sequence[Edit]) -> list[float]:
        """log p(replacement) - log p(original) of each edit in nats, summed over tokens, in one batch.

        0 for edits that are too long, and for those that change the number of tokens if the model has no null token.
        """
        started: dict[int, tuple[CanvasRun, list[int], list[int]]] = {}
        gains = [0.0] * len(edits)
        try:
            for index, edit in enumerate(edits):
                leave_if(self.stop)
                if (laid_out := self._lay_out(request, edit)) is not None:
                    layout, old, new = laid_out
                    started[index] = self.denoiser.start(self._request(layout)), old, new
            if started:
                leave_if(self.stop)
                self.denoiser.step([run for run, _, _ in started.values()])
            for index, (run, old, new) in started.items():
                assert run.logits is not None
                rows = torch.log_softmax(run.logits.float(), dim=-1)
                at = torch.arange(len(old), device=rows.device)
                gains[index] = float((rows[at, new] - rows[at, old]).sum())
        finally:
            for run, _, _ in started.values():
                self.denoiser.close(run)
        return gains

    def _lay_out(self, request: LintRequest, edit: Edit) -> tuple[Layout, list[int], list[int]] | None:
        """(canvas with the position masked, tokens of the original, tokens of the replacement)."""
        text, tokens, null = request.text, self.family.tokens, self.family.null_token
        shown = show_context(text, edit.start, edit.end, request.language, request.path, (), self.budget, self.stop)
        fillings = text[edit.start : edit.end], edit.replacement
        slots = max(len(tokens.encode(filling)) for filling in fillings) + 1
        if slots > MAX_SLOTS or any("\n" in filling for filling in fillings):
            return None
        layout = self.family.plan(shown, (HoleKind(True, False),), ()).lay_out((slots,))
        columns = layout.holes[0]
        old, new = (tokens.encode(columns.healed + filling) for filling in fillings)
        if null is None and len(old) != len(new):
            return None
        width = columns.stop - columns.start
        if max(len(old), len(new)) > width:
            return None
        if null is not None:
            old, new = (filled + [null] * (width - len(filled)) for filled in (old, new))
        return layout, old, new

    def _request(self, layout: Layout) -> DenoiseRequest:
        return DenoiseRequest(layout.prompt, layout.canvas, self.sampling, banned=layout.banned, stop=self.stop)
