"""From code to findings: candidate edits, evidence for each, and those above their threshold.

The only module that knows the order of the steps. Must not know editors, command lines, or files other than those of
the model.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence, Set
from dataclasses import asdict, dataclass, replace
from functools import cache, lru_cache

from engine.errors import Cancelled, Stop, leave_if, pacer
from infill.code.context import FAR_CHARACTERS
from infill.code.syntax import ParsingStopped, SyntaxTree, error_nodes, error_score, parse
from infill.complete.causal_completion import CausalCompleter
from infill.complete.pipeline import AnyCompleter
from infill.findings import Finding, LintRequest, Range
from infill.lint.edits import find_edits
from infill.lint.explain import Explainer
from infill.lint.frequencies import Frequencies
from infill.lint.judge import Gain, Judge
from infill.lint.kinds import (
    KINDS,
    ON_BY_DEFAULT,
    STRUCTURAL,
    STRUCTURAL_LANGUAGES,
    STYLE,
    Edit,
    StyleEdit,
    is_structural,
)
from infill.lint.likelihood import CausalJudge
from infill.lint.masked import DenoiserJudge
from infill.lint.names import KnownNames
from infill.lint.operands import changed_operation, operand_change
from infill.lint.style import find_style
from infill.lint.suppressions import Suppressions, is_skipped
from infill.lint.symbols import SymbolTable
from infill.lint.thresholds import EditEvidence, Thresholds, language_group
from infill.lint.usages import Usages

_NAME = re.compile(r"[^\W\d]\w*")

_known_names = lru_cache(maxsize=1)(KnownNames.read)
_thresholds = lru_cache(maxsize=4)(Thresholds.read)


NEVER = 99.0  # log-odds


@dataclass(frozen=True)
class EditCandidate:
    """An edit with the evidence for it."""

    edit: Edit
    evidence: EditEvidence


class Linter:
    """Finds likely mistakes in code with the model of a completer. Not thread-safe.

    completer: None, or that of a model that cannot judge, finds only what the syntax tree shows. thresholds: those of
    the model by default.
    """

    def __init__(self, completer: AnyCompleter | None, thresholds: Thresholds | None = None) -> None:
        self.completer = completer
        if thresholds is None and completer is not None and self.judge(None) is not None:
            thresholds = _thresholds(completer.model.name)
        self.thresholds = thresholds
        self.known = _known_names()

    @property
    def can_lint(self) -> bool:
        """Whether the model judges edits; without it, only STRUCTURAL kinds and style have findings."""
        return self.thresholds is not None

    @property
    def languages(self) -> frozenset[str]:
        """The languages that have findings of other kinds than style."""
        return STRUCTURAL_LANGUAGES | (self.thresholds.languages if self.thresholds is not None else frozenset())

    def shown(self, language: str | None) -> frozenset[str]:
        """The codes of the kinds that have findings in a language."""
        structural = STRUCTURAL if language in STRUCTURAL_LANGUAGES else frozenset()
        return structural | (self.thresholds.shown(language) if self.thresholds is not None else frozenset())

    def judge(self, stop: Stop | None) -> Judge | None:
        """None if the model cannot judge."""
        if isinstance(self.completer, CausalCompleter):
            model = self.completer.model
            return CausalJudge(model.decoder, model.family.tokens, model.family.separator, stop)
        if self.completer is None or self.completer.family.instruction_prompt("") is None:
            return None
        return DenoiserJudge(self.completer.denoiser, self.completer.family, self.completer.model.sampling, stop)

    def lint(self, request: LintRequest, stop: Stop | None = None) -> list[Finding]:
        """Findings in text order, without overlaps. Each is above its threshold, parses, and is not suppressed.

        Style findings are possible in every language, others only in those of the thresholds. If the request brings
        findings, they are only explained. Raises InputError if the request wants explanations and the model cannot
        give any. stop: polled between passes of the model; once it returns True, Cancelled is raised.
        """
        explainer = Explainer(self.completer) if request.explain else None
        found = list(request.findings) or self._find(request, stop)
        return explainer.explain_all(request, found, stop) if explainer is not None else found

    def _find(self, request: LintRequest, stop: Stop | None) -> list[Finding]:
        codes = self.shown(request.language) & (ON_BY_DEFAULT | request.on) - request.off
        style = request.on & STYLE.keys() - request.off
        if not codes and not style:
            return []
        unix, line_ends = _with_unix_line_ends(request)
        tree = _tree(unix, stop)
        if tree is None:
            return []
        selected = self._select(tree, self._candidates(unix, tree, codes, stop, 0.0), 0.0, stop)
        found = [line_ends.finding(one.edit, one.evidence.total_gain, unix.text) for one in selected]
        taken = [(one.edit.start, one.edit.end) for one in selected]
        for one in self.style_edits(unix, style, stop) if style else ():
            if _is_apart(one.ranges, taken) and _parses(tree, one.ranges, one.edit, stop):
                taken += one.ranges
                found.append(line_ends.finding(one.edit, 0.0, unix.text, one.also))
        return sorted(found, key=lambda one: one.start)

    def style_edits(self, request: LintRequest, codes: Set[str], stop: Stop | None = None) -> list[StyleEdit]:
        """Edits of the style kinds `codes`, those of the clearest conventions first.

        The text must have "\\n" line ends.
        """
        tree = _tree(request, stop)
        if tree is None:
            return []
        ranges = request.ranges or ((0, len(request.text)),)
        suppressions = Suppressions(tree, stop)
        edits = find_style(tree, SymbolTable(tree, stop), codes, ranges, _neighbour_names(request, stop), stop)
        return sorted((one for one in edits if suppressions.allow(one.edit)), key=lambda one: one.other - one.same)

    def candidates(
        self,
        request: LintRequest,
        codes: Iterable[str] = KINDS,
        stop: Stop | None = None,
        offset: float | None = None,
    ) -> list[EditCandidate]:
        """Every edit of the kinds `codes` that the model read, shown or not; for training and measurements.

        The text must have "\\n" line ends. offset: leaves out what cannot be shown even if all thresholds are lowered
        by so much (log-odds).
        """
        tree = _tree(request, stop)
        return [] if tree is None else self._candidates(request, tree, frozenset(codes), stop, offset)

    def select(
        self, request: LintRequest, candidates: Sequence[EditCandidate], offset: float = 0.0
    ) -> list[EditCandidate]:
        """The `candidates` of this request that are shown if all thresholds are lowered by `offset` (log-odds)."""
        tree = parse(request.text, request.language)
        return [] if tree is None else self._select(tree, candidates, offset, None)

    def margin(self, one: EditCandidate, language: str) -> float:
        """Log-odds of a candidate above the threshold of its kind; at least 0 if it is shown."""
        if is_structural(one.edit.code, language):
            return 0.0
        threshold = self.thresholds.kinds.get(one.edit.code) if self.thresholds is not None else None
        minimum = threshold.minimums.get(language_group(language) or "") if threshold is not None else None
        return -NEVER if threshold is None or minimum is None else threshold.log_odds(one.evidence) - minimum

    def _select(
        self, tree: SyntaxTree, candidates: Sequence[EditCandidate], offset: float, stop: Stop | None
    ) -> list[EditCandidate]:
        """In text order. The better of two candidates is kept if they overlap, or make the same change in one line; the
        likelier one if they make the same two equal operands different."""
        rated = []
        for one in candidates:
            margin = self.margin(one, tree.language.id) + offset
            if margin >= 0:
                rated.append((margin, one))
        rated.sort(key=lambda pair: -pair[0])
        chosen: list[EditCandidate] = []
        taken: list[Range] = []
        changes: set[tuple[int, str, str]] = set()
        likeliest: dict[Range | None, EditCandidate] = {}  # by operation
        unequal = [one for _, one in rated if one.evidence.operand_change > 0]
        for one in sorted(unequal, key=lambda one: one.evidence.total_gain):
            likeliest[changed_operation(tree, one.edit, stop)] = one
        dropped = {*unequal} - {*likeliest.values()}
        for _, one in rated:
            edit = one.edit
            where = edit.start, edit.end
            change = tree.text.count("\n", 0, edit.start), tree.text[edit.start : edit.end], edit.replacement
            is_new = change not in changes and one not in dropped
            if is_new and _is_apart([where], taken) and _parses(tree, [where], edit, stop):
                chosen.append(one)
                taken.append(where)
                changes.add(change)
        return sorted(chosen, key=lambda one: one.edit.start)

    def _candidates(
        self,
        request: LintRequest,
        tree: SyntaxTree,
        codes: frozenset[str],
        stop: Stop | None,
        offset: float | None,
    ) -> list[EditCandidate]:
        if not codes:
            return []
        leave_if(stop)
        ranges = request.ranges or ((0, len(request.text)),)
        symbols, suppressions = SymbolTable(tree, stop), Suppressions(tree, stop)
        frequencies, usages = Frequencies(symbols, stop), Usages(symbols, self.known, stop)
        neighbour_names = _neighbour_names(request, stop)
        edits, pace = [], pacer(stop)
        for edit in find_edits(tree, symbols, ranges, stop):
            pace()
            is_known = edit.code == "misspelled" and request.text[edit.start : edit.end] in neighbour_names
            if edit.code in codes and not is_known and suppressions.allow(edit):
                edits.append(edit)

        @cache
        def counted(edit: Edit) -> dict[str, float]:
            """The evidence that needs no model."""
            leave_if(stop)
            return {
                **asdict(frequencies.evidence(edit)),
                **asdict(usages.evidence(edit)),
                "familiarity": self._familiarity(request.text[edit.start : edit.end], edit.replacement),
                "operand_change": operand_change(tree, edit, stop),
            }

        def candidate(edit: Edit, gain: Gain) -> EditCandidate:
            leave_if(stop)
            return EditCandidate(edit, EditEvidence(**asdict(gain), **counted(edit)))

        def is_possible(edit: Edit, most: Gain) -> bool:
            return self.margin(candidate(edit, most), tree.language.id) >= -(offset or 0.0)

        judge = self.judge(stop)
        gains = {edit: Gain(0.0) for edit in edits if judge is None or is_structural(edit.code, request.language)}
        if judge is not None:
            gains |= judge.gains(request, ranges, edits, is_possible if offset is not None else None)
        return [candidate(edit, gain) for edit, gain in gains.items()]

    def _familiarity(self, old: str, new: str) -> float:
        if self.known is None or not (old.isidentifier() and new.isidentifier()):
            return 0.0
        return self.known.familiarity(old, new)


def _tree(request: LintRequest, stop: Stop | None) -> SyntaxTree | None:
    """None for a text that is skipped or cannot be parsed. Raises Cancelled once `stop` returns True."""
    if is_skipped(request.path, request.text):
        return None
    try:
        return parse(request.text, request.language, stop)
    except ParsingStopped as error:
        raise Cancelled from error


def _neighbour_names(request: LintRequest, stop: Stop | None) -> frozenset[str]:
    found: set[str] = set()
    for other in request.neighbours:
        leave_if(stop)
        found.update(_NAME.findall(other.text[:FAR_CHARACTERS]))
    return frozenset(found)


def _is_apart(ranges: Sequence[Range], taken: Sequence[Range]) -> bool:
    return all(end <= other[0] or other[1] <= start for start, end in ranges for other in taken)


def _parses(tree: SyntaxTree, ranges: Sequence[Range], edit: Edit, stop: Stop | None) -> bool:
    """Whether the edit, made in all `ranges` (in text order), adds no syntax errors."""
    leave_if(stop)
    changes = [(start, end, edit.replacement) for start, end in reversed(ranges)]
    errors = error_nodes(tree, stop)
    inside = [one for one in ranges if any(error.start <= one[0] and one[1] <= error.end for error in errors)]
    growth = sum(len(edit.replacement) - (end - start) for start, end in inside)
    try:
        after = error_score(tree.edited(changes))
        return after._replace(covered=after.covered - growth) <= error_score(tree)
    except ParsingStopped:
        return False


class _LineEnds:
    """Maps offsets in a text with "\\n" line ends to the original text. cuts: where each "\\r" was removed."""

    def __init__(self, cuts: Sequence[int]) -> None:
        self.cuts = cuts

    def offset(self, unix: int) -> int:
        return unix + bisect_right(self.cuts, unix - 1)

    def finding(self, edit: Edit, gain: float, text: str, also: Sequence[Range] = ()) -> Finding:
        new = edit.replacement.replace("\n", "\r\n") if self.cuts else edit.replacement
        start, end = self.offset(edit.start), self.offset(edit.end)
        more = tuple((self.offset(first), self.offset(last)) for first, last in also)
        return Finding(start, end, edit.code, edit.message(text), new, round(gain, 3), more)


def _with_unix_line_ends(request: LintRequest) -> tuple[LintRequest, _LineEnds]:
    if "\r\n" not in request.text:
        return request, _LineEnds(())
    returns = [match.start() for match in re.finditer("\r\n", request.text)]
    cuts = [at - index for index, at in enumerate(returns)]

    def unix(offset: int) -> int:
        return offset - bisect_right(returns, offset - 1)

    ranges: tuple[Range, ...] = tuple((unix(start), unix(end)) for start, end in request.ranges)
    return replace(request, text=request.text.replace("\r\n", "\n"), ranges=ranges), _LineEnds(cuts)
