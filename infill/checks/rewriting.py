"""The checks of a rewrite: it must not be worse than the code it replaces.

The input is a `CheckContext` of whole lines, without the line end of the last. Must not know the model, or where the
rewrite comes from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from infill.checks.brackets import unbalanced_brackets
from infill.checks.checks import repeats_prefix_lines, repeats_suffix, repetition, wrong_indentation
from infill.checks.context import CheckContext, indent_of
from infill.checks.parse import parse_score

RELATIVE = (repetition, repeats_prefix_lines, repeats_suffix, wrong_indentation, unbalanced_brackets)
_DECLARATION = re.compile(r"\b(?:def|class|function|func|fn|struct|impl|interface|enum|trait)\s+(\w+)")


def first_rewrite_refusal(context: CheckContext) -> str | None:
    """The reason, in words for the user, why `context.text` must not replace `context.replaced`; None if it may."""
    if not context.text.strip():
        return "the answer is empty"
    if _without_trailing_space(context.text) == _without_trailing_space(context.replaced):
        return "the answer equals the selected code"
    if (name := _declared_again(context)) is not None:
        return f"the answer repeats the declaration of {name}, which is outside the selection"
    old = replace(context, text=context.replaced)
    for check in RELATIVE:
        reason = check(context)
        if reason is not None and check(old) is None:
            return reason.replace("the completion", "the answer")
    if parse_score(context, context.text) > parse_score(context, context.replaced):
        return "the code would parse worse than before"
    return None


def _without_trailing_space(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.rstrip().split("\n"))


def _declared_again(context: CheckContext) -> str | None:
    """A name that the new lines declare, the old lines do not, and a line around the selection does."""
    new = set(_DECLARATION.findall(context.text)) - set(_DECLARATION.findall(context.replaced))
    enclosing = (name for line in _enclosing_lines(context) for name in _DECLARATION.findall(line))
    return next((name for name in enclosing if name in new), None)


def _enclosing_lines(context: CheckContext) -> Iterator[str]:
    """The lines above that are indented less than the selection and all lines in between, from the inside."""
    width = min((_width(line) for line in context.replaced.split("\n") if line.strip()), default=0)
    for line in reversed(context.before.split("\n")):
        if line.strip() and _width(line) < width:
            width = _width(line)
            yield line


def _width(line: str) -> int:
    return len(indent_of(line).expandtabs(8))
