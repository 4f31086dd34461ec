"""The overlap between a text to insert and what follows it: repeated words, closing brackets, quotes, blank lines.

Works on text with "\\n" line ends, without a syntax tree, so that it holds in every language and in broken code. Must
not know prompts, models, or who wrote the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property, lru_cache

from infill.code.brackets import Scan, scan
from infill.code.indentation import column_width, indentation, line_end
from infill.code.languages import get

BALANCED_CHARS = 20_000  # of the text after the hole, for comparing cuts
NEAR_CHARS = 4_000  # of it that may be repeated
LONG_OVERLAP = 12  # characters without blanks: a shorter part of a line is not taken for a repetition
MAX_CLOSERS = 12
CLOSER_LINES = 4
MAX_DEPTH = 60  # of open brackets whose lines are looked at
_CLOSERS = frozenset(")]}>\"'`/;,")
_BRACKETS = _CLOSERS | frozenset("([{<")
_COMMENT_SIGNS = frozenset(("*", "#", "//", "///", "--", "%"))
_HEAD = re.compile(r"(?:\s*[)\]}>/;,]|[\"`]|'(?!\w))*+")
_OPENING_QUOTE = re.compile(r"[ \t]+[\"'`]")
_QUOTES = "\"'`"
_WORD = re.compile(r"\w")
_CLOSING_TAG = re.compile(r"\s*</([\w:.-]+)\s*>")
_LABEL = re.compile(r"\s*(?:case\b.*|\w+(?:\s+\w+)?\s*):\s*(?://.*)?$")
_ESCAPES_AND_TRIPLES = re.compile(r"\\.|\"{3}|'{3}")
_PREFIXED = r"(?:(?<=\b[bBfFlLrRuU])|(?<=\b[bBfFrR]{2}))"  # as f"", rb"", L''
_APOSTROPHE = r"(?<=\w)(?<!\b[bBfFlLrRuU])(?<!\b[bBfFrR]{2})'(?=\w)"  # as in don't
_STRINGS = rf"(?:(?<!\w)|{_PREFIXED})'[^']*'|\"[^\"]*\"|`[^`]*`"
_REGEX = r"(?:(?<=[(\[{,;:=!&|?>])|^)[ \t]*/(?:\[[^\]]{0,200}\]|[^/\[]){1,500}/"
_NO_QUOTES = re.compile(rf"{_APOSTROPHE}|{_STRINGS}")
_NO_QUOTES_WITH_REGEX = re.compile(rf"{_REGEX}|{_APOSTROPHE}|{_STRINGS}")
_COMMENT_AT_END = re.compile(r"\s*(?://|/\*).*$")
_CONTINUED_LINES = 20
_NO_TAG = re.compile(r"<!--|-->|[=-]>|<-|[<>]=")


def without_overlap(before: str, text: str, after: str, language: str | None, replaced: str = "") -> str:
    """`text` without the end that repeats the beginning of `after`; unchanged if nothing else would be left.

    replaced: the text between `before` and `after`. If it is whole lines, the result ends in a line break.
    """
    if replaced.endswith("\n"):
        if not text.endswith("\n"):
            return text
        return without_overlap(before, text[:-1], "\n" + after, language) + "\n"
    for end in (_repeated_text(text, after), _repeated_closers(before, text, after, language)):
        if end is not None and text[:end].strip():
            text = text[:end]
    return _without_blank_lines(text, after)


def until_next_line(before: str, text: str, after: str) -> str:
    """A generated block up to a line that equals the next line after the hole and is indented no more than the block.

    Models write on past the end of a hole; what they write then need not go on like the file.
    """
    lines = [line.rstrip() for line in after[:NEAR_CHARS].split("\n", 20)[:20] if line.strip()]
    begins_line = text.endswith("\n") or not after.partition("\n")[0].strip()
    line = before.rpartition("\n")[2]
    if not lines or not begins_line or line.strip() or not _WORD.search(lines[0]):
        return text
    first = line + text
    if _width(lines[0], 0) > _width(first, len(first) - len(first.lstrip())):
        return text
    match = re.search(rf"^{re.escape(lines[0])}[ \t]*$", text, re.M)
    return text[: match.start()] if match and text[: match.start()].strip() else text


def _width(text: str, offset: int) -> int:
    return column_width(indentation(text, offset))


def _without_blank_lines(text: str, after: str) -> str:
    """Without line breaks at the end if `after` begins with one, and without blanks that it begins with."""
    code = text.rstrip()
    if not code or not after:
        return text
    blanks = after[: len(after) - len(after.lstrip(" \t"))]
    if after.startswith("\n", len(blanks)):
        return code + text[len(code) :].partition("\n")[0].removesuffix(blanks)
    return text[: -len(blanks)] if blanks and text.endswith(blanks) else text


def _repeated_text(text: str, after: str) -> int | None:
    """Where `text` begins to repeat the rest of the line and maybe the lines below, or only the lines below."""
    near = after[: NEAR_CHARS + len(text)]
    rest = len(near) - len(near.lstrip())
    first_line = near[:rest] + near[rest : line_end(near, rest)].rstrip()
    for written in dict.fromkeys((text, text.rstrip())):
        for length in range(min(len(written), len(near)), 0, -1):
            repeated = near[:length]
            if not written.endswith(repeated) or not _is_text(repeated):
                continue
            left = written[:-length]
            if _splits_word(left, repeated) or _splits_word(repeated, near[length:]):
                continue
            if left.endswith((" ", "\t")) and not near[0].isspace() and not left.rpartition("\n")[2].strip():
                continue  # other indentation
            if length >= len(first_line) or _is_long(left, repeated, near[length:]):
                return len(left)
    return _repeated_tag(text, near)


def _repeated_tag(text: str, near: str) -> int | None:
    """Where a closing tag begins that `text` does not open and `near` begins with."""
    tag = _CLOSING_TAG.match(near)
    start = len(text.rstrip()) - len(tag[0].strip()) if tag else 0
    if tag is None or not text.startswith(tag[0].strip(), start):
        return None
    name = re.escape(tag[1])
    return start if len(re.findall(rf"</{name}\s*>", text)) > len(re.findall(rf"<{name}\b", text)) else None


def _is_text(repeated: str) -> bool:
    """Whether there is a word, or at least more than brackets, closers and signs of a comment."""
    if repeated.strip() in _COMMENT_SIGNS and repeated.lstrip(" \t").startswith("\n"):
        return False
    return (
        any(not one.isspace() and one not in _BRACKETS for one in repeated)
        or _OPENING_QUOTE.match(repeated) is not None
    )


def _is_long(left: str, repeated: str, following: str) -> bool:
    """Whether part of a line is long enough to be a repetition, and not an element of a series."""
    core = re.sub(r"^\W+|\W+$", "", repeated)
    return len("".join(repeated.split())) >= LONG_OVERLAP and core not in left and core not in following.split("\n")[0]


def _splits_word(left: str, right: str) -> bool:
    return bool(left and right and _WORD.match(left[-1]) and _WORD.match(right[0]))


def _repeated_closers(before: str, text: str, after: str, language: str | None) -> int | None:
    """Where the closing brackets, quotes, and ends of statements begin that `after` begins with too.

    Of all lengths with equal characters, the one that leaves brackets and quotes around the hole balanced best.
    """
    ends = [len(text), *_equal_closers(before, text, after, language), *_equal_lines(text, after)]
    if len(ends) == 1:
        return None
    around = _surroundings(before, after, language)
    return min(ends, key=lambda end: (around.faults(text[:end]), around.faults_in_file(text[:end]), end))


def _equal_closers(before: str, text: str, after: str, language: str | None) -> Iterator[int]:
    """The offsets in `text` from which its closers equal the first ones of `after`, blanks aside."""
    head = "".join(_head(after).split())
    rest = after.partition("\n")[0].strip()
    end, tail = len(text.rstrip()), ""
    while end and text[end - 1] in _CLOSERS and len(tail) < MAX_CLOSERS:
        tail = text[end - 1] + tail
        end = len(text[: end - 1].rstrip())
        start = text.index(tail[0], end)
        if not head.startswith(tail):
            continue
        if any(one not in ";,/" for one in tail) or tail == rest or _is_doubled(tail, before, after, language):
            yield start


def _equal_lines(text: str, after: str) -> Iterator[int]:
    """The offsets in `text` from which it equals the rest of the line and maybe the next ones, if these consist of
    brackets and closers, as `, [])`, `, "")` and the fence of a code block do."""
    written, end = text.rstrip(), -1
    for _ in range(CLOSER_LINES):
        end = line_end(after, end + 1)
        repeated = after[:end].rstrip()
        if not all(one in _BRACKETS or one.isspace() for one in repeated[-NEAR_CHARS:]) or len(repeated) > NEAR_CHARS:
            return
        if repeated.strip() and written.endswith(repeated):
            yield len(written) - len(repeated)
        if end == len(after):
            return


def _is_doubled(tail: str, before: str, after: str, language: str | None) -> bool:
    """Whether no line has this end of a statement or element twice."""
    if tail == ";":
        return re.search(r"\bfor\b", before.rpartition("\n")[2]) is None
    return tail == "," and (get(language) is not None or after[1:2].isspace())


def _head(after: str) -> str:
    """The closers that `after` begins with, with blanks and line breaks before them."""
    match = _HEAD.match(after[:NEAR_CHARS])
    return match[0] if match else ""


class _Surroundings:
    """Brackets and quotes near a hole. Brackets that are left open further up are ignored: the code there is broken."""

    def __init__(self, before: str, after: str, language: str | None) -> None:
        self.before, self.after, self.language = before, after[:BALANCED_CHARS], language
        known = get(language)
        self.lexis = known.lexis if known else ""
        self.above = scan(before, language)
        self.head = _head(after)
        outer, inner = self.above.resume_open[:-MAX_DEPTH], self.above.resume_open[-MAX_DEPTH:]
        enclosing = (one for one in inner if _encloses(before, one.offset, self.above.multiline))
        self.open_here = (*outer, *enclosing)

    @cached_property
    def faults_if_empty(self) -> int:
        return self.faults("")

    def faults(self, text: str) -> int:
        """Closers without a bracket around the hole, and odd numbers of quotes, with `text` in the hole."""
        whole = self.before + text + self.after
        end = len(self.before) + len(text) + len(self.head)
        reading = scan(whole, self.language, end, self.above.resume, self.open_here)
        stray = sum(one.offset >= end - len(self.head) for one in reading.stray)
        return stray + self._other_indentation(whole, reading, end - len(self.head)) + self._odd_quotes(text)

    def faults_in_file(self, text: str) -> int:
        reading = scan(self.before + text + self.after, self.language, None, self.above.resume, self.above.resume_open)
        brackets = len(reading.stray) + len(reading.skipped) + len(reading.open)
        return brackets + len(reading.unterminated) + bool(reading.inside)

    def _other_indentation(self, whole: str, reading: Scan, hole_end: int) -> int:
        """How many braces that begin a line below are indented unlike the statement of their opener."""
        found = 0
        for start, end in reading.multiline:
            line = whole.rfind("\n", 0, end) + 1
            if end > hole_end and whole[end - 1] == "}" and not whole[line : end - 1].strip():
                spans = (*self.above.multiline, *reading.multiline)
                found += indentation(whole, line) not in _statement_indentations(whole, start, spans)
        return found

    def _odd_quotes(self, text: str) -> int:
        line = self.before.rpartition("\n")[2] + text + self.after.partition("\n")[0]
        line = line if "\n" not in text else text.rpartition("\n")[2] + self.after.partition("\n")[0]
        plain = _ESCAPES_AND_TRIPLES.sub("", line)
        head = self.head.partition("\n")[0]
        is_regex_language = self.lexis in ("javascript", "")
        outside = (_NO_QUOTES_WITH_REGEX if is_regex_language else _NO_QUOTES).sub("", plain)
        odd = sum(outside.count(quote) % 2 for quote in _QUOTES if quote in head)
        tags = _NO_TAG.sub("", plain)
        return odd + (">" in head and tags.count("<") != tags.count(">"))


def _statement_indentations(text: str, opener: int, closed: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """The indentation of the line of an open brace, and of the lines above that belong to the same statement, such as
    the head of a function whose `noexcept {`, `throws … {` or `&& b) {` is on a line of its own.

    closed: the spans of brackets that are closed, in any order.
    """
    start = opener
    for _ in range(_CONTINUED_LINES):
        start = text.rfind("\n", 0, start) + 1
        yield indentation(text, start)
        while outer := [first for first, end in closed if first < start < end <= opener]:
            start = text.rfind("\n", 0, min(outer)) + 1
            yield indentation(text, start)
        above = text[text.rfind("\n", 0, max(0, start - 1)) + 1 : max(0, start - 1)]
        line = _COMMENT_AT_END.sub("", above).strip()
        if not line or line[-1] in ";:{}([" or line[0] in "#*@":
            return
        start -= 1


_surroundings = lru_cache(maxsize=4)(_Surroundings)  # of the holes judged last


def _encloses(before: str, opener: int, closed: tuple[tuple[int, int], ...]) -> bool:
    """Whether the lines from an open bracket down to the end are indented as within it.

    A block in braces may begin without indentation, as a namespace; then that is not known.
    """
    width, may_be_flat = _width(before, opener), before[opener] == "{"
    at = line_end(before, opener) + 1
    skipped = iter(sorted(span for span in closed if span[1] > at))
    span = next(skipped, None)
    while at < len(before):
        end = line_end(before, at)
        line = before[at:end]
        while span is not None and span[1] <= at:
            span = next(skipped, None)
        inside = span is not None and span[0] < at < span[1]
        if line.strip() and not inside and line.lstrip()[0] not in ")]}#" and not _LABEL.match(line):
            if _width(line, 0) <= width:
                return may_be_flat
            may_be_flat = False
        at = end + 1
    return True


def repeats_closers(before: str, text: str, after: str, language: str | None) -> bool:
    """Whether `text` ends with a bracket, quote or end of a statement that `after`, which begins with some, has too."""
    if not _head(after) or not text.strip():
        return False
    end = _repeated_closers(before, text, after, language)
    around = _surroundings(before, after, language)
    return (end is not None and end < len(text)) or around.faults(text) > around.faults_if_empty
