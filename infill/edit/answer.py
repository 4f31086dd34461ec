"""From what a model writes in a fenced code block to code: the end of the block, repeated surroundings, prose.

Must not know models or prompts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from infill.code.brackets import scan

MOST_REPEATED = 40  # lines of the surroundings that an answer may repeat
_PROSE = re.compile(r"[A-Z][\w'’,-]*(?: [\w'’`(),/-]+){3,}[.:!]?")
_WORD = re.compile(r"\w")


def closing_fence(answer: str, fence: str) -> int | None:
    """The offset of the line that ends the code block; None if it goes on."""
    match = re.search(rf"^[ \t]*{fence}", answer, re.MULTILINE)
    return match.start() if match else None


def without_surroundings(code: str, selected: str, before: str, after: str, language: str | None = None) -> str:
    """The answer without lines at its beginning and end that repeat those above and below the selection, blank ones
    between them included.

    Indentation is not compared. Lines that the selection itself begins or ends with are not repeated ones, nor are
    lines of brackets alone, unless the brackets of the answer do not match and those of the selection do.
    """
    old, above, below = _stripped(selected), _stripped(before), _stripped(after)
    matches = _has_matching_brackets(selected, language)

    def wrong_brackets(lines: list[str]) -> bool:
        return matches and not _has_matching_brackets("\n".join(lines), language)

    lines = code.split("\n")
    count = _repeated(lines, above[::-1], old, wrong_brackets(lines))
    lines = _cut(lines, count, before.split("\n")[:-1][::-1])
    upwards = lines[::-1]
    count = _repeated(upwards, below, old[::-1], wrong_brackets(lines))
    return "\n".join(_cut(upwards, count, after.split("\n")[1:])[::-1])


def is_prose(code: str, selected: str) -> bool:
    """Whether the answer begins or ends with a sentence, which the selection does not."""
    return any(
        _PROSE.fullmatch(new) is not None and _PROSE.fullmatch(old) is None
        for new, old in zip(_ends(code), _ends(selected), strict=True)
    )


def _stripped(text: str) -> list[str]:
    return [line.strip() for line in text.split("\n") if line.strip()]


def _cut(lines: list[str], count: int, outside: Sequence[str]) -> list[str]:
    """The lines without `count` repeated ones at the front, and the blank ones of `outside` between them."""
    gap = min(_blank_lines(outside), _blank_lines(lines[count:])) if count else 0
    return lines[count + gap :]


def _blank_lines(lines: Sequence[str]) -> int:
    """The number of blank lines at the front."""
    return next((number for number, line in enumerate(lines) if line.strip()), len(lines))


def _ends(text: str) -> tuple[str, str]:
    lines = _stripped(text) or [""]
    return lines[0], lines[-1]


def _has_matching_brackets(code: str, language: str | None) -> bool:
    found = scan(code, language)
    return not (found.open or found.stray or found.skipped)


def _repeated(lines: Sequence[str], outside: Sequence[str], old: Sequence[str], brackets: bool) -> int:
    """The number of lines at the front that repeat the lines of `outside` nearest to the selection, which come first
    there. old: the lines of the selection in the order of `lines`. brackets: whether lines of brackets alone count."""
    filled = [(index, line.strip()) for index, line in enumerate(lines) if line.strip()]
    for count in range(min(len(filled), len(outside), MOST_REPEATED), 0, -1):
        front = [line for _, line in filled[:count]]
        counts = front != [*old[:count]] if _WORD.search("".join(front)) else brackets
        if counts and front == [*outside[:count]][::-1]:
            return filled[count - 1][0] + 1
    return 0
