"""Syntax trees in step with the documents: every edit in its order, parsed anew in one thread of their own.

An opening quote can cost a parser a tenth of a second in a long file, so nothing is parsed on the event loop. Must not
know what a tree is used for.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor

from infill.syntax import SyntaxTree, parse
from lsp.documents import Snapshot

MANY = 16  # edits in one message, after which parsing the whole is cheaper


class Trees:
    """The tree of the newest version of each document, as a future."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="parse")
        self._trees: dict[str, tuple[int, Future[SyntaxTree | None]]] = {}

    def opened(self, snapshot: Snapshot) -> None:
        tree = self._thread.submit(lambda: parse(snapshot.text, snapshot.language))
        self._trees[snapshot.uri] = snapshot.version, tree

    def changed(self, before: Snapshot, after: Snapshot) -> None:
        """`after` came of `before` by `after.edits`."""
        known = self._trees.get(after.uri)
        if known is None or known[0] != before.version or len(after.edits) > MANY:
            self.opened(after)
            return
        earlier = known[1]
        tree = self._thread.submit(lambda: _edited(earlier.result(), after))
        self._trees[after.uri] = after.version, tree

    def closed(self, uri: str) -> None:
        self._trees.pop(uri, None)

    async def tree(self, snapshot: Snapshot, timeout_s: float) -> SyntaxTree | None:
        """The tree of exactly this version; None where there is no grammar, or it is not ready in time."""
        known = self._trees.get(snapshot.uri)
        if known is None or known[0] != snapshot.version:
            return None
        if known[1].done():
            return known[1].result()
        waiting = asyncio.wrap_future(known[1])
        done, _ = await asyncio.wait([waiting], timeout=timeout_s)
        return waiting.result() if done else None

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


def _edited(tree: SyntaxTree | None, after: Snapshot) -> SyntaxTree | None:
    if tree is None:
        return parse(after.text, after.language)
    for edit in after.edits:
        tree = tree.replaced(edit.start, edit.start + len(edit.removed), edit.inserted)
    return tree
