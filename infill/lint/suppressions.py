"""Code that lint skips: generated, minified and vendored files, broken code, and lines with a `gesso: ignore` comment.

Must not know the model, nor kinds of findings other than by code.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator

from engine.errors import Stop, leave_if, pacer
from infill.code.generated import generated_sign, is_vendored
from infill.code.languages import Language
from infill.code.syntax import SyntaxTree, error_nodes
from infill.findings import Range, ignores
from infill.lint.kinds import Edit

MAX_FILE = 500_000  # characters


def is_skipped(path: str | None, text: str) -> bool:
    """Whether a file is third-party, generated, minified or too long, so that lint skips all of it."""
    if len(text) > MAX_FILE or (path is not None and is_vendored(path)):
        return True
    return generated_sign(path, text, strict=True) is not None


class Suppressions:
    """The lines of one file on which some or all kinds are not shown. stop: polled; once it returns True, Cancelled is
    raised."""

    def __init__(self, tree: SyntaxTree, stop: Stop | None = None) -> None:
        self._line_ends = [match.start() for match in re.finditer("\n", tree.text)]
        self._broken: set[int] = set()
        for start, end in _broken_ranges(tree, stop):
            self._broken.update(range(self._line(start), self._line(end) + 1))
        self._comments = _comments(tree.text, tree.language)

    def allow(self, edit: Edit) -> bool:
        """Whether no line of the edit is broken, and none has a comment that ignores its kind."""
        for line in range(self._line(edit.start), self._line(edit.end) + 1):
            comments = self._comments.get(line, ())
            if line in self._broken or any(ignores(comment, edit.code) for comment in comments):
                return False
        return True

    def _line(self, offset: int) -> int:
        return bisect_left(self._line_ends, offset)


def _broken_ranges(tree: SyntaxTree, stop: Stop | None) -> Iterator[Range]:
    """The text under ERROR nodes, and MISSING nodes, without the functions and classes that have no error themselves:
    one error may turn all of a file into an ERROR node."""
    intact = _intact(tree, stop)
    for span in error_nodes(tree, stop):
        leave_if(stop)
        first, last = bisect_left(intact, (span.start, 0)), bisect_left(intact, (span.end, 0))
        at = span.start
        for start, end in [*intact[first:last], (span.end, span.end)]:
            part = tree.text[at:start]
            if part.strip() or span.start == span.end:
                yield at + len(part) - len(part.lstrip()), at + len(part.rstrip())
            at = end


def _intact(tree: SyntaxTree, stop: Stop | None) -> list[Range]:
    """The outermost functions and classes without an error, inside nodes with one, in text order."""
    found, pending, pace = [], [tree.root] if tree.root.has_error else [], pacer(stop)
    while pending:
        pace()
        for child in reversed(pending.pop().children):
            if child.has_error:
                pending.append(child)
            elif child.type in tree.language.scopes:
                found.append(tree.span(child))
            elif child.named_child_count:
                pending.append(child)
    return [(start, end) for start, end in sorted(found)]


def _comments(text: str, language: Language) -> dict[int, list[str]]:
    """Comments that may say `gesso: ignore`, by the line they apply to (from 0): their own, or the next with code."""
    found: dict[int, list[str]] = {}
    if "gesso:" not in text:
        return found
    lines = text.split("\n")
    for number, line in enumerate(lines):
        at = line.find(language.line_comment)
        if at < 0 and "/*" in line:
            at = line.find("/*")
        if at < 0 or "gesso:" not in line[at:]:
            continue
        target = number
        if not line[:at].strip():
            target = next((n for n in range(number + 1, len(lines)) if lines[n].strip()), number)
        found.setdefault(target, []).append(line[at:])
    return found
