"""What happens to suggestions on the screen: accepted, partly accepted, rejected, typed over.

Updates the suggestion cache, the rejections, the debounce and the statistics. Must not know the protocol.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from infill.statistics import Event, EventRow
from lsp.accepted_text import KeptShare, changed_range
from lsp.cursor import CursorContext
from lsp.documents import Snapshot
from lsp.inline_completion import InlineCompletion
from lsp.positions import column_to_index
from lsp.session import Session
from lsp.suggestion_cache import Anchor
from lsp.suggestions import Origin, Suggestion, Suggestions

REMEMBERED = 400  # suggestions
MOST_EDITS = 20  # in one change by hand; formatters and replacements make more


@dataclass
class _Sent:
    """A suggestion sent to the editor. position: uri, text before and after the cursor; entry: as in CursorContext.

    since: when it was first sent. accepted: how many of its characters were accepted in parts.
    """

    position: tuple[str, str, str]
    entry: str
    language: str | None
    suggestion: Suggestion
    origin: Origin | None
    since: float
    accepted: int = 0

    @property
    def uri(self) -> str:
        return self.position[0]


class Feedback:
    """Suggestions by id; the newest of each document is the one on the screen."""

    def __init__(self, session: Session, inline: InlineCompletion) -> None:
        self.session, self.inline = session, inline
        self.by_id: OrderedDict[str, _Sent] = OrderedDict()
        self.on_screen: dict[str, _Sent] = {}

    def sent(self, context: CursorContext, found: Suggestions) -> None:
        """These suggestions were sent to the editor, which shows the first one."""
        items, uri, language = found.items, context.uri, context.snapshot.language
        if items and items[0].id not in self.by_id:
            first = items[0]
            self._count("shown", language, found.origin, len(first.text), found.total_ms, first.model)
        position = uri, context.before, context.after
        for suggestion in items:
            earlier = self.by_id.pop(suggestion.id, None)
            since = earlier.since if earlier else time.monotonic()
            self.by_id[suggestion.id] = _Sent(position, context.entry, language, suggestion, found.origin, since)
        while len(self.by_id) > REMEMBERED:
            self.by_id.popitem(last=False)
        if items:
            self.on_screen[uri] = self.by_id[items[0].id]
        else:
            self.on_screen.pop(uri, None)

    def shown(self, identifier: str) -> None:
        """The editor now shows this one of several suggestions."""
        sent = self.by_id.get(identifier)
        if sent is not None:
            self.on_screen[sent.uri] = sent
            self.session.cache.shown(*sent.position, sent.suggestion)

    def accepted(self, identifier: str) -> None:
        """The user accepted the whole suggestion."""
        sent = self._remove(identifier)
        if sent is None:
            return
        session, suggestion, (uri, before, after) = self.session, sent.suggestion, sent.position
        session.debounce.accepted()
        session.cache.accepted(identifier)
        self._count_sent("accepted", sent, len(suggestion.text))
        snapshot = session.documents.get(uri)
        if snapshot is None:
            return
        if snapshot.text.startswith(suggestion.text, len(before)):
            session.accepted_text.accepted(uri, sent.language, len(before), suggestion.text)
        after = after[len(suggestion.swallow) :]
        self.inline.run_ahead(snapshot, before + suggestion.text, after, suggestion.beginning)

    def partly_accepted(self, identifier: str, length: int) -> None:
        """The user accepted, in total, the first `length` UTF-16 units of what the editor was sent."""
        sent = self.by_id.get(identifier)
        if sent is None:
            return
        entry, text = sent.entry, sent.suggestion.text
        accepted = column_to_index(entry + text, length, "utf-16") - len(entry)
        if accepted >= len(text):
            self.accepted(identifier)
        elif accepted > sent.accepted:
            self.session.debounce.accepted()
            self.session.cache.partly_accepted(identifier, accepted)
            self._count_sent("partly", sent, accepted - sent.accepted)
            sent.accepted = accepted

    def rejected(self, identifier: str) -> None:
        """The user dismissed the suggestion."""
        sent = self._remove(identifier)
        if sent is not None:
            self.session.rejections.rejected(*sent.position, sent.suggestion.text)
            self._count_rejected(sent)

    def changed(self, snapshot: Snapshot) -> None:
        """The document changed: a suggestion on the screen that disagrees with the change was rejected."""
        self.session.accepted_text.changed(snapshot.uri, snapshot.edits)
        self._remember_deleted(snapshot)
        sent = self.on_screen.get(snapshot.uri)
        if sent is None:
            return
        text, (_, before, after) = snapshot.text, sent.position
        if text == before + after or text.startswith(before + sent.suggestion.text):
            return
        cursor = snapshot.edits[-1].start + len(snapshot.edits[-1].inserted) if snapshot.edits else len(before)
        if Anchor(before, after).fitting((sent.suggestion,), text[:cursor], text[cursor:]):
            return
        typed = text[len(before) : cursor] if text.startswith(before) else ""
        del self.on_screen[snapshot.uri]
        seen_s = time.monotonic() - sent.since
        if self.session.rejections.typed_over(*sent.position, sent.suggestion.text, typed, seen_s):
            self._count_rejected(sent)

    def _remember_deleted(self, snapshot: Snapshot) -> None:
        """What the last change deleted must not come again as a suggestion."""
        if len(snapshot.edits) > MOST_EDITS:
            return
        rejections, uri, text = self.session.rejections, snapshot.uri, snapshot.text
        for number, edit in enumerate(snapshot.edits):
            start, end = changed_range(edit)
            inserted = len(edit.inserted) - len(edit.removed) + end - start
            removed = edit.removed[start - edit.start : end - edit.start]
            for later in snapshot.edits[number + 1 :]:
                start += (len(later.inserted) - len(later.removed)) * (later.start < start)
            if removed:
                rejections.deleted(uri, text[:start], text[start + inserted :], removed)
            elif inserted:
                rejections.typed(uri, text[: start + inserted], text[start + inserted :])

    def closed(self, uri: str) -> None:
        self.on_screen.pop(uri, None)
        self._count_kept(self.session.accepted_text.closed(uri))

    def settle(self) -> None:
        """Counts accepted text that was followed for long enough; called periodically."""
        self._count_kept(self.session.accepted_text.settled())

    def _remove(self, identifier: str) -> _Sent | None:
        sent = self.by_id.pop(identifier, None)
        if sent is not None and self.on_screen.get(sent.uri) is sent:
            del self.on_screen[sent.uri]
        return sent

    def _count_rejected(self, sent: _Sent) -> None:
        self.session.debounce.rejected()
        self._count_sent("rejected", sent, len(sent.suggestion.text))

    def _count_kept(self, results: Iterable[KeptShare]) -> None:
        for kept in results:
            self._count("kept", kept.language, None, 0, kept.share)

    def _count_sent(self, event: Event, sent: _Sent, characters: int) -> None:
        self._count(event, sent.language, sent.origin, characters, model=sent.suggestion.model)

    def _count(
        self,
        event: Event,
        language: str | None,
        origin: Origin | None,
        characters: int,
        value: float | None = None,
        model: str = "",
    ) -> None:
        """model: of the suggestion; by default that of the engine."""
        if self.session.statistics is not None:
            model = model or self.session.engine.state.model
            self.session.statistics.add(EventRow(time.time(), event, language, model, origin, characters, value))
