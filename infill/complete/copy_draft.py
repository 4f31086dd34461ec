"""Candidates copied from the context: text that elsewhere follows what comes before the hole.

Works on text, without a syntax tree. Must not know the model or the checks that judge a draft.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from engine.errors import Stop
from infill.code.brackets import scan
from infill.code.indentation import indentation, line_end

MIN_MATCH = 12  # characters
MAX_DRAFT_CHARS = 1200
MAX_DRAFT_LINES = 24
MAX_LINE_CHARS = 400
MAX_SOURCE_CHARS, MAX_ALL_CHARS = 200_000, 1_000_000  # of one source, nearest to the hole, and of all
_MAX_OCCURRENCES = 60
_MAX_LINES_COMPARED = 8
_MAX_CUTS = 8
_MAX_SPACE = 2_000  # white space between two lines that are compared
_WORD = re.compile(r"\w")


class CopyDraft(NamedTuple):
    """match_length: characters before the hole that also precede the copied text. agrees_after: the copied text is
    followed by what follows the hole. occurrences: number of places with this text."""

    text: str
    match_length: int
    agrees_after: bool
    occurrences: int = 1


class _Match(NamedTuple):
    """end: where the matched text ends in a source. new_line: the copy begins on the next line."""

    end: int
    length: int
    new_line: bool


def copy_drafts(
    before: str,
    after: str,
    language: str | None,
    neighbours: Sequence[str],
    limit: int,
    one_line: bool,
    stop: Stop | None = None,
) -> list[CopyDraft]:
    """At most `limit` distinct drafts: those that agree with `after` first, then by the length of the match.

    A match has at least MIN_MATCH characters, from the start of a token, or consists of the line up to the hole and the
    line above. The copy is the rest of the line (`one_line`) or of the block by indentation. It gets the indentation of
    the hole and "\\n" line ends; between whole lines it consists of whole lines. Once `stop` returns True, those found
    so far.
    """
    hole = _Hole(_unix(before[-MAX_SOURCE_CHARS:]), _unix(after[:MAX_SOURCE_CHARS]), language, one_line)
    found: list[tuple[bool, int, int, CopyDraft]] = []
    for rank, source in enumerate(_bounded([hole.above, hole.below, *neighbours])):
        for match in hole.matches(source, nearest_last=rank == 0):
            if stop is not None and stop():
                break
            draft = hole.draft(source, match)
            if draft:
                found.append((not draft.agrees_after, -draft.match_length, rank, draft))
    found.sort(key=lambda entry: entry[:3])
    occurrences = Counter(draft.text for *_, draft in found)
    best: dict[str, CopyDraft] = {}
    for *_, draft in found:
        best.setdefault(draft.text, draft._replace(occurrences=occurrences[draft.text]))
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

    def matches(self, source: str, nearest_last: bool) -> Iterator[_Match]:
        """nearest_last: whether the end of `source` is nearest to the hole."""
        seen: set[int] = set()
        if self.typed and len(self.before) >= MIN_MATCH:
            needle = self.before[-MIN_MATCH:]
            for start in _occurrences(source, needle, nearest_last):
                end = start + len(needle)
                length, whole = self._match_length(source, end)
                if end not in seen and (length >= MIN_MATCH or whole):
                    seen.add(end)
                    yield _Match(end, length, False)
        needle = self.line_above.strip()
        if not needle or len(needle) > MAX_LINE_CHARS:
            return
        for start in _occurrences(source, needle, nearest_last):
            stop = line_end(source, start)
            if source[source.rfind("\n", 0, start) + 1 : stop].strip() != needle:
                continue
            if not self.typed:
                length = _same_lines(self.above, len(self.above), source, stop)
                if length >= MIN_MATCH:
                    yield _Match(stop, length, True)
                continue
            following = _next_line(source, stop)
            if following is None:
                continue
            end = following + len(indentation(source, following)) + len(self.typed)
            if end not in seen and source.startswith(self.typed, end - len(self.typed)):
                seen.add(end)
                yield _Match(end, self._match_length(source, end)[0], False)

    def _match_length(self, source: str, end: int) -> tuple[int, bool]:
        """Characters that match before `end`, from the start of a token, and whether the line above matches too."""
        line_start = source.rfind("\n", 0, end) + 1
        line = source[line_start:end].lstrip()
        if line == self.typed:
            above = _same_lines(self.above, len(self.above), source, line_start)
            return len(line) + above, above > 0
        length = 0
        while length < min(len(line), len(self.typed), MAX_LINE_CHARS) and line[-1 - length] == self.typed[-1 - length]:
            length += 1
        while (
            0 < length
            and _is_word(line[-length])
            and (_is_word(line[-length - 1 : -length]) or _is_word(self.typed[-length - 1 : -length]))
        ):
            length -= 1
        return length, False

    def draft(self, source: str, match: _Match) -> CopyDraft | None:
        start = _next_line(source, match.end) if match.new_line else match.end
        if start is None:
            return None
        end = line_end(source, start)
        first, base = source[start:end].rstrip(), indentation(source, start)
        if len(first) > MAX_LINE_CHARS:
            return None
        new_base = indentation(self.line, 0)
        if match.new_line:
            moved = self._indentation_like(indentation(source, match.end), base)
            if moved is None or not moved.startswith(self.line):
                return None
            new_base, first = moved, moved[len(self.line) :] + first.lstrip()
        if match.new_line and first.strip() == self.next_line:
            return None
        if self.rest.strip():
            text, agrees = self._cut(first, self.rest.strip())
        else:
            lines, agrees = self._lines(source, end, base, new_base, match.new_line)
            text = "\n".join([first, *lines])
        if not text.strip():
            return None
        return CopyDraft(text + "\n" if self.whole_lines else text, match.length, agrees)

    def _indentation_like(self, source_above: str, source_first: str) -> str | None:
        """The indentation that relates to the line above the hole as in the source; None if there is none."""
        above = indentation(self.line_above, 0)
        if source_first.startswith(source_above):
            return above + source_first[len(source_above) :]
        removed = source_above[len(source_first) :]
        return above[: len(above) - len(removed)] if above.endswith(removed) else None

    def _cut(self, line: str, rest: str) -> tuple[str, bool]:
        """The line up to a balanced occurrence of `rest`, and whether the line ends with that."""
        if line.endswith(rest) and self._balanced(line[: -len(rest)]):
            return line[: -len(rest)], True
        at = line.find(rest)
        for _ in range(_MAX_CUTS):
            if at < 0:
                break
            if self._balanced(line[:at]):
                return line[:at], False
            at = line.find(rest, at + 1)
        return line, False

    def _balanced(self, text: str) -> bool:
        reading = scan(text, self.language)
        return not (reading.open or reading.stray or reading.inside)

    def _lines(self, source: str, end: int, base: str, new_base: str, new_line: bool) -> tuple[list[str], bool]:
        """The lines after the first one, and whether they are followed by what follows the hole.

        They end before a line indented less than the first one, or at the blank line that ends its paragraph.
        """
        lines: list[str] = []
        size = 0
        while end < len(source) and len(lines) <= MAX_DRAFT_LINES:
            start, end = end + 1, line_end(source, end + 1)
            line = source[start:end].rstrip()
            if not line:
                lines.append("")
                continue
            if line.strip() == self.next_line and (_WORD.search(line) or self.one_line):
                return _without_blank_end(lines), True
            width, base_width = len(indentation(line, 0).expandtabs()), len(base.expandtabs())
            closes = not new_line and width == base_width and line.lstrip()[0] in ")]}"
            goes_on = new_line and width == base_width and not (lines and not lines[-1])
            inside = width > base_width or goes_on or closes
            size += len(line)
            if self.one_line or not inside or len(lines) >= MAX_DRAFT_LINES or size > MAX_DRAFT_CHARS:
                break
            lines.append(new_base + (line[len(base) :] if line.startswith(base) else line.lstrip()))
            if closes:
                break
        return _without_blank_end(lines), False


def _same_lines(one: str, one_end: int, other: str, other_end: int) -> int:
    """Characters in the equal lines above two offsets, from the bottom up, ignoring blank lines and indentation."""
    length = 0
    for _ in range(_MAX_LINES_COMPARED):
        one_end, other_end = _without_space(one, one_end), _without_space(other, other_end)
        one_start, other_start = one.rfind("\n", 0, one_end) + 1, other.rfind("\n", 0, other_end) + 1
        line = one[one_start:one_end].strip()
        if not line or line != other[other_start:other_end].strip():
            break
        length += len(line)
        one_end, other_end = one_start, other_start
    return length


def _without_space(text: str, end: int) -> int:
    start = max(0, end - _MAX_SPACE)
    return start + len(text[start:end].rstrip())


def _occurrences(source: str, needle: str, nearest_last: bool) -> Iterator[int]:
    """Offsets of the needle, nearest to the hole first, at most _MAX_OCCURRENCES."""
    at = source.rfind(needle) if nearest_last else source.find(needle)
    for _ in range(_MAX_OCCURRENCES):
        if at < 0:
            return
        yield at
        at = source.rfind(needle, 0, at + len(needle) - 1) if nearest_last else source.find(needle, at + 1)


def _next_line(source: str, end: int) -> int | None:
    """The start of the next line that is not blank, with at most one blank line before it."""
    for _ in range(2):
        end = line_end(source, end)
        if end >= len(source):
            return None
        following = end + 1
        if source[following : line_end(source, following)].strip():
            return following
        end = following
    return None


def _without_blank_end(lines: list[str]) -> list[str]:
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _is_word(character: str) -> bool:
    return _WORD.match(character) is not None


def _bounded(sources: Sequence[str]) -> Iterator[str]:
    """The sources, cut to MAX_SOURCE_CHARS each and to MAX_ALL_CHARS together."""
    remaining = MAX_ALL_CHARS
    for source in sources:
        yield _unix(source[: min(MAX_SOURCE_CHARS, remaining)])
        remaining -= min(MAX_SOURCE_CHARS, remaining, len(source))


def _unix(text: str) -> str:
    return text.replace("\r\n", "\n") if "\r" in text else text
