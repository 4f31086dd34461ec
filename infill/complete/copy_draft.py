"""Candidates copied from the context: what followed, elsewhere, the same text that stands before the hole.

Works on text alone, without a tree or a model. Whether a draft is any good is for the checks and the model to
say; this module must know neither.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from infill.code.brackets import scan

MIN_MATCH = 12
MAX_DRAFT_CHARS = 1200
MAX_DRAFT_LINES = 24
_MAX_PLACES = 60
_MAX_LINES_COMPARED = 8
MAX_LINE_CHARS = 400
_WORD = re.compile(r"\w")


class Draft(NamedTuple):
    """Text for the hole. `match_length`: characters before the hole that also stand before the copied text.

    `agrees_after`: what followed the copied text is what follows the hole. `places`: how many say the same.
    """

    text: str
    match_length: int
    agrees_after: bool
    places: int = 1


class _Place(NamedTuple):
    """Where a source continues what stands before the hole.

    `end`: where the match ends. `fresh`: it ends with the line, so that the copy begins on the next one.
    """

    end: int
    match_length: int
    fresh: bool


def drafts(
    before: str,
    after: str,
    language: str | None,
    neighbours: Sequence[str],
    limit: int,
    one_line: bool,
) -> list[Draft]:
    """At most `limit` distinct drafts, best first: those that agree with `after`, then by length of match.

    A place counts when at least MIN_MATCH characters before the hole stand there too, from a token's start,
    or the line (up to the cursor) and the line above it. What follows there is taken: the rest of its line
    (`one_line`), or what belongs to its block by indentation. Drafts are indented as the hole is; their lines
    end in "\\n"; between whole lines they are whole lines. `language` may be None.
    """
    hole = _Hole(_unix(before), _unix(after), language, one_line)
    found: list[tuple[bool, int, int, Draft]] = []
    for rank, source in enumerate((hole.above, hole.below, *map(_unix, neighbours))):
        for place in hole.places(source, nearest_last=rank == 0):
            draft = hole.draft(source, place)
            if draft:
                found.append((not draft.agrees_after, -draft.match_length, rank, draft))
    found.sort(key=lambda entry: entry[:3])
    places = Counter(draft.text for *_, draft in found)
    best: dict[str, Draft] = {}
    for *_, draft in found:
        best.setdefault(draft.text, draft._replace(places=places[draft.text]))
    return list(best.values())[: max(0, limit)]


class _Hole:
    """The text around the hole: lines `above`, `line` up to it, `rest` of that line, lines `below`."""

    def __init__(self, before: str, after: str, language: str | None, one_line: bool) -> None:
        line_start = before.rfind("\n") + 1
        self.above, self.line = before[:line_start], before[line_start:]
        self.before, self.language, self.one_line = before, language, one_line
        self.whole_lines = not self.line and after != "" and not after.startswith("\n")
        self.rest, _, self.below = ("", "", after) if self.whole_lines else after.partition("\n")
        self.typed = self.line.lstrip()
        self.next_line = next((line.strip() for line in self.below.split("\n", 20)[:20] if line.strip()), "")
        above = self.above.rstrip()
        self.line_above = above[above.rfind("\n") + 1 :]

    def places(self, source: str, nearest_last: bool) -> Iterator[_Place]:
        seen: set[int] = set()
        if self.typed and len(self.before) >= MIN_MATCH:
            needle = self.before[-MIN_MATCH:]
            for start in _occurrences(source, needle, nearest_last):
                end = start + len(needle)
                length, whole = self._match(source, end)
                if end not in seen and (length >= MIN_MATCH or whole):
                    seen.add(end)
                    yield _Place(end, length, False)
        needle = self.line_above.strip()
        if not needle or len(needle) > MAX_LINE_CHARS:
            return
        for start in _occurrences(source, needle, nearest_last):
            line_end = _line_end(source, start)
            if source[source.rfind("\n", 0, start) + 1 : line_end].strip() != needle:
                continue
            if not self.typed:
                length = _same_lines(self.above, len(self.above), source, line_end)
                if length >= MIN_MATCH:
                    yield _Place(line_end, length, True)
                continue
            following = _next_line(source, line_end)
            if following is None:
                continue
            end = following + len(_indentation(source, following)) + len(self.typed)
            if end not in seen and source.startswith(self.typed, end - len(self.typed)):
                seen.add(end)
                yield _Place(end, self._match(source, end)[0], False)

    def _match(self, source: str, end: int) -> tuple[int, bool]:
        """Characters that match before `end`, from a token's start on, and whether the line above matches."""
        line_start = source.rfind("\n", 0, end) + 1
        there = source[line_start:end].lstrip()
        if there == self.typed:
            above = _same_lines(self.above, len(self.above), source, line_start)
            return len(there) + above, above > 0
        length = 0
        while length < min(len(there), len(self.typed)) and there[-1 - length] == self.typed[-1 - length]:
            length += 1
        while (
            0 < length
            and _is_word(there[-length])
            and (_is_word(there[-length - 1 : -length]) or _is_word(self.typed[-length - 1 : -length]))
        ):
            length -= 1
        return length, False

    def draft(self, source: str, place: _Place) -> Draft | None:
        start = _next_line(source, place.end) if place.fresh else place.end
        if start is None:
            return None
        line_end = _line_end(source, start)
        first, base = source[start:line_end].rstrip(), _indentation(source, start)
        if len(first) > MAX_LINE_CHARS:
            return None
        own_base = _indentation(self.line, 0)
        if place.fresh:
            wanted = self._indentation_like(_indentation(source, place.end), base)
            if wanted is None or not wanted.startswith(self.line):
                return None
            own_base, first = wanted, wanted[len(self.line) :] + first.lstrip()
        if place.fresh and first.strip() == self.next_line:
            return None
        if self.rest.strip():
            text, agrees = self._cut(first, self.rest.strip())
        else:
            lines, agrees = self._lines(source, line_end, base, own_base, place.fresh)
            text = "\n".join([first, *lines])
        if not text.strip():
            return None
        return Draft(text + "\n" if self.whole_lines else text, place.match_length, agrees)

    def _indentation_like(self, above_there: str, first_there: str) -> str | None:
        """The indentation that stands to the line above as it does there; None when there is none."""
        own = _indentation(self.line_above, 0)
        if first_there.startswith(above_there):
            return own + first_there[len(above_there) :]
        removed = above_there[len(first_there) :]
        return own[: len(own) - len(removed)] if own.endswith(removed) else None

    def _cut(self, line: str, rest: str) -> tuple[str, bool]:
        """The line up to where `rest` follows and no bracket is open, and whether nothing follows that."""
        if line.endswith(rest) and self._balanced(line[: -len(rest)]):
            return line[: -len(rest)], True
        at = line.find(rest)
        while at >= 0:
            if self._balanced(line[:at]):
                return line[:at], False
            at = line.find(rest, at + 1)
        return line, False

    def _balanced(self, text: str) -> bool:
        reading = scan(text, self.language)
        return not (reading.open or reading.stray or reading.inside)

    def _lines(self, source: str, end: int, base: str, own_base: str, fresh: bool) -> tuple[list[str], bool]:
        """The lines of the draft after its first, and whether what follows them also follows the hole.

        They end where the indentation falls below the first line's, or a blank line ends its paragraph.
        """
        lines: list[str] = []
        size = 0
        while end < len(source):
            start, end = end + 1, _line_end(source, end + 1)
            line = source[start:end].rstrip()
            if not line:
                lines.append("")
                continue
            if line.strip() == self.next_line and (_WORD.search(line) or self.one_line):
                return _without_blank_end(lines), True
            width, own_width = len(_indentation(line, 0).expandtabs()), len(base.expandtabs())
            closes = not fresh and width == own_width and line.lstrip()[0] in ")]}"
            goes_on = fresh and width == own_width and not (lines and not lines[-1])
            inside = width > own_width or goes_on or closes
            size += len(line)
            if self.one_line or not inside or len(lines) >= MAX_DRAFT_LINES or size > MAX_DRAFT_CHARS:
                break
            lines.append(own_base + (line[len(base) :] if line.startswith(base) else line.lstrip()))
            if closes:
                break
        return _without_blank_end(lines), False


def _same_lines(one: str, one_end: int, other: str, other_end: int) -> int:
    """Characters in the equal lines above two offsets, bottom up, blank lines and indentation aside."""
    length = 0
    for _ in range(_MAX_LINES_COMPARED):
        one_end, other_end = _last_ink(one, one_end), _last_ink(other, other_end)
        one_start, other_start = one.rfind("\n", 0, one_end) + 1, other.rfind("\n", 0, other_end) + 1
        line = one[one_start:one_end].strip()
        if not line or line != other[other_start:other_end].strip():
            break
        length += len(line)
        one_end, other_end = one_start, other_start
    return length


def _last_ink(text: str, end: int) -> int:
    while end and text[end - 1].isspace():
        end -= 1
    return end


def _occurrences(source: str, needle: str, nearest_last: bool) -> Iterator[int]:
    """Where the needle stands, nearest to the hole first, at most _MAX_PLACES times."""
    at = source.rfind(needle) if nearest_last else source.find(needle)
    for _ in range(_MAX_PLACES):
        if at < 0:
            return
        yield at
        at = source.rfind(needle, 0, at + len(needle) - 1) if nearest_last else source.find(needle, at + 1)


def _next_line(source: str, end: int) -> int | None:
    """The start of the next line with anything on it, at most one blank line further down."""
    for _ in range(2):
        end = _line_end(source, end)
        if end >= len(source):
            return None
        following = end + 1
        if source[following : _line_end(source, following)].strip():
            return following
        end = following
    return None


def _without_blank_end(lines: list[str]) -> list[str]:
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _indentation(text: str, offset: int) -> str:
    start = text.rfind("\n", 0, offset) + 1
    end = start
    while end < len(text) and text[end] in " \t":
        end += 1
    return text[start:end]


def _line_end(text: str, offset: int) -> int:
    end = text.find("\n", offset)
    return len(text) if end < 0 else end


def _is_word(character: str) -> bool:
    return _WORD.match(character) is not None


def _unix(text: str) -> str:
    return text.replace("\r\n", "\n") if "\r" in text else text
