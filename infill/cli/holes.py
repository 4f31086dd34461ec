"""Where to fill, as a person says it: LINE:COL, a range of them, or a marker that stands in the text.

Lines and columns count from 1, columns in characters. A line ends in a line feed, with or without a carriage
return before it, and nowhere else. Must not know how holes are filled.
"""

from __future__ import annotations

import re

from engine.errors import UsageError
from infill.request import Hole

PLACE = re.compile(r"\s*(\d{1,9}):(\d{1,9})\s*", re.ASCII)


def hole_at(text: str, place: str) -> Hole:
    """The empty hole at `LINE:COL`; COL may be one past the end of its line. Raises UsageError."""
    offset = offset_of(text, place, "--at")
    return Hole(offset, offset)


def hole_in_range(text: str, places: str) -> Hole:
    """The hole `L:C-L:C` from the first place up to, and without, the second. Raises UsageError."""
    first, dash, second = places.partition("-")
    if not dash:
        raise UsageError(f"--range is {places!r}; write it as LINE:COL-LINE:COL, for example 12:1-15:1.")
    start, end = offset_of(text, first, "--range"), offset_of(text, second, "--range")
    if end < start:
        raise UsageError(f"--range {places} ends before it starts; write the earlier place first.")
    return Hole(start, end)


def holes_at_markers(text: str, marker: str) -> tuple[Hole, ...]:
    """A hole for each place where `marker` stands; the marker itself is replaced. Raises UsageError."""
    if not marker:
        raise UsageError("--marker is empty; name the text that stands where something is to be filled in.")
    holes = tuple(Hole(found.start(), found.end()) for found in re.finditer(re.escape(marker), text))
    if not holes:
        raise UsageError(f"The text does not contain the marker {marker!r}; write it where a hole is meant.")
    return holes


def offset_of(text: str, place: str, flag: str) -> int:
    """The character offset of `LINE:COL`; raises UsageError that names `flag` and what the text has."""
    match = PLACE.fullmatch(place)
    if not match:
        raise UsageError(f"{flag} has {place!r}; write LINE:COL, both counted from 1, for example 12:5.")
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


def place_of(text: str, offset: int) -> str:
    """`LINE:COL` of a character offset."""
    line = text.count("\n", 0, offset) + 1
    return f"{line}:{offset - text.rfind(chr(10), 0, offset)}"
