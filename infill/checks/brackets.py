"""The check for unbalanced brackets and quotes, which needs no syntax tree.

Must not know the other checks, the model, or the source of a completion.
"""

from __future__ import annotations

from functools import lru_cache

from infill.checks.context import CheckContext
from infill.code.brackets import Scan, scan
from infill.code.languages import get
from infill.code.overlap import repeats_closers

AFTER_CHARS = 30_000  # of the text after the hole, at most


def unbalanced_brackets(context: CheckContext) -> str | None:
    """The completion must not close a bracket that is not open or that is closed further on, nor leave one open.

    The text after the hole is scanned twice, with the completion and with the hole empty. In an unknown language only
    files with balanced brackets are checked.
    """
    before, text, language = context.before, context.text, context.language
    after = context.after[:AFTER_CHARS]
    if repeats_closers(before, text, after, language):
        return f"the completion repeats “{after.strip()[:1]}”, which follows"
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
        return "the completion uses a closing bracket that the text before it needs"
    return None


@lru_cache(maxsize=4)
def _scan_without(before: str, after: str, language: str | None) -> tuple[Scan, Scan]:
    """The scan up to the line of the hole, and from there to the end of the file with the hole empty."""
    above = scan(before, language, before.rfind("\n") + 1)
    return above, scan(before + after, language, None, above.resume, above.resume_open)
