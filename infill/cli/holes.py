"""Finds the holes that a user names: LINE:COL, a range, or a marker in the text.

Lines and columns count from 1, columns in characters. Only a line feed, with or without a carriage return before it,
ends a line. Must not know how holes are filled.
"""

from __future__ import annotations

import re

from engine.errors import UsageError
from infill.request import MOST_HOLES, Hole

POSITION = re.compile(r"\s*(\d{1,9}):(\d{1,9})\s*", re.ASCII)


def hole_at(text: str, position: str) -> Hole:
    """The empty hole at `LINE:COL`; COL may be one past the end of its line. Raises UsageError."""
    offset = offset_of(text, position, "--at")
    return Hole(offset, offset)


def hole_in_range(text: str, span: str) -> Hole:
    """The hole from the first position of `L:C-L:C` up to, but not including, the second. Raises UsageError."""
    first, dash, second = span.partition("-")
    if not dash:
        raise UsageError(f"--range is {span!r}; write it as LINE:COL-LINE:COL, for example 12:1-15:1.")
    start, end = offset_of(text, first, "--range"), offset_of(text, second, "--range")
    if end < start:
        raise UsageError(f"--range {span} ends before it starts; write the earlier position first.")
    return Hole(start, end)


def holes_at_markers(text: str, marker: str) -> tuple[Hole, ...]:
    """One hole per occurrence of `marker`, covering the marker itself. Raises UsageError."""
    if not marker:
        raise UsageError("--marker is empty; give the text that marks each hole.")
    holes = tuple(Hole(match.start(), match.end()) for match in re.finditer(re.escape(marker), text))
    if not holes:
        raise UsageError(f"The text does not contain the marker {marker!r}; put it where code is missing.")
    if len(holes) > MOST_HOLES:
        raise UsageError(
            f"The text has the marker {marker!r} {len(holes):,} times; use a rarer one, at most {MOST_HOLES:,} times."
        )
    return holes


def offset_of(text: str, position: str, flag: str) -> int:
    """The character offset of `LINE:COL`. Raises UsageError that names `flag` or the valid lines and columns."""
    match = POSITION.fullmatch(position)
    if not match:
        raise UsageError(f"{flag} has {position!r}; write LINE:COL, both counted from 1, for example 12:5.")
    line, column = int(match[1]), int(match[2])
    lines = text.split("\n")
    if not 1 <= line <= len(lines):
        raise UsageError(f"There is no line {line}: the text has lines 1 to {len(lines)}.")
    content = lines[line - 1]
    if line < len(lines):
        content = content.removesuffix("\r")
    if not 1 <= column <= len(content) + 1:
        raise UsageError(f"There is no column {column} in line {line}: it has columns 1 to {len(content) + 1}.")
    return sum(len(before) + 1 for before in lines[: line - 1]) + column - 1


def position_of(text: str, offset: int) -> str:
    """`LINE:COL` of a character offset."""
    line = text.count("\n", 0, offset) + 1
    return f"{line}:{offset - text.rfind(chr(10), 0, offset)}"
