"""One small edit with the trees before and after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from engine.errors import Stop
from infill.code.syntax import Span, SyntaxTree, error_nodes
from infill.next_edit.edits import Place, UserEdit
from infill.next_edit.grammar import GRAMMARS, Grammar
from infill.next_edit.names import Step, steps_to


@dataclass(frozen=True)
class Change:
    """after: the tree of the current text. neighbours: texts of other open files in the same language. line_edit: what
    the user changed on the same lines; `edit` is a part of it."""

    edit: UserEdit
    after: SyntaxTree
    stop: Stop | None = None
    neighbours: Sequence[str] = ()
    line_edit: UserEdit | None = None

    @property
    def grammar(self) -> Grammar:
        return GRAMMARS[self.after.language.id]

    @cached_property
    def before(self) -> SyntaxTree:
        """The tree of the text without the edit."""
        return self.after.replaced(self.edit.start, self.edit.end, self.edit.old, self.stop)

    @property
    def old_end(self) -> int:
        """The end of the edit in the text before it."""
        return self.edit.start + len(self.edit.old)

    def moved(self, offset: int) -> int | None:
        """An offset of the text before, in the current text; None within the edit."""
        if offset <= self.edit.start and not (offset == self.edit.start and self.edit.old):
            return offset
        return offset + len(self.edit.new) - len(self.edit.old) if offset >= self.old_end else None

    def place(self, start: int, end: int, text: str) -> Place | None:
        """A place of the text before, in the current text; None if the edit touches it."""
        first, last = self.moved(start), self.moved(end)
        if first is None or last is None or (start < self.old_end and end > self.edit.start):
            return None
        return Place(first, last, text)

    @cached_property
    def steps(self) -> list[Step]:
        """The nodes around the edit, in the current text."""
        return _steps(self.after, self.edit.start, self.edit.new)

    @cached_property
    def old_steps(self) -> list[Step]:
        """The nodes around the edit, in the text before."""
        return _steps(self.before, self.edit.start, self.edit.old)


def _steps(tree: SyntaxTree, start: int, text: str) -> list[Step]:
    """The nodes around a text without the white space at its ends; at least around one character."""
    start += len(text) - len(text.lstrip())
    end = start + max(1, len(text.strip()))
    return steps_to(tree, start, min(end, len(tree.text)))


def is_broken(change: Change) -> bool:
    """Whether the lines of the edit have a syntax error."""
    return _has_error(change.after, change.edit.start, change.edit.end, change.stop)


def was_broken(change: Change) -> bool:
    """Whether they had one before the edit, also if it makes sense only with other parts of its line."""
    return _has_error(change.before, change.edit.start, change.old_end, change.stop)


def _has_error(tree: SyntaxTree, start: int, end: int, stop: Stop | None) -> bool:
    if not tree.root.has_error:
        return False
    start, end = tree.text.rfind("\n", 0, start) + 1, tree.text.find("\n", end)
    lines = Span(start, end if end >= 0 else len(tree.text))
    return any(one.start <= lines.end and lines.start <= one.end for one in error_nodes(tree, stop))
