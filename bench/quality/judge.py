"""Judges answers: one by one (`judge`), by group (`rows`), by confidence (`ConfidenceCurve`), by length (`length_gap`).

Must not know how an answer was made, nor how a table is shown.
"""

from __future__ import annotations

import difflib
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from os.path import commonprefix

import numpy as np

from bench.quality.baselines import Attempt
from infill.code.syntax import error_score, parse
from infill.prompts.text_tokens import TextTokens
from train.held_out import ONE_LINE, HeldOutHole

ALL = "all"
Z = 1.96  # standard normal, 95 %
SHARES = tuple(share / 10 for share in range(1, 10))
Interval = tuple[float, float]


@dataclass(frozen=True)
class Outcome:
    """One judged attempt at one hole.

    offset: of the hole, in characters. similarity: difflib's ratio. parses: with no more syntax errors than the
    original file. tokens, true_tokens: lengths of the answer and of the truth, in tokens of the model. kept: share of
    the truth that a user would keep of the text shown (common prefix). passing: confidence and exactness of the
    candidate that a threshold of 0 would show; None if the other checks refuse all candidates, or without a confidence.
    """

    method: str
    language: str
    kind: str
    project: str
    path: str
    offset: int
    exact: bool
    similarity: float
    parses: bool
    tokens: int
    true_tokens: int
    steps: int
    ms: float
    shown: bool
    reason: str | None
    confidence: float | None
    source: str
    kept: float
    passing: tuple[float, bool] | None
    text: str
    truth: str


def judge(method: str, hole: HeldOutHole, attempt: Attempt, tokens: TextTokens) -> Outcome:
    """Ignores white space at the end, and for one-line holes also at the start."""
    text, truth = _trimmed(attempt.text, hole), _trimmed(hole.truth, hole)
    errors = _errors(hole.before + attempt.text + hole.after, hole.language)
    passing = attempt.best_passing
    return Outcome(
        method=method,
        language=hole.language,
        kind=hole.kind,
        project=hole.project,
        path=hole.path,
        offset=len(hole.before),
        exact=text == truth,
        similarity=difflib.SequenceMatcher(None, text, truth, autojunk=False).ratio(),
        parses=errors <= _errors(hole.before + hole.truth + hole.after, hole.language),
        tokens=len(tokens.encode(attempt.text.rstrip("\n"))),
        true_tokens=len(tokens.encode(hole.truth)),
        steps=attempt.steps,
        ms=attempt.ms,
        shown=attempt.shown,
        reason=attempt.reason,
        confidence=attempt.confidence,
        source=attempt.source,
        kept=len(commonprefix([text, truth])) / len(truth) if attempt.shown else 0.0,
        passing=(passing[0], _trimmed(passing[1], hole) == truth) if passing else None,
        text=attempt.text,
        truth=hole.truth,
    )


def _trimmed(text: str, hole: HeldOutHole) -> str:
    return text.strip() if hole.one_line else text.rstrip()


@lru_cache(maxsize=64)
def _errors(text: str, language: str) -> int:
    tree = parse(text, language)
    return error_score(tree).errors if tree else 0


@dataclass(frozen=True)
class Row:
    """Means over a group of outcomes.

    interval: 95 % interval of `exact`. length_ratio: mean of answer length over true length. within_one: share of
    answers whose length differs from the truth by at most one token. copied, drafted: shares of answers that come from
    the context and from the causal encoder. exact_of_shown, parses_of_shown: None if nothing is shown.
    """

    language: str
    kind: str
    method: str
    holes: int
    exact: float
    interval: Interval
    similarity: float
    parses: float
    length_ratio: float
    within_one: float
    shown: float
    exact_of_shown: float | None
    parses_of_shown: float | None
    kept: float
    copied: float
    drafted: float
    steps: float
    ms: float


def rows(outcomes: Sequence[Outcome]) -> list[Row]:
    """By language, kind and method, in order of first appearance; sums over kinds and languages come last."""
    groups: dict[tuple[str, str, str], list[Outcome]] = defaultdict(list)
    languages = [*dict.fromkeys(one.language for one in outcomes)]
    for one in outcomes:
        for language in (one.language, ALL)[: 1 + (len(languages) > 1)]:
            for kind in (one.kind, ALL):
                groups[language, kind, one.method].append(one)
    orders = [[*dict.fromkeys(getattr(one, name) for one in outcomes), ALL] for name in ("language", "kind", "method")]
    ordered = sorted(groups, key=lambda key: [order.index(part) for order, part in zip(orders, key, strict=True)])
    return [_row(*key, groups[key]) for key in ordered]


def _row(language: str, kind: str, method: str, group: Sequence[Outcome]) -> Row:
    right = sum(one.exact for one in group)
    shown = [one for one in group if one.shown]
    return Row(
        language=language,
        kind=kind,
        method=method,
        holes=len(group),
        exact=right / len(group),
        interval=wilson(right, len(group)),
        similarity=_mean([one.similarity for one in group]),
        parses=_mean([one.parses for one in group]),
        length_ratio=_mean([one.tokens / max(one.true_tokens, 1) for one in group]),
        within_one=_mean([abs(one.tokens - one.true_tokens) <= 1 for one in group]),
        shown=len(shown) / len(group),
        exact_of_shown=_mean([one.exact for one in shown]) if shown else None,
        parses_of_shown=_mean([one.parses for one in shown]) if shown else None,
        kept=_mean([one.kept for one in group]),
        copied=_mean([one.source == "copy" for one in group]),
        drafted=_mean([one.source == "causal" for one in group]),
        steps=_mean([one.steps for one in group]),
        ms=_mean([one.ms for one in group]),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def wilson(successes: int, trials: int) -> Interval:
    """The 95 % score interval of a share (Wilson 1927); 0 to 1 without trials."""
    if not trials:
        return 0.0, 1.0
    share, spread = successes / trials, Z * Z / trials
    center = (share + spread / 2) / (1 + spread)
    half = Z * math.sqrt(share * (1 - share) / trials + spread / (4 * trials)) / (1 + spread)
    return max(0.0, center - half), min(1.0, center + half)


@dataclass(frozen=True)
class ThresholdPoint:
    """What a confidence threshold shows.

    shown: share of all holes. count: number of holes shown. right: exact ones among them. precision: right / count,
    None if nothing is shown. interval: 95 % interval of the precision.
    """

    threshold: float
    shown: float
    count: int
    right: int
    precision: float | None
    interval: Interval


class ConfidenceCurve:
    """How well the confidence separates right from wrong, over the candidates that pass the other checks."""

    def __init__(self, outcomes: Sequence[Outcome]) -> None:
        passing = sorted((one.passing for one in outcomes if one.passing), key=lambda pair: -pair[0])
        self.holes = len(outcomes)
        self.confidence = np.array([confidence for confidence, _ in passing], dtype=np.float64)
        self.exact = np.array([exact for _, exact in passing], dtype=bool)

    def at(self, threshold: float) -> ThresholdPoint:
        """A confidence equal to the threshold passes, as in infill.checks.checks."""
        count = int((self.confidence >= threshold).sum())
        right = int(self.exact[:count].sum())
        precision = right / count if count else None
        return ThresholdPoint(threshold, count / max(self.holes, 1), count, right, precision, wilson(right, count))

    def at_shares(self) -> list[ThresholdPoint]:
        """The thresholds that show about SHARES of the holes; fewer if the other checks let fewer pass."""
        counts = [max(1, round(share * self.holes)) for share in SHARES]
        thresholds = [float(self.confidence[count - 1]) for count in counts if count <= len(self.confidence)]
        return [self.at(threshold) for threshold in dict.fromkeys(thresholds)]

    def curve(self) -> list[ThresholdPoint]:
        """One point per distinct confidence, the highest first."""
        return [self.at(float(threshold)) for threshold in np.unique(self.confidence)[::-1]]

    def lowest(self, precision: float) -> ThresholdPoint | None:
        """The lowest confidence at which at least that share of the shown answers is right; None if there is none."""
        good = [point for point in self.curve() if point.precision is not None and point.precision >= precision]
        return good[-1] if good else None

    def area(self) -> float | None:
        """Area under the ROC curve: how often a right answer has a higher confidence than a wrong one; ties count half
        (Mann and Whitney 1947). None if all are right or all are wrong."""
        right, wrong = self.confidence[self.exact], self.confidence[~self.exact]
        if not len(right) or not len(wrong):
            return None
        ordered = np.sort(wrong)
        below = np.searchsorted(ordered, right, "left") + np.searchsorted(ordered, right, "right")
        return float(below.sum() / (2 * len(right) * len(wrong)))


@dataclass(frozen=True)
class LengthGap:
    """Exact match and similarity on one-line holes with a fixed length, with null slots and with the true length.

    exact_closed, similarity_closed: the share of the gap between fixed and true length that null slots close; None if
    there is no gap.
    """

    holes: int
    exact: tuple[float, float, float]
    similarity: tuple[float, float, float]
    exact_closed: float | None
    similarity_closed: float | None


def length_gap(outcomes: Sequence[Outcome], methods: tuple[str, str, str]) -> LengthGap | None:
    """methods: names of fixed length, null slots and true length. None if a method has no outcomes."""
    groups = [[one for one in outcomes if one.method == method and one.kind in ONE_LINE] for method in methods]
    if not all(groups):
        return None

    def means(measure: str) -> tuple[float, float, float]:
        low, middle, high = (_mean([getattr(one, measure) for one in group]) for group in groups)
        return low, middle, high

    exact, similarity = means("exact"), means("similarity")
    return LengthGap(len(groups[0]), exact, similarity, _closed(*exact), _closed(*similarity))


def _closed(low: float, middle: float, high: float) -> float | None:
    return (middle - low) / (high - low) if high > low else None
