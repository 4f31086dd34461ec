"""Syntax trees in step with the documents: every edit in its order, parsed in one thread, the newest version only.

An opening quote can cost a parser a tenth of a second in a long file, so nothing is parsed on the event loop, and what
was typed while it parsed is taken in together. Must not know what a tree is used for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from infill.code.syntax import MAX_PARSE_CHARS, SyntaxTree, parse
from lsp.documents import Edit, Snapshot

logger = logging.getLogger(__name__)
MANY = 64  # edits at once, after which parsing the whole is cheaper


class _Followed:
    """One document: the newest snapshot, the one last parsed with its tree, and the edits from there.

    Snapshots are told apart by identity: an editor may use the number of a version twice.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self.newest = snapshot
        self.parsed: Snapshot | None = None
        self.tree: SyntaxTree | None = None
        self.edits: list[Edit] = []
        self.busy = False
        self.waiting: list[tuple[Snapshot, asyncio.Future[SyntaxTree | None]]] = []

    def answer(self, everyone: bool = False) -> None:
        """Who waits for what is parsed now gets it; who waits for what is not the newest any more gets nothing."""
        waiting, self.waiting = self.waiting, []
        for wanted, future in waiting:
            if wanted is self.newest is not self.parsed and not everyone:
                self.waiting.append((wanted, future))
            elif not future.done():
                future.set_result(self.tree if wanted is self.parsed else None)


class Trees:
    """Lives on the event loop; only parsing happens elsewhere."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="parse")
        self._followed: dict[str, _Followed] = {}

    def opened(self, snapshot: Snapshot) -> None:
        self.closed(snapshot.uri)
        self._followed[snapshot.uri] = _Followed(snapshot)
        self._parse(snapshot.uri)

    def changed(self, before: Snapshot, after: Snapshot) -> None:
        """`after` came of `before` by `after.edits`; where `before` is not what is known, the whole is parsed."""
        followed = self._followed.get(after.uri)
        if followed is None or followed.newest is not before:
            self.opened(after)
            return
        followed.newest = after
        followed.edits += after.edits
        self._parse(after.uri)

    def closed(self, uri: str) -> None:
        if (followed := self._followed.pop(uri, None)) is not None:
            followed.answer(everyone=True)

    async def tree(self, snapshot: Snapshot, timeout_s: float) -> SyntaxTree | None:
        """The tree of exactly this snapshot; None where it has no grammar, is not the newest, or takes longer."""
        followed = self._followed.get(snapshot.uri)
        if followed is None or followed.newest is not snapshot:
            return None
        if followed.parsed is snapshot:
            return followed.tree
        future: asyncio.Future[SyntaxTree | None] = asyncio.get_running_loop().create_future()
        followed.waiting.append((snapshot, future))
        await asyncio.wait([future], timeout=timeout_s)
        return future.result() if future.done() else None

    def close(self) -> None:
        """Ends the thread; what it has not begun is left undone."""
        for uri in list(self._followed):
            self.closed(uri)
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _parse(self, uri: str) -> None:
        """Takes all edits in, unless the parser is at this document already; then it does so when it is done."""
        followed = self._followed.get(uri)
        if followed is None or followed.busy or followed.parsed is followed.newest:
            return
        snapshot, edits = followed.newest, tuple(followed.edits)
        followed.edits, followed.busy = [], True
        work: Callable[[], SyntaxTree | None] = partial(_parsed, followed.tree, edits, snapshot)
        future = asyncio.get_running_loop().run_in_executor(self._thread, work)
        future.add_done_callback(partial(self._done, uri, followed, snapshot))

    def _done(
        self, uri: str, followed: _Followed, snapshot: Snapshot, future: asyncio.Future[SyntaxTree | None]
    ) -> None:
        followed.busy = False
        if future.cancelled():
            return
        if (error := future.exception()) is not None:
            logger.error("A document could not be parsed: %r", error)
        followed.parsed, followed.tree = snapshot, None if error else future.result()
        followed.answer()
        if self._followed.get(uri) is followed:
            self._parse(uri)


def _parsed(tree: SyntaxTree | None, edits: tuple[Edit, ...], snapshot: Snapshot) -> SyntaxTree | None:
    text, language = snapshot.text, snapshot.language
    if tree is None or tree.language.id != language or len(edits) > MANY or len(text) > MAX_PARSE_CHARS:
        return parse(text, language)
    return tree.edited([(edit.start, edit.start + len(edit.removed), edit.inserted) for edit in edits])
