"""From code that is written to findings: edits that could mend it, judged by the model.

The one place that knows the order of the steps; each step is another module's. Must not know of editors, command lines
or files on disk other than the model's own.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, replace

from engine.errors import Stop, leave_if
from infill.code.syntax import SyntaxTree, error_score, parse
from infill.complete.completion import Completer
from infill.findings import Finding, LintRequest, Range
from infill.lint.edits import find_edits
from infill.lint.evidence import Bars, LintEvidence
from infill.lint.explain import Explainer
from infill.lint.habits import Habits
from infill.lint.hidden import Hidden
from infill.lint.kinds import KINDS, STYLE, Edit, StyleEdit
from infill.lint.likelihood import Gain, Likelihood, stretches
from infill.lint.names import KnownNames
from infill.lint.quiet import Quiet, is_left_alone
from infill.lint.slots import Slots
from infill.lint.style import STYLE_GAIN, find_style, parses, style_gains
from infill.lint.survey import Survey
from infill.model_store import resolve

HIDDEN = ("wrong-name", "wrong-operator", "swapped-arguments")  # kinds where the denoiser is asked too
MOST_HIDDEN = 3  # edits of a stretch and such a kind that it is asked about
LEAST_GAIN = 1.0  # nats that they must bring by the causal encoder
_NAME = re.compile(r"[^\W\d]\w*")


@dataclass(frozen=True)
class Judged:
    """An edit and what speaks for it."""

    edit: Edit
    evidence: LintEvidence


class Linter:
    """Finds what looks wrong in code with the model of a completer. One caller at a time.

    bars: those that are stored with the model where none are given; so is the list of names that many projects use.
    """

    def __init__(self, completer: Completer, bars: Bars | None = None) -> None:
        self.completer = completer
        folder = resolve(completer.model.name)
        self.bars = bars if bars is not None else Bars.read(folder)
        self.known = KnownNames.read(folder)

    @property
    def can_lint(self) -> bool:
        """Whether bars were learnt with this model: without them nothing can be shown."""
        return self.bars is not None

    @property
    def unasked(self) -> bool:
        """Whether findings are good enough to be shown to those who did not ask for them."""
        return self.bars is not None and self.bars.unasked

    @property
    def shown(self) -> frozenset[str]:
        """The codes of the kinds that are shown unless a request switches them off."""
        return frozenset(code for code, bar in self.bars.bars.items() if bar.shown) if self.bars else frozenset()

    @property
    def languages(self) -> frozenset[str]:
        """Those that bars were learnt in; nothing is shown in others."""
        return self.bars.languages if self.bars else frozenset()

    def lint(self, request: LintRequest, stop: Stop | None = None) -> list[Finding]:
        """What clears its bar, parses, and is not ignored, in text order and without overlaps.

        Slips only in languages that the model has bars for; style that is asked for in every one. Where findings are
        given, nothing is looked for. Where they are to be explained, InputError is raised for a model that cannot.
        stop: asked between passes of the model; once it answers True, Cancelled is raised.
        """
        explainer = Explainer(self.completer) if request.explain else None
        found = list(request.findings) or self._found(request, stop)
        return explainer.explained(request, found, stop) if explainer is not None else found

    def _found(self, request: LintRequest, stop: Stop | None) -> list[Finding]:
        codes = self.shown - request.off if request.language in self.languages else frozenset()
        style = request.on & STYLE.keys() - request.off
        if not codes and not style:
            return []
        plain, back = _plain(request)
        tree = parse(plain.text, plain.language)
        if tree is None:
            return []
        slips = self._selected(tree, self._judge(plain, tree, codes, stop), 0.0)
        found = [back.finding(one.edit, one.evidence.gain, plain.text) for one in slips]
        taken = [(one.edit.start, one.edit.end) for one in slips]
        for one, gain in self.judge_style(plain, style, stop).items() if style else ():
            if gain >= STYLE_GAIN and _is_apart(one.places, taken) and parses(tree, one):
                taken += one.places
                found.append(back.finding(one.edit, gain, plain.text, one.also))
        return sorted(found, key=lambda one: one.start)

    def judge_style(self, request: LintRequest, codes: Set[str], stop: Stop | None = None) -> dict[StyleEdit, float]:
        """What is against the file's habits, by the kinds `codes`, with what the whole gains in nats; best first.

        The text must have "\n" line ends.
        """
        tree = parse(request.text, request.language)
        if tree is None or is_left_alone(request.path, request.text):
            return {}
        ranges = request.ranges or ((0, len(request.text)),)
        quiet = Quiet(tree)
        edits = find_style(tree, Survey(tree), codes, ranges, _names(request))
        edits = [one for one in edits if quiet.allows(one.edit)]
        likelihood = Likelihood(self.completer.denoiser, self.completer.family, stop)
        gains = style_gains(likelihood, request, ranges, edits)
        return dict(sorted(gains.items(), key=lambda pair: -pair[1]))

    def select(self, request: LintRequest, judged: Sequence[Judged], easier: float = 0.0) -> list[Judged]:
        """Those of `judged` (of this request) that are shown where all bars lie lower by `easier` (log-odds)."""
        tree = parse(request.text, request.language)
        return [] if tree is None else self._selected(tree, judged, easier)

    def _selected(self, tree: SyntaxTree, judged: Sequence[Judged], easier: float) -> list[Judged]:
        """In text order, without overlaps: the better of two stays."""
        bars = self.bars.bars if self.bars is not None else {}
        rated = []
        for one in judged:
            bar = bars.get(one.edit.code)
            if bar is not None and bar.shown and (above := bar.odds(one.evidence) - bar.least + easier) >= 0:
                rated.append((above, one))
        rated.sort(key=lambda pair: -pair[0])
        chosen: list[Judged] = []
        for _, one in rated:
            apart = all(one.edit.end <= other.edit.start or other.edit.end <= one.edit.start for other in chosen)
            if apart and _parses(tree, one.edit):
                chosen.append(one)
        return sorted(chosen, key=lambda one: one.edit.start)

    def judge(self, request: LintRequest, codes: Iterable[str] = KINDS, stop: Stop | None = None) -> list[Judged]:
        """Every edit of the kinds `codes` that the model looked at closely, shown or not; to measure and to learn from.

        The text must have "\\n" line ends.
        """
        tree = parse(request.text, request.language)
        return [] if tree is None else self._judge(request, tree, frozenset(codes), stop)

    def _judge(self, request: LintRequest, tree: SyntaxTree, codes: frozenset[str], stop: Stop | None) -> list[Judged]:
        if not codes or is_left_alone(request.path, request.text):
            return []
        leave_if(stop)
        ranges = request.ranges or ((0, len(request.text)),)
        survey = Survey(tree)
        quiet, habits, slots = Quiet(tree), Habits(survey), Slots(survey, self.known)
        elsewhere = _names(request)
        edits = [
            edit
            for edit in find_edits(tree, survey, ranges)
            if edit.code in codes and quiet.allows(edit) and not _is_known(request.text, edit, elsewhere)
        ]
        likelihood = Likelihood(self.completer.denoiser, self.completer.family, stop)
        hidden = Hidden(self.completer.denoiser, self.completer.family, self.completer.model.sampling, stop)
        found: list[Judged] = []
        for stretch in stretches(request.text, ranges):
            own = [edit for edit in edits if stretch[0] <= edit.start and edit.end <= stretch[1]]
            gains = likelihood.gains(request, stretch, own)
            best = [edit for code in HIDDEN for edit in _best(gains, code)]
            unseen = dict(zip(best, hidden.gains(request, best), strict=True))
            for edit, gain in gains.items():
                facts = {**asdict(gain), **asdict(habits.of(edit)), **asdict(slots.of(edit))}
                familiar = self._familiarity(request.text[edit.start : edit.end], edit)
                evidence = LintEvidence(**facts, hidden=unseen.get(edit, 0.0), familiar=familiar)
                found.append(Judged(edit, evidence))
        return found

    def _familiarity(self, old: str, edit: Edit) -> float:
        """How known the name is that would go; 0 for all else."""
        names = old.isidentifier() and edit.replacement.isidentifier() and self.known is not None
        return self.known.familiarity(old, edit.replacement) if names and self.known is not None else 0.0


def _names(request: LintRequest) -> frozenset[str]:
    """What other files have."""
    return frozenset(name for other in request.neighbours for name in _NAME.findall(other.text))


def _is_apart(places: Sequence[Range], taken: Sequence[Range]) -> bool:
    return all(end <= other[0] or other[1] <= start for start, end in places for other in taken)


def _best(gains: Mapping[Edit, Gain], code: str) -> list[Edit]:
    promising = [edit for edit in gains if edit.code == code and gains[edit].whole >= LEAST_GAIN]
    return sorted(promising, key=lambda edit: -gains[edit].whole)[:MOST_HIDDEN]


def _is_known(text: str, edit: Edit, elsewhere: Set[str]) -> bool:
    """Whether what may be misspelled stands in another file too."""
    return edit.code == "misspelled" and text[edit.start : edit.end] in elsewhere


def _parses(tree: SyntaxTree, edit: Edit) -> bool:
    """Whether the text is no more broken with the edit."""
    return error_score(tree.replaced(edit.start, edit.end, edit.replacement)) <= error_score(tree)


class _Back:
    """From offsets in a text with "\\n" line ends back to the text as it came. cuts: where each "\\r" was cut."""

    def __init__(self, cuts: Sequence[int]) -> None:
        self.cuts = cuts

    def offset(self, plain: int) -> int:
        return plain + bisect_right(self.cuts, plain - 1)

    def finding(self, edit: Edit, gain: float, text: str, also: Sequence[Range] = ()) -> Finding:
        new = edit.replacement.replace("\n", "\r\n") if self.cuts else edit.replacement
        start, end = self.offset(edit.start), self.offset(edit.end)
        more = tuple((self.offset(first), self.offset(last)) for first, last in also)
        return Finding(start, end, edit.code, edit.message(text), new, round(gain, 3), more)


def _plain(request: LintRequest) -> tuple[LintRequest, _Back]:
    """The request with "\\n" line ends."""
    if "\r\n" not in request.text:
        return request, _Back(())
    cuts: list[int] = []
    places: list[int] = []
    at = -1
    while (at := request.text.find("\r\n", at + 1)) >= 0:
        places.append(at)
        cuts.append(at - len(cuts))

    def plain(offset: int) -> int:
        return offset - bisect_right(places, offset - 1)

    ranges: tuple[Range, ...] = tuple((plain(start), plain(end)) for start, end in request.ranges)
    return replace(request, text=request.text.replace("\r\n", "\n"), ranges=ranges), _Back(cuts)
