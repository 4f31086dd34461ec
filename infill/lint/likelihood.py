"""How much likelier code becomes with an edit, by the causal encoder, which also reads what follows.

Code is read in chunks, each with a fill-in-the-middle prompt: the text below, the text above, then the chunk. Edits
with a first token far less likely than the original are dropped. For the others the model reads the replacement and the
tokens after it, all in one pass, as branches of one tree. By Bayes, an edit is likelier as a whole if the text after it
gains more than the edit itself loses. Must not know kinds of findings, nor thresholds.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate

import torch

from engine.canvas_run import CanvasDenoiser
from engine.errors import Stop, leave_if
from engine.token_tree import TokenTree
from infill.code.context import ContextBudget, show_context
from infill.findings import LintRequest, Range
from infill.lint.kinds import Edit
from infill.lint.ranges import disjoint
from infill.prompts.prompt import CausalPrompt, Family, HoleKind
from infill.prompts.text_tokens import TextTokens

CHUNK = 1000  # characters, unless a line is longer
TAIL = 16  # tokens read after an edit
MIN_FIRST_GAIN = -4.0  # nats by which the first token of an edit may be less likely than the original
MAX_EDITS = 10  # edits read per chunk and kind, so that no kind crowds out another
MAX_ALTERNATIVES = 3  # edits read per position and kind
_PIECE = re.compile(r"\n+[^\n]*|[^\n]+")


@dataclass(frozen=True)
class Gain:
    """Fields of `infill.lint.thresholds.EditEvidence`."""

    edit_gain: float
    suffix_gain: float
    surprisal: float
    extra_tokens: int

    @property
    def total(self) -> float:
        """How much likelier the whole text becomes, in nats."""
        return self.edit_gain + self.suffix_gain


def chunks(text: str, ranges: Sequence[Range]) -> list[Range]:
    """Whole lines of `text` that cover the ranges, at most CHUNK characters each unless a line is longer.

    A chunk ends before one of the least indented lines in its second half, so that functions stay in one piece. No line
    is in two chunks.
    """
    found: list[Range] = []
    at = 0
    for start, end in disjoint(ranges):
        at = max(at, text.rfind("\n", 0, start) + 1)
        while at < end:
            last = text.find("\n", min(end, len(text)) - 1) + 1 or len(text)
            stop = last if last - at <= CHUNK else _chunk_end(text, at)
            if text[at:stop].strip():
                found.append((at, stop))
            at = stop
    return found


class EditsByPosition:
    """Edits, which may overlap, in text order."""

    def __init__(self, edits: Iterable[Edit]) -> None:
        self._edits = sorted(edits, key=lambda edit: edit.start)
        self._starts = [edit.start for edit in self._edits]

    def within(self, chunk: Range) -> list[Edit]:
        first, last = bisect_left(self._starts, chunk[0]), bisect_right(self._starts, chunk[1])
        return [edit for edit in self._edits[first:last] if edit.end <= chunk[1]]


def _chunk_end(text: str, start: int) -> int:
    starts = [match.end() for match in re.finditer("\n", text[start : start + CHUNK])]
    late = [at for at in starts if at >= CHUNK // 2]
    if not late:
        return starts[-1] + start if starts else (text.find("\n", start) + 1 or len(text))
    lines = [(re.match(r"[ \t]*(?=\S)", text[start + at :]), at) for at in late]
    depths = [(len(match[0]), -at) for match, at in lines if match is not None]
    return start - min(depths)[1] if depths else start + late[-1]


class Likelihood:
    """Queries one model. stop: polled before every pass; once it returns True, Cancelled is raised."""

    def __init__(self, denoiser: CanvasDenoiser, family: Family, stop: Stop | None = None) -> None:
        self.denoiser, self.family, self.stop = denoiser, family, stop
        budget = family.budget
        self.budget = ContextBudget(budget.prefix // 2, budget.suffix, budget.header // 2)

    @torch.inference_mode()
    def gains(self, request: LintRequest, chunk: Range, edits: Sequence[Edit]) -> dict[Edit, Gain]:
        """Gains of the promising `edits`, all within `chunk`; the text must have "\\n" line ends."""
        if not edits:
            return {}
        with self._read(request, chunk) as opened:
            if opened is None:
                return {}
            tree, encoded = opened
            chosen = self._choose(tree, encoded, edits)
            tree.read([tokens[:stop] for _, tokens, _, stop in chosen])
            before = tree.log_probabilities(encoded.tokens)
            return {
                edit: _gain(tree, encoded.tokens, before, tokens, first, stop) for edit, tokens, first, stop in chosen
            }

    @torch.inference_mode()
    def log_probability(self, request: LintRequest, chunk: Range) -> float | None:
        """log p of the text of `chunk` in nats; None if the model does not support causal prompts."""
        with self._read(request, chunk) as opened:
            if opened is None:
                return None
            tree, encoded = opened
            return float(tree.log_probabilities(encoded.tokens).sum())

    @contextmanager
    def _read(self, request: LintRequest, chunk: Range) -> Iterator[tuple[TokenTree, _Chunk] | None]:
        """A tree in which the model has read the tokens of `chunk`; None if there is nothing to read."""
        leave_if(self.stop)
        prompt = self._prompt(request, chunk)
        if prompt is None or len(prompt.tokens) < 2:
            yield None
            return
        encoded = _Chunk(self.family.tokens, prompt.typed, request.text, chunk)
        if not encoded.tokens:
            yield None
            return
        with (
            self.denoiser.cache.encoded(prompt.tokens[:-1], self.stop) as lease,
            TokenTree(self.denoiser.model, lease.kv, prompt.tokens[-1:], self.stop) as tree,
        ):
            tree.read([encoded.tokens])
            yield tree, encoded

    def _prompt(self, request: LintRequest, chunk: Range) -> CausalPrompt | None:
        shown = show_context(
            request.text, *chunk, request.language, request.path, request.neighbours, self.budget, self.stop
        )
        return self.family.causal_prompt(shown, HoleKind(one_line=False, whole_lines=True))

    def _choose(
        self, tree: TokenTree, encoded: _Chunk, edits: Sequence[Edit]
    ) -> list[tuple[Edit, list[int], int, int]]:
        """(edit, tokens of the edited chunk, index of the first that changes, where to stop reading), best first."""
        promising: list[tuple[float, Edit, list[int], int, int]] = []
        rows: dict[int, torch.Tensor] = {}
        for edit in edits:
            leave_if(self.stop)
            tokens, same_end = encoded.edited(edit)
            first = next((i for i, (a, b) in enumerate(zip(encoded.tokens, tokens, strict=False)) if a != b), -1)
            if first < 0:
                continue
            if first not in rows:
                rows[first] = tree.logits(encoded.tokens[:first])
            gain = float(rows[first][tokens[first]] - rows[first][encoded.tokens[first]])
            if gain >= MIN_FIRST_GAIN:
                promising.append((gain, edit, tokens, first, min(len(tokens), len(tokens) - same_end + TAIL)))
        promising.sort(key=lambda candidate: -candidate[0])
        chosen, alternatives, kinds = [], Counter[tuple[int, int, str]](), Counter[str]()
        for _, edit, tokens, first, stop in promising:
            position = edit.start, edit.end, edit.code
            if alternatives[position] < MAX_ALTERNATIVES and kinds[edit.code] < MAX_EDITS:
                alternatives[position] += 1
                kinds[edit.code] += 1
                chosen.append((edit, tokens, first, stop))
        return chosen


class _Chunk:
    """A chunk tokenized line by line, so that an edit only changes the tokens of its own lines."""

    def __init__(self, codec: TextTokens, typed: str, text: str, chunk: Range) -> None:
        self.codec = codec
        self.text = typed + text[chunk[0] : chunk[1]].rstrip("\n")
        self.shift = len(typed) - chunk[0]  # from offsets in the file to offsets in self.text
        self.pieces = [(match.start(), match.end()) for match in _PIECE.finditer(self.text)]
        encoded = [codec.encode(self.text[a:b]) for a, b in self.pieces]
        self.tokens = [token for piece in encoded for token in piece]
        self.firsts = [0, *accumulate(map(len, encoded))]

    def edited(self, edit: Edit) -> tuple[list[int], int]:
        """(all tokens of the edited chunk, how many at its end are unchanged)."""
        start, end = edit.start + self.shift, edit.end + self.shift
        touched = [index for index, (a, b) in enumerate(self.pieces) if a < end and start < b]
        first, last = touched[0], touched[-1] + 1
        a, b = self.pieces[first][0], self.pieces[last - 1][1]
        new = self.codec.encode(self.text[a:start] + edit.replacement + self.text[end:b])
        old = self.tokens[self.firsts[first] : self.firsts[last]]
        tokens = self.tokens[: self.firsts[first]] + new + self.tokens[self.firsts[last] :]
        return tokens, _common_end(old, new) + len(self.tokens) - self.firsts[last]


def _common_end(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens at the end of two sequences are the same."""
    pairs = zip(reversed(one), reversed(other), strict=False)
    return next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _gain(tree: TokenTree, old: Sequence[int], before: torch.Tensor, tokens: list[int], first: int, stop: int) -> Gain:
    """before: log p of each token of `old`. first: index of the first token that differs; stop: where the tree ends."""
    same = _common_end(old[first:], tokens[first:])
    after = tree.log_probabilities(tokens[:stop])[first:]
    new_length, old_length = len(tokens) - same - first, len(old) - same - first
    tail = max(0, len(after) - new_length)
    old_edit = before[first : first + old_length].sum()
    old_suffix = before[first + old_length : first + old_length + tail].sum()
    return Gain(
        edit_gain=float(after[:new_length].sum() - old_edit),
        suffix_gain=float(after[new_length:].sum() - old_suffix),
        surprisal=float(-old_edit),
        extra_tokens=new_length - old_length,
    )
