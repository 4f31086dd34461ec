"""What the denoiser would put where an edit stands, with that place hidden: observed against replacement, in one step.

On a clean canvas the token that stands there counts for itself, so it is taken out: the place is a hole, noise within,
both sides in sight. Must not know kinds of findings nor what is shown.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from engine.config import SamplingConfig
from engine.denoiser import CanvasRun, Denoiser, DenoiseRequest
from engine.errors import Stop, leave_if
from infill.code.context import ContextBudget, show_context
from infill.findings import LintRequest
from infill.lint.kinds import Edit
from infill.prompts.prompt import Family, HoleKind, Layout

LONGEST = 16  # tokens of a place that is worth hiding


class Hidden:
    """Asks one model. stop: asked before every pass; Cancelled is raised where it answers True."""

    def __init__(self, denoiser: Denoiser, family: Family, sampling: SamplingConfig, stop: Stop | None = None) -> None:
        self.denoiser, self.family, self.stop = denoiser, family, stop
        self.sampling = sampling.with_steps(1)
        budget = family.budget
        self.budget = ContextBudget(budget.prefix // 4, budget.suffix // 2, 0)

    def gains(self, request: LintRequest, edits: Sequence[Edit]) -> list[float]:
        """log p of the replacement less log p of what stands there, in nats, tokens taken one by one; 0 where the two
        have different lengths and the model knows no empty slots, or where they are too long. One batch."""
        asked: dict[int, tuple[CanvasRun, list[int], list[int]]] = {}
        gains = [0.0] * len(edits)
        try:
            for index, edit in enumerate(edits):
                leave_if(self.stop)
                if (laid := self._lay_out(request, edit)) is not None:
                    layout, old, new = laid
                    asked[index] = self.denoiser.start(self._request(layout)), old, new
            if asked:
                leave_if(self.stop)
                self.denoiser.step([run for run, _, _ in asked.values()])
            for index, (run, old, new) in asked.items():
                assert run.logits is not None
                rows = torch.log_softmax(run.logits.float(), dim=-1)
                at = torch.arange(len(old), device=rows.device)
                gains[index] = float((rows[at, new] - rows[at, old]).sum())
        finally:
            for run, _, _ in asked.values():
                self.denoiser.close(run)
        return gains

    def _lay_out(self, request: LintRequest, edit: Edit) -> tuple[Layout, list[int], list[int]] | None:
        """The canvas with the place hidden, and what fills it: as it is, and with the edit."""
        text, tokens, null = request.text, self.family.tokens, self.family.null_token
        shown = show_context(text, edit.start, edit.end, request.language, request.path, (), self.budget)
        one_line = "\n" not in text[edit.start : edit.end] + edit.replacement
        slots = max(len(tokens.encode(part)) for part in (text[edit.start : edit.end], edit.replacement)) + 1
        if slots > LONGEST or not one_line:
            return None
        layout = self.family.lay_out(shown, (HoleKind(True, False),), (), (slots,))
        columns = layout.holes[0]
        written = [tokens.encode(columns.healed + part) for part in (text[edit.start : edit.end], edit.replacement)]
        if null is None and len(written[0]) != len(written[1]):
            return None
        room = columns.stop - columns.start
        if max(map(len, written)) > room:
            return None
        old, new = (part + [null] * (room - len(part)) if null is not None else part for part in written)
        return layout, old, new

    def _request(self, layout: Layout) -> DenoiseRequest:
        banned = torch.tensor(layout.banned) if layout.banned else None
        return DenoiseRequest(layout.prompt, layout.canvas, self.sampling, banned=banned, stop=self.stop)
