"""The check for completions that make the parse worse, and the longest part of a completion that does not.

Without a grammar the check passes, and `cut_back` only looks at brackets. Must not know the other checks, the model, or
the source of a completion.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

from engine.errors import Stop, leave_if
from infill.checks.brackets import AFTER_CHARS, unbalanced_brackets
from infill.checks.context import CheckContext, indent_of, whole_lines
from infill.code.brackets import CLOSERS, Bracket, scan
from infill.code.languages import get
from infill.code.syntax import ErrorScore, ParsingStopped, Span, SyntaxTree, error_nodes, error_score, parse

_MAX_CUTS = 40
_PIECE = re.compile(r"\s*(?:\w+|[^\w\s])")


def parse_worse(context: CheckContext) -> str | None:
    """The file must not parse worse with the completion than with the hole empty.

    If the line of the hole has no errors, the completion must add no error node; errors must not cover more text
    outside the lines of the hole unless its own lines parse. If the line has errors, as while code is typed, the
    completion must do as well as the best simple filling: nothing or one name, then closers for open brackets and the
    end of a statement or header, which are added to the completion too. If no filling repairs the file, as below an
    unclosed bracket, a completion whose own lines parse passes. So does every completion once parsing is stopped.
    """
    try:
        return _parse_worse(context.empty, context.text)
    except ParsingStopped:
        return None


@lru_cache(maxsize=16)
def _parse_worse(hole: CheckContext, text: str) -> str | None:
    """Cached, since a text is checked where it is made and where it is judged."""
    context = replace(hole, text=text)
    if context.tree_before is None:
        return None
    filled = _score(context, text)
    if not filled.errors:
        return None
    empty, has_error_at_hole = _empty_score(hole)
    best_filling = _best_filling(hole)
    if not has_error_at_hole and best_filling.errors == empty.errors:
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
    return tree.replaced(len(context.before), len(context.before), text, context.stop) if tree else None


def _line_span(context: CheckContext, text: str) -> Span:
    start = context.before.rfind("\n") + 1
    rest = context.after.find("\n")
    return Span(start, len(context.before) + len(text) + (rest if rest >= 0 else len(context.after)))


def parse_score(context: CheckContext, text: str) -> ErrorScore:
    """The errors of the file with `text` in the hole, and the characters they cover outside the lines of the hole.

    None without a grammar, and once parsing is stopped.
    """
    try:
        return _score(context, text)
    except ParsingStopped:
        return ErrorScore(0, 0)


def _score(context: CheckContext, text: str) -> ErrorScore:
    tree = _tree_with(context, text)
    return error_score(tree, _line_span(context, text)) if tree else ErrorScore(0, 0)


@lru_cache(maxsize=4)
def _empty_score(empty: CheckContext) -> tuple[ErrorScore, bool]:
    """The score with the hole empty, and whether an error then overlaps the line of the hole or ends just above it."""
    tree, line = empty.tree_before, _line_span(empty, "")
    spans = error_nodes(tree) if tree else ()
    above = len(empty.before[: line.start].rstrip())
    return _score(empty, ""), any(span.start <= line.end and above <= span.end for span in spans)


@lru_cache(maxsize=4)
def _best_filling(empty: CheckContext) -> ErrorScore:
    scores = [_empty_score(empty)[0], _score(empty, "x")]
    for filling in ("", "x"):
        scores.extend(_finished_scores(empty, filling))
    return min(scores)


def _finished_scores(context: CheckContext, text: str) -> Iterator[ErrorScore]:
    """The scores of `text` with open brackets closed and each end of a statement or header."""
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
            yield error_score(tree.replaced(start, start + len(rest), finished, context.stop), lines)


def _missing_closers(context: CheckContext, text: str, rest: int) -> tuple[str, str]:
    """The missing closers: those right after `text`, and those at the end of its line."""
    hole_end = len(context.before) + len(text)
    line_end = hole_end + rest
    whole = context.before + text + context.after[: rest + AFTER_CHARS]
    hole = scan(whole, context.language, hole_end)
    if hole.inside in ('"', "'", "`") and hole.inside not in whole[hole_end:line_end]:
        return hole.inside + _closers(hole.open), ""
    line = scan(whole, context.language, line_end, hole.resume, hole.resume_open)
    below = scan(whole, context.language, None, line.resume, line.resume_open)
    skipped = [opener for opener in line.skipped if opener.offset < hole_end]
    left = [opener for opener in (*below.open, *below.skipped) if opener.offset < line_end]
    return _closers(skipped), _closers(left)


def _closers(openers: list[Bracket] | tuple[Bracket, ...]) -> str:
    inner_first = sorted(openers, key=lambda opener: -opener.offset)
    return "".join(CLOSERS[opener.char] for opener in inner_first)


def _lines_parse(context: CheckContext) -> bool:
    """Whether the lines of the completion parse on their own."""
    first, *others = whole_lines(context)
    base = indent_of(first)
    tree = parse(
        "\n".join([first.lstrip(), *(line.removeprefix(base) for line in others)]), context.language, context.stop
    )
    return tree is not None and not tree.root.has_error


def cut_back(
    before: str,
    text: str,
    after: str,
    language: str | None,
    cancelled: Stop | None = None,
    stop: Stop | None = None,
) -> str:
    """The longest prefix of `text` with balanced brackets that does not make the parse worse, or "".

    Prefixes of whole lines come first, then tokens of the first line. Whole lines are cut to whole lines.
    cancelled: called before each prefix; raises Cancelled once it returns True. stop: as in `CheckContext`; once it
    returns True, no shorter prefix is looked for.
    """
    for part in _parts(text):
        leave_if(cancelled)
        if stop is not None and stop():
            break
        context = CheckContext(before, part, after, language, stop=stop)
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
        pieces = [match[0] for match in _PIECE.finditer(lines[0])][:_MAX_CUTS]
        for count in range(len(pieces) - 1, 0, -1):
            yield "".join(pieces[:count]) + ("\n" if whole else "")


def error_spans_within(
    before: str, text: str, after: str, language: str | None, stop: Stop | None = None
) -> tuple[Span, ...]:
    """The spans of `text`, as offsets into it, under ERROR nodes of the file with `text` in the hole.

    A MISSING node counts as an error of the token before it. An unclosed bracket counts even if its ERROR node is
    further on. Empty without a grammar, and once parsing is stopped.
    """
    try:
        tree = _tree_with(CheckContext(before, text, after, language, stop=stop), text)
    except ParsingStopped:
        return ()
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
        reading = scan(tree.text[: end + AFTER_CHARS], language)
        for opener in (*reading.open, *reading.skipped):
            if start <= opener.offset < end:
                found.append(Span(opener.offset - start, opener.offset - start + len(opener.char)))
    return tuple(sorted(set(found)))
