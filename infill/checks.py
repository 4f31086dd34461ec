"""The checks that a completion passes before it is shown, and how a broken one is cut back.

Each check takes a `CheckContext` and returns why the completion is refused, in words for a user, or None.
They work on text and trees; they must not know the model, the canvas, or how the text came about.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from infill.languages import CLOSERS, Bracket, Scan, get, scan
from infill.syntax import ErrorScore, Span, SyntaxTree, error_nodes, error_score, is_python_header, parse

MAX_EDIT_SHARE = 0.05
MAX_EQUAL_TOKENS = 10
MAX_PERIOD_TOKENS = 24
_COMPARED_CHARS = 400
_COMPARED_LINES = 20
_AFTER_CHARS = 200_000
_NEAR_CHARS = 20_000
_MAX_CUTS = 40
_TOKEN = re.compile(r"\w+|([^\w\s])\1*")
_PIECE = re.compile(r"\s*(?:\w+|[^\w\s])")
_WORD = re.compile(r"\w")
_NUMBER = re.compile(r"\d+")
_STUTTER = re.compile(r"([A-Za-z_]{2,8}?)\1{5,}")


@dataclass(frozen=True)
class CheckContext:
    """A completion `text` between `before` and `after` (the whole file), which took the place of `replaced`.

    `confidence` and `min_confidence` are 0..1; `rejected` holds texts that the user refused at this place.
    """

    before: str
    text: str
    after: str
    language: str | None = None
    confidence: float = 1.0
    min_confidence: float = 0.0
    rejected: frozenset[str] = frozenset()
    replaced: str = ""

    @property
    def tree_before(self) -> SyntaxTree | None:
        """The file with the hole empty, parsed once for all completions of a hole."""
        return _tree_without(self.before, self.after, self.language)

    @property
    def line_prefix(self) -> str:
        return self.before[self.before.rfind("\n") + 1 :]

    @property
    def line_rest(self) -> str:
        """The rest of the line after the hole; empty for a completion of whole lines."""
        return "" if self.text.endswith("\n") else self.after.split("\n", 1)[0].rstrip("\r")


@lru_cache(maxsize=4)
def _tree_without(before: str, after: str, language: str | None) -> SyntaxTree | None:
    return parse(before + after, language)


def nothing_new(context: CheckContext) -> str | None:
    """Empty text, what stood there already, or white space that the syntax does not call for."""
    if not context.text:
        return "the completion is empty"
    if context.text.strip():
        same = context.text.rstrip() == context.replaced.rstrip()
        return "the completion is what stands there already" if same else None
    tree = context.tree_before
    if tree and _score(context, context.text).errors < _score(context, "").errors:
        return None
    return "the completion is only white space"


def low_confidence(context: CheckContext) -> str | None:
    """The model's confidence lies below the bar."""
    if context.confidence >= context.min_confidence:
        return None
    return f"the confidence {context.confidence:.2f} is below the bar of {context.min_confidence:.2f}"


def rejected_before(context: CheckContext) -> str | None:
    """The user refused the same text at this place."""
    if context.text.strip() in {text.strip() for text in context.rejected}:
        return "you rejected the same text here before"
    return None


def repetition(context: CheckContext) -> str | None:
    """Ten equal tokens in a row, a short pattern over and over, or the same lines three times."""
    tokens = [match[0] for match in _TOKEN.finditer(context.text)]
    for period in range(1, 9):
        run, least = 0, MAX_EQUAL_TOKENS if period == 1 else MAX_PERIOD_TOKENS
        for index in range(period, len(tokens)):
            run = run + 1 if tokens[index] == tokens[index - period] else 0
            if run + period >= least:
                shown = " ".join(tokens[index - period + 1 : index + 1])[:40]
                return f"the completion repeats “{shown}” again and again"
    stutter = _STUTTER.search(context.text)
    if stutter and len(set(stutter[1])) > 1:
        return f"the completion repeats “{stutter[1]}” again and again"
    lines = [line.strip() for line in context.text.splitlines() if _WORD.search(line)]
    for period in (1, 2, 3):
        for start in range(len(lines) - 3 * period + 1):
            pattern = lines[start : start + period]
            if len("".join(pattern)) >= 8 and lines[start + period : start + 3 * period] == pattern * 2:
                return f"the completion repeats the line “{pattern[0][:40]}”"
    return None


def repeats_prefix_lines(context: CheckContext) -> str | None:
    """The completion says once more what the one to three lines above it say."""
    above = [line.rstrip() for line in context.before[-_NEAR_CHARS:].split("\n")[:-1] if line.strip()]
    lines = [line.rstrip() for line in _whole_lines(context) if line.strip()]
    if not 1 <= len(lines) <= 3 or lines != above[-len(lines) :]:
        return None
    if not _WORD.search("".join(lines)):
        return None
    return f"the completion repeats the line{'s' if len(lines) > 1 else ''} above"


def repeats_suffix(context: CheckContext) -> str | None:
    """The completion says what follows it: the rest of the line, or the next lines, indented alike."""
    rest = context.line_rest.strip()
    if rest and _WORD.search(rest):
        last = context.text.rsplit("\n", 1)[-1].strip()
        before_tail = last[: -len(rest)][-1:]
        if len(rest) < 8:
            repeats = last == rest and not (_is_word(last[-1]) and _is_word(rest[0]))
        else:
            within_token = _is_word(before_tail) and _is_word(rest[0])
            repeats = not within_token and _nearly_equal(last[-len(rest) :], rest)
        if repeats:
            return "the completion repeats the rest of the line"
    lines = [line.rstrip() for line in _whole_lines(context) if line.strip()]
    after = context.after if context.text.endswith("\n") else context.after[len(context.line_rest) :]
    below = [line.rstrip() for line in after[:_NEAR_CHARS].split("\n") if line.strip()][:_COMPARED_LINES]
    if rest and lines:
        lines[-1] = lines[-1].removesuffix(context.line_rest.rstrip()) or lines[-1]
    for start in range(len(lines)):
        for compared in (len(lines) - start, 2):
            mine, theirs = lines[start : start + compared], below[:compared]
            if len(mine) == len(theirs) and _same_block(mine, theirs):
                return f"the completion repeats what follows: “{theirs[0].strip()[:40]}”"
    return None


def _same_block(mine: list[str], theirs: list[str]) -> bool:
    if not _WORD.search("".join(theirs)) or _indent(mine[0]) != _indent(theirs[0]):
        return False
    return _nearly_equal("\n".join(map(str.strip, mine)), "\n".join(map(str.strip, theirs)))


def _whole_lines(context: CheckContext) -> list[str]:
    """The lines that the completion makes, with what stands before and after it on the same lines."""
    joined = context.line_prefix + context.text + context.line_rest
    return joined.replace("\r\n", "\n").split("\n")


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


def _is_word(character: str) -> bool:
    return _WORD.match(character) is not None


def _nearly_equal(one: str, other: str) -> bool:
    """Whether the edit distance is at most MAX_EDIT_SHARE of the length; of long texts only the start.

    Texts with other numbers in them are not: lines that count up are a series, no repetition.
    """
    if one == other:
        return True
    if _NUMBER.findall(one) != _NUMBER.findall(other):
        return False
    one, other = one[:_COMPARED_CHARS], other[:_COMPARED_CHARS]
    limit = int(MAX_EDIT_SHARE * max(len(one), len(other)))
    if not limit or abs(len(one) - len(other)) > limit:
        return False
    far = limit + 1
    previous = {column: column for column in range(limit + 1)}
    for row in range(1, len(one) + 1):
        current = {0: row} if row <= limit else {}
        for column in range(max(1, row - limit), min(len(other), row + limit) + 1):
            current[column] = min(
                previous.get(column, far) + 1,
                current.get(column - 1, far) + 1,
                previous.get(column - 1, far) + (one[row - 1] != other[column - 1]),
            )
        if min(current.values()) > limit:
            return False
        previous = current
    return previous.get(len(other), far) <= limit


def wrong_indentation(context: CheckContext) -> str | None:
    """Tabs against a file of spaces or the reverse; in Python also lines that fit no block of the file."""
    file = context.before + context.after
    used = {match[0] for match in re.finditer(r"^[ \t](?=[ \t]*[^\s*])", file, re.M)}
    new = context.text if not context.line_prefix else context.text.partition("\n")[2]
    for match in re.finditer(r"^([ \t]+)[^\s*]", new, re.M):
        if used == {" "} and "\t" in match[1]:
            return "the completion indents with tabs, the file with spaces"
        if used == {"\t"} and match[1][0] == " ":
            return "the completion indents with spaces, the file with tabs"
    language = get(context.language)
    if language is None or not language.indentation_sensitive:
        return None
    return _python_indentation_fault(context)


def _python_indentation_fault(context: CheckContext) -> str | None:
    fault = _first_misfit(context, context.text)
    if fault is None:
        return None
    reason, below = fault
    if not below:
        return reason
    return None if _first_misfit(context, "") else "the lines below would no longer fit the indentation"


def _first_misfit(context: CheckContext, text: str) -> tuple[str, bool] | None:
    """The first line of `text`, or the one below it, that Python refuses, and whether it is below."""
    whole = context.before + text + context.after
    hole_start = len(context.before) - len(context.line_prefix)
    hole_end = len(context.before) + len(text)
    levels, header, header_is_new = [0], False, False
    for start, width, opens_block in _python_lines(whole, context.before, hole_end):
        new = start >= hole_start if not context.line_prefix.strip() else start > hole_start
        below = start >= hole_end
        if header and width > levels[-1]:
            levels.append(width)
        elif new and header and not (below and header_is_new):
            return "the body of the block is not indented", below
        elif new and width > levels[-1]:
            return "a line is indented deeper than its block", below
        elif new and width not in levels:
            return "a line is indented like no block around it", below
        else:
            while levels[-1] > width:
                levels.pop()
            if width > levels[-1]:
                levels.append(width)
        if below:
            return None
        header, header_is_new = opens_block, new
    return None


def _python_lines(text: str, before: str, hole_end: int) -> Iterator[tuple[int, int, bool]]:
    """(start, indentation, opens a block) of statements, from a top-level one above to the next one below."""
    start, reading = 0, scan(text, "python", 0)
    at = len(before)
    while (at := before.rfind("\n", 0, at)) >= 0:
        if re.match(r"\n(?:async\b|def\b|class\b|import\b|from\b|@|if\b|for\b|with\b)", before[at : at + 8]):
            above = scan(text, "python", at)
            if not above.inside and not above.open:
                start, reading = at + 1, above
                break
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end + 1
        reading = scan(text, "python", start, reading.resume, reading.resume_open)
        line = text[start:end]
        if not reading.open and not reading.inside and line.strip() and line.lstrip()[0] not in "#\\":
            logical_end = _logical_end(text, end, reading)
            width = len(_indent(line).replace("\f", "").expandtabs(8))
            yield start, width, is_python_header(text[start:logical_end])
            if start >= hole_end:
                return
            end = logical_end
        start = end


def _logical_end(text: str, end: int, reading: Scan) -> int:
    """Where the statement that starts above `end` stops: after the line that closes its brackets."""
    for _ in range(200):
        reading = scan(text, "python", end, reading.resume, reading.resume_open)
        joined = text[:end].endswith(("\\\n", "\\\r\n")) if end < len(text) else False
        if end >= len(text) or not (reading.open or reading.inside in ('"""', "'''") or joined):
            break
        following = text.find("\n", end)
        end = len(text) if following < 0 else following + 1
    return end


def unbalanced_brackets(context: CheckContext) -> str | None:
    """Brackets and quotes against what is open before the completion and what the text after it closes.

    The text after the hole is read twice, with the completion and with the hole empty. The completion must
    close nothing that was not open or that is closed already, and open nothing that stays open. In an unknown
    language only files that balance are judged.
    """
    before, text, language = context.before, context.text, context.language
    after = context.after[:_AFTER_CHARS]
    above, empty = _scan_without(before, after, language)
    filled = scan(before + text + after, language, None, above.resume, above.resume_open)
    if get(language) is None and any((above.stray, above.skipped, empty.open, empty.stray, empty.skipped)):
        return None
    hole_start, hole_end = len(before), len(before) + len(text)
    if len(filled.unterminated) > len(empty.unterminated):
        return "the completion leaves a quote open"
    read_all = len(after) == len(context.after)
    swallows = read_all or hole_start <= filled.resume < hole_end
    if swallows and filled.inside != empty.inside and filled.inside not in ("", "//", "#"):
        return f"the completion leaves “{filled.inside}” open"
    for closer in filled.stray:
        if hole_start <= closer.offset < hole_end:
            return f"the completion closes “{closer.char}” that is not open"
    if read_all and len(filled.stray) > len(empty.stray):
        return f"the completion closes “{filled.stray[-1].char}” that is closed further on"
    left = [opener for opener in (*filled.skipped, *filled.open) if hole_start <= opener.offset < hole_end]
    if left:
        return f"the completion leaves “{left[0].char}” open"
    unclosed = len(filled.skipped) + len(filled.open) - len(empty.skipped) - len(empty.open)
    if read_all and unclosed > 0:
        return "the completion takes a closing bracket that the text before it needs"
    return None


@lru_cache(maxsize=4)
def _scan_without(before: str, after: str, language: str | None) -> tuple[Scan, Scan]:
    """The reading up to the hole's line, and that of the file with the hole empty from there on."""
    above = scan(before, language, before.rfind("\n") + 1)
    return above, scan(before + after, language, None, above.resume, above.resume_open)


def parse_worse(context: CheckContext) -> str | None:
    """The file parses worse with the completion in it than with the hole empty.

    Where the place is clean, the completion may add no error node, and spread none over more of the text
    outside the hole's lines unless its own lines parse. Where it is broken, as code is while it is typed (an
    error touches the hole's line, or a filling mends one), the completion must do as well as the best simple
    filling: nothing or one name, then the brackets that are still open and the end of a statement or header;
    the completion is allowed these too. When no filling mends the file (a bracket left open far above spoils
    all below it), a completion whose own lines parse is let pass.
    """
    if context.tree_before is None:
        return None
    filled = _score(context, context.text)
    if not filled.errors:
        return None
    empty = _score(context, "")
    best_filling = _best_filling(context.before, context.after, context.language)
    if not _broken_here(context) and best_filling.errors == empty.errors:
        spreads = filled.covered > empty.covered
        if filled.errors <= empty.errors and (not spreads or _lines_parse(context)):
            return None
        return "the code would no longer parse"
    for score in (filled, *_finished_scores(context, context.text)):
        if score.errors <= best_filling.errors and score.covered <= best_filling.covered:
            return None
    if best_filling.errors and _lines_parse(context):
        return None
    return "the code would parse worse than before"


def _tree_with(context: CheckContext, text: str) -> SyntaxTree | None:
    tree = context.tree_before
    return tree.replaced(len(context.before), len(context.before), text) if tree else None


def _line_span(context: CheckContext, text: str) -> Span:
    start = context.before.rfind("\n") + 1
    rest = context.after.find("\n")
    return Span(start, len(context.before) + len(text) + (rest if rest >= 0 else len(context.after)))


def _score(context: CheckContext, text: str) -> ErrorScore:
    """Errors of the whole file with `text` in the hole, and what they cover outside the hole's lines."""
    tree = _tree_with(context, text)
    return error_score(tree, _line_span(context, text)) if tree else ErrorScore(0, 0)


def _broken_here(context: CheckContext) -> bool:
    """Whether an error of the file, with the hole empty, touches the hole's line or ends just above it."""
    tree, line = context.tree_before, _line_span(context, "")
    spans = error_nodes(tree) if tree else ()
    above = len(context.before[: line.start].rstrip())
    return any(span.start <= line.end and above <= span.end for span in spans)


@lru_cache(maxsize=4)
def _best_filling(before: str, after: str, language: str | None) -> ErrorScore:
    context = CheckContext(before, "", after, language)
    scores = [_score(context, ""), _score(context, "x")]
    for filling in ("", "x"):
        scores.extend(_finished_scores(context, filling))
    return min(scores)


def _finished_scores(context: CheckContext, text: str) -> Iterator[ErrorScore]:
    """The scores of `text` once what is still open is closed, with each way to end a statement or header."""
    tree, language = context.tree_before, get(context.language)
    if tree is None or language is None:
        return
    rest = context.after.split("\n", 1)[0]
    at_hole, at_line_end = _missing_closers(context, text, len(rest))
    endings = ("", ":") if language.indentation_sensitive else ("", ";", " {}")
    complete = text.endswith("\n") or not (context.line_prefix + text).strip()
    for ending in endings[:1] if complete else endings:
        if at_hole or at_line_end or ending:
            finished = f"{text}{at_hole}{rest}{at_line_end}{ending}"
            start = len(context.before)
            lines = Span(start - len(context.line_prefix), start + len(finished))
            yield error_score(tree.replaced(start, start + len(rest), finished), lines)


def _missing_closers(context: CheckContext, text: str, rest: int) -> tuple[str, str]:
    """Closers for what the following text leaves open: those due right after `text`, those after its line."""
    hole_end = len(context.before) + len(text)
    line_end = hole_end + rest
    whole = context.before + text + context.after[: rest + _AFTER_CHARS]
    here = scan(whole, context.language, hole_end)
    if here.inside in ("\"", "'", "`") and here.inside not in whole[hole_end:line_end]:
        return here.inside + _closers(here.open), ""
    line = scan(whole, context.language, line_end, here.resume, here.resume_open)
    below = scan(whole, context.language, None, line.resume, line.resume_open)
    passed = [opener for opener in line.skipped if opener.offset < hole_end]
    left = [opener for opener in (*below.open, *below.skipped) if opener.offset < line_end]
    return _closers(passed), _closers(left)


def _closers(openers: list[Bracket] | tuple[Bracket, ...]) -> str:
    inner_first = sorted(openers, key=lambda opener: -opener.offset)
    return "".join(CLOSERS[opener.char] for opener in inner_first)


def _lines_parse(context: CheckContext) -> bool:
    """Whether the lines that the completion makes parse on their own."""
    first, *others = _whole_lines(context)
    base = _indent(first)
    tree = parse("\n".join([first.lstrip(), *(line.removeprefix(base) for line in others)]), context.language)
    return tree is not None and not tree.root.has_error


CHECKS: tuple[Callable[[CheckContext], str | None], ...] = (
    low_confidence,
    rejected_before,
    nothing_new,
    repetition,
    repeats_prefix_lines,
    repeats_suffix,
    wrong_indentation,
    unbalanced_brackets,
    parse_worse,
)


def first_refusal(context: CheckContext) -> str | None:
    """The reason of the first check that refuses, from cheap to dear; None when all of them pass."""
    for check in CHECKS:
        reason = check(context)
        if reason is not None:
            return reason
    return None


def cut_back(before: str, text: str, after: str, language: str | None) -> str:
    """The longest leading part of `text` that keeps brackets balanced and the parse no worse, or "".

    Whole lines are tried first, then the tokens of the first line. Whole lines are cut to whole lines.
    """
    for part in _parts(text):
        context = CheckContext(before, part, after, language)
        if part.strip() and unbalanced_brackets(context) is None and parse_worse(context) is None:
            return part
    return ""


def _parts(text: str) -> Iterator[str]:
    lines = text.splitlines(keepends=True)
    whole = text.endswith("\n")
    for count in range(len(lines), max(0, len(lines) - _MAX_CUTS), -1):
        part = "".join(lines[:count])
        yield part if whole or count == len(lines) else part.rstrip("\r\n")
    if lines:
        pieces = [match[0] for match in _PIECE.finditer(lines[0])][: _MAX_CUTS]
        for count in range(len(pieces) - 1, 0, -1):
            yield "".join(pieces[:count]) + ("\n" if whole else "")


def error_spans_within(before: str, text: str, after: str, language: str | None) -> tuple[Span, ...]:
    """The parts of `text` (offsets into it) that lie under ERROR nodes with the text in its place.

    A MISSING node stands for the token before it. A bracket that stays open counts even where the error shows
    only further on. Without a grammar: nothing.
    """
    context = CheckContext(before, text, after, language)
    tree = _tree_with(context, text)
    if tree is None or not text:
        return ()
    start, end = len(before), len(before) + len(text)
    found = []
    for span in error_nodes(tree):
        if span.start == span.end and start < span.start <= end:
            word = re.search(r"(?:\w+|[^\w\s])\s*$", text[: span.start - start])
            span = Span(start + word.start(), span.start) if word else span
        if max(span.start, start) < min(span.end, end):
            found.append(Span(max(span.start, start) - start, min(span.end, end) - start))
    if tree.root.has_error:
        reading = scan(tree.text[: end + _AFTER_CHARS], language)
        for opener in (*reading.open, *reading.skipped):
            if start <= opener.offset < end:
                found.append(Span(opener.offset - start, opener.offset - start + len(opener.char)))
    return tuple(sorted(set(found)))
