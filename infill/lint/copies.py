"""Names that were not updated when a line was copied: `y_max = f(x_min)` below `x_max = f(x_min)`.

Works on the tokens of lines. Must not know syntax trees, nor the model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from engine.errors import Stop, pacer

LINES_ABOVE = 3  # lines with text above a line that it may be a copy of
MIN_TOKENS = 5  # of a line
_TOKEN = re.compile(r"\w+|[^\w\s]")
_IDENTIFIER = re.compile(r"[^\W\d]\w*\Z")
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|_+|[^\W_]")
_IMPORT = re.compile(r"\s*(import|from|use|package|#include)\b")

Tokens = Sequence[re.Match[str]]


def stale_copies(text: str, stop: Stop | None = None) -> Iterator[tuple[int, int, str]]:
    """[start, end) of a name that a copied line left unchanged, and the name with the change of its line applied."""
    starts = [0, *(match.end() for match in re.finditer("\n", text))]
    lines = [text[a:b] for a, b in zip(starts, [*starts[1:], len(text)], strict=True)]
    pace = pacer(stop)
    tokenized = []
    for start, line in zip(starts, lines, strict=True):
        pace()
        if line.strip():
            tokenized.append((start, [*_TOKEN.finditer(line)], bool(_IMPORT.match(line))))
    for index, (start, new, is_import) in enumerate(tokenized):
        pace()
        if len(new) < MIN_TOKENS or is_import:
            continue
        for _, old, _ in tokenized[max(0, index - LINES_ABOVE) : index]:
            if len(old) == len(new) and (stale := _stale_token(old, new)) is not None:
                at, replacement = stale
                yield start + new[at].start(), start + new[at].end(), replacement


def _stale_token(old: Tokens, new: Tokens) -> tuple[int, str] | None:
    """Index and replacement of the one token of `new` that missed the change; None if the lines differ by more than one
    substitution, or if several tokens missed it."""
    changed = [(a[0], b[0]) for a, b in zip(old, new, strict=True) if a[0] != b[0]]
    substitutions = {_difference(before, after) for before, after in changed}
    if len(substitutions) != 1 or not all(_IDENTIFIER.match(name) for pair in changed for name in pair):
        return None
    ((before, after),) = substitutions
    stale = [
        (index, replacement)
        for index, (a, b) in enumerate(zip(old, new, strict=True))
        if a[0] == b[0]
        and _IDENTIFIER.match(b[0])
        and (replacement := _substituted(b[0], before, after, changed)) is not None
    ]
    return stale[0] if len(stale) == 1 else None


def _substituted(name: str, before: str, after: str, changed: Sequence[tuple[str, str]]) -> str | None:
    """`name` with the change applied to all of it or to one part; None if one name contains the other, as in
    `self.base_fn = fn`, which is deliberate."""
    for old, new in changed:
        if name == old:
            return None if old in new or new in old else new
    parts = _PART.findall(name)
    if parts.count(before) != 1 or not after:
        return None
    return "".join(after if part == before else part for part in parts)


def _difference(one: str, other: str) -> tuple[str, str]:
    """The parts in which two names differ: (x, y) for x_min and y_min."""
    old, new = _PART.findall(one), _PART.findall(other)
    while len(old) > 1 and len(new) > 1 and old[0] == new[0]:
        old, new = old[1:], new[1:]
    while len(old) > 1 and len(new) > 1 and old[-1] == new[-1]:
        old, new = old[:-1], new[:-1]
    return "".join(old), "".join(new)
