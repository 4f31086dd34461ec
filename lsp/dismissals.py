"""Findings that the user dismissed, so that they are not shown again while the text around them is edited.

Must not know the protocol nor how findings are made.
"""

from __future__ import annotations

from collections import OrderedDict, deque

from lsprotocol import types

from lsp.documents import Snapshot
from lsp.line_context import LineContext
from lsp.tracked_findings import TrackedFinding

REMEMBERED, REMEMBERED_ALIKE = 300, 20  # dismissals in total, and those that differ only in their position
FAR = 20  # lines searched for one that is not blank

_Key = tuple[str, str, str, str]  # uri, code, text, replacement


class Dismissals:
    """Remembers the last dismissals until the server ends."""

    def __init__(self) -> None:
        self._contexts: OrderedDict[_Key, deque[LineContext]] = OrderedDict()

    def dismiss(self, snapshot: Snapshot, finding: TrackedFinding) -> None:
        """The user does not want to see this finding again."""
        contexts = self._contexts.setdefault(_key(snapshot, finding), deque(maxlen=REMEMBERED_ALIKE))
        contexts.append(_context(snapshot, finding))
        if len(self._contexts) > REMEMBERED:
            self._contexts.popitem(last=False)

    def is_dismissed(self, snapshot: Snapshot, finding: TrackedFinding) -> bool:
        """Whether the user dismissed this finding here; if so, the position is remembered as it is now."""
        contexts = self._contexts.get(_key(snapshot, finding))
        if contexts is None:
            return False
        now = _context(snapshot, finding)
        if now in contexts:
            return True
        for number, context in enumerate(contexts):
            if _is_same(context, now, finding.text):
                contexts[number] = now
                return True
        return False


def _key(snapshot: Snapshot, finding: TrackedFinding) -> _Key:
    return snapshot.uri, finding.code, finding.text, finding.replacement


def _context(snapshot: Snapshot, finding: TrackedFinding) -> LineContext:
    line = snapshot.position(finding.start).line
    text, index = snapshot.lines[line], finding.start - snapshot.offset(types.Position(line, 0))
    first_line = finding.text.split("\n", 1)[0]
    above, below = snapshot.lines[max(0, line - FAR) : line][::-1], snapshot.lines[line + 1 : line + 1 + FAR]
    return LineContext.of(above, text[:index], text[index + len(first_line) :], below)


def _is_same(then: LineContext, now: LineContext, text: str) -> bool:
    """An unchanged line needs one unchanged neighbour, a slightly edited one needs both."""
    neighbours = then.same_neighbours(now)
    if (then.left, then.right) == (now.left, now.right):
        return neighbours >= 1
    is_elsewhere_on_line = text.join((then.left, then.right)) == text.join((now.left, now.right))
    return neighbours == 2 and not is_elsewhere_on_line and then.is_edited(now)
