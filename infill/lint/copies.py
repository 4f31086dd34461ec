"""Names that were left over when a line was made from one above it: `y_max = f(x_min)` below `x_max = f(x_min)`.

Works on words of lines. Must not know trees, nor the model.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

LINES_ABOVE = 3  # that hold text, of which a line may be a copy
LEAST_WORDS = 5  # and signs, of a line that is looked at
_WORDS = re.compile(r"\w+|[^\w\s]")
_IDENTIFIER = re.compile(r"[^\W\d]\w*\Z")
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|_+|[^\W_]")
_IMPORT = re.compile(r"\s*(import|from|use|package|#include)\b")

Words = Sequence[re.Match[str]]
Exchange = tuple[str, str]


def left_over(text: str) -> Iterator[tuple[int, int, str]]:
    """[start, end) of a name and what it would be, had it been changed as the rest of its line was."""
    starts = [0, *(match.end() for match in re.finditer("\n", text))]
    lines = [text[a:b] for a, b in zip(starts, [*starts[1:], len(text)], strict=True)]
    ink = [(start, [*_WORDS.finditer(line)]) for start, line in zip(starts, lines, strict=True) if line.strip()]
    imports = {start for start, line in zip(starts, lines, strict=True) if _IMPORT.match(line)}
    for place, (start, new) in enumerate(ink):
        if len(new) < LEAST_WORDS or start in imports:
            continue
        for _, old in ink[max(0, place - LINES_ABOVE) : place]:
            if len(old) == len(new):
                for index, replacement in _unchanged(old, new):
                    yield start + new[index].start(), start + new[index].end(), replacement


def _unchanged(old: Words, new: Words) -> Iterator[tuple[int, str]]:
    """The one word of `new` that kept what the others lost, and what it would be; none where lines differ in more
    than one way, or kept it in several places."""
    changed = [(a[0], b[0]) for a, b in zip(old, new, strict=True) if a[0] != b[0]]
    exchanges = Counter(_core(was, became) for was, became in changed)
    if len(exchanges) != 1 or not all(_IDENTIFIER.match(was) and _IDENTIFIER.match(became) for was, became in changed):
        return
    ((gone, come),) = exchanges
    kept = [
        (index, replacement)
        for index, (a, b) in enumerate(zip(old, new, strict=True))
        if a[0] == b[0] and _IDENTIFIER.match(b[0]) and (replacement := _renamed(b[0], gone, come, changed)) is not None
    ]
    if len(kept) == 1:
        yield kept[0]


def _renamed(name: str, gone: str, come: str, changed: Sequence[tuple[str, str]]) -> str | None:
    """`name` with the exchange made in it: as a whole word was changed, or in one of its parts; None where one name
    holds the other: `self.base_fn = fn` is meant."""
    for was, became in changed:
        if name == was:
            return None if was in became or became in was else became
    parts = _PART.findall(name)
    if parts.count(gone) != 1 or not come:
        return None
    return "".join(come if part == gone else part for part in parts)


def _core(was: str, became: str) -> Exchange:
    """The parts in which two words differ: (x, y) of x_min and y_min."""
    old, new = _PART.findall(was), _PART.findall(became)
    while len(old) > 1 and len(new) > 1 and old[0] == new[0]:
        old, new = old[1:], new[1:]
    while len(old) > 1 and len(new) > 1 and old[-1] == new[-1]:
        old, new = old[:-1], new[:-1]
    return "".join(old), "".join(new)
