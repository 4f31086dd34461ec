"""Test texts with marks: `|` for a cursor, `‹text›` for a completion in its file."""

import re

from infill.checks.context import CheckContext


def at(marked: str) -> tuple[str, int]:
    """The text without its mark, and the mark's offset."""
    offset = marked.index("|")
    return marked[:offset] + marked[offset + 1 :], offset


def case(marked: str, language: str | None = "python", **options) -> CheckContext:
    before, text, after = re.split("[‹›]", marked)
    return CheckContext(before, text, after, language, **options)
