"""Syntax trees that follow the documents: edits applied in order, parsed in one thread, newest version only.

An opening quote can keep a parser busy for a tenth of a second in a long file, so nothing is parsed on the event loop,
and edits that arrive during a parse are applied together. Must not know what a tree is used for.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from infill.code.syntax import MAX_PARSE_CHARS, ParsingStopped, SyntaxTree, parse
from lsp.documents import Edit, Snapshot

logger = logging.getLogger(__name__)
PARSE_LIMIT_S = 3.0
MANY = 64  # edits at once; with more, a full parse is cheaper


class _Followed:
    """One document: the newest snapshot, the snapshot parsed last with its tree, and the edits between them.

    Snapshots are compared by identity: an editor may use a version number twice.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self.newest = snapshot
        self.parsed: Snapshot | None = None
        self.tree: SyntaxTree | None = None
        self.edits: list[Edit] = []
        self.busy = False
        self.waiting: list[tuple[Snapshot, asyncio.Future[SyntaxTree | None]]] = []

    def resolve(self, all_waiters: bool = False) -> None:
        """Gives the tree to those who wait for the parsed snapshot, and None to those who wait for an outdated one."""
        waiting, self.waiting = self.waiting, []
        for snapshot, future in waiting:
            if snapshot is self.newest is not self.parsed and not all_waiters:
                self.waiting.append((snapshot, future))
            elif not future.done():
                future.set_result(self.tree if snapshot is self.parsed else None)


class Trees:
    """The trees of all open documents. Used on the event loop; only parsing runs in a thread."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="parse")
        self._followed: dict[str, _Followed] = {}

    def opened(self, snapshot: Snapshot) -> None:
        self.closed(snapshot.uri)
        self._followed[snapshot.uri] = _Followed(snapshot)
        self._parse(snapshot.uri)

    def changed(self, before: Snapshot, after: Snapshot) -> None:
        """`after.edits` turned `before` into `after`. If `before` is not the snapshot known here, parses all of it."""
        followed = self._followed.get(after.uri)
        if followed is None or followed.newest is not before:
            self.opened(after)
            return
        followed.newest = after
        followed.edits += after.edits
        self._parse(after.uri)

    def closed(self, uri: str) -> None:
        if (followed := self._followed.pop(uri, None)) is not None:
            followed.resolve(all_waiters=True)

    async def tree(self, snapshot: Snapshot, timeout_s: float | None = None) -> SyntaxTree | None:
        """The tree of exactly this snapshot; None if it has no grammar, is outdated, or is not there in time.

        timeout_s: without, there is no limit but PARSE_LIMIT_S.
        """
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
        """Ends the thread; parses that have not begun are dropped."""
        for uri in list(self._followed):
            self.closed(uri)
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _parse(self, uri: str) -> None:
        """Parses the newest snapshot. If this document is already being parsed, that happens afterwards."""
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
            logger.error("Cannot parse a document: %r", error)
        followed.parsed, followed.tree = snapshot, None if error else future.result()
        followed.resolve()
        if self._followed.get(uri) is followed:
            self._parse(uri)


def _parsed(tree: SyntaxTree | None, edits: tuple[Edit, ...], snapshot: Snapshot) -> SyntaxTree | None:
    """None without a grammar, and if it takes more CPU time than PARSE_LIMIT_S."""
    end = time.thread_time() + PARSE_LIMIT_S
    try:
        return _updated(tree, edits, snapshot, lambda: time.thread_time() >= end)
    except ParsingStopped:
        logger.info("A document of %d characters takes too long to parse.", len(snapshot.text))
        return None


def _updated(
    tree: SyntaxTree | None, edits: tuple[Edit, ...], snapshot: Snapshot, stop: Callable[[], bool]
) -> SyntaxTree | None:
    text, language = snapshot.text, snapshot.language
    if tree is None or tree.language.id != language or len(edits) > MANY or len(text) > MAX_PARSE_CHARS:
        return parse(text, language, stop)
    return tree.edited([(edit.start, edit.start + len(edit.removed), edit.inserted) for edit in edits], stop)
