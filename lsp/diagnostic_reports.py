"""Diagnostics on their way to the client: pulled by those that can, pushed to the others.

LSP 3.17, Diagnostics: a client pulls after each change; what is found later it pulls when it is asked to (refresh), and
one that cannot be asked waits for its answer until the search has ended. Must not know what is marked, nor why.
"""

from __future__ import annotations

import asyncio
from itertools import count
from typing import TYPE_CHECKING, Any

from lsprotocol import types

from lsp.diagnostics import SOURCE, Diagnostics
from lsp.documents import Snapshot
from lsp.protocol import ServerCancelled

if TYPE_CHECKING:
    from lsp.server import GessoServer

OPTIONS = types.DiagnosticOptions(inter_file_dependencies=False, workspace_diagnostics=False, identifier=SOURCE)
Report = types.RelatedFullDocumentDiagnosticReport | types.RelatedUnchangedDocumentDiagnosticReport


class Reports:
    """Of one client, whose capabilities `learn` takes."""

    def __init__(self, server: GessoServer) -> None:
        self.server = server
        self.diagnostics = Diagnostics(server.session, self.announce)
        self.refreshes = False
        self._numbers = count(1)
        self._last: dict[str, tuple[str, list[types.Diagnostic]]] = {}
        self._waiting: dict[str, asyncio.Future[None]] = {}

    def learn(self, capabilities: types.ClientCapabilities) -> None:
        """What the client can do."""
        document, workspace = capabilities.text_document, capabilities.workspace
        self.diagnostics.pulled = document is not None and document.diagnostic is not None
        refresh = workspace.diagnostics if workspace is not None else None
        self.refreshes = refresh is not None and bool(refresh.refresh_support)

    def announce(self, snapshot: Snapshot) -> None:
        """The marks of a document are not as the client knows them."""
        if not self.diagnostics.pulled:
            items = self.diagnostics.report(snapshot)
            self.server.text_document_publish_diagnostics(
                types.PublishDiagnosticsParams(snapshot.uri, items, version=snapshot.version)
            )
        elif self.refreshes:
            self.server.in_background(self.server.workspace_diagnostic_refresh_async(None))

    def closed(self, uri: str) -> None:
        self.diagnostics.closed(uri)
        self._last.pop(uri, None)
        if (waiting := self._waiting.pop(uri, None)) is not None:
            _supersede(waiting)

    async def answer(self, params: types.DocumentDiagnosticParams) -> Report:
        """What is marked now; "unchanged" where the client has just that. Raises ServerCancelled where the document was
        changed or pulled again while the client waited."""
        uri = params.text_document.uri
        if not self.refreshes:
            await self._settled(uri)
        snapshot = self.server.session.documents.get(uri)
        items = self.diagnostics.report(snapshot) if snapshot is not None else []
        identifier, before = self._last.get(uri, ("", None))
        if items == before and identifier == params.previous_result_id:
            return types.RelatedUnchangedDocumentDiagnosticReport(identifier)
        identifier = f"{next(self._numbers)}"
        if snapshot is not None:
            self._last[uri] = identifier, items
        return types.RelatedFullDocumentDiagnosticReport(items, result_id=identifier)

    async def _settled(self, uri: str) -> None:
        if (earlier := self._waiting.get(uri)) is not None:
            _supersede(earlier)
        superseded: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[uri] = superseded
        settled = asyncio.ensure_future(self.diagnostics.settled(uri))
        try:
            await asyncio.wait((settled, superseded), return_when=asyncio.FIRST_COMPLETED)
            if superseded.done():
                raise ServerCancelled(retrigger=False)
            if not settled.result():
                raise ServerCancelled(retrigger=True)
        finally:
            settled.cancel()
            if self._waiting.get(uri) is superseded:
                del self._waiting[uri]


def _both(*futures: asyncio.Future[Any]) -> list[asyncio.Future[Any]]:
    return list(futures)


def _supersede(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
