"""The lines of other places that have most to do with the text near a hole: those that share its rare names.

Text in, text out. Windows of lines are ranked by the names they share with what stands near the hole, each name weighed
by how few windows have it (as inverse document frequency; after the neighbour snippets of RepoCoder, arXiv 2303.12570).
Must not know tokens, syntax or where the text will stand.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

_NAME = re.compile(r"[^\W\d]\w{2,}")
STRIDE_LINES = 4
LEAST_SHARED = 3  # names


def snippet(near: str, sources: Sequence[str], limit_chars: int) -> str:
    """Whole lines of one of the `sources`, at most `limit_chars`, or "" where none shares LEAST_SHARED names.

    Windows that repeat `near` itself bring nothing and are passed over.
    """
    wanted = {*_NAME.findall(near)}
    windows = [window for source in sources for window in _windows(source, limit_chars)]
    if not wanted or not windows:
        return ""
    having = Counter(name for _, names in windows for name in names & wanted)
    weight = {name: math.log(1 + len(windows) / count) for name, count in having.items()}
    best, most = "", 0.0
    for text, names in windows:
        shared = names & wanted
        score = sum(weight[name] for name in shared) / math.log(8 + len(names))
        if len(shared) >= LEAST_SHARED and score > most and text.strip() not in near:
            best, most = text, score
    return best


@lru_cache(maxsize=64)
def _windows(source: str, limit_chars: int) -> tuple[tuple[str, frozenset[str]], ...]:
    """(text, names) of runs of whole lines that fit, every STRIDE_LINES lines."""
    lines = source.splitlines(keepends=True)
    windows = []
    for first in range(0, len(lines), STRIDE_LINES):
        size, last = 0, first
        while last < len(lines) and size + len(lines[last]) <= limit_chars:
            size += len(lines[last])
            last += 1
        text = "".join(lines[first:last]).strip("\n")
        if text.strip():
            windows.append((text + "\n", frozenset(_NAME.findall(text))))
    return tuple(windows)
