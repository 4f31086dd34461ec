"""The judge for models with a causal encoder, which reads the code before and after an edit.

Code is read in sections, each once, after a bounded part of what is above it: the start of the file, the headers of the
blocks around, and the lines directly above. An edit is dropped there if its first token is less likely than the
original's, or if nothing that it replaces, and nothing after it, is unlikely enough for a gain that matters. For the
others the model reads the replacement and the tokens after it, all in one pass, as branches of a tree.
By Bayes, an edit is likelier as a whole if the text after it gains more than the edit itself loses. Must not know kinds
of findings, nor thresholds.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from engine.decoder import CausalDecoder
from engine.errors import Stop, leave_if
from engine.text_tree import CHUNK, TextTree
from infill.findings import LintRequest, Range
from infill.lint.judge import Gain, IsPossible, ranked
from infill.lint.kinds import Edit
from infill.lint.ranges import disjoint
from infill.prompts.text_tokens import TextTokens

SECTION = 6000  # characters, unless a line is longer
HEAD, ABOVE, BELOW = 600, 1200, 200  # characters of context: the start of the file, the lines above and below
HEADERS = 4  # headers of blocks around a section
LONGEST_HEADER = 200  # characters
CLOSE = 400  # characters between ranges that are read as one section
TAIL = 20  # tokens read after an edit
MIN_FIRST_GAIN = -0.5  # nats by which the first token of an edit may be less likely than the original
MAX_ALTERNATIVES = 2  # edits read per position and kind
EDITS_PER_LINE = 0.3  # read per line of a section
PATH_CHARACTERS = 200
_PIECE = re.compile(r"[^\n]*\n(?:[ \t]*\n)*|[^\n]+\Z")
_INDENT = re.compile(r"[ \t]*(?=\S)")


class EditsByPosition:
    """Edits, which may overlap, in text order."""

    def __init__(self, edits: Iterable[Edit]) -> None:
        self._edits = sorted(edits, key=lambda edit: edit.start)
        self._starts = [edit.start for edit in self._edits]

    def within(self, section: Range) -> list[Edit]:
        first, last = bisect_left(self._starts, section[0]), bisect_right(self._starts, section[1])
        return [edit for edit in self._edits[first:last] if edit.end <= section[1]]


def sections(text: str, ranges: Sequence[Range]) -> list[Range]:
    """Whole lines of `text` that cover the ranges, at most SECTION characters each unless a line is longer.

    Ranges that are close are read together. A section ends before one of the least indented lines in its second half,
    so that functions stay in one piece. No line is in two sections.
    """
    found: list[Range] = []
    at = 0
    for start, end in _joined(ranges):
        at = max(at, text.rfind("\n", 0, start) + 1)
        while at < end:
            last = text.find("\n", min(end, len(text)) - 1) + 1 or len(text)
            stop = last if last - at <= SECTION else _section_end(text, at)
            if text[at:stop].strip():
                found.append((at, stop))
            at = stop
    return found


def _joined(ranges: Sequence[Range]) -> list[Range]:
    found: list[Range] = []
    for start, end in disjoint(ranges):
        if found and start - found[-1][1] <= CLOSE:
            found[-1] = found[-1][0], end
        else:
            found.append((start, end))
    return found


def _section_end(text: str, start: int) -> int:
    starts = [match.end() for match in re.finditer("\n", text[start : start + SECTION])]
    late = [at for at in starts if at >= SECTION // 2]
    if not late:
        return starts[-1] + start if starts else (text.find("\n", start) + 1 or len(text))
    lines = [(_INDENT.match(text, start + at), at) for at in late]
    depths = [(len(match[0]), -at) for match, at in lines if match is not None]
    return start - min(depths)[1] if depths else start + late[-1]


def context_above(text: str, start: int) -> str:
    """What is shown of the text above a section: the start of the file, the headers of the blocks around the section,
    and the lines directly above."""
    if start <= HEAD + ABOVE:
        return text[:start]
    above = text.find("\n", start - ABOVE - 1, start) + 1 or start
    head = text[: text.rfind("\n", 0, HEAD) + 1]
    return head + _headers(text, len(head), above) + text[above:start]


def _headers(text: str, first: int, last: int) -> str:
    """The lines between `first` and `last` that open the blocks around `last`."""
    match = _INDENT.match(text, last)
    depth, found, at = len(match[0]) if match is not None else 0, list[str](), last
    while depth and at > first and len(found) < HEADERS:
        start = text.rfind("\n", 0, at - 1) + 1
        match = _INDENT.match(text, start)
        if match is not None and match.end() < at and len(match[0]) < depth and text[match.end()] not in ")]}#":
            depth = len(match[0])
            if start >= first and at - start <= LONGEST_HEADER:
                found.append(text[start:at])
        at = start
    return "".join(reversed(found))


@dataclass(frozen=True)
class _Branch:
    """An edit of a section. tokens: of the edited section; first: index of the first that differs, end: behind the last
    one that is read; old_end, new_end: behind the last one that differs."""

    edit: Edit
    tokens: list[int]
    first: int
    old_end: int
    new_end: int

    @property
    def tail(self) -> int:
        return len(self.tokens) - self.new_end


class CausalJudge:
    """A `Judge`. separator: the token before the path of a file, if the model knows one. stop: polled before every
    pass; once it returns True, Cancelled is raised."""

    def __init__(
        self, decoder: CausalDecoder, tokens: TextTokens, separator: int | None, stop: Stop | None = None
    ) -> None:
        self.decoder, self.tokens, self.separator, self.stop = decoder, tokens, separator, stop
        self.read_tokens = 0

    def gains(
        self,
        request: LintRequest,
        ranges: Sequence[Range],
        edits: Iterable[Edit],
        is_possible: IsPossible | None = None,
    ) -> dict[Edit, Gain]:
        """See `Judge`."""
        found: dict[Edit, Gain] = {}
        in_order = EditsByPosition(edits)
        for section in sections(request.text, ranges):
            if inside := in_order.within(section):
                found |= self._section(request, section, inside, is_possible)
        return ranked(found)

    def _section(
        self, request: LintRequest, section: Range, edits: Sequence[Edit], is_possible: IsPossible | None
    ) -> dict[Edit, Gain]:
        leave_if(self.stop)
        known = self._known(request, section[0])
        read = _Section(self.tokens, request.text, section)
        with (
            self.decoder.cache.encoded(known[:-1], self.stop, CHUNK if self.stop is not None else None) as lease,
            TextTree(self.decoder.model, lease.kv, known[-1:], self.stop) as tree,
        ):
            tree.read([read.tokens])
            scored = self._score(tree, read, edits)
            chosen = _choose(scored, read.lines, is_possible)
            branches = [one.branch.tokens for one in chosen]
            tree.read([tokens[:-1] for tokens in branches])
            self.read_tokens += lease.encoded + len(tree)
            after = tree.branch_scores([(one.branch.tokens, one.branch.first) for one in chosen])
        return {one.branch.edit: one.gain(new) for one, new in zip(chosen, after, strict=True)}

    def _known(self, request: LintRequest, start: int) -> list[int]:
        """The tokens above a section: at least two."""
        path = self.tokens.encode((request.path or "file")[-PATH_CHARACTERS:] + "\n")
        above = _Section(self.tokens, context_above(request.text, start), None).tokens
        return [*([] if self.separator is None else [self.separator]), *path, *above]

    def _score(self, tree: TextTree, read: _Section, edits: Sequence[Edit]) -> list[_Scored]:
        """The edits whose first token is likely enough, with what the section as it is shows about them."""
        branches = []
        for edit in edits:
            leave_if(self.stop)
            if (branch := read.branch(edit)) is not None:
                branches.append(branch)
        firsts: dict[int, set[int]] = {}  # tokens by index
        for one in branches:
            firsts.setdefault(one.first, {read.tokens[one.first]}).add(one.tokens[one.first])
        scores = tree.scores([(read.tokens, at, [*tokens]) for at, tokens in firsts.items()])
        known = {at: dict(zip(firsts[at], found, strict=True)) for at, found in zip(firsts, scores, strict=True)}
        before = {at: found[read.tokens[at]] for at, found in known.items()}
        promising = [
            (one, first)
            for one in branches
            if (first := known[one.first][one.tokens[one.first]]) - before[one.first] >= MIN_FIRST_GAIN
        ]
        indices = {at for one, _ in promising for at in range(one.first, one.old_end + one.tail)} - before.keys()
        rest = [(read.tokens, at, read.tokens[at : at + 1]) for at in sorted(indices)]
        before |= {at: score for (_, at, _), (score,) in zip(rest, tree.scores(rest), strict=True)}
        return [_scored(one, first, before) for one, first in promising]


@dataclass(frozen=True)
class _Scored:
    """first: log p of the first token of the branch that differs; first_gain: compared with the original; old_edit,
    old_suffix: log p of the tokens of the original that the edit replaces, and of those after them."""

    branch: _Branch
    first: float
    first_gain: float
    old_edit: float
    old_suffix: float

    def gain(self, new: Sequence[float]) -> Gain:
        """new: log p of the tokens of the branch from its first one that differs; those that are missing count as
        certain."""
        changed = self.branch.new_end - self.branch.first
        return Gain(
            edit_gain=sum(new[:changed]) - self.old_edit,
            suffix_gain=sum(new[changed:]) - self.old_suffix,
            surprisal=-self.old_edit,
            extra_tokens=changed - (self.branch.old_end - self.branch.first),
            first_gain=self.first_gain,
        )

    @property
    def most(self) -> Gain:
        """The largest gain that is possible, and the largest margin and rank with it."""
        gain = self.gain([self.first])
        return replace(gain, margin=gain.total, rank=math.log1p(MAX_ALTERNATIVES))


def _scored(one: _Branch, first: float, before: dict[int, float]) -> _Scored:
    """before: log p of the tokens of the section, by index."""
    old_edit = sum(before[at] for at in range(one.first, one.old_end))
    old_suffix = sum(before[at] for at in range(one.old_end, one.old_end + one.tail))
    return _Scored(one, first, first - before[one.first], old_edit, old_suffix)


def _choose(scored: Sequence[_Scored], lines: int, is_possible: IsPossible | None) -> list[_Scored]:
    """The promising edits of a section of so many lines, those with the likeliest first tokens first."""
    limit, alternatives = max(4, int(EDITS_PER_LINE * lines)), Counter[tuple[int, int, str]]()
    chosen: list[_Scored] = []
    for one in sorted(scored, key=lambda one: -one.first_gain):
        edit = one.branch.edit
        position = edit.start, edit.end, edit.code
        is_left = alternatives[position] < MAX_ALTERNATIVES and len(chosen) < limit
        if is_left and (is_possible is None or is_possible(edit, one.most)):
            alternatives[position] += 1
            chosen.append(one)
    return chosen


class _Section:
    """A part of a text, tokenized line by line, so that an edit only changes the tokens of its own lines. Blank lines
    belong to the line before them, as in the pre-tokenizer of Qwen2. section: None for all of the text."""

    def __init__(self, codec: TextTokens, text: str, section: Range | None) -> None:
        self.codec = codec
        self.start, end = section or (0, len(text))
        below = end if section is None else text.find("\n", min(end + BELOW, len(text))) + 1 or len(text)
        below = min(below, end + 2 * BELOW)
        self.text = text[self.start : below]
        self.lines = text.count("\n", self.start, end)
        self.pieces = [match.span() for match in _PIECE.finditer(self.text)]
        encoded = [codec.encode(self.text[a:b]) for a, b in self.pieces]
        self.tokens = [token for piece in encoded for token in piece]
        self._firsts = [0, *accumulate(map(len, encoded))]
        self._starts = [a for a, _ in self.pieces]

    def branch(self, edit: Edit) -> _Branch | None:
        """None if the edit does not change the tokens."""
        start, end = edit.start - self.start, edit.end - self.start
        first = bisect_right(self._starts, start) - 1
        last = max(first, bisect_left(self._starts, end) - 1)
        a, b = self.pieces[first][0], self.pieces[last][1]
        old_from, old_to = self._firsts[first], self._firsts[last + 1]
        new = self.codec.encode(self.text[a:start] + edit.replacement + self.text[end:b])
        old = self.tokens[old_from:old_to]
        same = next((i for i, (x, y) in enumerate(zip(old, new, strict=False)) if x != y), min(len(old), len(new)))
        if same == len(old) or same == len(new):
            return None
        end_same = _common_end(old[same:], new[same:])
        rest = self.tokens[old_to - end_same :][:TAIL]
        tokens = [*self.tokens[:old_from], *new[: len(new) - end_same], *rest]
        return _Branch(edit, tokens, old_from + same, old_to - end_same, old_from + len(new) - end_same)


def _common_end(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens at the end of two sequences are the same."""
    pairs = zip(reversed(one), reversed(other), strict=False)
    return next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
