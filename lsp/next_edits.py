"""Next edits: what follows the user's last edits elsewhere in the document, one proposal at a time.

Waits for a pause, works in a thread, and stops at the next key. Must not know the protocol's messages, nor how an edit
is found or shown.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

from engine.errors import Cancelled
from infill.code.syntax import ParsingStopped, SyntaxTree
from infill.next_edit.edits import Kind, Place, Proposal, UserEdit
from infill.next_edit.find import is_settled, next_edits
from infill.next_edit.history import EditHistory
from infill.statistics import NEXT_EDIT, Event, EventRow
from lsp.activity import Outcome, Record
from lsp.documents import Edit, Snapshot
from lsp.session import Session
from lsp.suggestions import SkipReason

PAUSE_S = 0.3  # after the last key
TREE_S, LIMIT_S = 5.0, 1.0  # longest wait for the tree; most CPU time to find proposals
ASLEEP_S, ASLEEP_MOST_S = 60.0, 3_600.0  # for the kind of a dismissed proposal; twice as long each time
MOST_EDITS = 20  # in one change; formatters make more
MOST_IGNORED = 3  # times that a proposal is on the screen while the user changes another line
REMEMBERED = 200

OFF = SkipReason("next edits off", "Next edits are switched off (setting gesso.nextEdits).")
STALE = SkipReason("outdated", "The document has changed since the request.")
TYPING = SkipReason("typing", "The last edit does not seem to be finished.")
NO_EDIT = SkipReason("no edit", "There was no edit that something could follow.")
NOTHING_DUE = SkipReason("nothing due", "Nothing follows the last edits, as far as the syntax shows.")
NO_TREE = SkipReason("no syntax tree", "There is no syntax tree of this document, or not yet.")
TOO_LONG = SkipReason("time limit", f"The search for what is due took more than {LIMIT_S:g} s.")

Key = tuple[str, Kind, frozenset[tuple[str, str]]]


@dataclass
class Offer:
    """A proposal for `snapshot`. places: the one at or after the cursor first."""

    id: str
    key: Key
    snapshot: Snapshot
    proposal: Proposal
    places: tuple[Place, ...]


@dataclass
class _Document:
    """shown: the offer on the screen. left: its places that are not accepted yet, as old and new text by offset.
    accepted: the proposal that was accepted last."""

    history: EditHistory = field(default_factory=EditHistory)
    changed_at: float = 0.0
    changes: int = 0
    shown: Offer | None = None
    left: list[tuple[int, str, str]] = field(default_factory=list)
    accepted: Key | None = None

    def changed(self, now: float) -> None:
        self.changed_at, self.changes = now, self.changes + 1


class NextEdits:
    """Used on the event loop only. `clock` returns seconds."""

    def __init__(self, session: Session, clock: Callable[[], float] = time.monotonic) -> None:
        self.session, self._clock = session, clock
        self._documents: dict[str, _Document] = {}
        self._numbers = count(1)
        self._offers: OrderedDict[str, Offer] = OrderedDict()
        self._asleep: dict[Kind, float] = {}  # until when
        self._dismissed: dict[Kind, int] = {}  # how often since the last acceptance
        self._ignored: OrderedDict[Key, int] = OrderedDict()

    def changed(self, before: Snapshot, after: Snapshot) -> None:
        """The edits of `after` turned `before` into it."""
        document = self._documents.setdefault(after.uri, _Document())
        document.changed(self._clock())
        if len(after.edits) > MOST_EDITS or not self.session.settings.next_edits:
            document.history.forget()
            self._withdraw(document)
            return
        text, at_one_place = before.text, _is_one_place(after.edits)
        for edit in after.edits:
            accepted = _take(document, edit)
            if accepted and document.shown is not None:
                document.accepted = document.shown.key
            by_hand = at_one_place and not accepted
            undid = document.history.changed(text, edit.start, edit.removed, edit.inserted, by_hand)
            if undid and document.accepted is not None:
                self._ignore(document.accepted, MOST_IGNORED)
            if not accepted and document.shown is not None:
                if not _is_same_line(text, document.shown.proposal.anchor, edit.start):
                    self._ignore(document.shown.key, 1)
                self._withdraw(document)
            text = text[: edit.start] + edit.inserted + text[edit.start + len(edit.removed) :]

    def closed(self, uri: str) -> None:
        document = self._documents.pop(uri, None)
        if document is not None:
            document.changed(self._clock())

    async def propose(
        self, snapshot: Snapshot, offset: int, version: int | None, invoked: bool = False
    ) -> Offer | None:
        """The best proposal with the cursor at `offset`. version: of the document that the client means.

        invoked: the user asked by hand, so that kinds do not sleep and ignored proposals come again.
        """
        begun = time.perf_counter()
        found: Offer | SkipReason
        try:
            found = await self._propose(snapshot, offset, version, invoked)
        except asyncio.CancelledError:
            self._record(snapshot, offset, "superseded", None, None, begun)
            raise
        if isinstance(found, SkipReason):
            self._record(snapshot, offset, "nothing", found, None, begun)
            return None
        self._record(snapshot, offset, "shown", None, found, begun)
        if found.id not in self._offers:
            self._offers[found.id] = found
            self._count("shown", found, 1000 * (time.perf_counter() - begun))
            while len(self._offers) > REMEMBERED:
                self._offers.popitem(last=False)
        return found

    def accepted(self, identifier: str) -> None:
        """The user accepted the proposal, or one place of it."""
        offer = self._offers.pop(identifier, None)
        if offer is not None:
            self._dismissed.pop(offer.proposal.kind, None)
            self._count("accepted", offer)

    def dismissed(self, identifier: str) -> None:
        """The user does not want the proposal: it does not come again, and its kind sleeps."""
        offer = self._offers.pop(identifier, None)
        if offer is None:
            return
        self._ignore(offer.key, MOST_IGNORED)
        kind = offer.proposal.kind
        times = self._dismissed[kind] = self._dismissed.get(kind, 0) + 1
        self._asleep[kind] = self._clock() + min(ASLEEP_S * 2 ** (times - 1), ASLEEP_MOST_S)
        document = self._documents.get(offer.snapshot.uri)
        if document is not None:
            self._withdraw(document)
        self._count("rejected", offer)

    async def _propose(self, snapshot: Snapshot, offset: int, version: int | None, invoked: bool) -> Offer | SkipReason:
        session, document = self.session, self._documents.get(snapshot.uri)
        if not session.settings.next_edits:
            return OFF
        changes = document.changes if document is not None else 0
        skipped = session.off_reason(snapshot) or await session.private_reason(snapshot)
        if skipped is not None:
            return skipped
        if version is not None and version != snapshot.version:
            return STALE
        if document is None or not document.history.edits:
            return NO_EDIT
        await asyncio.sleep(max(0.0, document.changed_at + PAUSE_S - self._clock()))
        if document.changes != changes:
            return STALE
        edits = document.history.edits
        if not invoked and not is_settled(edits[-1], snapshot.text, offset, PAUSE_S):
            return TYPING
        tree = await session.trees.tree(snapshot, TREE_S)
        if tree is None:
            return STALE if document.changes != changes else NO_TREE
        neighbours = [one.text for one in await session.neighbours(snapshot)]
        proposals = await self._find(tree, edits, offset, neighbours, lambda: document.changes != changes)
        if proposals is None:
            return STALE if document.changes != changes else TOO_LONG
        found = self._choose(snapshot, proposals, invoked)
        if isinstance(found, SkipReason):
            return found
        proposal, key = found
        if document.changes != changes or session.documents.get(snapshot.uri) is not snapshot:
            return STALE
        return self._offer(snapshot, document, proposal, key, offset)

    async def _find(
        self,
        tree: SyntaxTree,
        edits: Sequence[UserEdit],
        offset: int,
        neighbours: Sequence[str],
        is_outdated: Callable[[], bool],
    ) -> list[Proposal] | None:
        """None if the document changes meanwhile, or it takes too long."""
        abandoned = False

        def work() -> list[Proposal] | None:
            end = time.thread_time() + LIMIT_S
            try:
                return next_edits(
                    tree,
                    edits,
                    offset,
                    neighbours,
                    stop=lambda: abandoned or is_outdated() or time.thread_time() >= end,
                )
            except (Cancelled, ParsingStopped):
                return None

        try:
            return await asyncio.to_thread(work)
        finally:
            abandoned = True

    def _choose(
        self, snapshot: Snapshot, proposals: Sequence[Proposal], invoked: bool
    ) -> tuple[Proposal, Key] | SkipReason:
        """The first proposal that is neither asleep nor ignored."""
        now, reason = self._clock(), NOTHING_DUE
        for proposal in proposals:
            changes = frozenset((snapshot.text[start:end], text) for start, end, text in proposal.places)
            key: Key = snapshot.uri, proposal.kind, changes
            if not invoked and self._asleep.get(proposal.kind, 0.0) > now:
                reason = SkipReason("asleep", f"You dismissed a proposal of this kind ({proposal.kind}) before.")
            elif not invoked and self._ignored.get(key, 0) >= MOST_IGNORED:
                reason = SkipReason("ignored", "You went on without the proposal that would come here.")
            else:
                return proposal, key
        return reason

    def _offer(self, snapshot: Snapshot, document: _Document, proposal: Proposal, key: Key, offset: int) -> Offer:
        later = [place for place in proposal.places if place.end >= offset]
        earlier = [place for place in proposal.places if place.end < offset]
        known = next((one.id for one in self._offers.values() if one.key == key), None)
        offer = Offer(known or f"e{next(self._numbers)}", key, snapshot, proposal, (*later, *earlier))
        document.shown = offer
        document.left = [(start, snapshot.text[start:end], text) for start, end, text in proposal.places]
        return offer

    def _withdraw(self, document: _Document) -> None:
        document.shown, document.left = None, []

    def _ignore(self, key: Key, times: int) -> None:
        self._ignored[key] = self._ignored.get(key, 0) + times
        self._ignored.move_to_end(key)
        if len(self._ignored) > REMEMBERED:
            self._ignored.popitem(last=False)

    def _record(
        self,
        snapshot: Snapshot,
        offset: int,
        outcome: Outcome,
        skipped: SkipReason | None,
        offer: Offer | None,
        begun: float,
    ) -> None:
        record = Record(
            at=time.time(),
            document=self.session.number_of(snapshot.uri),
            language=snapshot.language,
            line=snapshot.position(offset).line + 1,
            outcome=outcome,
            rule=skipped.rule if skipped else None,
            sentence=skipped.sentence if skipped else offer.proposal.reason if offer else None,
            origin=NEXT_EDIT,
            timings_ms={},
            total_ms=1000 * (time.perf_counter() - begun),
            characters=sum(len(place.text) for place in offer.places) if offer else 0,
            confidence=offer.proposal.rank if offer else None,
        )
        last = self.session.activity.last(1)
        same = {"at": 0.0, "line": 0, "total_ms": 0.0}
        if not last or replace(last[0], **same) != replace(record, **same):  # type: ignore[arg-type]
            self.session.activity.add(record)

    def _count(self, event: Event, offer: Offer, value: float | None = None) -> None:
        if self.session.statistics is not None:
            characters = sum(len(place.text) for place in offer.places)
            row = EventRow(time.time(), event, offer.snapshot.language, "", NEXT_EDIT, characters, value)
            self.session.statistics.add(row)


def _take(document: _Document, edit: Edit) -> bool:
    """Whether the edit is a place of the proposal on the screen; moves the places that are left."""
    taken = False
    left = []
    shift = len(edit.inserted) - len(edit.removed)
    for start, old, new in document.left:
        if not taken and _is_within(edit, start, old, new):
            taken = True
        else:
            left.append((start + shift if start >= edit.start + len(edit.removed) else start, old, new))
    document.left = left
    return taken


def _is_same_line(text: str, one: int, other: int) -> bool:
    """Whether two offsets are on one line. To continue an edit there is not to ignore what it made due."""
    return "\n" not in text[min(one, other) : max(one, other)]


def _is_one_place(edits: Sequence[Edit]) -> bool:
    """Whether each edit touches the text of those before it, as keys do that a client sends together."""
    start = end = edits[0].start if edits else 0
    for edit in edits:
        if edit.start > end or edit.start + len(edit.removed) < start:
            return False
        start, end = min(start, edit.start), max(end, edit.start + len(edit.removed))
        end += len(edit.inserted) - len(edit.removed)
    return True


def _is_within(edit: Edit, start: int, old: str, new: str) -> bool:
    """Whether the edit turns `old` at `start` into `new`; editors may leave out what both begin or end with."""
    head, tail = edit.start - start, start + len(old) - edit.start - len(edit.removed)
    if head < 0 or tail < 0:
        return False
    return old[:head] + edit.inserted + old[len(old) - tail :] == new
