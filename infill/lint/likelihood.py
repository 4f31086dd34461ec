"""How likely a stretch of code is with an edit and without it, by the causal encoder, which knows what follows it.

The stretch is read once (a fill-in-the-middle prompt: what is below, what is above, then the stretch). An edit whose
first token is far less likely than what stands there is let go; of the others the replacement and the tokens behind it
are read, all in one pass, as branches of one tree. Bayes: where the text behind an edit gains more than the edit itself
loses, the whole is likelier. Must not know kinds of findings nor what is shown.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from engine.denoiser import Denoiser
from engine.errors import Stop, leave_if
from engine.token_tree import TokenTree
from infill.code.context import ContextBudget, show_context
from infill.findings import LintRequest, Range
from infill.lint.kinds import Edit
from infill.prompts.prompt import CausalPrompt, Family, HoleKind
from infill.prompts.text_tokens import TextTokens

STRETCH = 1000  # characters, at most, that are read together where lines allow
TAIL = 16  # tokens behind an edit that are read with it
FIRST_LOOK = -4.0  # nats: least gain of an edit's first token
MOST_READ = 10  # edits of a stretch and kind that are read, so that no kind stands in the way of another
MOST_ALIKE = 3  # edits of one place and kind that are read
_PIECE = re.compile(r"\n+[^\n]*|[^\n]+")


@dataclass(frozen=True)
class Gain:
    """own, after, surprise in nats and longer in tokens, as in `infill.lint.evidence.LintEvidence`."""

    own: float
    after: float
    surprise: float
    longer: int

    @property
    def whole(self) -> float:
        return self.own + self.after


def stretches(text: str, ranges: Sequence[Range]) -> list[Range]:
    """Whole lines of `text` that cover the ranges, at most STRETCH characters each where no line is longer.

    They end before a line that is indented least of those near the end, so that a function stays in one piece.
    """
    found: list[Range] = []
    for start, end in ranges:
        at = text.rfind("\n", 0, start) + 1
        while at < end:
            last = text.find("\n", min(end, len(text)) - 1) + 1 or len(text)
            stop = last if last - at <= STRETCH else _cut(text, at)
            if text[at:stop].strip():
                found.append((at, stop))
            at = stop
    return found


def _cut(text: str, start: int) -> int:
    """Where to end a stretch that begins at `start`: at the least indented line of its second half."""
    starts = [match.end() for match in re.finditer("\n", text[start : start + STRETCH])]
    late = [at for at in starts if at >= STRETCH // 2]
    if not late:
        return starts[-1] + start if starts else (text.find("\n", start) + 1 or len(text))
    lines = [(re.match(r"[ \t]*(?=\S)", text[start + at :]), at) for at in late]
    depths = [(len(match[0]), -at) for match, at in lines if match is not None]
    return start - min(depths)[1] if depths else start + late[-1]


class Likelihood:
    """Asks one model. stop: asked before every pass; Cancelled is raised where it answers True."""

    def __init__(self, denoiser: Denoiser, family: Family, stop: Stop | None = None) -> None:
        self.denoiser, self.family, self.stop = denoiser, family, stop
        budget = family.budget
        self.budget = ContextBudget(budget.prefix // 2, budget.suffix, budget.header // 2)

    @torch.inference_mode()
    def gains(self, request: LintRequest, stretch: Range, edits: Sequence[Edit]) -> dict[Edit, Gain]:
        """Of those `edits` within `stretch` that are worth reading; `text` has "\\n" line ends."""
        leave_if(self.stop)
        prompt = self._prompt(request, stretch)
        if prompt is None or len(prompt.tokens) < 2 or not edits:
            return {}
        read = _Stretch(self.family.tokens, prompt.typed, request.text, stretch)
        if not read.tokens:
            return {}
        known, trunk = prompt.tokens[:-1], prompt.tokens[-1:]
        model = self.denoiser.model
        with (
            self.denoiser.cache.encoded(known, self.stop) as lease,
            TokenTree(model, lease.kv, trunk, self.stop) as tree,
        ):
            tree.read([read.tokens])
            chosen = self._first_look(tree, read, edits)
            tree.read([tokens[:stop] for _, tokens, _, stop in chosen])
            before = tree.log_probabilities(read.tokens)
            return {edit: _gain(tree, read.tokens, before, tokens, first, stop) for edit, tokens, first, stop in chosen}

    @torch.inference_mode()
    def of(self, request: LintRequest, stretch: Range) -> float | None:
        """log p of all that stands in `stretch`, in nats; None where the model reads no such prompts."""
        leave_if(self.stop)
        prompt = self._prompt(request, stretch)
        if prompt is None or len(prompt.tokens) < 2:
            return None
        read = _Stretch(self.family.tokens, prompt.typed, request.text, stretch)
        if not read.tokens:
            return None
        known, trunk = prompt.tokens[:-1], prompt.tokens[-1:]
        with (
            self.denoiser.cache.encoded(known, self.stop) as lease,
            TokenTree(self.denoiser.model, lease.kv, trunk, self.stop) as tree,
        ):
            tree.read([read.tokens])
            return float(tree.log_probabilities(read.tokens).sum())

    def _prompt(self, request: LintRequest, stretch: Range) -> CausalPrompt | None:
        shown = show_context(request.text, *stretch, request.language, request.path, request.neighbours, self.budget)
        return self.family.causal_prompt(shown, HoleKind(one_line=False, whole_lines=True))

    def _first_look(
        self, tree: TokenTree, read: _Stretch, edits: Sequence[Edit]
    ) -> list[tuple[Edit, list[int], int, int]]:
        """(edit, tokens of the stretch with it, first of them that is new, where to stop reading), best first."""
        looks: list[tuple[float, Edit, list[int], int, int]] = []
        rows: dict[int, torch.Tensor] = {}
        for edit in edits:
            tokens, same_end = read.edited(edit)
            first = next((i for i, (a, b) in enumerate(zip(read.tokens, tokens, strict=False)) if a != b), -1)
            if first < 0:
                continue
            if first not in rows:
                rows[first] = tree.logits(read.tokens[:first])
            gain = float(rows[first][tokens[first]] - rows[first][read.tokens[first]])
            if gain >= FIRST_LOOK:
                looks.append((gain, edit, tokens, first, min(len(tokens), len(tokens) - same_end + TAIL)))
        looks.sort(key=lambda look: -look[0])
        chosen, places, kinds = [], Counter[tuple[int, int, str]](), Counter[str]()
        for _, edit, tokens, first, stop in looks:
            place = edit.start, edit.end, edit.code
            if places[place] < MOST_ALIKE and kinds[edit.code] < MOST_READ:
                places[place] += 1
                kinds[edit.code] += 1
                chosen.append((edit, tokens, first, stop))
        return chosen


class _Stretch:
    """The tokens of a stretch, line by line, so that an edit is tokenized with its line alone."""

    def __init__(self, tokens: TextTokens, typed: str, text: str, stretch: Range) -> None:
        self.codec, self.typed = tokens, typed
        self.start = stretch[0]
        self.shown = text[stretch[0] : stretch[1]].rstrip("\n")
        self.pieces = [(match.start(), match.end()) for match in _PIECE.finditer(typed + self.shown)]
        encoded = [tokens.encode((typed + self.shown)[a:b]) for a, b in self.pieces]
        self.tokens = [token for piece in encoded for token in piece]
        self.firsts = [0]
        for piece in encoded:
            self.firsts.append(self.firsts[-1] + len(piece))

    def edited(self, edit: Edit) -> tuple[list[int], int]:
        """All tokens with the edit, and how many at the end are the same as without."""
        whole, shift = self.typed + self.shown, len(self.typed) - self.start
        start, end = edit.start + shift, edit.end + shift
        touched = [index for index, (a, b) in enumerate(self.pieces) if a < end and start < b]
        first, last = touched[0], touched[-1] + 1
        a, b = self.pieces[first][0], self.pieces[last - 1][1]
        written = self.codec.encode(whole[a:start] + edit.replacement + whole[end:b])
        old = self.tokens[self.firsts[first] : self.firsts[last]]
        same = 0
        while same < min(len(old), len(written)) and old[-1 - same] == written[-1 - same]:
            same += 1
        tokens = self.tokens[: self.firsts[first]] + written + self.tokens[self.firsts[last] :]
        return tokens, same + len(self.tokens) - self.firsts[last]


def _gain(tree: TokenTree, old: Sequence[int], before: torch.Tensor, tokens: list[int], first: int, stop: int) -> Gain:
    """first: of the tokens that differ; stop: where the reading of `tokens` ends."""
    same = 0
    while same < min(len(old), len(tokens)) - first and old[-1 - same] == tokens[-1 - same]:
        same += 1
    now = tree.log_probabilities(tokens[:stop])[first:]
    new, was = len(tokens) - same - first, len(old) - same - first
    tail = max(0, len(now) - new)
    own_before = before[first : first + was]
    return Gain(
        own=float(now[:new].sum() - own_before.sum()),
        after=float(now[new:].sum() - before[first + was : first + was + tail].sum()),
        surprise=float(-own_before.sum()),
        longer=new - was,
    )
