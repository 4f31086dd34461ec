"""How much likelier code becomes with an edit: the interface, and the evidence that it gives.

Must not know models, kinds of findings, nor thresholds.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from infill.findings import LintRequest, Range
from infill.lint.kinds import Edit


@dataclass(frozen=True)
class Gain:
    """Fields of `infill.lint.thresholds.EditEvidence`."""

    edit_gain: float
    suffix_gain: float = 0.0
    surprisal: float = 0.0
    extra_tokens: float = 0.0
    first_gain: float = 0.0
    rank: float = 0.0
    margin: float = 0.0

    @property
    def total(self) -> float:
        """How much likelier the whole text becomes, in nats."""
        return self.edit_gain + self.suffix_gain


IsPossible = Callable[[Edit, Gain], bool]  # whether the edit can be shown if its gain is at most this


class Judge(Protocol):
    """Queries one model."""

    def gains(
        self,
        request: LintRequest,
        ranges: Sequence[Range],
        edits: Iterable[Edit],
        is_possible: IsPossible | None = None,
    ) -> dict[Edit, Gain]:
        """Gains of the promising `edits`, all within `ranges`; the text must have "\\n" line ends.

        is_possible: edits for which it returns False may be left out.
        """
        ...


def ranked(gains: Mapping[Edit, Gain]) -> dict[Edit, Gain]:
    """The gains with the rank of the original among the edits of its position, and the margin of each edit over the
    best other text there."""
    positions: defaultdict[tuple[int, int], list[float]] = defaultdict(list)
    for edit, gain in gains.items():
        positions[edit.start, edit.end].append(gain.total)
    found = {}
    for edit, gain in gains.items():
        totals = positions[edit.start, edit.end]
        others = [0.0, *totals]
        others.remove(gain.total)
        better = sum(total > 0 for total in totals)
        found[edit] = replace(gain, rank=math.log1p(better), margin=gain.total - max(others))
    return found
