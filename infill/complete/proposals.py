"""Proposals for a hole from every source, with the evidence for each.

Sources: the denoised canvas (repaired if it breaks the parse), the causal encoder's draft, copies from the context.
Must not know the other checks, nor the threshold of confidence.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from engine.canvas_run import CanvasDenoiser, DenoiseResult
from engine.errors import leave_if
from engine.token_tree import TokenTree
from infill.checks.context import CheckContext
from infill.checks.parse import cut_back, error_spans_within, parse_worse
from infill.complete.canvas_text import HoleText, hole_text
from infill.complete.causal_draft import causal_draft
from infill.complete.copy_draft import copy_drafts
from infill.complete.hole_length import CanvasRunner, FilledCanvas
from infill.complete.last_draft import LastDraft
from infill.complete.prepared import PreparedRequest
from infill.prompts.prompt import CausalPrompt, Family
from infill.prompts.text_tokens import TextTokens
from infill.request import Evidence, Source
from infill.settings import Settings

COPY_DRAFTS = 2
SEAM = 8  # tokens after the hole that are scored with the text
REPAIR_STEPS = 4
ALIKE = 8  # leading characters that two texts must share to agree


@dataclass
class Proposal:
    """A text and its sources. certainty: the denoiser's, in nats per token; 0 for a text of another source.

    matched, fits, occurrences: of a copy, as in `CopyDraft`.
    """

    text: str
    sources: list[Source]
    tokens: int
    certainty: float = 0.0
    matched: int = 0
    fits: bool = False
    occurrences: int = 0


class Proposer:
    """Makes the proposals of a request. last_draft: of the causal encoder."""

    def __init__(self, denoiser: CanvasDenoiser, runner: CanvasRunner, family: Family, settings: Settings) -> None:
        self.denoiser, self.runner, self.family, self.settings = denoiser, runner, family, settings
        self.last_draft = LastDraft()

    def find(
        self, prepared: PreparedRequest, index: int, filled: Sequence[FilledCanvas]
    ) -> list[tuple[Proposal, Evidence]]:
        """All distinct texts for hole `index`, those of the denoiser first."""
        leave_if(prepared.stop)
        kind = prepared.kinds[index]
        canvases = [(one, hole_text(self.family, one.layout, one.result, index, kind)) for one in filled]
        if filled[0].result.finish != "cancelled":
            proposals, middles = self._from_all_sources(prepared, index, canvases)
        else:
            proposals = distinct(self._denoised(prepared, index, one, hole, True) for one, hole in canvases)
            middles = [torch.zeros(0) for _ in proposals]
        leave_if(prepared.stop)
        seams = self._seams(prepared, filled[0], index, [proposal.text for proposal in proposals])
        texts = [(source, proposal.text) for proposal in proposals for source in proposal.sources]
        return [
            (proposal, _evidence(proposal, seam, middle, texts))
            for proposal, seam, middle in zip(proposals, seams, middles, strict=True)
        ]

    def _from_all_sources(
        self, prepared: PreparedRequest, index: int, canvases: Sequence[tuple[FilledCanvas, HoleText]]
    ) -> tuple[list[Proposal], list[Tensor]]:
        """The proposals, and for each the log-probabilities of its tokens given the text on both sides of the hole.

        Those are empty if the causal encoder is not trained to fill in the middle. The likely drafts are encoded in one
        pass before decoding, which then finds them in the tree. If the draft parses, a canvas that does not is cut back
        without further steps: they would cost more than they gain. After the deadline nothing is added to the canvas.
        """
        leave_if(prepared.stop)
        in_time = not prepared.is_late()
        copied = copies(prepared, index, self.family.tokens) if self.settings.copy_drafts and in_time else []
        prompt = self.family.causal_prompt(prepared.shown_around(index), prepared.kinds[index])
        if prompt is None:
            proposals = distinct([*(self._denoised(prepared, index, *one, True) for one in canvases), *copied])
            return proposals, [torch.zeros(0) for _ in proposals]
        known, trunk = prompt.tokens[:-1], prompt.tokens[-1:]
        with (
            self.denoiser.cache.encoded(known, prepared.stop) as lease,
            TokenTree(self.denoiser.model, lease.kv, trunk, prepared.stop) as tree,
        ):
            drafts, parses = [], False
            if self.settings.causal_draft and not prepared.is_late():
                texts = [
                    *(hole.text for _, hole in canvases),
                    *(copy.text for copy in copied),
                    self.last_draft.rest(prepared.before(index)),
                ]
                tree.read([self._middle(prompt, text) for text in texts])
                draft, parses = self._drafted(prepared, index, prompt, tree)
                drafts = [draft]
            denoised = [self._denoised(prepared, index, *one, not parses) for one in canvases]
            proposals = distinct([*denoised, *drafts, *copied])
            token_lists = [self._middle(prompt, one.text.rstrip("\n")) for one in proposals]
            tree.read(token_lists)
            return proposals, [tree.log_probabilities(tokens) for tokens in token_lists]

    def _middle(self, prompt: CausalPrompt, text: str) -> list[int]:
        return self.family.tokens.encode(prompt.typed + text)

    def _denoised(
        self, prepared: PreparedRequest, index: int, filled: FilledCanvas, hole: HoleText, again: bool
    ) -> Proposal:
        """again: whether to denoise a few more steps if the text makes the parse worse."""
        leave_if(prepared.stop)
        hole = hole.cut(prepared.without_overlap(index, hole.text))
        if hole.text.strip() and parse_worse(self._context(prepared, index, hole.text)):
            hole = self._repaired(prepared, index, filled, hole, again)
        return Proposal(hole.text, ["model"], hole.tokens, math.log(max(hole.confidence, 1e-9)))

    def _repaired(
        self, prepared: PreparedRequest, index: int, filled: FilledCanvas, hole: HoleText, again: bool
    ) -> HoleText:
        """Re-noises the tokens under parse errors and denoises a few steps; if that fails, cuts back to what parses.

        A canvas that started from the last one is only cut back: the last one was denoised again already.
        """
        before, after = prepared.near(index)
        again = again and not filled.is_warm and not prepared.is_late() and filled.result.finish != "cancelled"
        spans = error_spans_within(before, hole.text, after, prepared.language, prepared.stop_parsing) if again else ()
        if spans and filled.layout.canvas.width <= self.family.max_canvas:
            result = self._renoised(filled, index, hole, [(span.start, span.end) for span in spans])
            repaired = hole_text(self.family, filled.layout, result, index, prepared.kinds[index])
            repaired = repaired.cut(prepared.without_overlap(index, repaired.text))
            if repaired.text.strip() and parse_worse(self._context(prepared, index, repaired.text)) is None:
                return repaired
        shorter = cut_back(before, hole.text, after, prepared.language, prepared.stop, prepared.stop_parsing)
        return hole.cut(shorter) if shorter.strip() else hole

    def _renoised(
        self, filled: FilledCanvas, index: int, hole: HoleText, spans: Sequence[tuple[int, int]]
    ) -> DenoiseResult:
        """A few more steps, with noise on the tokens of hole `index` that overlap `spans` of its text."""
        tokens = filled.result.tokens.clone()
        columns = filled.layout.holes[index]
        for slot, (start, end) in enumerate(hole.token_spans):
            if any(start < last and first < end for first, last in spans):
                tokens[columns.start + slot] = -1
        sampling = filled.request.sampling.with_steps(REPAIR_STEPS)
        canvas = replace(filled.layout.canvas, tokens=tokens)
        return self.runner.run([replace(filled.request, canvas=canvas, sampling=sampling, growth=())])[0]

    def _drafted(
        self, prepared: PreparedRequest, index: int, prompt: CausalPrompt, tree: TokenTree
    ) -> tuple[Proposal, bool]:
        """The draft, cut back if it breaks the parse, and whether it is text that parses."""
        before, after = prepared.near(index)
        draft = causal_draft(tree, self.family, prompt, prepared.kinds[index], before, prepared.deadline)
        self.last_draft = replace(LastDraft.at(prepared.before(index), draft.decoded), canvas=self.last_draft.canvas)
        leave_if(prepared.stop)
        text = prepared.until_next_line(index, draft.text)
        parses = bool(text.strip())
        if parses and parse_worse(self._context(prepared, index, text)):
            shorter = cut_back(before, text, after, prepared.language, prepared.stop, prepared.stop_parsing)
            text, parses = shorter or text, bool(shorter)
        return Proposal(text, ["causal"], len(self.family.tokens.encode(text))), parses

    def _seams(self, prepared: PreparedRequest, filled: FilledCanvas, index: int, texts: Sequence[str]) -> list[float]:
        """Mean log-probability of each text, given what the scorer sees of its surroundings.

        A causal scorer also scores the SEAM tokens after the text.
        The denoiser's own probabilities are a poor measure here: it can be certain of each token on both sides of a
        seam that is wrong.
        """
        columns, canvas = filled.layout.holes[index], filled.result.tokens.tolist()
        unfilled = (self.family.null_token, -1)
        known = [token for token in canvas[: columns.start] if token not in unfilled]
        after = [token for token in canvas[columns.stop :] if token not in unfilled]
        encoded = [self.family.tokens.encode(columns.healed + text.rstrip("\n")) for text in texts]
        scores = self.runner.scorer.text_scores(filled.layout.prompt, known, encoded, after, SEAM, prepared.stop)
        return [float(one.mean()) if len(one) else -math.inf for one in scores]

    def _context(self, prepared: PreparedRequest, index: int, text: str) -> CheckContext:
        before, after = prepared.near(index)
        return CheckContext(before, text, after, prepared.language, stop=prepared.stop_parsing)


def copies(prepared: PreparedRequest, index: int, tokens: TextTokens) -> list[Proposal]:
    """Copies from the file and its neighbours for hole `index`."""
    kind = prepared.kinds[index]
    sources = [neighbour.text for neighbour in prepared.request.neighbours]
    found = []
    for draft in copy_drafts(
        prepared.before(index),
        prepared.after(index),
        prepared.language,
        sources,
        COPY_DRAFTS,
        kind.one_line,
        prepared.stop_parsing,
    ):
        text = prepared.without_overlap(index, draft.text.rstrip("\n") + "\n" * kind.whole_lines)
        found.append(
            Proposal(
                text,
                ["copy"],
                len(tokens.encode(text)),
                matched=draft.match_length,
                fits=draft.agrees_after,
                occurrences=draft.occurrences,
            )
        )
    return found


def distinct(proposals: Iterable[Proposal]) -> list[Proposal]:
    """One proposal per text, with all its sources."""
    found: dict[str, Proposal] = {}
    for proposal in proposals:
        if (known := found.get(proposal.text)) is None:
            found[proposal.text] = proposal
        else:
            known.sources += [source for source in proposal.sources if source not in known.sources]
            known.matched, known.fits = max(known.matched, proposal.matched), known.fits or proposal.fits
            known.occurrences += proposal.occurrences
    return [*found.values()]


def _evidence(proposal: Proposal, seam: float, middle: Tensor, texts: Sequence[tuple[Source, str]]) -> Evidence:
    others = [text for source, text in texts if source not in proposal.sources]
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
        places=math.log1p(proposal.occurrences),
        agreeing=agreeing / max(len(texts) - 1, 1),
        length=math.log(max(proposal.tokens, 1)),
    )


def _alike(one: str, other: str) -> bool:
    """Whether both begin with the same ALIKE characters, or are equal."""
    one, other = one.strip(), other.strip()
    return bool(one) and (one == other or (len(one) >= ALIKE and one[:ALIKE] == other[:ALIKE]))
