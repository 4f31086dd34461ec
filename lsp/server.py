"""Registers what the server can do, and turns the protocol's messages into calls. Decides nothing itself.

LSP 3.18: `textDocument/inlineCompletion`; `textDocument/completion` for clients without it; the notifications that
copilot-language-server's clients send. Must not know how a suggestion is found.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lsprotocol import converters, types
from pygls.uris import to_fs_path

from infill.engine_protocol import EngineState
from infill.version import installed_version
from lsp.code_actions import KINDS, code_actions
from lsp.commands import register_commands
from lsp.completion import ordinary_completion
from lsp.documents import DocumentError, Snapshot
from lsp.inline_completion import InlineCompletion, Place
from lsp.offers import Offers
from lsp.progress import LoadProgress
from lsp.protocol import Protocol, Server
from lsp.reports import OPTIONS, Report, Reports
from lsp.session import Session

logger = logging.getLogger(__name__)
SECTION = "gesso"
SETTLE_S = 5.0
STATUS_KINDS = {"ready": "Normal", "loading": "Normal", "failed": "Error", "stopped": "Inactive"}


class GessoServer(Server):
    """The server of one client, and its session."""

    def __init__(self) -> None:
        super().__init__("gesso", installed_version(), protocol_cls=Protocol, converter_factory=_converter)
        self.session = Session(self)
        self.inline = InlineCompletion(self.session)
        self.offers = Offers(self.session, self.inline)
        self.reports = Reports(self)
        self.diagnostics = self.reports.diagnostics
        self.load_progress = LoadProgress(self)
        self.tasks: set[asyncio.Task[Any]] = set()
        self.given: Mapping[str, Any] = {}

    def in_background(self, work: Any) -> None:
        """Runs a coroutine that nobody awaits; its error goes to the log."""
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("In the background: %s", error, exc_info=error)

    def show_state(self, state: EngineState) -> None:
        """The engine's state as `didChangeStatus`, which clients of copilot-language-server know."""
        self.load_progress.show(state)
        self.diagnostics.engine_changed(state)
        self.send_status(state)

    def send_status(self, state: EngineState) -> None:
        message = state.message or {"ready": "", "loading": "The model is loading."}.get(state.kind, "")
        self.protocol.notify("didChangeStatus", {**self.status(), "busy": state.kind == "loading", "message": message})

    def status(self) -> dict[str, Any]:
        session, state = self.session, self.session.engine.state
        kind = STATUS_KINDS[state.kind] if session.settings.enabled else "Inactive"
        return {
            "kind": kind,
            "state": state.kind,
            "message": state.message or "",
            "model": state.model,
            "enabled": session.settings.enabled,
            "latencyMs": None if session.latency_ms is None else round(session.latency_ms),
        }

    def warn(self, sentence: str) -> None:
        self.window_show_message(types.ShowMessageParams(types.MessageType.Warning, sentence))

    def inform(self, sentence: str) -> None:
        self.window_show_message(types.ShowMessageParams(types.MessageType.Info, sentence))

    def place(
        self,
        uri: str,
        position: types.Position,
        invoked: bool,
        selected: types.SelectedCompletionInfo | None = None,
    ) -> tuple[Place, types.Range] | None:
        """The place in our document, and the range that an answer replaces; None for a document that is not open."""
        snapshot = self.session.documents.get(uri)
        if snapshot is None:
            return None
        offset = snapshot.offset(position)
        text = snapshot.text
        if selected is None:
            here = snapshot.position(offset)
            return Place(snapshot, text[:offset], text[offset:], invoked), types.Range(here, here)
        start, end = snapshot.offset(selected.range.start), snapshot.offset(selected.range.end)
        before = text[:start] + selected.text
        place = Place(snapshot, before, text[max(start, end) :], invoked, selected.text, max(start, end) - start)
        return place, selected.range


def _converter() -> Any:
    return converters.get_converter()


def _says_something(record: logging.LogRecord) -> bool:
    """Clients cancel what was answered a moment ago; pygls warns of each, a hundred times an hour of typing."""
    return not record.getMessage().startswith("Cancel notification for unknown message id")


def create_server() -> GessoServer:
    """A server with everything registered; `start_io` or `start_tcp` runs it."""
    logging.getLogger("pygls").setLevel(logging.WARNING)  # at lower levels it logs the messages, code and all
    logging.getLogger("pygls.protocol.json_rpc").addFilter(_says_something)
    server = GessoServer()
    _register_lifecycle(server)
    _register_documents(server)
    _register_suggestions(server)
    _register_findings(server)
    register_commands(server)
    return server


def _register_lifecycle(server: GessoServer) -> None:
    session = server.session

    @server.feature(types.INITIALIZE)
    def initialize(params: types.InitializeParams) -> None:
        session.documents.encoding = _encoding(params)
        roots = [folder.uri for folder in params.workspace_folders or []] or [params.root_uri or ""]
        session.folders = tuple(Path(path) for uri in roots if uri and (path := to_fs_path(uri)))
        server.given = _section(params.initialization_options)
        if not _has_inline_completion(params.capabilities):
            server.feature(types.TEXT_DOCUMENT_COMPLETION, types.CompletionOptions())(completion)
        server.reports.learn(params.capabilities)
        if server.diagnostics.pulled:
            server.feature(types.TEXT_DOCUMENT_DIAGNOSTIC, OPTIONS)(diagnostic)

    async def completion(params: types.CompletionParams) -> types.CompletionList:
        return await ordinary_completion(server, params)

    async def diagnostic(params: types.DocumentDiagnosticParams) -> Report:
        return await server.reports.answer(params)

    @server.feature(types.INITIALIZED)
    async def initialized(params: types.InitializedParams) -> None:
        await session.configure(await _pulled(server) or server.given)
        server.diagnostics.reconsider()
        server.in_background(_settle(server))

    @server.feature(types.WORKSPACE_DID_CHANGE_CONFIGURATION)
    async def configuration(params: types.DidChangeConfigurationParams) -> None:
        pushed = _section(params.settings)
        await session.configure(await _pulled(server) or pushed or server.given)
        server.diagnostics.reconsider()
        server.send_status(session.engine.state)

    @server.feature(types.SHUTDOWN)
    async def shutdown(params: Any) -> None:
        for task in list(server.tasks):
            task.cancel()
        server.inline.stop()
        server.diagnostics.stop()
        await session.close()


def _register_documents(server: GessoServer) -> None:
    session = server.session

    @server.feature(types.TEXT_DOCUMENT_DID_OPEN)
    def opened(params: types.DidOpenTextDocumentParams) -> None:
        snapshot = session.documents.open(params.text_document)
        session.trees.opened(snapshot)
        server.diagnostics.opened(snapshot)
        server.in_background(session.why_private(snapshot))

    @server.feature(types.TEXT_DOCUMENT_DID_CHANGE)
    def changed(params: types.DidChangeTextDocumentParams) -> None:
        uri = params.text_document.uri
        before = session.documents.get(uri)
        try:
            after = session.documents.change(params.text_document, params.content_changes)
        except DocumentError as error:
            logger.warning("%s", error)
            return
        if before is not None:
            session.trees.changed(before, after)
        session.pace.typed()
        server.inline.changed(after)
        server.offers.changed(after)
        server.diagnostics.changed(after)

    @server.feature(types.TEXT_DOCUMENT_DID_CLOSE)
    def closed(params: types.DidCloseTextDocumentParams) -> None:
        uri = params.text_document.uri
        session.documents.close(uri)
        session.trees.closed(uri)
        session.forget([uri])
        server.inline.closed(uri)
        server.offers.closed(uri)
        server.reports.closed(uri)

    @server.feature(types.TEXT_DOCUMENT_DID_SAVE)
    def saved(params: types.DidSaveTextDocumentParams) -> None:
        if params.text_document.uri.endswith((".gitignore", "gesso.toml", "pyproject.toml")):
            session.forget([snapshot.uri for snapshot in session.documents.recent()])
            server.diagnostics.reconsider()
            server.in_background(session.start_engine())

    @server.feature("textDocument/didFocus")
    def focused(params: Any) -> None:
        """The editor turned to another document; nothing has to be done yet."""


def _register_suggestions(server: GessoServer) -> None:
    @server.feature(types.TEXT_DOCUMENT_INLINE_COMPLETION, types.InlineCompletionOptions())
    async def inline_completion(params: types.InlineCompletionParams) -> types.InlineCompletionList:
        context = params.context
        invoked = context.trigger_kind == types.InlineCompletionTriggerKind.Invoked
        selected = context.selected_completion_info
        found = server.place(params.text_document.uri, params.position, invoked, selected)
        if found is None:
            return types.InlineCompletionList([])
        place, span = found
        answer = await server.inline.answer(place)
        server.offers.offered(place, answer)
        if answer.rung in ("model", "running"):
            server.send_status(server.session.engine.state)
        items = [
            types.InlineCompletionItem(
                insert_text=place.lead + suggestion.text,
                range=_swallowing(place.snapshot, span, len(suggestion.swallow)),
                command=types.Command("Accepted", "gesso.accepted", arguments=[suggestion.id]),
            )
            for suggestion in answer.suggestions
        ]
        return types.InlineCompletionList(items)

    @server.feature("textDocument/didShowCompletion")
    def did_show(params: Any) -> None:
        """What is answered counts as shown; clients that cycle say so when another one is."""
        identifier, _ = _accepted_part(params)
        if identifier is not None:
            server.offers.shown(identifier)

    @server.feature("textDocument/didPartiallyAcceptCompletion")
    def did_partially_accept(params: Any) -> None:
        identifier, length = _accepted_part(params)
        if identifier is not None:
            server.offers.partly_accepted(identifier, length)


def _register_findings(server: GessoServer) -> None:
    @server.feature(types.TEXT_DOCUMENT_CODE_ACTION, types.CodeActionOptions(code_action_kinds=KINDS))
    async def code_action(params: types.CodeActionParams) -> list[types.CodeAction]:
        return await code_actions(server, params)


def _swallowing(snapshot: Snapshot, span: types.Range, characters: int) -> types.Range:
    if not characters:
        return span
    return types.Range(span.start, snapshot.position(snapshot.offset(span.end) + characters))


def _accepted_part(params: Any) -> tuple[str | None, int]:
    """The suggestion's id and the accepted length, 0 where none is given; ours carries the id in its command."""
    try:
        item, length = _plain(params)["item"], _plain(params).get("acceptedLength", 0)
        identifier = _plain(_plain(item)["command"])["arguments"][0]
    except (KeyError, IndexError, TypeError):
        return None, 0
    return (identifier, length) if isinstance(identifier, str) and isinstance(length, int) else (None, 0)


def _plain(value: Any) -> Any:
    """Parameters of methods that the protocol does not know come as objects or as dictionaries."""
    return value if isinstance(value, dict) else getattr(value, "__dict__", None) or getattr(value, "_asdict", dict)()


def _encoding(params: types.InitializeParams) -> Any:
    """The first position encoding the client offers that is known, as pygls chooses it; UTF-16 by default."""
    general = params.capabilities.general
    for offered in (general.position_encodings if general else None) or ():
        if str(getattr(offered, "value", offered)) in ("utf-8", "utf-16", "utf-32"):
            return str(getattr(offered, "value", offered))
    return "utf-16"


def _has_inline_completion(capabilities: types.ClientCapabilities) -> bool:
    document = capabilities.text_document
    return document is not None and document.inline_completion is not None


def _section(value: Any) -> Mapping[str, Any]:
    """Our part of what a client sent, which may be all its settings or only ours."""
    value = value if isinstance(value, Mapping) else getattr(value, "__dict__", {})
    inner = value.get(SECTION, value)
    return inner if isinstance(inner, Mapping) else {}


async def _pulled(server: GessoServer) -> Mapping[str, Any]:
    """The client's settings by `workspace/configuration`, where it has that; nothing within two seconds is nothing."""
    workspace = server.client_capabilities.workspace
    if workspace is None or not workspace.configuration:
        return {}
    params = types.ConfigurationParams([types.ConfigurationItem(section=SECTION)])
    try:
        values = await asyncio.wait_for(server.workspace_configuration_async(params), 2.0)
    except Exception as error:  # noqa: BLE001 - whatever the client answered, the other settings stand
        logger.warning("The client did not give its settings: %s", error)
        return {}
    return _section(values[0]) if values else {}


async def _settle(server: GessoServer) -> None:
    while True:
        await asyncio.sleep(SETTLE_S)
        server.offers.settle()
