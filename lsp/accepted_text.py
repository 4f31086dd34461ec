"""How much of what was accepted still stands when the text has settled (Zed's kept rate).

Follows the places of accepted characters through later edits, by offsets alone: nothing is kept of the text itself.
Must not know the protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lsp.documents import Edit

SETTLED_S = 30.0


@dataclass
class _Accepted:
    """The spans of the text, in characters of the newest version, that are left of an accepted suggestion."""

    id: str
    language: str | None
    spans: list[tuple[int, int]]
    characters: int
    at: float

    def edited(self, edit: Edit) -> None:
        start, end = edit.start, edit.start + len(edit.removed)
        if any(first < end and start < last for first, last in self.spans):
            start, end = _changed(edit)
        shift = len(edit.inserted) - len(edit.removed)
        spans = []
        for first, last in self.spans:
            if last <= start:
                spans.append((first, last))
            elif first >= end:
                spans.append((first + shift, last + shift))
            else:
                spans += [(first, start)] if first < start else []
                spans += [(end + shift, last + shift)] if last > end else []
        self.spans = spans


@dataclass(frozen=True)
class Settled:
    """share: of the accepted characters, 0 to 1."""

    id: str
    language: str | None
    share: float


class Kept:
    """Follows accepted text through later edits. `clock` in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._followed: dict[str, list[_Accepted]] = {}

    def accepted(self, identifier: str, uri: str, language: str | None, start: int, text: str) -> None:
        """`text` stands at character `start` of the document's newest version."""
        one = _Accepted(identifier, language, [(start, start + len(text))], len(text), self._clock())
        self._followed.setdefault(uri, []).append(one)

    def changed(self, uri: str, edits: Sequence[Edit]) -> None:
        """The document changed, by `edits` one after the other."""
        for one in self._followed.get(uri, ()):
            for edit in edits:
                one.edited(edit)

    def closed(self, uri: str) -> list[Settled]:
        """What stands when a document is closed counts as settled."""
        return [_settled(one) for one in self._followed.pop(uri, [])]

    def settled(self) -> list[Settled]:
        """Those that have stood for `SETTLED_S` or longer, once each."""
        found, now = [], self._clock()
        for uri, followed in list(self._followed.items()):
            found += [_settled(one) for one in followed if now - one.at >= SETTLED_S]
            if left := [one for one in followed if now - one.at < SETTLED_S]:
                self._followed[uri] = left
            else:
                del self._followed[uri]
        return found


def _settled(one: _Accepted) -> Settled:
    return Settled(one.id, one.language, sum(last - first for first, last in one.spans) / max(1, one.characters))


def _changed(edit: Edit) -> tuple[int, int]:
    """Start and end of what an edit really removes: a formatter writes many a character again just as it was."""
    removed, inserted = edit.removed, edit.inserted
    head = _common(lambda length: removed[:length] == inserted[:length], min(len(removed), len(inserted)))
    rest = min(len(removed), len(inserted)) - head
    tail = _common(lambda length: removed[len(removed) - length :] == inserted[len(inserted) - length :], rest)
    return edit.start + head, edit.start + len(removed) - tail


def _common(equal: Callable[[int], bool], most: int) -> int:
    """The greatest length up to `most` that is `equal`, by halving: quick also where a whole document was replaced."""
    least = 0
    while least < most:
        middle = (least + most + 1) // 2
        if equal(middle):
            least = middle
        else:
            most = middle - 1
    return least
