"""Guesses at the tokens to come, for decoding several tokens in one pass.

What followed the last tokens where they occurred before (prompt lookup; arXiv 2304.04487), and drafts by the caller.
Knows nothing of text. A wrong guess costs a row of a pass and changes nothing else.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

KEY = 2  # tokens that must be equal
LONGEST = 8  # tokens of a guess from the prompt, and of the context that is compared
CHOICES = 2  # guesses from the prompt at once
OCCURRENCES = 16  # of the same tokens that are compared, the last ones first


class Guesses:
    """prompt: the tokens before the ones that are decoded. drafts: whole continuations of the prompt."""

    def __init__(self, prompt: Sequence[int] = (), drafts: Sequence[Sequence[int]] = ()) -> None:
        self._prompt, self._drafts = [*prompt], [[*draft] for draft in drafts]
        self._ends: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for end in range(KEY, len(self._prompt)):
            self._ends[tuple(self._prompt[end - KEY : end])].append(end)

    def after(self, written: Sequence[int], room: int) -> list[list[int]]:
        """Continuations of `written` with at most `room` tokens in all, the drafts' first."""
        known = len(written)
        drafts = [draft[known:] for draft in self._drafts if len(draft) > known and draft[:known] == [*written]]
        found = drafts or [*self._repeats(written)]
        share = room // max(1, len(found))
        return [guess[:share] for guess in found] if share else []

    def _repeats(self, written: Sequence[int]) -> Iterator[list[int]]:
        """What followed the longest contexts that are equal to the end of prompt and `written`."""
        context = [*self._prompt[-LONGEST:], *written][-LONGEST:]
        ends = self._ends.get(tuple(context[-KEY:]), [])[-OCCURRENCES:]
        ranked = sorted(ends, key=lambda end: (self._common(context, end), end), reverse=True)
        starts: set[int] = set()
        for end in ranked:
            if self._prompt[end] not in starts and len(starts) < CHOICES:
                starts.add(self._prompt[end])
                yield self._prompt[end : end + LONGEST]

    def _common(self, context: Sequence[int], end: int) -> int:
        """The number of tokens before `end` that equal the end of `context`."""
        count = 0
        while count < min(len(context), end) and self._prompt[end - 1 - count] == context[-1 - count]:
            count += 1
        return count
