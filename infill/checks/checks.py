"""The checks that a completion must pass to be shown, cheap ones first.

A check takes a `CheckContext` and returns the reason for a refusal, in words for the user, or None. To add one, write
its function and list it in CHECKS. Must not know the model, the canvas, or the source of a completion.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from infill.checks.brackets import unbalanced_brackets
from infill.checks.context import CheckContext, indent_of, whole_lines
from infill.checks.parse import parse_score, parse_worse
from infill.code.brackets import Scan, scan
from infill.code.indentation import is_python_header
from infill.code.languages import get

MAX_EDIT_SHARE = 0.05
MAX_EQUAL_TOKENS = 10
MAX_PERIOD_TOKENS = 24
_COMPARED_CHARS = 400
_COMPARED_LINES = 20
_NEAR_CHARS = 20_000
_TOP_LINES = 20
_TOP_LINE = re.compile(r"\n(?=(?:async|def|class|import|from|if|for|with)\b|@)")
_TOKEN = re.compile(r"\w+|([^\w\s])\1*")
_WORD = re.compile(r"\w")
_NUMBER = re.compile(r"\d+")
_STUTTER = re.compile(r"([A-Za-z_]{2,8}?)\1{5,}")


def nothing_new(context: CheckContext) -> str | None:
    """Empty text, the replaced text, or white space that does not repair the syntax."""
    if not context.text:
        return "the completion is empty"
    if context.text.strip():
        same = context.text.rstrip() == context.replaced.rstrip()
        return "the completion equals the text it replaces" if same else None
    tree = context.tree_before
    if tree and parse_score(context, context.text).errors < parse_score(context, "").errors:
        return None
    return "the completion is only white space"


def low_confidence(context: CheckContext) -> str | None:
    """The confidence is below the threshold."""
    if context.confidence >= context.min_confidence:
        return None
    return f"the confidence {context.confidence:.2f} is below the threshold {context.min_confidence:.2f}"


def rejected_before(context: CheckContext) -> str | None:
    """The user rejected the same text here before."""
    if context.text.strip() in {text.strip() for text in context.rejected}:
        return "you rejected the same text here before"
    return None


def repetition(context: CheckContext) -> str | None:
    """Ten equal tokens in a row, a short pattern many times, or the same lines three times."""
    tokens = [match[0] for match in _TOKEN.finditer(context.text)]
    for period in range(1, 9):
        run, least = 0, MAX_EQUAL_TOKENS if period == 1 else MAX_PERIOD_TOKENS
        for index in range(period, len(tokens)):
            run = run + 1 if tokens[index] == tokens[index - period] else 0
            if run + period >= least:
                shown = " ".join(tokens[index - period + 1 : index + 1])[:40]
                return f"the completion repeats “{shown}” many times"
    stutter = _STUTTER.search(context.text)
    if stutter and len(set(stutter[1])) > 1:
        return f"the completion repeats “{stutter[1]}” many times"
    lines = [line.strip() for line in context.text.splitlines() if _WORD.search(line)]
    for period in (1, 2, 3):
        for start in range(len(lines) - 3 * period + 1):
            pattern = lines[start : start + period]
            if len("".join(pattern)) >= 8 and lines[start + period : start + 3 * period] == pattern * 2:
                return f"the completion repeats the line “{pattern[0][:40]}”"
    return None


def repeats_prefix_lines(context: CheckContext) -> str | None:
    """The completion repeats the one to three lines above it."""
    above = [line.rstrip() for line in context.before[-_NEAR_CHARS:].split("\n")[:-1] if line.strip()]
    lines = [line.rstrip() for line in whole_lines(context) if line.strip()]
    if not 1 <= len(lines) <= 3 or lines != above[-len(lines) :]:
        return None
    if not _WORD.search("".join(lines)):
        return None
    return f"the completion repeats the line{'s' if len(lines) > 1 else ''} above"


def repeats_suffix(context: CheckContext) -> str | None:
    """The completion repeats what follows it: the rest of the line, or the next lines with their indentation."""
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
    lines = [line.rstrip() for line in whole_lines(context) if line.strip()]
    after = context.after if context.text.endswith("\n") else context.after[len(context.line_rest) :]
    below = [line.rstrip() for line in after[:_NEAR_CHARS].split("\n") if line.strip()][:_COMPARED_LINES]
    if rest and lines:
        lines[-1] = lines[-1].removesuffix(context.line_rest.rstrip()) or lines[-1]
    for start in range(len(lines)):
        for compared in (len(lines) - start, 2):
            block, following = lines[start : start + compared], below[:compared]
            if len(block) == len(following) and _same_block(block, following):
                return f"the completion repeats what follows: “{following[0].strip()[:40]}”"
    return None


def _same_block(block: list[str], following: list[str]) -> bool:
    if not _WORD.search("".join(following)) or indent_of(block[0]) != indent_of(following[0]):
        return False
    return _nearly_equal("\n".join(map(str.strip, block)), "\n".join(map(str.strip, following)))


def _is_word(character: str) -> bool:
    return _WORD.match(character) is not None


def _nearly_equal(one: str, other: str) -> bool:
    """Whether the edit distance is at most MAX_EDIT_SHARE of the length; only the start of long texts is compared.

    Texts with different numbers are not nearly equal: lines that count up are a series.
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
    """Tabs in a file indented with spaces or the reverse; in Python also lines that fit no block."""
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
    return None if _first_misfit(context, "") else "the lines below would have the wrong indentation"


def _first_misfit(context: CheckContext, text: str) -> tuple[str, bool] | None:
    """The error of the first line with wrong indentation, in `text` or just below, and whether that line is below.

    None if the text within _NEAR_CHARS above has no top-level statement to count from.
    """
    before = context.before[-_NEAR_CHARS:]
    whole = before + text + context.after[:_NEAR_CHARS]
    hole_start = max(0, len(before) - len(context.line_prefix))
    hole_end = len(before) + len(text)
    top = _top_line(before)
    if top is None:
        if len(before) < len(context.before):
            return None
        top = 0
    levels, header, header_is_new = [0], False, False
    for start, width, opens_block in _python_lines(whole, top, hole_end):
        new = start >= hole_start if not context.line_prefix.strip() else start > hole_start
        below = start >= hole_end
        if header and width > levels[-1]:
            levels.append(width)
        elif new and header and not (below and header_is_new):
            return "the body of the block is not indented", below
        elif new and width > levels[-1]:
            return "a line is indented more than its block", below
        elif new and width not in levels:
            return "the indentation of a line matches no block around it", below
        else:
            while levels[-1] > width:
                levels.pop()
            if width > levels[-1]:
                levels.append(width)
        if below:
            return None
        header, header_is_new = opens_block, new
    return None


def _top_line(before: str) -> int | None:
    """The start of the nearest line that begins a top-level statement; None if none of the last _TOP_LINES does."""
    for line in reversed([*_TOP_LINE.finditer(before)][-_TOP_LINES:]):
        above = scan(before, "python", line.start())
        if not above.inside and not above.open:
            return line.end()
    return None


def _python_lines(text: str, start: int, hole_end: int) -> Iterator[tuple[int, int, bool]]:
    """(start, indentation, opens a block) of each statement from `start` to the first one below the hole."""
    reading = scan(text, "python", start, start)
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end + 1
        line = text[start:end]
        if not line.strip():
            start = end
            continue
        reading = scan(text, "python", start, reading.resume, reading.resume_open)
        if not reading.open and not reading.inside and line.strip() and line.lstrip()[0] not in "#\\":
            logical_end = _logical_end(text, end, reading)
            width = len(indent_of(line).replace("\f", "").expandtabs(8))
            yield start, width, is_python_header(text[start:logical_end])
            if start >= hole_end:
                return
            end = logical_end
        start = end


def _logical_end(text: str, end: int, reading: Scan) -> int:
    """The end of the statement that starts above `end`, after the line that closes its brackets."""
    for _ in range(200):
        reading = scan(text, "python", end, reading.resume, reading.resume_open)
        joined = text[:end].endswith(("\\\n", "\\\r\n")) if end < len(text) else False
        if end >= len(text) or not (reading.open or reading.inside in ('"""', "'''") or joined):
            break
        following = text.find("\n", end)
        end = len(text) if following < 0 else following + 1
    return end


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
    """The reason of the first check that refuses; None if all pass."""
    for check in CHECKS:
        reason = check(context)
        if reason is not None:
            return reason
    return None
