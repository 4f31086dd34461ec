"""The command `gesso.edit`: rewrites a range of a document as an instruction says, and sends the change to the client.

LSP 3.17, workspace/applyEdit. The edit names the document's version, so that a client refuses it if the user has typed
meanwhile. A client may ask for the lines while they are written ($/progress), and apply the change itself. Must not
know how a rewrite is made, nor how an editor shows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lsprotocol import types

from engine.errors import GessoError
from infill.edit_request import EditRequest, EditResult
from lsp.documents import Snapshot
from lsp.host import Host

LABEL = "Gesso: rewrite"
CHANGED = "The document has changed since the request; send it again."


@dataclass(frozen=True)
class Outcome:
    """The response of the command. text: for the range; reason: why it was not applied."""

    applied: bool
    text: str = ""
    reason: str | None = None


async def rewrite(server: Host, uri: str, range_: types.Range, instruction: str, options: Mapping[str, Any]) -> Outcome:
    """Cancelling the call cancels the model's work.

    options: "progress": a token, for which the client gets the lines so far; "apply": False if the client applies the
    text.
    """
    session = server.session
    snapshot = session.documents.get(uri)
    if snapshot is None:
        return Outcome(False, reason="The document is not open; open it first.")
    skipped = session.off_reason(snapshot) or await session.private_reason(snapshot)
    if skipped is not None:
        return Outcome(False, reason=skipped.sentence)
    request = EditRequest(
        snapshot.text,
        snapshot.offset(range_.start),
        snapshot.offset(range_.end),
        instruction,
        language=snapshot.language or "text",
        path=snapshot.path or snapshot.uri,
        neighbours=await session.neighbours(snapshot),
    )
    token = options.get("progress")
    first, last = _lines(snapshot, request.start, request.end)

    def report(text: str) -> None:
        if token is not None:
            server.report_progress(token, {"start": first, "end": last, "text": text})

    try:
        result = await session.engine.edit(request, report if token is not None else None)
    except GessoError as error:
        return Outcome(False, reason=str(error))
    if not result.shown:
        return Outcome(False, result.text, f"Nothing good enough to show: {result.reason}.")
    if session.documents.get(uri) is not snapshot:
        return Outcome(False, result.text, CHANGED)
    if options.get("apply") is False:
        return Outcome(False, result.text)
    edit = _workspace_edit(snapshot, result, server.client_capabilities)
    applied = await server.workspace_apply_edit_async(types.ApplyWorkspaceEditParams(edit, LABEL))
    if applied is None or not applied.applied:
        return Outcome(False, result.text, getattr(applied, "failure_reason", None) or "The editor did not apply it.")
    return Outcome(True, result.text)


def _lines(snapshot: Snapshot, start: int, end: int) -> tuple[int, int]:
    """The first line with code in text[start:end], and the line after the last one."""
    selected = snapshot.text[start:end]
    code = start + len(selected) - len(selected.lstrip())
    code_end = start + len(selected.rstrip())
    return snapshot.position(code).line, snapshot.position(max(code, code_end)).line + 1


def _workspace_edit(
    snapshot: Snapshot, result: EditResult, capabilities: types.ClientCapabilities
) -> types.WorkspaceEdit:
    """The change, which the client asks the user to confirm if it can."""
    supported = capabilities.workspace.workspace_edit if capabilities.workspace is not None else None
    range_ = snapshot.range(result.start, result.end)
    if supported is None or not supported.document_changes:
        return types.WorkspaceEdit(changes={snapshot.uri: [types.TextEdit(range_, result.text)]})
    document = types.OptionalVersionedTextDocumentIdentifier(snapshot.uri, snapshot.version)
    if supported.change_annotation_support is None:
        edits = types.TextDocumentEdit(document, [types.TextEdit(range_, result.text)])
        return types.WorkspaceEdit(document_changes=[edits])
    edits = types.TextDocumentEdit(document, [types.AnnotatedTextEdit(LABEL, range_, result.text)])
    confirmed = {LABEL: types.ChangeAnnotation(LABEL, needs_confirmation=True)}
    return types.WorkspaceEdit(document_changes=[edits], change_annotations=confirmed)
