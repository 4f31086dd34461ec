"""The lines of other places that have most to do with the text near a hole: those that share its rare names.

Text in, text out. Windows of lines are ranked by the names they share with what stands near the hole, each name weighed
by how few windows have it (as inverse document frequency; after the neighbour snippets of RepoCoder, arXiv 2303.12570).
Must not know tokens, syntax or where the text will stand.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

_NAME = re.compile(r"[^\W\d]\w{2,}")
STRIDE_LINES = 4
LEAST_SHARED = 3  # names


def snippet(near: str, sources: Sequence[str], limit_chars: int) -> str:
    """Whole lines of one of the `sources`, at most `limit_chars`, or "" where none shares LEAST_SHARED names.

    Windows that repeat `near` itself bring nothing and are passed over.
    """
    wanted = {*_NAME.findall(near)}
    indexes = [_index(source, limit_chars) for source in sources]
    total = sum(len(index.windows) for index in indexes)
    having = {name: sum(len(index.having.get(name, ())) for index in indexes) for name in wanted}
    weight = {name: math.log(1 + total / count) for name, count in having.items() if count}
    best, most = "", 0.0
    for index in indexes:
        shared = Counter(window for name in weight for window in index.having.get(name, ()))
        weights = Counter[int]()
        for name in sorted(weight):
            weights.update(dict.fromkeys(index.having.get(name, ()), weight[name]))
        for window, count in sorted(shared.items()):
            score = weights[window] / math.log(8 + index.names[window])
            if count >= LEAST_SHARED and score > most and (text := index.text(window)).strip() not in near:
                best, most = text, score
    return best


@dataclass(frozen=True)
class _Index:
    """Runs of whole lines (first, behind last), how many names each has, and which of them have a name."""

    lines: list[str]
    windows: list[tuple[int, int]]
    names: list[int]
    having: dict[str, tuple[int, ...]]

    def text(self, window: int) -> str:
        first, last = self.windows[window]
        return "".join(self.lines[first:last]).strip("\n") + "\n"


@lru_cache(maxsize=64)
def _index(source: str, limit_chars: int) -> _Index:
    """The windows that fit, one every STRIDE_LINES lines, those without text left out."""
    lines = source.splitlines(keepends=True)
    windows: list[tuple[int, int]] = []
    names: list[int] = []
    having = defaultdict[str, list[int]](list)
    for first in range(0, len(lines), STRIDE_LINES):
        size, last = 0, first
        while last < len(lines) and size + len(lines[last]) <= limit_chars:
            size += len(lines[last])
            last += 1
        text = "".join(lines[first:last])
        if text.strip():
            found = {*_NAME.findall(text)}
            for name in found:
                having[name].append(len(windows))
            windows.append((first, last))
            names.append(len(found))
    return _Index(lines, windows, names, {name: tuple(places) for name, places in having.items()})
