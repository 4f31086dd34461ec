"""Lets the model read the text around the cursor before the user types there, so that the first suggestion comes soon.

Reads after a document is opened, after a pause in typing, and when the cursor rests elsewhere. One reading per session:
a newer one replaces it, and requests for suggestions and findings go first. Must not know how the model reads.
"""

from __future__ import annotations

import asyncio
import logging

from engine.errors import GessoError
from infill.engine_protocol import EngineState
from lsp.cursor import CursorContext
from lsp.documents import Snapshot
from lsp.inline_completion import InlineCompletion
from lsp.session import Session
from lsp.triggers import Situation, inside_word, long_line, middle_of_line

logger = logging.getLogger(__name__)
PAUSE_S = 0.3  # after a document was opened or changed; editors report a resting cursor after a pause of their own
BUSY_S = 0.1  # between two looks whether other requests of this session have ended


class ReadAhead:
    """The reading of one session. Used on the event loop only."""

    def __init__(self, session: Session, inline: InlineCompletion) -> None:
        self.session, self.inline = session, inline
        self._cursor: tuple[str, int] | None = None  # URI and offset
        self._task: asyncio.Task[None] | None = None

    def opened(self, snapshot: Snapshot) -> None:
        self._start(snapshot.uri, 0, PAUSE_S)

    def changed(self, snapshot: Snapshot) -> None:
        if snapshot.edits:
            self._start(snapshot.uri, snapshot.edits[-1].start + len(snapshot.edits[-1].inserted), PAUSE_S)

    def rested(self, uri: str, offset: int) -> None:
        """The cursor has been at this offset for a moment."""
        if self._cursor != (uri, offset):
            self._start(uri, offset, 0.0)

    def closed(self, uri: str) -> None:
        if self._cursor is not None and self._cursor[0] == uri:
            self.stop()

    def engine_changed(self, state: EngineState) -> None:
        """A model that has just been loaded has read nothing."""
        self.inline.last_read = None
        if state.kind == "ready" and self._cursor is not None:
            self._start(*self._cursor, 0.0)

    def stop(self) -> None:
        self._cursor = None
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def _start(self, uri: str, offset: int, pause_s: float) -> None:
        self.stop()
        self._cursor = uri, offset
        self._task = asyncio.ensure_future(self._read(uri, offset, pause_s))
        self._task.add_done_callback(_log_error)

    async def _read(self, uri: str, offset: int, pause_s: float) -> None:
        await asyncio.sleep(pause_s)
        session, inline = self.session, self.inline
        while inline.requests or session.engine.is_busy:
            await asyncio.sleep(BUSY_S)
        snapshot = session.documents.get(uri)
        if snapshot is None or session.engine.state.kind != "ready":
            return
        if not snapshot.text.strip() or session.off_reason(snapshot) or await session.private_reason(snapshot):
            return
        context = _next_request(snapshot, offset)
        if context is None or _is_same_line(context, inline.last_read):
            return
        try:
            await session.engine.read_ahead(await inline.request(context))
        except GessoError as error:
            logger.info("Reading ahead failed: %s", error)
        else:
            inline.last_read = context


def _next_request(snapshot: Snapshot, offset: int) -> CursorContext | None:
    """Where the next suggestion near `offset` is likely to be requested: there, or at the end of the line if the rules
    forbid suggestions there. None if the line is too long for suggestions."""
    before, after = snapshot.text[:offset], snapshot.text[offset:]
    situation = Situation(before, after, snapshot.language, invoked=False)
    if long_line(situation):
        return None
    moved = len(situation.rest) if inside_word(situation) or middle_of_line(situation) else 0
    return CursorContext(snapshot, before + after[:moved], after[moved:])


def _is_same_line(one: CursorContext, other: CursorContext | None) -> bool:
    if other is None or one.snapshot is not other.snapshot:
        return False
    return one.snapshot.position(one.offset).line == one.snapshot.position(other.offset).line


def _log_error(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("Reading ahead failed: %r", error, exc_info=error)
