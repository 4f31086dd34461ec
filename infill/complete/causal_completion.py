"""The pipeline from a request to its completion for an autoregressive code model.

The prompt, a few continuations decoded at once, copies from the context, their likelihood together with what follows
the hole, then confidence and checks. Must not know editors, command lines or files.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count

import torch

from engine.decoding import Continuation, Limits, decode
from engine.errors import Cancelled, GessoError, Stop, leave_if
from engine.guesses import Guesses
from engine.token_tree import TokenTree
from infill.checks.context import CheckContext
from infill.checks.parse import cut_back, parse_worse
from infill.complete.beginning import (
    LEAST_CHARACTERS,
    LEAST_PROBABILITY,
    MOST_PROBABILITY,
    PROBABILITY,
    likely_beginning,
)
from infill.complete.causal_draft import block_end
from infill.complete.code_model import CodeModel
from infill.complete.comments import without_comment
from infill.complete.judging import judge, no_time, one_after_another, until_stopped
from infill.complete.last_draft import LastDraft
from infill.complete.prepared import PreparedRequest, prepare
from infill.complete.proposals import Proposal, copies, distinct
from infill.prompts.fim import FimInput
from infill.prompts.prompt import HoleKind, suffix_texts
from infill.request import Candidate, Evidence, HoleCompletion, InfillRequest, InfillResult, OnStep, Piece, StepView
from infill.settings import Settings

BRANCHES, MARGIN = 3, 3.0  # continuations at once; nats that the first token of one may be less likely
LINE_TOKENS, BLOCK_TOKENS, BLOCK_LINES = 48, 192, 12
MOST_MARGIN = 12.0  # nats
READ_CHUNK = 128  # tokens per pass if something waits for its end: a completion, or a deadline
SEAM_LINES, SEAM_TOKENS = 3, 24  # of the text after the hole that is scored with a proposal


@dataclass
class _Scored:
    """A proposal with its tokens and their log-probabilities, given the text on both sides of the hole."""

    proposal: Proposal
    tokens: list[int]
    middle: list[float]


@dataclass
class _InOrder:
    """Log-probabilities given only the text before. mean: per token of text and what follows it; text: of the text."""

    mean: float
    text: float


class CausalCompleter:
    """Fills holes with a loaded code model. Cheap to make; for one caller at a time."""

    def __init__(self, model: CodeModel, settings: Settings) -> None:
        self.model, self.settings = model, settings
        self.family, self.decoder = model.family, model.decoder
        self.min_confidence = model.min_confidence if settings.min_confidence is None else settings.min_confidence
        self.last_draft = LastDraft()
        self._banned = torch.tensor(self.family.banned, dtype=torch.long)

    def complete(self, request: InfillRequest, on_step: OnStep | None = None, stop: Stop | None = None) -> InfillResult:
        """Fills the holes of one request, one after the other from the top; see `Completer.complete`.

        Without candidates if the deadline passes before the prompt is read; what was read stays in the cache.
        """
        started = time.perf_counter()
        leave_if(stop)
        prepared = prepare(request, self.family.budget, stop)
        leave_if(prepared.stop)
        watch = until_stopped(on_step) if on_step is not None else None
        if len(prepared.holes) > 1:
            return one_after_another(self.complete, prepared, watch, stop, started)
        fim = self.family.fill(prepared.shown, prepared.kinds[0])
        encoding = time.perf_counter()
        chunk = None if prepared.deadline is None else READ_CHUNK
        try:
            with self.decoder.cache.encoded(fim.tokens[:-1], _stop_reading(prepared), chunk) as lease:
                decoding = time.perf_counter()
                with TokenTree(self.decoder.model, lease.kv, fim.tokens[-1:], prepared.stop) as tree:
                    scored, steps = self._proposals(prepared, fim, tree, watch)
                encoded = lease.encoded
        except Cancelled:
            leave_if(prepared.stop)
            return self._without_candidates(prepared, fim, started, encoding)
        scoring = time.perf_counter()
        in_order = self._in_order(prepared, fim, scored)
        calibration = self.model.calibration
        candidates = [
            judge(prepared, 0, one.proposal, _evidence(prepared, one, seen, scored), calibration, self.min_confidence)
            for one, seen in zip(scored, in_order, strict=True)
        ]
        found = _best_first(candidates)
        if not found[0].shown and (beginning := self._beginning(prepared, fim, scored)) is not None:
            found = (beginning, *found)
        if watch is not None:
            watch(self._view(prepared, found[0].text.replace("\r\n", "\n"), steps, steps))
        ended = time.perf_counter()
        best = found[0]
        return InfillResult(
            completions=(
                HoleCompletion(prepared.originals[0], best.text, best.shown, best.reason, best.confidence, found),
            ),
            steps=steps,
            prompt_tokens=len(fim.tokens),
            encoded_tokens=encoded + 1,
            canvas=0,
            hole=best.tokens,
            timings_ms={
                "context": 1000 * (encoding - started),
                "encode": 1000 * (decoding - encoding),
                "denoise": 1000 * (scoring - decoding),
                "checks": 1000 * (ended - scoring),
                "total": 1000 * (ended - started),
            },
            model=self.model.name,
            seed=request.seed,
        )

    def _without_candidates(
        self, prepared: PreparedRequest, fim: FimInput, started: float, encoding: float
    ) -> InfillResult:
        now = time.perf_counter()
        return InfillResult(
            completions=(no_time(prepared.originals[0]),),
            steps=0,
            prompt_tokens=len(fim.tokens),
            encoded_tokens=0,
            canvas=0,
            hole=0,
            timings_ms={
                "context": 1000 * (encoding - started),
                "encode": 1000 * (now - encoding),
                "denoise": 0.0,
                "checks": 0.0,
                "total": 1000 * (now - started),
            },
            model=self.model.name,
            seed=prepared.request.seed,
        )

    def complete_batch(self, requests: Sequence[InfillRequest]) -> list[InfillResult | GessoError]:
        """One request after the other; the result of an invalid request is its error."""
        results: list[InfillResult | GessoError] = []
        for request in requests:
            try:
                results.append(self.complete(request))
            except Cancelled:
                raise
            except GessoError as error:
                results.append(error)
        return results

    def read_ahead(self, request: InfillRequest, stop: Stop | None = None) -> int:
        """Encodes the prompts of a request with one hole, so that completing it there soon need not.

        stop: called between chunks; once it returns True, Cancelled is raised, and what was encoded stays in the cache.
        Returns the number of encoded tokens.
        """
        prepared = prepare(request, self.family.budget, stop)
        fim = self.family.fill(prepared.shown, prepared.kinds[0])
        encoded = 0
        for tokens in (fim.tokens[:-1], fim.plain[:-1]):
            with self.decoder.cache.encoded(tokens, stop, READ_CHUNK) as lease:
                encoded += lease.encoded
        return encoded

    def _proposals(
        self, prepared: PreparedRequest, fim: FimInput, tree: TokenTree, on_step: OnStep | None
    ) -> tuple[list[_Scored], int]:
        """All distinct proposals, and the number of tokens of the longest continuation."""
        kind = prepared.kinds[0]
        copied = copies(prepared, 0, self.family.tokens) if self.settings.copy_drafts else []
        before = prepared.before(0)
        drafts = [*(copy.text for copy in copied), self.last_draft.rest(before)]
        encoded = [self.family.tokens.encode(fim.held + text) for text in drafts if text.strip()]
        guesses = Guesses(fim.tokens, encoded)
        count = max(BRANCHES if kind.one_line else 1, prepared.request.candidates)
        limits = self._limits(prepared, fim, kind)
        on_token = None if on_step is None else self._on_token(prepared, fim, limits, on_step)
        margin = MARGIN if prepared.request.candidates == 1 else math.inf
        found = decode(tree, limits, count, margin, guesses, on_token)
        self.last_draft = LastDraft.at(before, self._text(fim, found[0].tokens))
        proposals = [self._decoded(prepared, fim, kind, one) for one in found]
        leave_if(prepared.stop)
        unique = distinct(proposals if prepared.is_late() else [*proposals, *copied])
        token_lists = [self.family.tokens.encode(fim.held + one.text.rstrip("\n")) for one in unique]
        tree.read([tokens[:-1] for tokens in token_lists])
        scored = [
            _Scored(proposal, tokens, tree.log_probabilities(tokens).tolist())
            for proposal, tokens in zip(unique, token_lists, strict=True)
        ]
        return scored, max(len(one.tokens) for one in found)

    def _limits(self, prepared: PreparedRequest, fim: FimInput, kind: HoleKind) -> Limits:
        near, _ = prepared.near(0)
        line = near[near.rfind("\n") + 1 :]

        def done(tokens: Sequence[int]) -> bool:
            if tokens[-1] in self.family.ends:
                return True
            text = self._text(fim, tokens)
            if kind.one_line:
                ended = "\n" in (text.lstrip("\n") if kind.whole_lines else text)
                return ended or without_comment(near, text, prepared.language, growing=True) != text
            return _block_end(line, text) is not None or text.count("\n") > BLOCK_LINES

        return Limits(
            tokens=LINE_TOKENS if kind.one_line else BLOCK_TOKENS,
            allowed=lambda tokens: self.family.allowed(fim.held, tokens),
            done=done,
            banned=self._banned,
            stop=prepared.is_late,
        )

    def _on_token(
        self, prepared: PreparedRequest, fim: FimInput, limits: Limits, on_step: OnStep
    ) -> Callable[[Continuation], bool]:
        before, _ = prepared.near(0)

        def on_token(one: Continuation) -> bool:
            text = self._text(fim, one.tokens)
            if prepared.kinds[0].one_line:
                text = without_comment(before, text.partition("\n")[0], prepared.language)
            view = self._view(prepared, text, len(one.tokens), limits.tokens)
            sure = self._likely_beginning(prepared, fim, one.tokens, one.log_probabilities)
            return on_step(replace(view, sure=len(sure.text)) if sure is not None else view) is not False

        return on_token

    def _view(self, prepared: PreparedRequest, text: str, step: int, limit: int) -> StepView:
        shown = prepared.shown
        pieces = (Piece(shown.prefix, "known"), Piece(text, "settled"), Piece(shown.suffix, "known"))
        return StepView(step, limit, pieces)

    def _text(self, fim: FimInput, tokens: Sequence[int]) -> str:
        return self.family.tokens.decode(tokens)[len(fim.held) :]

    def _decoded(self, prepared: PreparedRequest, fim: FimInput, kind: HoleKind, one: Continuation) -> Proposal:
        """The continuation as the text of the hole: cut at its end, and back to what parses."""
        before, after = prepared.near(0)
        text = self._text(fim, one.tokens).partition("\ufffd")[0]
        line = before[before.rfind("\n") + 1 :]
        if kind.one_line:
            text = without_comment(before, text.partition("\n")[0], prepared.language)
        elif (end := _block_end(line, text)) is not None:
            text = text[:end]
        elif text.count("\n") > BLOCK_LINES or not one.done:
            text = text[: text.rfind("\n") + 1] or text
        text = (text.rstrip() + "\n" if text.strip() else "") if kind.whole_lines else text.rstrip()
        text = prepared.until_next_line(0, text)
        if text.strip() and parse_worse(
            CheckContext(before, text, after, prepared.language, stop=prepared.stop_parsing)
        ):
            text = cut_back(before, text, after, prepared.language, prepared.stop, prepared.stop_parsing) or text
        return Proposal(text, ["model"], len(one.tokens))

    def _beginning(self, prepared: PreparedRequest, fim: FimInput, scored: Sequence[_Scored]) -> Candidate | None:
        """The beginning of the likeliest continuation as a candidate, if the request allows one."""
        decoded = [one for one in scored if one.proposal.text.strip() and "model" in one.proposal.sources]
        if not decoded:
            return None
        best = max(decoded, key=lambda one: sum(one.middle))
        return self._likely_beginning(prepared, fim, best.tokens, best.middle)

    def _likely_beginning(
        self, prepared: PreparedRequest, fim: FimInput, tokens: Sequence[int], log_probabilities: Sequence[float]
    ) -> Candidate | None:
        request = prepared.request
        if not (request.beginning and prepared.kinds[0].one_line):
            return None
        text, probability, count = likely_beginning(
            tokens, log_probabilities, lambda tokens: self._text(fim, tokens), self._least_probability(prepared)
        )
        text = prepared.until_next_line(0, text) if text else ""
        if len(text.strip()) < LEAST_CHARACTERS or text.strip() in {one.strip() for one in request.rejected}:
            return None
        return Candidate(text, round(probability, 4), True, None, "model", count, beginning=True)

    def _least_probability(self, prepared: PreparedRequest) -> float:
        return min(max(LEAST_PROBABILITY, PROBABILITY * prepared.request.caution), MOST_PROBABILITY)

    def _in_order(self, prepared: PreparedRequest, fim: FimInput, scored: Sequence[_Scored]) -> list[_InOrder]:
        """The likelihood of each text and of the beginning of what follows it, read in their order.

        Unlike the middle's own likelihood it tells a text that leads on to what follows from one that repeats it. After
        the deadline it is the middle's own.
        """
        kind = prepared.kinds[0]
        after = "\n".join(suffix_texts([kind], [prepared.shown.suffix])[0].split("\n")[: SEAM_LINES + 1])
        if prepared.is_late():
            return [_InOrder(_mean(one.middle), sum(one.middle)) for one in scored]
        texts = [fim.held + one.proposal.text.rstrip("\n") for one in scored]
        lengths = [len(self.family.tokens.encode(text)) for text in texts]
        lists = [
            self.family.tokens.encode(text + after)[: length + SEAM_TOKENS]
            for text, length in zip(texts, lengths, strict=True)
        ]
        with (
            self.decoder.cache.encoded(fim.plain[:-1], prepared.stop) as lease,
            TokenTree(self.decoder.model, lease.kv, fim.plain[-1:], prepared.stop) as tree,
        ):
            tree.read([tokens[:-1] for tokens in lists])
            found = [tree.log_probabilities(tokens) for tokens in lists]
        return [
            _InOrder(float(one.mean()) if len(one) else -math.inf, float(one[:length].sum()))
            for one, length in zip(found, lengths, strict=True)
        ]


def _stop_reading(prepared: PreparedRequest) -> Stop:
    """Whether to stop reading the prompt: the caller cancelled, or the deadline has passed and a chunk was read."""
    calls = count()
    return lambda: bool(prepared.stop and prepared.stop()) or (next(calls) > 0 and prepared.is_late())


def _block_end(line: str, text: str) -> int | None:
    """The end in `text` of the block that it begins or continues after `line`; None if that may continue."""
    if text.startswith("\n"):  # the line opens the block
        return block_end(text)
    end = block_end(line + text)
    return None if end is None else max(0, end - len(line))


def _evidence(prepared: PreparedRequest, one: _Scored, in_order: _InOrder, scored: Sequence[_Scored]) -> Evidence:
    likelihood = sum(one.middle)
    others = [sum(other.middle) for other in scored if other is not one and other.proposal.text.strip()]
    return Evidence(
        seam=in_order.mean,
        middle=_mean(one.middle),
        weakest=min(one.middle, default=0.0),
        margin=max(-MOST_MARGIN, min(MOST_MARGIN, likelihood - max(others))) if others else 0.0,
        alone=in_order.text,
        whole=float(prepared.kinds[0].whole_lines),
        denoised=float("model" in one.proposal.sources),
        copied=float("copy" in one.proposal.sources),
        matched=math.log1p(one.proposal.matched),
        fits=float(one.proposal.fits),
        places=math.log1p(one.proposal.occurrences),
        agreeing=float(len(one.proposal.sources) > 1),
        length=math.log(max(one.proposal.tokens, 1)),
    )


def _mean(log_probabilities: Sequence[float]) -> float:
    return sum(log_probabilities) / len(log_probabilities) if log_probabilities else 0.0


def _best_first(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    return tuple(sorted(candidates, key=lambda candidate: (not candidate.shown, -candidate.confidence)))
