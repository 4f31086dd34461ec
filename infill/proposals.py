"""Texts that could stand in a hole, from every source, with the evidence for each.

Sources: the denoised canvas (mended where it breaks the parse), the causal encoder's draft, copies from the context.
Must not know the checks that decide what is shown, nor the bar.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from engine.config import SamplingConfig
from engine.denoiser import Denoiser, DenoiseResult
from engine.scorer import causal_log_probabilities
from infill.canvas_text import HoleText, filled_text
from infill.causal_draft import causal_draft
from infill.check_context import CheckContext
from infill.confidence import Evidence
from infill.copy_draft import drafts
from infill.hole_length import Canvases, Filled
from infill.parse_check import cut_back, error_spans_within, parse_worse
from infill.prompt import CausalPrompt, Family
from infill.request import Source
from infill.settings import Settings
from infill.work import Work

COPY_DRAFTS = 2
SEAM = 8  # tokens after the hole whose likelihood counts
REPAIR_STEPS = 4
ALIKE = 8  # characters from the front that two ways must share to agree


@dataclass
class Proposal:
    """A text and the ways it came about. certainty: the denoiser's, in nats a token, where it wrote it."""

    text: str
    sources: list[Source]
    tokens: int
    certainty: float = 0.0


class Proposals:
    """Finds them for one hole at a time."""

    def __init__(self, denoiser: Denoiser, canvases: Canvases, family: Family, settings: Settings) -> None:
        self.denoiser, self.canvases, self.family, self.settings = denoiser, canvases, family, settings

    def find(self, work: Work, index: int, filled: Sequence[Filled]) -> list[tuple[Proposal, Evidence]]:
        """All distinct texts for hole `index`, the denoiser's own first."""
        found: dict[str, Proposal] = {}
        for one in filled:
            self._add(found, self._denoised(work, index, one))
        prompt = None
        if len(work.holes) == 1 and filled[0].result.finish != "cancelled":
            prompt = self.family.causal_prompt(work.shown, work.kinds[0])
            if prompt is not None and self.settings.causal_draft and not _late(work):
                self._add(found, self._drafted(work, prompt))
            if self.settings.copy_drafts:
                for copy in self._copies(work):
                    self._add(found, copy)
        proposals = [*found.values()]
        seams = self._seams(filled[0], index, [proposal.text for proposal in proposals])
        middles = self._middles(prompt, [proposal.text for proposal in proposals])
        ways = [(source, proposal.text) for proposal in proposals for source in proposal.sources]
        return [
            (proposal, _evidence(proposal, seam, middle, ways))
            for proposal, seam, middle in zip(proposals, seams, middles, strict=True)
        ]

    @staticmethod
    def _add(found: dict[str, Proposal], proposal: Proposal) -> None:
        if (known := found.get(proposal.text)) is None:
            found[proposal.text] = proposal
        else:
            known.sources += [source for source in proposal.sources if source not in known.sources]

    def _denoised(self, work: Work, index: int, filled: Filled) -> Proposal:
        hole = filled_text(self.family, filled.layout, filled.result, index, work.kinds[index])
        if hole.text.strip() and parse_worse(self._context(work, index, hole.text)):
            hole = self._mended(work, index, filled, hole)
        return Proposal(hole.text, ["model"], hole.tokens, math.log(max(hole.confidence, 1e-9)))

    def _mended(self, work: Work, index: int, filled: Filled, hole: HoleText) -> HoleText:
        """Re-noises what stands under parse errors and denoises a little more; then cuts back to what parses."""
        before, after = work.before(index), work.after(index)
        late = _late(work) or filled.result.finish == "cancelled"
        spans = error_spans_within(before, hole.text, after, work.language)
        if spans and not late and filled.layout.canvas.width <= self.family.max_canvas:
            result = self._renoised(filled, index, hole, [(span.start, span.end) for span in spans])
            again = filled_text(self.family, filled.layout, result, index, work.kinds[index])
            if again.text.strip() and parse_worse(self._context(work, index, again.text)) is None:
                return again
        shorter = cut_back(before, hole.text, after, work.language)
        return hole.cut(shorter) if shorter.strip() else hole

    def _renoised(self, filled: Filled, index: int, hole: HoleText, spans: Sequence[tuple[int, int]]) -> DenoiseResult:
        """A few more steps from the filled canvas, with noise on the tokens of hole `index` that touch `spans`."""
        tokens = filled.result.tokens.clone()
        columns = filled.layout.holes[index]
        for slot, (start, end) in enumerate(hole.token_spans):
            if any(start < last and first < end for first, last in spans):
                tokens[columns.start + slot] = -1
        sampling: SamplingConfig = filled.request.sampling.with_steps(REPAIR_STEPS)
        canvas = replace(filled.layout.canvas, tokens=tokens)
        return self.canvases.run([replace(filled.request, canvas=canvas, sampling=sampling)])[0]

    def _drafted(self, work: Work, prompt: CausalPrompt) -> Proposal:
        before, after = work.before(0), work.after(0)
        draft = causal_draft(self.denoiser, self.family, prompt, work.kinds[0], before, after, work.deadline)
        text = draft.text
        if text.strip() and parse_worse(self._context(work, 0, text)):
            text = cut_back(before, text, after, work.language) or text
        return Proposal(text, ["causal"], len(self.family.tokens.encode(text)))

    def _copies(self, work: Work) -> list[Proposal]:
        """From the file and its neighbours."""
        kind, before, after = work.kinds[0], work.before(0), work.after(0)
        sources = [neighbour.text for neighbour in work.request.neighbours]
        copies = []
        for draft in drafts(before, after, work.language, sources, COPY_DRAFTS, kind.one_line):
            text = draft.text.rstrip("\n") + "\n" * kind.whole_lines
            copies.append(Proposal(text, ["copy"], len(self.family.tokens.encode(text))))
        return copies

    def _seams(self, filled: Filled, index: int, texts: Sequence[str]) -> list[float]:
        """Mean log-probability of each text and the SEAM tokens after it, by what stands before them.

        The denoiser's own probabilities say little of the seam: neighbours can be sure and yet wrong together.
        """
        columns, canvas = filled.layout.holes[index], filled.result.tokens.tolist()
        unfilled = (self.family.null_token, -1)
        known = [token for token in canvas[: columns.start] if token not in unfilled]
        seam = [token for token in canvas[columns.stop :] if token not in unfilled][:SEAM]
        written = [[*self.family.tokens.encode(columns.healed + text.rstrip("\n")), *seam] for text in texts]
        scores = self._scores(filled.layout.prompt, known, written)
        return [float(one.mean()) if len(one) else -math.inf for one in scores]

    def _middles(self, prompt: CausalPrompt | None, texts: Sequence[str]) -> list[Tensor]:
        """Log-probabilities of the tokens of each text, by what stands before and after; none without a prompt."""
        if prompt is None:
            return [torch.zeros(0) for _ in texts]
        written = [self.family.tokens.encode(prompt.typed + text.rstrip("\n")) for text in texts]
        return self._scores(prompt.tokens[:-1], prompt.tokens[-1:], written)

    def _scores(self, prompt: Sequence[int], known: Sequence[int], written: Sequence[Sequence[int]]) -> list[Tensor]:
        return causal_log_probabilities(self.denoiser.model, self.denoiser.cache, prompt, known, written)

    def _context(self, work: Work, index: int, text: str) -> CheckContext:
        return CheckContext(work.before(index), text, work.after(index), work.language)


def _evidence(proposal: Proposal, seam: float, middle: Tensor, ways: Sequence[tuple[Source, str]]) -> Evidence:
    others = [text for source, text in ways if source not in proposal.sources]
    agreeing = len(proposal.sources) - 1 + sum(_alike(proposal.text, text) for text in others)
    return Evidence(
        seam=seam,
        middle=float(middle.mean()) if len(middle) else 0.0,
        weakest=float(middle.min()) if len(middle) else 0.0,
        certainty=proposal.certainty,
        denoised=float("model" in proposal.sources),
        drafted=float("causal" in proposal.sources),
        copied=float("copy" in proposal.sources),
        agreeing=agreeing / max(len(ways) - 1, 1),
        length=math.log(max(proposal.tokens, 1)),
    )


def _late(work: Work) -> bool:
    return work.deadline is not None and time.monotonic() >= work.deadline


def _alike(one: str, other: str) -> bool:
    """Whether both begin with the same ALIKE characters, or are the same."""
    one, other = one.strip(), other.strip()
    return bool(one) and (one == other or (len(one) >= ALIKE and one[:ALIKE] == other[:ALIKE]))
