"""What is on the user's screen and what becomes of it: accepted whole or in part, refused, or typed over.

Tells the reuse ladder, the memory of refusals, the pace, the statistics. Must not know the protocol.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass

from infill.statistics import Event, Row
from lsp.accepted_text import Settled
from lsp.activity import Rung
from lsp.documents import Snapshot
from lsp.inline_completion import Answer, InlineCompletion, Place
from lsp.positions import column_to_index
from lsp.session import Session
from lsp.suggestion_cache import Origin, Suggestion

REMEMBERED = 400  # offers


@dataclass
class Offer:
    """A suggestion as it was offered at a place; `lead` stands before it in what the editor was given."""

    uri: str
    before: str
    after: str
    lead: str
    suggestion: Suggestion
    language: str | None
    rung: Rung | None
    seen_at: float
    taken: int = 0  # characters of the suggestion, accepted in part


class Offers:
    """Offers by the id of their suggestion; the newest of a document is the one on the screen."""

    def __init__(self, session: Session, inline: InlineCompletion) -> None:
        self.session, self.inline = session, inline
        self.by_id: OrderedDict[str, Offer] = OrderedDict()
        self.on_screen: dict[str, Offer] = {}

    def offered(self, place: Place, answer: Answer) -> None:
        """This was sent to the editor, its first suggestion to be shown."""
        suggestions, rung = answer.suggestions, answer.rung
        if suggestions and suggestions[0].id not in self.by_id:
            self._count("shown", place.snapshot.language, rung, len(suggestions[0].text), answer.total_ms)
        for suggestion in suggestions:
            earlier = self.by_id.pop(suggestion.id, None)
            seen = earlier.seen_at if earlier else time.monotonic()
            language = place.snapshot.language
            offer = Offer(place.uri, place.before, place.after, place.lead, suggestion, language, rung, seen)
            self.by_id[suggestion.id] = offer
        while len(self.by_id) > REMEMBERED:
            self.by_id.popitem(last=False)
        if suggestions:
            self.on_screen[place.uri] = self.by_id[suggestions[0].id]
        else:
            self.on_screen.pop(place.uri, None)

    def shown(self, identifier: str) -> None:
        """The editor shows this one now: another than the first of several."""
        offer = self.by_id.get(identifier)
        if offer is not None:
            self.on_screen[offer.uri] = offer
            self.session.ladder.shown(offer.uri, offer.before, offer.after, offer.suggestion)

    def accepted(self, identifier: str) -> None:
        """The user took the whole of it."""
        offer = self._taken(identifier)
        if offer is None:
            return
        session, suggestion = self.session, offer.suggestion
        session.pace.accepted()
        session.ladder.accepted(identifier)
        self._count("accepted", offer.language, offer.rung, len(suggestion.text))
        snapshot = session.documents.get(offer.uri)
        if snapshot is None:
            return
        start = len(offer.before)
        if snapshot.text.startswith(suggestion.text, start):
            session.kept.accepted(identifier, offer.uri, offer.language, start, suggestion.text)
        self.inline.ask_ahead(snapshot, offer.before + suggestion.text, offer.after[len(suggestion.swallow) :])

    def partly_accepted(self, identifier: str, length: int) -> None:
        """The user took the first `length` UTF-16 units of what the editor was given, with what was taken before."""
        offer = self.by_id.get(identifier)
        if offer is None:
            return
        text = offer.lead + offer.suggestion.text
        taken = column_to_index(text, length, "utf-16") - len(offer.lead)
        if taken >= len(offer.suggestion.text):
            self.accepted(identifier)
        elif taken > offer.taken:
            self.session.pace.accepted()
            self.session.ladder.partly_accepted(identifier, taken)
            self._count("partly", offer.language, offer.rung, taken - offer.taken)
            offer.taken = taken

    def rejected(self, identifier: str) -> None:
        """The user dismissed it."""
        offer = self._taken(identifier)
        if offer is not None:
            self._refused(offer)

    def changed(self, snapshot: Snapshot) -> None:
        """The document changed: what stood on the screen and does not agree with it any more was refused."""
        self.session.kept.changed(snapshot.uri, snapshot.edits)
        offer = self.on_screen.get(snapshot.uri)
        if offer is None:
            return
        text, begun = snapshot.text, len(offer.before)
        if text == offer.before + offer.after or text.startswith(offer.before + offer.suggestion.text):
            return
        cursor = snapshot.edits[-1].start + len(snapshot.edits[-1].inserted) if snapshot.edits else begun
        if Origin(offer.before, offer.after).fitting((offer.suggestion,), text[:cursor], text[cursor:]):
            return
        typed = text[begun:cursor] if text.startswith(offer.before) else ""
        del self.on_screen[snapshot.uri]
        seen = time.monotonic() - offer.seen_at
        place = (offer.uri, offer.before, offer.after, offer.suggestion.text)
        if self.session.rejections.typed_over(*place, typed, seen):
            self.session.pace.rejected()
            self._count("rejected", offer.language, offer.rung, len(offer.suggestion.text))

    def closed(self, uri: str) -> None:
        self.on_screen.pop(uri, None)
        for settled in self.session.kept.closed(uri):
            self._note_kept(settled)

    def settle(self) -> None:
        """Called now and then: accepted text that has stood for long enough is counted."""
        for settled in self.session.kept.settled():
            self._note_kept(settled)

    def _taken(self, identifier: str) -> Offer | None:
        offer = self.by_id.pop(identifier, None)
        if offer is not None and self.on_screen.get(offer.uri) is offer:
            del self.on_screen[offer.uri]
        return offer

    def _refused(self, offer: Offer) -> None:
        self.session.rejections.rejected(offer.uri, offer.before, offer.after, offer.suggestion.text)
        self.session.pace.rejected()
        self._count("rejected", offer.language, offer.rung, len(offer.suggestion.text))

    def _note_kept(self, settled: Settled) -> None:
        self._count("kept", settled.language, None, 0, settled.share)

    def _count(
        self, event: Event, language: str | None, rung: Rung | None, characters: int, value: float | None = None
    ) -> None:
        statistics = self.session.statistics
        if statistics is not None:
            model = self.session.engine.state.model
            statistics.add(Row(time.time(), event, language, model, rung, characters, value))
