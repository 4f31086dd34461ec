"""The input of the checks: a completion with the text around it.

Must not know the checks or the source of the completion.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from engine.errors import Stop
from infill.code.syntax import SyntaxTree, parse


@dataclass(frozen=True)
class CheckContext:
    """A completion `text` between `before` and `after`, in place of `replaced`.

    confidence, min_confidence: 0 to 1. rejected: texts that the user rejected here before. stop: when parsing stops; a
    check that needs the tree then passes.
    """

    before: str
    text: str
    after: str
    language: str | None = None
    confidence: float = 1.0
    min_confidence: float = 0.0
    rejected: frozenset[str] = frozenset()
    replaced: str = ""
    stop: Stop | None = field(default=None, compare=False)

    @property
    def tree_before(self) -> SyntaxTree | None:
        """The tree of the file with the hole empty, parsed once for all completions of a hole.

        Raises ParsingStopped.
        """
        return _tree(self.empty)

    @property
    def empty(self) -> CheckContext:
        """The hole left empty: equal for all completions of a hole."""
        return CheckContext(self.before, "", self.after, self.language, stop=self.stop)

    @property
    def line_prefix(self) -> str:
        return self.before[self.before.rfind("\n") + 1 :]

    @property
    def line_rest(self) -> str:
        """The rest of the line after the hole; empty for a completion of whole lines."""
        return "" if self.text.endswith("\n") else self.after.split("\n", 1)[0].rstrip("\r")


@lru_cache(maxsize=4)
def _tree(empty: CheckContext) -> SyntaxTree | None:
    return parse(empty.before + empty.after, empty.language, empty.stop)


def whole_lines(context: CheckContext) -> list[str]:
    """The lines of the completion, with the text before and after it on its first and last line."""
    joined = context.line_prefix + context.text + context.line_rest
    return joined.replace("\r\n", "\n").split("\n")


def indent_of(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]
