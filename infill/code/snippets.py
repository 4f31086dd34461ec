"""Retrieval of the lines most relevant to the text near a hole: those that share its rare names.

Windows of lines are ranked by the names they share with that text, weighted by inverse document frequency (after
RepoCoder, arXiv 2303.12570). Must not know tokens, syntax, or what the lines are used for.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

_NAME = re.compile(r"[^\W\d]\w{2,}")
STRIDE_LINES = 4
LEAST_SHARED = 3  # names


def snippet(near: str, sources: Sequence[str], limit_chars: int) -> str:
    """Whole lines of one of the `sources`, at most `limit_chars`; "" if no window shares LEAST_SHARED names.

    Windows that `near` contains are skipped.
    """
    names = {*_NAME.findall(near)}
    indexes = [_index(source, limit_chars) for source in sources]
    total = sum(len(index.windows) for index in indexes)
    frequency = {name: sum(len(index.windows_with.get(name, ())) for index in indexes) for name in names}
    weight = {name: math.log(1 + total / count) for name, count in frequency.items() if count}
    best, most = "", 0.0
    for index in indexes:
        shared = Counter(window for name in weight for window in index.windows_with.get(name, ()))
        weights = Counter[int]()
        for name in sorted(weight):
            weights.update(dict.fromkeys(index.windows_with.get(name, ()), weight[name]))
        for window, count in sorted(shared.items()):
            score = weights[window] / math.log(8 + index.name_counts[window])
            if count >= LEAST_SHARED and score > most and (text := index.text(window)).strip() not in near:
                best, most = text, score
    return best


@dataclass(frozen=True)
class _Index:
    """windows: [first, last) of the lines. name_counts: distinct names in each. windows_with: by name."""

    lines: list[str]
    windows: list[tuple[int, int]]
    name_counts: list[int]
    windows_with: dict[str, tuple[int, ...]]

    def text(self, window: int) -> str:
        first, last = self.windows[window]
        return "".join(self.lines[first:last]).strip("\n") + "\n"


@lru_cache(maxsize=64)
def _index(source: str, limit_chars: int) -> _Index:
    """One window every STRIDE_LINES lines, as long as fits; blank windows are left out."""
    lines = source.splitlines(keepends=True)
    starts = [0, *accumulate(map(len, lines))]
    windows: list[tuple[int, int]] = []
    name_counts: list[int] = []
    windows_with = defaultdict[str, list[int]](list)
    for first in range(0, len(lines), STRIDE_LINES):
        last = bisect_right(starts, starts[first] + limit_chars) - 1
        text = source[starts[first] : starts[last]]
        if text.strip():
            found = {*_NAME.findall(text)}
            for name in found:
                windows_with[name].append(len(windows))
            windows.append((first, last))
            name_counts.append(len(found))
    return _Index(lines, windows, name_counts, {name: tuple(found) for name, found in windows_with.items()})
