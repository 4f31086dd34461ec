"""The share of accepted text that is still in the document after a while (the kept rate, as in Zed).

Follows the positions of accepted characters through later edits by offsets alone; no text is stored. Must not know the
protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lsp.documents import Edit

SETTLED_S = 30.0


@dataclass
class _Accepted:
    """An accepted suggestion. spans: [start, end) of what is left of it, in characters of the newest version."""

    language: str | None
    spans: list[tuple[int, int]]
    characters: int
    at: float

    def edited(self, edit: Edit) -> None:
        start, end = edit.start, edit.start + len(edit.removed)
        if any(first < end and start < last for first, last in self.spans):
            start, end = changed_range(edit)
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

    def kept_share(self) -> KeptShare:
        return KeptShare(self.language, sum(last - first for first, last in self.spans) / max(1, self.characters))


@dataclass(frozen=True)
class KeptShare:
    """share: of the accepted characters, 0 to 1."""

    language: str | None
    share: float


class AcceptedText:
    """Follows accepted text through later edits. `clock` returns seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._followed: dict[str, list[_Accepted]] = {}

    def accepted(self, uri: str, language: str | None, start: int, text: str) -> None:
        """`text` is at character `start` of the document's newest version."""
        accepted = _Accepted(language, [(start, start + len(text))], len(text), self._clock())
        self._followed.setdefault(uri, []).append(accepted)

    def changed(self, uri: str, edits: Sequence[Edit]) -> None:
        """Applies edits in their order."""
        for accepted in self._followed.get(uri, ()):
            for edit in edits:
                accepted.edited(edit)

    def closed(self, uri: str) -> list[KeptShare]:
        """Results for a closed document, which nobody will edit further."""
        return [accepted.kept_share() for accepted in self._followed.pop(uri, [])]

    def settled(self) -> list[KeptShare]:
        """Results for text that was accepted at least `SETTLED_S` ago, each returned once."""
        found, now = [], self._clock()
        for uri, followed in list(self._followed.items()):
            found += [accepted.kept_share() for accepted in followed if now - accepted.at >= SETTLED_S]
            if recent := [accepted for accepted in followed if now - accepted.at < SETTLED_S]:
                self._followed[uri] = recent
            else:
                del self._followed[uri]
        return found


def changed_range(edit: Edit) -> tuple[int, int]:
    """Start and end of what an edit really removes: formatters rewrite many characters unchanged."""
    removed, inserted = edit.removed, edit.inserted
    head = _common(lambda length: removed[:length] == inserted[:length], min(len(removed), len(inserted)))
    rest = min(len(removed), len(inserted)) - head
    tail = _common(lambda length: removed[len(removed) - length :] == inserted[len(inserted) - length :], rest)
    return edit.start + head, edit.start + len(removed) - tail


def _common(equal: Callable[[int], bool], most: int) -> int:
    """The greatest length up to `most` that is `equal`, by bisection: fast even if the whole document was replaced."""
    least = 0
    while least < most:
        middle = (least + most + 1) // 2
        if equal(middle):
            least = middle
        else:
            most = middle - 1
    return least
