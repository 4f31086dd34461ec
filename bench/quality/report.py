"""The results of bench.quality.run: tables on a console, Markdown, a JSON summary.

Knows outcomes and conditions. Must not know a model, nor how holes are filled.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.quality.judge import ConfidenceCurve, LengthGap, Outcome, Row, ThresholdPoint, length_gap, rows
from bench.report import markdown_table

MIN_WIDTH = 110
NAMES = ("language", "hole", "method")
WRITTEN = ("holes", "exact", "95 %", "similar", "parses", "length", "±1", "steps", "ms")
SHOWN = ("copied", "drafted", "shown", "right", "parses", "kept")
THRESHOLD = ("threshold", "shown", "holes", "right", "95 %")
_CHECKSUM = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class QualityReport:
    """conditions: all that the figures depend on. judged: the method whose confidence is calibrated. threshold: the
    one it ran with. gap: names of the methods with fixed length, null slots and true length. target: the precision for
    which a threshold is sought."""

    conditions: Mapping[str, Any]
    outcomes: Sequence[Outcome]
    judged: str
    threshold: float
    gap: tuple[str, str, str]
    target: float | None = None

    @cached_property
    def rows(self) -> list[Row]:
        return rows(self.outcomes)

    @cached_property
    def calibration(self) -> ConfidenceCurve:
        return ConfidenceCurve([one for one in self.outcomes if one.method == self.judged])

    @cached_property
    def points(self) -> list[ThresholdPoint]:
        """The threshold in use among those that show 10 %, 20 %, … of the holes, the highest first."""
        points = [*self.calibration.at_shares(), self.calibration.at(self.threshold)]
        return sorted(points, key=lambda point: -point.threshold)

    @cached_property
    def length_gap(self) -> LengthGap | None:
        return length_gap(self.outcomes, self.gap)

    def tables(self) -> list[tuple[str, Sequence[str], list[list[str]]]]:
        """Title, header and cells of each table."""
        languages = {row.language for row in self.rows}
        names = NAMES[len(languages) == 1 :]
        heads = [[row.language, row.kind, row.method][-len(names) :] for row in self.rows]
        suffix = f" ({', '.join(languages)})" if len(languages) == 1 else ""
        return [
            (
                f"What is written{suffix}",
                (*names, *WRITTEN),
                [[*head, *_written(row)] for head, row in zip(heads, self.rows, strict=True)],
            ),
            (
                f"What is shown{suffix}",
                (*names, *SHOWN),
                [[*head, *_shown(row)] for head, row in zip(heads, self.rows, strict=True)],
            ),
            (f"The confidence threshold ({self.judged})", THRESHOLD, [self._threshold_row(one) for one in self.points]),
        ]

    def show(self) -> None:
        """Prints on standard output, wide enough for the tables even if that is not a terminal."""
        console = Console()
        console.width = max(console.width, MIN_WIDTH)
        for title, header, cells in self.tables():
            console.print(_table(title, header, cells))
        for note in self.notes():
            console.print(f"- {note}", markup=False, highlight=False)

    def markdown(self) -> str:
        lines: list[str] = []
        for title, header, cells in self.tables():
            lines += [f"{title}:", "", *markdown_table(header, cells), ""]
        return "\n".join([*lines, *(f"- {note}" for note in self.notes())]) + "\n"

    def summary(self) -> dict[str, Any]:
        """Conditions and figures of the tables, without single outcomes."""
        lowest = self.calibration.lowest(self.target) if self.target is not None else None
        return {
            "conditions": dict(self.conditions),
            "table": [asdict(row) for row in self.rows],
            "calibration": {
                "method": self.judged,
                "passing": len(self.calibration.confidence),
                "holes": self.calibration.holes,
                "area": self.calibration.area(),
                "threshold": self.threshold,
                "points": [asdict(point) for point in self.points],
                "target_precision": self.target,
                "lowest_threshold": asdict(lowest) if lowest else None,
            },
            "length_gap": asdict(self.length_gap) if self.length_gap else None,
        }

    def outcome_rows(self, texts: bool) -> list[dict[str, Any]]:
        """One dictionary per outcome. texts: with the text written and the truth."""
        found = [asdict(one) for one in self.outcomes]
        for outcome in [] if texts else found:
            del outcome["text"], outcome["truth"]
        return found

    def notes(self) -> list[str]:
        found = [
            "; ".join(f"{name} {_in_words(value)}" for name, value in self.conditions.items()),
            "exact: equal to the truth except for white space at the end (within a line also at the start), with "
            "Wilson's interval; similar: difflib's ratio; parses: with no more syntax errors than the original file; "
            "length: tokens written per token missing; ±1: at most one token too many or too few.",
            "copied, drafted: taken from the context, written by the causal encoder; right and parses: among shown; "
            "kept: share of the truth that a user would keep of the text shown.",
            f"ms: {self._times_in_words()}; copy and causal have no checks and fill one hole at a time; a step of "
            "causal is a token.",
        ]
        area = self.calibration.area()
        if area is not None:
            passing = len(self.calibration.confidence)
            found.append(
                f"Area under the ROC curve of the confidence: {area:.2f}, over the {passing} of "
                f"{self.calibration.holes} holes that pass the other checks; the threshold is {self.threshold:g}."
            )
        if self.target is not None:
            found.append(self._lowest_in_words(self.target))
        if self.length_gap:
            found.append(_gap_in_words(self.length_gap, self.gap))
        return found

    def _times_in_words(self) -> str:
        batch = self.conditions["batch"]
        return "one request at a time" if batch == 1 else f"a hole's share of a batch of at most {batch}"

    def _lowest_in_words(self, target: float) -> str:
        point = self.calibration.lowest(target)
        if point is None:
            return f"On these holes no threshold makes {target:.0%} of the shown answers right."
        return (
            f"The lowest threshold with at least {target:.0%} right on these holes is {point.threshold:.4f}: it shows "
            f"{point.shown:.1%}, and {point.right} of these {point.count} are right ({_interval(point.interval)})."
        )

    def _threshold_row(self, point: ThresholdPoint) -> list[str]:
        threshold = f"{point.threshold:.4f}" + (" (set)" if point.threshold == self.threshold else "")
        return [threshold, _share(point.shown), str(point.count), _share(point.precision), _interval(point.interval)]


def _table(title: str, header: Sequence[str], cells: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for name in header:
        table.add_column(name, justify="left" if name in NAMES else "right", no_wrap=True)
    for row in cells:
        table.add_row(*map(Text, row))
    return table


def _written(row: Row) -> list[str]:
    return [
        str(row.holes),
        _share(row.exact),
        _interval(row.interval),
        f"{row.similarity:.2f}",
        _share(row.parses),
        f"{row.length_ratio:.2f}",
        _share(row.within_one),
        f"{row.steps:.1f}",
        f"{row.ms:.0f}",
    ]


def _shown(row: Row) -> list[str]:
    shares = (row.copied, row.drafted, row.shown, row.exact_of_shown, row.parses_of_shown)
    return [*map(_share, shares), f"{row.kept:.2f}"]


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _interval(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.1%}–{interval[1]:.1%}".replace("%–", "–")


def _in_words(value: object) -> str:
    """Shortens checksums to their first digits."""
    if isinstance(value, Mapping):
        return " ".join(f"{name} {_in_words(part)}" for name, part in value.items()) or "unknown"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)[:12] if _CHECKSUM.fullmatch(str(value)) else str(value)


def _gap_in_words(gap: LengthGap, methods: Sequence[str]) -> str:
    parts = []
    for name, (low, middle, high), closed in (
        ("exact", gap.exact, gap.exact_closed),
        ("similarity", gap.similarity, gap.similarity_closed),
    ):
        share = "no gap to close" if closed is None else f"{closed:.0%} of the gap closed"
        parts.append(f"{name} {low:.3f}, {middle:.3f}, {high:.3f} ({share})")
    return f"{', '.join(methods)} on {gap.holes} one-line holes: {'; '.join(parts)}."
