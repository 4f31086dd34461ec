"""Texts that could stand in a hole, from every source, with the evidence for each.

Sources: the denoised canvas (mended where it breaks the parse), the causal encoder's draft, copies from the context.
Must not know the checks that decide what is shown, nor the bar.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from engine.config import SamplingConfig
from engine.denoiser import Denoiser, DenoiseResult
from engine.errors import leave_if
from engine.scorer import causal_log_probabilities
from engine.token_tree import TokenTree
from infill.checks.context import CheckContext
from infill.checks.parse import cut_back, error_spans_within, parse_worse
from infill.complete.canvas_text import HoleText, filled_text
from infill.complete.causal_draft import causal_draft
from infill.complete.copy_draft import drafts
from infill.complete.hole_length import CanvasRunner, Filled
from infill.complete.work import Work
from infill.prompts.prompt import CausalPrompt, Family
from infill.request import Evidence, Source
from infill.settings import Settings

COPY_DRAFTS = 2
SEAM = 8  # tokens after the hole whose likelihood counts
REPAIR_STEPS = 4
ALIKE = 8  # characters from the front that two ways must share to agree


@dataclass
class Proposal:
    """A text and the ways it came about. certainty: the denoiser's, in nats a token, where it wrote it.

    matched, fits, places: of a copy, as its `Draft` has them.
    """

    text: str
    sources: list[Source]
    tokens: int
    certainty: float = 0.0
    matched: int = 0
    fits: bool = False
    places: int = 0


class Proposals:
    """Finds them for one hole at a time."""

    def __init__(self, denoiser: Denoiser, canvases: CanvasRunner, family: Family, settings: Settings) -> None:
        self.denoiser, self.canvases, self.family, self.settings = denoiser, canvases, family, settings
        self.last_draft = ""  # the text up to the hole that was drafted for last, and all that the draft said

    def find(self, work: Work, index: int, filled: Sequence[Filled]) -> list[tuple[Proposal, Evidence]]:
        """All distinct texts for hole `index`, the denoiser's own first."""
        leave_if(work.stop)
        kind = work.kinds[index]
        canvases = [(one, filled_text(self.family, one.layout, one.result, index, kind)) for one in filled]
        if len(work.holes) == 1 and filled[0].result.finish != "cancelled":
            proposals, middles = self._of_all_ways(work, canvases)
        else:
            proposals = _distinct(self._denoised(work, index, one, hole, True) for one, hole in canvases)
            middles = [torch.zeros(0) for _ in proposals]
        leave_if(work.stop)
        seams = self._seams(work, filled[0], index, [proposal.text for proposal in proposals])
        ways = [(source, proposal.text) for proposal in proposals for source in proposal.sources]
        return [
            (proposal, _evidence(proposal, seam, middle, ways))
            for proposal, seam, middle in zip(proposals, seams, middles, strict=True)
        ]

    def _of_all_ways(
        self, work: Work, canvases: Sequence[tuple[Filled, HoleText]]
    ) -> tuple[list[Proposal], list[Tensor]]:
        """What comes of the canvases, the draft and the copies, and the log-probabilities of the tokens of each text by
        what stands before and after the hole; none where the encoder has not learnt to see that.

        What may turn out to be the draft is read with one pass before it is written, and likely enough it is. Where the
        draft parses, a canvas that does not is only cut back: more steps cost more than they bring then.
        """
        leave_if(work.stop)
        copies = self._copies(work) if self.settings.copy_drafts else []
        prompt = self.family.causal_prompt(work.shown, work.kinds[0])
        if prompt is None:
            proposals = _distinct([*(self._denoised(work, 0, *one, True) for one in canvases), *copies])
            return proposals, [torch.zeros(0) for _ in proposals]
        known, trunk = prompt.tokens[:-1], prompt.tokens[-1:]
        with (
            self.denoiser.cache.encoded(known, work.stop) as lease,
            TokenTree(self.denoiser.model, lease.kv, trunk, work.stop) as tree,
        ):
            drafts, sound = [], False
            if self.settings.causal_draft and not _late(work):
                texts = [*(hole.text for _, hole in canvases), *(copy.text for copy in copies), self._as_before(work)]
                tree.read([self._middle(prompt, text) for text in texts])
                draft, sound = self._drafted(work, prompt, tree)
                drafts = [draft]
            denoised = [self._denoised(work, 0, *one, not sound) for one in canvases]
            proposals = _distinct([*denoised, *drafts, *copies])
            written = [self._middle(prompt, one.text.rstrip("\n")) for one in proposals]
            tree.read(written)
            return proposals, [tree.log_probabilities(tokens) for tokens in written]

    def _middle(self, prompt: CausalPrompt, text: str) -> list[int]:
        return self.family.tokens.encode(prompt.typed + text)

    def _as_before(self, work: Work) -> str:
        """What is left of the last draft, where the user has typed what it said."""
        before = work.before(0)
        return self.last_draft[len(before) :] if self.last_draft.startswith(before) else ""

    def _denoised(self, work: Work, index: int, filled: Filled, hole: HoleText, again: bool) -> Proposal:
        """again: whether to denoise a little more where the text makes the parse worse."""
        leave_if(work.stop)
        if hole.text.strip() and parse_worse(self._context(work, index, hole.text)):
            hole = self._mended(work, index, filled, hole, again)
        return Proposal(hole.text, ["model"], hole.tokens, math.log(max(hole.confidence, 1e-9)))

    def _mended(self, work: Work, index: int, filled: Filled, hole: HoleText, again: bool) -> HoleText:
        """Re-noises what stands under parse errors and denoises a little more; then cuts back to what parses."""
        before, after = work.near(index)
        again = again and not _late(work) and filled.result.finish != "cancelled"
        spans = error_spans_within(before, hole.text, after, work.language) if again else ()
        if spans and filled.layout.canvas.width <= self.family.max_canvas:
            result = self._renoised(filled, index, hole, [(span.start, span.end) for span in spans])
            mended = filled_text(self.family, filled.layout, result, index, work.kinds[index])
            if mended.text.strip() and parse_worse(self._context(work, index, mended.text)) is None:
                return mended
        shorter = cut_back(before, hole.text, after, work.language, work.stop)
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

    def _drafted(self, work: Work, prompt: CausalPrompt, tree: TokenTree) -> tuple[Proposal, bool]:
        """The draft, cut back where it breaks the parse, and whether it says something that parses."""
        before, after = work.near(0)
        draft = causal_draft(tree, self.family, prompt, work.kinds[0], before, after, work.deadline)
        self.last_draft = work.before(0) + draft.written
        leave_if(work.stop)
        text, sound = draft.text, bool(draft.text.strip())
        if sound and parse_worse(self._context(work, 0, text)):
            shorter = cut_back(before, text, after, work.language, work.stop)
            text, sound = shorter or text, bool(shorter)
        return Proposal(text, ["causal"], len(self.family.tokens.encode(text))), sound

    def _copies(self, work: Work) -> list[Proposal]:
        """From the file and its neighbours."""
        kind, before, after = work.kinds[0], work.before(0), work.after(0)
        sources = [neighbour.text for neighbour in work.request.neighbours]
        copies = []
        for draft in drafts(before, after, work.language, sources, COPY_DRAFTS, kind.one_line):
            text = draft.text.rstrip("\n") + "\n" * kind.whole_lines
            copies.append(
                Proposal(
                    text,
                    ["copy"],
                    len(self.family.tokens.encode(text)),
                    matched=draft.match_length,
                    fits=draft.agrees_after,
                    places=draft.places,
                )
            )
        return copies

    def _seams(self, work: Work, filled: Filled, index: int, texts: Sequence[str]) -> list[float]:
        """Mean log-probability of each text and the SEAM tokens after it, by what stands before them.

        The denoiser's own probabilities say little of the seam: neighbours can be sure and yet wrong together.
        """
        columns, canvas = filled.layout.holes[index], filled.result.tokens.tolist()
        unfilled = (self.family.null_token, -1)
        known = [token for token in canvas[: columns.start] if token not in unfilled]
        seam = [token for token in canvas[columns.stop :] if token not in unfilled][:SEAM]
        written = [[*self.family.tokens.encode(columns.healed + text.rstrip("\n")), *seam] for text in texts]
        model, cache = self.denoiser.model, self.denoiser.cache
        scores = causal_log_probabilities(model, cache, filled.layout.prompt, known, written, work.stop)
        return [float(one.mean()) if len(one) else -math.inf for one in scores]

    def _context(self, work: Work, index: int, text: str) -> CheckContext:
        before, after = work.near(index)
        return CheckContext(before, text, after, work.language)


def _distinct(proposals: Iterable[Proposal]) -> list[Proposal]:
    """One for each text, with all the ways that it came about."""
    found: dict[str, Proposal] = {}
    for proposal in proposals:
        if (known := found.get(proposal.text)) is None:
            found[proposal.text] = proposal
        else:
            known.sources += [source for source in proposal.sources if source not in known.sources]
            known.matched, known.fits = max(known.matched, proposal.matched), known.fits or proposal.fits
            known.places += proposal.places
    return [*found.values()]


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
        matched=math.log1p(proposal.matched),
        fits=float(proposal.fits),
        places=math.log1p(proposal.places),
        agreeing=agreeing / max(len(ways) - 1, 1),
        length=math.log(max(proposal.tokens, 1)),
    )


def _late(work: Work) -> bool:
    return work.deadline is not None and time.monotonic() >= work.deadline


def _alike(one: str, other: str) -> bool:
    """Whether both begin with the same ALIKE characters, or are the same."""
    one, other = one.strip(), other.strip()
    return bool(one) and (one == other or (len(one) >= ALIKE and one[:ALIKE] == other[:ALIKE]))
