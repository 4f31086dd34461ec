"""A scanner for brackets, strings and comments that needs no syntax tree, so that it also works on broken code.

Must not know what its result is used for.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from infill.code.languages import get

CLOSERS = {"(": ")", "[": "]", "{": "}", "${": "}"}
OPENERS = {")": ("(",), "]": ("[",), "}": ("{", "${")}


class Bracket(NamedTuple):
    """char: an opener, a closer, or the `${` of a template. offset: in characters."""

    char: str
    offset: int


class Scan(NamedTuple):
    """The state at the end of a scan from left to right; offsets in characters.

    open: brackets still open, outermost first. inside: the opener of the string or comment around the end, or "".
    resume: an offset where a later scan may start, with `resume_open` as the brackets open there. stray: closers
    without an opener. skipped: openers that a closer of another kind leaves unclosed. unterminated: starts of one-line
    strings that the end of the line cuts off. multiline: spans of bracket pairs and strings that contain a line end.
    """

    open: tuple[Bracket, ...]
    inside: str
    resume: int
    resume_open: tuple[Bracket, ...]
    stray: tuple[Bracket, ...]
    skipped: tuple[Bracket, ...]
    unterminated: tuple[int, ...]
    multiline: tuple[tuple[int, int], ...]


_BRACKET_CHARS = r"()\[\]{}"
_PYTHON_LINE_STARTS = (  # keywords that no line within brackets begins with: a bracket above was left open
    r"\n[ \t]*(?=(?:async[ ]+def|def|class|return|while|with|try|elif|except|finally|raise|pass|break"
    r"|continue|import|del|assert|global|nonlocal)\b)"
)
_PYTHON_LINE_START = re.compile(_PYTHON_LINE_STARTS)
_LANDMARKS = {
    "python": re.compile(rf"\"\"\"|'''|[\"'#{_BRACKET_CHARS}]|{_PYTHON_LINE_STARTS}"),
    "javascript": re.compile(rf"//|/\*|[/\"'`{_BRACKET_CHARS}]"),
    "go": re.compile(rf"//|/\*|[\"'`{_BRACKET_CHARS}]"),
    "rust": re.compile(rf"//|/\*|[\"'{_BRACKET_CHARS}]"),
    "java": re.compile(rf"\"\"\"|//|/\*|[\"'{_BRACKET_CHARS}]"),
    "c": re.compile(rf"//|/\*|[\"'{_BRACKET_CHARS}]"),
    "": re.compile(rf"[\"{_BRACKET_CHARS}]"),
}
_ONE_LINE_BODY = {quote: re.compile(rf"(?:[^{quote}\\\r\n]++|\\(?:\r\n|.))*+", re.DOTALL) for quote in ('"', "'")}
_RUST_STRING_BODY = re.compile(r"(?:[^\"\\]++|\\.)*+", re.DOTALL)
_TRIPLE_BODY = {
    quote: re.compile(rf"(?:[^{quote[0]}\\]++|\\.|{quote[0]}(?!{quote[0]}{quote[0]}))*+", re.DOTALL)
    for quote in ('"""', "'''")
}
_TEMPLATE_BODY = re.compile(r"(?:[^`\\$]++|\\.|\$(?!\{))*+", re.DOTALL)
_RUST_CHAR = re.compile(r"'(?:\\(?:u\{[^}\n]{0,16}\}|x\w\w|.)|[^\\'\n])'")
_REGEX = re.compile(r"/(?:\\.|\[(?:\\.|[^\]\\\n]){0,200}+\]|[^/\\\[\n]){1,1000}+/[a-z]{0,16}")
_REGEX_AFTER_WORD = re.compile(r"(?:return|typeof|case|in|of|delete|void|throw|new|do|else|await|yield)$")
_CPP_RAW = re.compile(r'"([^()\\\s]{0,16})\(')


class _Scanner:
    """Takes time proportional to the text, however deep its brackets are."""

    def __init__(self, text: str, lexis: str, end: int, open_brackets: tuple[Bracket, ...]) -> None:
        self.text, self.lexis, self.end = text, lexis, end
        self.open: list[Bracket] = []
        self._depths: dict[str, list[int]] = {char: [] for char in CLOSERS}  # in `open`, by character
        self._closed: tuple[Bracket, ...] = ()  # by the last closer
        self._one_line = (end, end)  # a range without line end, up to one or to the end
        for bracket in open_brackets:
            self._push(bracket)
        self.stray: list[Bracket] = []
        self.skipped: list[Bracket] = []
        self.unterminated: list[int] = []
        self.multiline: list[tuple[int, int]] = []

    def run(self, start: int) -> Scan:
        landmarks, position = _LANDMARKS[self.lexis], start
        while match := landmarks.search(self.text, position, self.end):
            self._closed = ()
            inside, position = self._read(match[0], match.start())
            if inside:
                return self._result(inside, match.start(), (*self.open, *self._closed))
        if self.lexis == "python" and self.open:
            line_start = _PYTHON_LINE_START.match(self.text, max(0, self.text.rfind("\n", 0, self.end)))
            if line_start and self.end <= line_start.end():
                self._read("\n", self.end)
        return self._result("", self.end, tuple(self.open))

    def _result(self, inside: str, resume: int, resume_open: tuple[Bracket, ...]) -> Scan:
        return Scan(
            tuple(self.open),
            inside,
            resume,
            resume_open,
            tuple(self.stray),
            tuple(self.skipped),
            tuple(self.unterminated),
            tuple(self.multiline),
        )

    def _read(self, mark: str, at: int) -> tuple[str, int]:
        """The opener of the string or comment that does not end (or ""), and where to go on."""
        if mark in CLOSERS:
            self._push(Bracket(mark, at))
        elif mark in OPENERS:
            if self._close(mark, at) == "${":
                return self._template(at, at + 1)
        elif mark in ("//", "#"):
            newline = self.text.find("\n", at, self.end)
            return (mark, self.end) if newline < 0 else ("", newline)
        elif mark == "/*":
            return self._until("*/", mark, at, at + 2)
        elif mark == "/":
            return self._regex(at)
        elif mark == "`":
            return self._until("`", mark, at, at + 1) if self.lexis == "go" else self._template(at, at + 1)
        elif mark[0] == "\n":
            self.skipped.extend(self.open)
            self._pop_to(0)
            return "", at + len(mark)
        else:
            return self._string(mark, at)
        return "", at + 1

    def _push(self, bracket: Bracket) -> None:
        self._depths[bracket.char].append(len(self.open))
        self.open.append(bracket)

    def _pop_to(self, depth: int) -> None:
        while len(self.open) > depth:
            self._depths[self.open.pop().char].pop()

    def _innermost(self, *chars: str) -> int:
        """The depth of the innermost open bracket of these; -1 if none is open."""
        return max((self._depths[char][-1] for char in chars if self._depths[char]), default=-1)

    def _close(self, closer: str, at: int) -> str:
        depth = self._innermost(*OPENERS[closer])
        if depth < 0 or (self.lexis not in ("python", "") and self._innermost("{", "${") > depth):
            self.stray.append(Bracket(closer, at))
            return ""
        opener, *skipped = self._closed = tuple(self.open[depth:])
        self.skipped.extend(skipped)
        self._pop_to(depth)
        self._note_multiline(opener.offset, at + 1)
        return opener.char

    def _note_multiline(self, start: int, end: int) -> None:
        first, last = self._one_line
        if start < first:
            found = self.text.find("\n", start, first)
            self._one_line = (start, last if found < 0 else found)
        elif start > last:
            found = self.text.find("\n", start, self.end)
            self._one_line = (start, self.end if found < 0 else found)
        if self._one_line[1] < end:
            self.multiline.append((start, end))

    def _until(self, terminator: str, mark: str, at: int, body: int) -> tuple[str, int]:
        found = self.text.find(terminator, body, self.end)
        if found < 0:
            return mark, self.end
        self._note_multiline(at, found + len(terminator))
        return "", found + len(terminator)

    def _template(self, at: int, body: int) -> tuple[str, int]:
        match = _TEMPLATE_BODY.match(self.text, body, self.end)
        stop = match.end() if match else body
        if stop >= self.end:
            return "`", self.end
        if self.text[stop] == "`":
            self._note_multiline(at, stop + 1)
            return "", stop + 1
        if self.text.startswith("${", stop, self.end):
            self._push(Bracket("${", stop))
            return "", stop + 2
        return "`", self.end

    def _regex(self, at: int) -> tuple[str, int]:
        before = self.text[max(0, at - 200) : at].rstrip()
        starts_regex = not before or before[-1] in "([{,;:=!&|?+-*%~^" or before.endswith("=>")
        match = _REGEX.match(self.text, at, self.end)
        if match and (starts_regex or _REGEX_AFTER_WORD.search(before)):
            return "", match.end()
        return "", at + 1

    def _string(self, quote: str, at: int) -> tuple[str, int]:
        text, end = self.text, self.end
        if quote == "'" and self.lexis == "rust":
            literal = _RUST_CHAR.match(text, at, end)
            return "", literal.end() if literal else at + 1
        if quote == "'" and self.lexis == "c" and self._inside_number(at):
            return "", at + 1
        if quote == '"' and self.lexis == "rust":
            prefix = re.search(r"\b[bc]?r(#*)$", text[max(0, at - 20) : at])
            if prefix:
                return self._until('"' + prefix[1], quote, at, at + 1)
        if quote == '"' and self.lexis == "c" and text[max(0, at - 1) : at] == "R":
            raw = _CPP_RAW.match(text, at, end)
            if raw:
                return self._until(f'){raw[1]}"', quote, at, raw.end())
        if quote in _TRIPLE_BODY:
            body = _TRIPLE_BODY[quote]
        else:
            body = _RUST_STRING_BODY if self.lexis == "rust" else _ONE_LINE_BODY[quote]
        match = body.match(text, at + len(quote), end)
        stop = match.end() if match else at + len(quote)
        if text.startswith(quote, stop, end):
            self._note_multiline(at, stop + len(quote))
            return "", stop + len(quote)
        if stop < end and text[stop] in "\r\n" and len(quote) == 1:
            if self.lexis:
                self.unterminated.append(at)
            return "", stop if self.lexis else at + 1
        return (quote, end) if self.lexis else ("", at + 1)

    def _inside_number(self, at: int) -> bool:
        start = at
        while max(0, at - 40) < start and (self.text[start - 1].isalnum() or self.text[start - 1] == "'"):
            start -= 1
        return self.text[start].isdigit() and self.text[at + 1 : at + 2].isalnum()


def scan(
    text: str,
    language_id: str | None,
    end: int | None = None,
    start: int = 0,
    open_brackets: tuple[Bracket, ...] = (),
) -> Scan:
    """Scans text[start:end], with `open_brackets` open at `start`.

    start: 0, or the `resume` of an earlier scan, as it must be outside strings and comments. In an unknown language
    only brackets and double-quoted strings within a line are recognized.
    """
    language = get(language_id)
    stop = len(text) if end is None else max(0, min(end, len(text)))
    return _Scanner(text, language.lexis if language else "", stop, open_brackets).run(start)
