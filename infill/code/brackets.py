"""A scanner for brackets, strings and comments that needs no syntax tree, so that it also works on broken code.

Takes time proportional to the length of any text, also of one that was made to be slow. Must not know what its result
is used for.
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

    open: brackets still open, outermost first. inside: the opener of the string, regular expression or comment around
    the end, or "". resume: an offset where a later scan may start, with `resume_open` as the brackets open there.
    stray: closers without an opener. skipped: openers that a closer of another kind leaves unclosed. unterminated:
    starts of one-line strings that the end of the line cuts off. multiline: spans of bracket pairs and strings that
    contain a line end. line_comments: starts of the comments that end with their line.
    """

    open: tuple[Bracket, ...]
    inside: str
    resume: int
    resume_open: tuple[Bracket, ...]
    stray: tuple[Bracket, ...]
    skipped: tuple[Bracket, ...]
    unterminated: tuple[int, ...]
    multiline: tuple[tuple[int, int], ...]
    line_comments: tuple[int, ...]


MAX_REGEX, MAX_STRING = 500, 1_000  # characters; of a string in an unknown language
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
_RUST_CHAR = re.compile(r"'(?:\\(?:u\{[^}\n]*\}|x\w\w|.)|[^\\'\n])'")
_REGEX = re.compile(r"/(?:\\.|\[(?:\\.|[^\]\\\n])*+\]|[^/\\\[\n])++/[a-z]*")
_REGEX_AFTER_WORD = re.compile(r"(?:return|typeof|case|in|of|delete|void|throw|new|do|else|await|yield)$")
_REGEX_AFTER_GROUP = re.compile(r"\b(?:if|while|for|with)\s*$")
_CHARS_BEFORE_REGEX = 200
_CPP_RAW = re.compile(r'"([^()\\\s]{0,16})\(')


class _Scanner:
    def __init__(self, text: str, lexis: str, end: int, open_brackets: tuple[Bracket, ...]) -> None:
        self.text, self.lexis, self.end = text, lexis, end
        self.open: list[Bracket] = []
        self.depths: dict[str, list[int]] = {opener: [] for opener in CLOSERS}  # indices into `open`
        for bracket in open_brackets:
            self._push(bracket)
        self.closed: list[Bracket] = []  # what the last closer removed from `open`
        self.comments: list[tuple[int, int]] = []  # their spans
        self.newline, self.searched = -1, 0  # the last line end before `searched`
        self.stray: list[Bracket] = []
        self.skipped: list[Bracket] = []
        self.unterminated: list[int] = []
        self.multiline: list[tuple[int, int]] = []
        self.line_comments: list[int] = []

    def run(self, start: int) -> Scan:
        landmarks, position = _LANDMARKS[self.lexis], start
        while match := landmarks.search(self.text, position, self.end):
            inside, position = self._read(match[0], match.start())
            if inside:
                open_before = [*self.open, *self.closed] if match[0] == "}" else self.open
                return self._result(inside, match.start(), tuple(open_before))
        if self.lexis == "python" and self.open:
            line_start = _PYTHON_LINE_START.match(self.text, max(0, self.text.rfind("\n", 0, self.end)))
            if line_start and self.end <= line_start.end():
                self._read("\n", self.end)
        resume = self._code_end(self.end) or self.end if self.lexis == "javascript" else self.end
        return self._result("", max(start, resume), tuple(self.open))

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
            tuple(self.line_comments),
        )

    def _push(self, bracket: Bracket) -> None:
        self.depths[bracket.char].append(len(self.open))
        self.open.append(bracket)

    def _cut(self, depth: int) -> list[Bracket]:
        """Removes and returns open[depth:]."""
        removed = self.open[depth:]
        del self.open[depth:]
        for bracket in removed:
            self.depths[bracket.char].pop()
        return removed

    def _read(self, mark: str, at: int) -> tuple[str, int]:
        """The opener of the string or comment that does not end (or ""), and where to go on."""
        if mark in CLOSERS:
            self._push(Bracket(mark, at))
        elif mark in OPENERS:
            if self._close(mark, at) == "${":
                return self._template(at, at + 1)
        elif mark in ("//", "#"):
            self.line_comments.append(at)
            newline = self.text.find("\n", at, self.end)
            self.comments.append((at, newline))
            return (mark, self.end) if newline < 0 else ("", newline)
        elif mark == "/*":
            self.comments.append((at, self.text.find("*/", at + 2, self.end) + 2))
            return self._until("*/", mark, at, at + 2)
        elif mark == "/":
            return self._regex(at)
        elif mark == "`":
            return self._until("`", mark, at, at + 1) if self.lexis == "go" else self._template(at, at + 1)
        elif mark[0] == "\n":
            self.skipped.extend(self._cut(0))
            return "", at + len(mark)
        else:
            return self._string(mark, at)
        return "", at + 1

    def _close(self, closer: str, at: int) -> str:
        depth = self._innermost(OPENERS[closer])
        barrier = -1 if self.lexis in ("python", "") else self._innermost(OPENERS["}"])
        if depth < max(0, barrier):
            self.stray.append(Bracket(closer, at))
            return ""
        self.closed = self._cut(depth)
        opener, *skipped = self.closed
        self.skipped.extend(skipped)
        self._note_multiline(opener.offset, at + 1)
        return opener.char

    def _innermost(self, openers: tuple[str, ...]) -> int:
        """The index of the last of these in `open`, or -1."""
        return max(self.depths[opener][-1] if self.depths[opener] else -1 for opener in openers)

    def _note_multiline(self, start: int, end: int) -> None:
        """Ends of spans only grow, so that the text is searched once."""
        self.newline = max(self.newline, self.text.rfind("\n", self.searched, end))
        self.searched = max(self.searched, end)
        if self.newline >= start:
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
        if not self._may_begin_regex(at):
            return "", at + 1
        match = _REGEX.match(self.text, at, min(self.end, at + MAX_REGEX))
        if match:
            return "", match.end()
        is_cut_off = self.end - at <= MAX_REGEX and "\n" not in self.text[at : self.end]
        return ("/", self.end) if is_cut_off else ("", at + 1)

    def _may_begin_regex(self, at: int) -> bool:
        """Whether a "/" here is not the sign of a division, by the code before it."""
        end = self._code_end(at)
        before = self.text[max(0, end - _CHARS_BEFORE_REGEX) : end]
        if not before:
            return True
        if before[-1] == ")":
            return _REGEX_AFTER_GROUP.search(_before_group(before)) is not None
        if before[-1] == "}":
            return "\n" in self.text[end:at] and self.text[at + 1 : at + 2] != ">"
        if before[-1] in "([{,;:=!&|?+-*%~^" and not before.endswith(("++", "--")):
            return True
        return before.endswith("=>") or _REGEX_AFTER_WORD.search(before) is not None

    def _code_end(self, at: int) -> int:
        """The end of the code before `at`, without comments; 0 if there is none near."""
        comments = reversed(self.comments)
        while True:
            first = max(0, at - _CHARS_BEFORE_REGEX)
            end = first + len(self.text[first:at].rstrip())
            start, stop = next(comments, (0, -1))
            if stop < end or end == first:
                return end if end > first else 0
            at = start

    def _string(self, quote: str, at: int) -> tuple[str, int]:
        text = self.text
        end = self.end if self.lexis else min(self.end, at + MAX_STRING)
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


def _before_group(text: str) -> str:
    """What comes before the parentheses that end `text`; "" if it does not hold all of them."""
    depth = 0
    for at in reversed(range(len(text))):
        depth += (text[at] == ")") - (text[at] == "(")
        if not depth:
            return text[:at]
    return ""


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
