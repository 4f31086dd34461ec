"""The language server of one client: registers features and turns the protocol's messages into calls.

LSP 3.18: `textDocument/inlineCompletion`; `textDocument/completion` for clients without it; the notifications of
clients of copilot-language-server. Must not know how suggestions and findings are made.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from lsprotocol import types
from lsprotocol.converters import get_converter

from infill.engine_protocol import EngineState
from infill.printable import one_line
from infill.version import installed_version
from lsp.client_settings import as_dict, extends_suggestions, is_trusted, pulled_settings, section
from lsp.code_actions import KINDS, code_actions
from lsp.commands import register_commands
from lsp.completion import ordinary_completion
from lsp.cursor import CursorContext
from lsp.diagnostic_reports import OPTIONS, DiagnosticReports, Report
from lsp.documents import DocumentError, uri_path
from lsp.feedback import Feedback
from lsp.inline_completion import InlineCompletion
from lsp.inline_edits import register_inline_edits
from lsp.model_offer import ModelOffer
from lsp.next_edits import NextEdits
from lsp.progress import LoadProgress
from lsp.protocol import TEXT_CHANGES, MessageProtocol
from lsp.read_ahead import ReadAhead
from lsp.session import Session
from lsp.transport import Receiver, decode

logger = logging.getLogger(__name__)
SETTLE_S = 5.0  # between two counts of accepted text
GIT_FILES = (".gitignore", "exclude", "config")
SETTINGS_FILES = frozenset(("gesso.toml", "pyproject.toml"))
WATCHERS = types.RegistrationParams(
    [
        types.Registration(
            "gesso.files",
            types.WORKSPACE_DID_CHANGE_WATCHED_FILES,
            types.DidChangeWatchedFilesRegistrationOptions(
                [
                    types.FileSystemWatcher(pattern)
                    for pattern in ("**/{.gitignore,gesso.toml,pyproject.toml}", "**/.git/{config,info/exclude}")
                ]
            ),
        )
    ]
)
STATUS_KINDS = {"ready": "Normal", "loading": "Normal", "failed": "Error", "stopped": "Inactive"}


class GessoServer(Receiver):
    """The server of one client, and its session."""

    def __init__(self) -> None:
        super().__init__("gesso", installed_version(), protocol_cls=MessageProtocol, converter_factory=get_converter)
        self.session = Session(self)
        self.inline = InlineCompletion(self.session)
        self.feedback = Feedback(self.session, self.inline)
        self.next_edits = NextEdits(self.session)
        self.read_ahead = ReadAhead(self.session, self.inline)
        self.reports = DiagnosticReports(self.session, self.text_document_publish_diagnostics, self._refresh)
        self.diagnostics = self.reports.diagnostics
        self.load_progress = LoadProgress(self)
        self.model_offer = ModelOffer(self)
        self.tasks: set[asyncio.Task[Any]] = set()
        self.initial_settings: Mapping[str, Any] = {}
        self.protocol.on_unreadable = self._lose_step  # type: ignore[attr-defined]

    def receive(self, body: bytes) -> None:
        """Handles one message."""
        try:
            message = decode(body)
        except (ValueError, RecursionError) as error:
            self.receive_unreadable(f"it is not JSON: {error}")
            return
        try:
            self.protocol.handle_message(message) if message is not None else self._lose_step(None)
        except Exception:
            logger.exception("A message could not be handled.")

    def receive_unreadable(self, reason: str) -> None:
        """Refuses a message, which may have changed any document."""
        logger.warning("Ignoring a message, because %s", reason)
        self.protocol.refuse_text()  # type: ignore[attr-defined]
        self._lose_step(None)

    def _lose_step(self, message: Any) -> None:
        """This message was not understood: if it may have changed documents, they are out of step with the editor."""
        if isinstance(message, dict):
            params = message.get("params")
            document = params.get("textDocument") if isinstance(params, dict) else None
            has_text = isinstance(params, dict) and ("contentChanges" in params or "text" in as_dict(document))
            is_request_or_response = message.get("method") is not None or "id" in message
            if not has_text and is_request_or_response and message.get("method") not in TEXT_CHANGES:
                return
            uri = document.get("uri") if isinstance(document, dict) else None
        else:
            uri = None
        for lost in self.session.lose_step(uri if isinstance(uri, str) else None):
            self.inline.closed(lost)
        self.diagnostics.reconsider()

    def report_server_error(self, error: Exception, source: Any) -> None:
        """Logs the error; pygls would show it to the user too."""
        logger.error("%s: %s", getattr(source, "__name__", source), error)

    def in_background(self, work: Coroutine[Any, Any, Any]) -> None:
        """Runs a coroutine that nobody awaits; its error goes to the log."""
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("A background task failed: %s", error, exc_info=error)

    def _refresh(self) -> None:
        self.in_background(self.workspace_diagnostic_refresh_async(None))

    def show_state(self, state: EngineState) -> None:
        """Shows the engine's state, and sends it as `didChangeStatus` for clients of copilot-language-server."""
        self.load_progress.show(state)
        self.diagnostics.engine_changed(state)
        self.model_offer.engine_changed(state)
        self.read_ahead.engine_changed(state)
        self.send_status()

    def report_progress(self, token: str | int, value: dict[str, Any]) -> None:
        self.protocol.notify("$/progress", types.ProgressParams(token, value))

    def send_status(self) -> None:
        status, state = self.status(), self.session.engine.state
        message = status["message"] or ("The model is loading." if state.kind == "loading" else "")
        if not message and state.kind == "ready" and state.fallback_model:
            message = f"{state.model} is loading. Until then, {state.fallback_model} answers."
        busy = state.kind == "loading" or bool(state.fallback_model)
        self.protocol.notify("didChangeStatus", {**status, "busy": busy, "message": one_line(message)})

    def status(self) -> dict[str, Any]:
        session, state = self.session, self.session.engine.state
        kind = STATUS_KINDS[state.kind] if session.settings.enabled else "Inactive"
        return {
            "kind": kind,
            "state": state.kind,
            "message": one_line(state.message or session.slow_message),
            "model": state.model,
            "enabled": session.settings.enabled,
            "latencyMs": None if session.latency_ms is None else round(session.latency_ms),
        }

    def warn(self, sentence: str) -> None:
        self.window_show_message(types.ShowMessageParams(types.MessageType.Warning, one_line(sentence)))

    def suggestion_extended(self, uri: str) -> None:
        """The model has written more of the suggestion that this document shows."""
        self.protocol.notify("gesso/suggestionExtended", {"uri": uri})

    def inform(self, sentence: str) -> None:
        self.window_show_message(types.ShowMessageParams(types.MessageType.Info, one_line(sentence)))


def _is_worth_logging(record: logging.LogRecord) -> bool:
    """False for cancellations of finished requests, which clients send all the time while the user types, and for the
    traceback of a message that is refused with a sentence."""
    return not record.getMessage().startswith(("Cancel notification for unknown message id", "Unable to deserialize"))


def create_server() -> GessoServer:
    """A server with everything registered; `serve_stdio` or `lsp.tcp` runs it."""
    logging.getLogger("pygls").setLevel(logging.WARNING)  # lower levels log messages with the user's code
    logging.getLogger("pygls.protocol.json_rpc").addFilter(_is_worth_logging)
    server = GessoServer()
    _register_lifecycle(server)
    _register_documents(server)
    _register_requests(server)
    register_inline_edits(server)
    register_commands(server)
    return server


def _register_lifecycle(server: GessoServer) -> None:
    session = server.session

    @server.feature(types.INITIALIZE)
    def initialize(params: types.InitializeParams) -> None:
        session.documents.encoding = types.PositionEncodingKind(server.workspace.position_encoding).value
        roots = [folder.uri for folder in params.workspace_folders or []] or [params.root_uri or ""]
        session.folders = _folders(roots)
        server.initial_settings = section(params.initialization_options)
        session.is_trusted = is_trusted(params.initialization_options)
        session.extends_suggestions = extends_suggestions(params.initialization_options)
        if not _has_inline_completion(params.capabilities):
            server.feature(types.TEXT_DOCUMENT_COMPLETION, types.CompletionOptions())(completion)
        server.reports.negotiate(params.capabilities)
        if server.diagnostics.pulled:
            server.feature(types.TEXT_DOCUMENT_DIAGNOSTIC, OPTIONS)(diagnostic)

    async def completion(params: types.CompletionParams) -> types.CompletionList:
        return await ordinary_completion(server, params)

    async def diagnostic(params: types.DocumentDiagnosticParams) -> Report:
        return await server.reports.pull(params)

    @server.feature(types.INITIALIZED)
    async def initialized(params: types.InitializedParams) -> None:
        await session.configure(await pulled_settings(server, session.folders) or server.initial_settings)
        server.diagnostics.reconsider()
        server.in_background(_settle(server))
        if _can_watch(server.client_capabilities):
            server.in_background(server.client_register_capability_async(WATCHERS))

    @server.feature(types.WORKSPACE_DID_CHANGE_CONFIGURATION)
    async def configuration(params: types.DidChangeConfigurationParams) -> None:
        pulled = await pulled_settings(server, session.folders)
        await session.configure(pulled or section(params.settings) or server.initial_settings)
        server.diagnostics.reconsider()
        server.send_status()

    @server.feature(types.WORKSPACE_DID_CHANGE_WORKSPACE_FOLDERS)
    async def folders_changed(params: types.DidChangeWorkspaceFoldersParams) -> None:
        removed = _folders(folder.uri for folder in params.event.removed)
        added = _folders(folder.uri for folder in params.event.added)
        session.folders = (*(one for one in session.folders if one not in (*removed, *added)), *added)
        if settings := await pulled_settings(server, session.folders):
            await session.configure(settings)
        else:
            await session.start_engine()
        server.diagnostics.reconsider()

    @server.feature(types.SHUTDOWN)
    async def shutdown(params: Any) -> None:
        for task in list(server.tasks):
            task.cancel()
        server.read_ahead.stop()
        server.inline.stop()
        server.diagnostics.stop()
        await session.close()


def _register_documents(server: GessoServer) -> None:
    session = server.session

    @server.feature(types.TEXT_DOCUMENT_DID_OPEN)
    def opened(params: types.DidOpenTextDocumentParams) -> None:
        snapshot = session.documents.open(params.text_document)
        session.regain_step(snapshot.uri)
        session.trees.opened(snapshot)
        server.diagnostics.opened(snapshot)
        server.read_ahead.opened(snapshot)
        server.in_background(session.private_reason(snapshot))

    @server.feature(types.TEXT_DOCUMENT_DID_CHANGE)
    def changed(params: types.DidChangeTextDocumentParams) -> None:
        document, changes = params.text_document, params.content_changes
        before = session.documents.get(document.uri)
        whole = next((one for one in changes if isinstance(one, types.TextDocumentContentChangeWholeDocument)), None)
        if before is None and whole is not None:  # the message that opened it was lost
            opened(types.DidOpenTextDocumentParams(types.TextDocumentItem(document.uri, "", document.version, "")))
            before = session.documents.get(document.uri)
        try:
            after = session.documents.change(document, changes)
        except DocumentError as error:
            logger.warning("%s", one_line(str(error)))
            session.lose_step(document.uri)
            return
        if whole is not None:
            session.regain_step(document.uri)
        if before is not None:
            session.trees.changed(before, after)
            server.next_edits.changed(before, after)
        session.debounce.typed()
        server.inline.changed(after)
        server.feedback.changed(after)
        server.diagnostics.changed(after)
        server.read_ahead.changed(after)

    @server.feature(types.TEXT_DOCUMENT_DID_CLOSE)
    def closed(params: types.DidCloseTextDocumentParams) -> None:
        uri = params.text_document.uri
        session.documents.close(uri)
        session.trees.closed(uri)
        session.closed(uri)
        server.read_ahead.closed(uri)
        server.inline.closed(uri)
        server.next_edits.closed(uri)
        server.feedback.closed(uri)
        server.reports.closed(uri)

    @server.feature(types.TEXT_DOCUMENT_DID_SAVE, types.SaveOptions(include_text=True))
    def saved(params: types.DidSaveTextDocumentParams) -> None:
        uri = params.text_document.uri
        snapshot = session.documents.get(uri)
        if params.text is not None and snapshot is not None and not session.is_in_step(uri):
            document = types.VersionedTextDocumentIdentifier(snapshot.version, uri)
            whole = types.TextDocumentContentChangeWholeDocument(params.text)
            changed(types.DidChangeTextDocumentParams(document, [whole]))
        _files_changed([uri])

    @server.feature(types.WORKSPACE_DID_CHANGE_WATCHED_FILES)
    def watched_files_changed(params: types.DidChangeWatchedFilesParams) -> None:
        _files_changed([change.uri for change in params.changes])

    def _files_changed(uris: Sequence[str]) -> None:
        names = {PurePath(uri_path(uri)).name for uri in uris}
        if names & SETTINGS_FILES:
            server.in_background(session.start_engine())
        if names & {*SETTINGS_FILES, *GIT_FILES}:
            server.diagnostics.reconsider()
            server.in_background(_stop_private(server))

    @server.feature("textDocument/didFocus")
    def focused(params: Any) -> None:
        """Registered because clients of copilot-language-server send it; there is nothing to do."""


def _register_requests(server: GessoServer) -> None:
    @server.feature(types.TEXT_DOCUMENT_INLINE_COMPLETION, types.InlineCompletionOptions())
    async def inline_completion(params: types.InlineCompletionParams) -> types.InlineCompletionList:
        snapshot = server.session.documents.get(params.text_document.uri)
        if snapshot is None:
            server.inline.requested_unknown(params.text_document.uri, params.position.line)
            return types.InlineCompletionList([])
        invoked = params.context.trigger_kind == types.InlineCompletionTriggerKind.Invoked
        context = CursorContext.at(snapshot, params.position, invoked, params.context.selected_completion_info)
        found = await server.inline.suggest(context)
        server.feedback.sent(context, found)
        if found.origin in ("model", "running"):
            server.send_status()
        items = [
            types.InlineCompletionItem(
                insert_text=context.entry + suggestion.text,
                range=context.range(suggestion.swallow),
                command=types.Command("Accepted", "gesso.accepted", arguments=[suggestion.id]),
            )
            for suggestion in found.items
        ]
        return types.InlineCompletionList(items)

    @server.feature(types.TEXT_DOCUMENT_CODE_ACTION, types.CodeActionOptions(code_action_kinds=KINDS))
    async def code_action(params: types.CodeActionParams) -> list[types.CodeAction]:
        return await code_actions(server, params)

    @server.feature("gesso/cursorRested")
    def cursor_rested(params: Any) -> None:
        """`params` are TextDocumentPositionParams; for clients that request no code actions as the cursor moves."""
        try:
            uri, position = as_dict(as_dict(params)["textDocument"])["uri"], as_dict(as_dict(params)["position"])
            line, character = position["line"], position["character"]
        except (KeyError, TypeError):
            return
        snapshot = server.session.documents.get(uri) if isinstance(uri, str) else None
        if snapshot is not None and isinstance(line, int) and isinstance(character, int):
            server.read_ahead.rested(uri, snapshot.offset(types.Position(max(0, line), max(0, character))))

    @server.feature("textDocument/didShowCompletion")
    def did_show(params: Any) -> None:
        """The first suggestion sent counts as shown; clients that cycle report when they show another one."""
        identifier, _ = _accepted_part(params)
        if identifier is not None:
            server.feedback.shown(identifier)

    @server.feature("textDocument/didPartiallyAcceptCompletion")
    def did_partially_accept(params: Any) -> None:
        identifier, length = _accepted_part(params)
        if identifier is not None:
            server.feedback.partly_accepted(identifier, length)


def _accepted_part(params: Any) -> tuple[str | None, int]:
    """The suggestion's id, which is in the item's command, and the accepted length, 0 if there is none."""
    try:
        item, length = as_dict(params)["item"], as_dict(params).get("acceptedLength", 0)
        identifier = as_dict(as_dict(item)["command"])["arguments"][0]
    except (KeyError, IndexError, TypeError):
        return None, 0
    return (identifier, length) if isinstance(identifier, str) and isinstance(length, int) else (None, 0)


def _has_inline_completion(capabilities: types.ClientCapabilities) -> bool:
    document = capabilities.text_document
    return document is not None and document.inline_completion is not None


def _folders(uris: Iterable[str]) -> tuple[Path, ...]:
    paths = [Path(uri_path(uri)) for uri in uris if uri.startswith("file:")]
    return tuple(path for path in paths if path.is_absolute())


def _can_watch(capabilities: types.ClientCapabilities) -> bool:
    watched = capabilities.workspace.did_change_watched_files if capabilities.workspace is not None else None
    return watched is not None and bool(watched.dynamic_registration)


async def _stop_private(server: GessoServer) -> None:
    """Ends the requests for documents that have become private."""
    for snapshot in server.session.documents.recent():
        if await server.session.private_reason(snapshot):
            server.inline.closed(snapshot.uri)


async def _settle(server: GessoServer) -> None:
    while True:
        await asyncio.sleep(SETTLE_S)
        server.feedback.settle()
