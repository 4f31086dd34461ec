"""Sends diagnostics to the client: clients that can pull do, the others are pushed to.

LSP 3.17, Diagnostics: a client pulls after each change. When later findings arrive the server asks it to pull again
(refresh); a client without refresh gets its response when the search has ended. Must not know how findings are made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count

from lsprotocol import types

from lsp.diagnostics import SOURCE, Diagnostics
from lsp.documents import Snapshot
from lsp.protocol import ServerCancelled
from lsp.session import Session

OPTIONS = types.DiagnosticOptions(inter_file_dependencies=False, workspace_diagnostics=False, identifier=SOURCE)
Report = types.RelatedFullDocumentDiagnosticReport | types.RelatedUnchangedDocumentDiagnosticReport


class DiagnosticReports:
    """Reports to one client. publish: pushes diagnostics; refresh: asks the client to pull again."""

    def __init__(
        self,
        session: Session,
        publish: Callable[[types.PublishDiagnosticsParams], None],
        refresh: Callable[[], None],
    ) -> None:
        self.session = session
        self.diagnostics = Diagnostics(session, self._on_change)
        self._publish, self._refresh = publish, refresh
        self._can_refresh = False
        self._numbers = count(1)
        self._last: dict[str, tuple[str, list[types.Diagnostic]]] = {}
        self._waiting: dict[str, asyncio.Future[None]] = {}

    def negotiate(self, capabilities: types.ClientCapabilities) -> None:
        """Chooses push or pull by what the client supports."""
        document, workspace = capabilities.text_document, capabilities.workspace
        self.diagnostics.pulled = document is not None and document.diagnostic is not None
        refresh = workspace.diagnostics if workspace is not None else None
        self._can_refresh = refresh is not None and bool(refresh.refresh_support)

    def closed(self, uri: str) -> None:
        self.diagnostics.closed(uri)
        self._last.pop(uri, None)
        if (waiting := self._waiting.pop(uri, None)) is not None:
            _supersede(waiting)

    async def pull(self, params: types.DocumentDiagnosticParams) -> Report:
        """The current diagnostics, or "unchanged" if the client has them already.

        Raises ServerCancelled if the document was changed or pulled again while the client waited.
        """
        uri = params.text_document.uri
        if not self._can_refresh:
            await self._settled(uri)
        snapshot = self.session.documents.get(uri)
        items = self.diagnostics.report(snapshot) if snapshot is not None else []
        identifier, before = self._last.get(uri, ("", None))
        if items == before and identifier == params.previous_result_id:
            return types.RelatedUnchangedDocumentDiagnosticReport(identifier)
        identifier = f"{next(self._numbers)}"
        if snapshot is not None:
            self._last[uri] = identifier, items
        return types.RelatedFullDocumentDiagnosticReport(items, result_id=identifier)

    def _on_change(self, snapshot: Snapshot) -> None:
        """The findings of a document differ from those that the client has."""
        if not self.diagnostics.pulled:
            items = self.diagnostics.report(snapshot)
            self._publish(types.PublishDiagnosticsParams(snapshot.uri, items, version=snapshot.version))
        elif self._can_refresh:
            self._refresh()

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


def _supersede(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
