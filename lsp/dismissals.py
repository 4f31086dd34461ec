"""What the user said is all right, so that it is not marked again; remembered while the text around it is edited.

A place is known by its line and the nearest lines above and below that are not blank, never by its number. Must not
know the protocol nor how findings are made.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass

from lsprotocol import types

from lsp.documents import Snapshot
from lsp.rejections import edited_a_little
from lsp.tracked_findings import Mark

KEPT, KEPT_ALIKE = 300, 20  # dismissals remembered; those of them that differ only in their place
FAR = 20  # blank lines that are looked across


@dataclass(frozen=True)
class _Place:
    """left, right: what else stands on the line of a mark; above, below: the nearest lines that are not blank."""

    above: str
    left: str
    right: str
    below: str


_What = tuple[str, str, str, str]  # uri, code, text, replacement


class Dismissals:
    """Remembers the last ones, for as long as the server runs."""

    def __init__(self) -> None:
        self._kept: OrderedDict[_What, deque[_Place]] = OrderedDict()

    def dismiss(self, snapshot: Snapshot, mark: Mark) -> None:
        """The user does not want to see this mark again."""
        self._kept.setdefault(_what(snapshot, mark), deque(maxlen=KEPT_ALIKE)).append(_place(snapshot, mark))
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)

    def is_dismissed(self, snapshot: Snapshot, mark: Mark) -> bool:
        """Whether the user dismissed the same here; the place is then remembered as it is now, to be known later on."""
        places = self._kept.get(_what(snapshot, mark))
        if places is None:
            return False
        here = _place(snapshot, mark)
        if here in places:
            return True
        number = next((number for number, place in enumerate(places) if _is_same(place, here, mark.text)), None)
        if number is None:
            return False
        places[number] = here
        return True


def _what(snapshot: Snapshot, mark: Mark) -> _What:
    return snapshot.uri, mark.code, mark.text, mark.replacement


def _place(snapshot: Snapshot, mark: Mark) -> _Place:
    line = snapshot.position(mark.start).line
    text, index = snapshot.lines[line], mark.start - snapshot.offset(types.Position(line, 0))
    first_line_of_mark = mark.text.split("\n", 1)[0]
    return _Place(
        above=_nearest(snapshot.lines[max(0, line - FAR) : line][::-1]),
        left=text[:index].lstrip(),
        right=text[index + len(first_line_of_mark) :].rstrip(),
        below=_nearest(snapshot.lines[line + 1 : line + 1 + FAR]),
    )


def _nearest(lines: Sequence[str]) -> str:
    return next((line.strip() for line in lines if line.strip()), "")


def _is_same(there: _Place, here: _Place, text: str) -> bool:
    """In the same line, one neighbouring line must be the same; in one that was edited a little, both."""
    neighbours = (there.above == here.above) + (there.below == here.below)
    if (there.left, there.right) == (here.left, here.right):
        return neighbours >= 1
    before, now = (f"{one.left}\n{one.right}" for one in (there, here))
    is_elsewhere = before.replace("\n", text) == now.replace("\n", text)  # in the same line
    return neighbours == 2 and not is_elsewhere and edited_a_little(before, now)
