"""The messages of clients of copilot-language-server about next edits.

`textDocument/copilotInlineEdit` is what sidekick.nvim and copilot-lsp send; Gesso's own editors use it too. Must not
know how a proposal is found.
"""

from __future__ import annotations

from typing import Any

from lsprotocol import types

from lsp.client_settings import as_dict
from lsp.host import Host
from lsp.next_edits import Offer

METHOD = "textDocument/copilotInlineEdit"
ACCEPTED = "gesso.nextEditAccepted"
LARGEST = 2**31 - 1  # line or column of a position
INVOKED = types.InlineCompletionTriggerKind.Invoked.value


def register_inline_edits(server: Host) -> None:
    """Registers the request, and the notifications, which need no action: an edit that is sent counts as shown, and
    accepting it sends its command."""

    @server.feature(METHOD)
    async def inline_edit(params: Any) -> dict[str, Any]:
        read = _read(params)
        snapshot = server.session.documents.get(read[0]) if read is not None else None
        if read is None or snapshot is None:
            return {"edits": []}
        _, version, position, invoked = read
        offer = await server.next_edits.propose(snapshot, snapshot.offset(position), version, invoked)
        return {"edits": _edits(offer) if offer is not None else []}

    @server.feature("textDocument/didShowInlineEdit")
    def did_show(params: Any) -> None: ...

    @server.feature("textDocument/didPartiallyAcceptInlineEdit")
    def did_partially_accept(params: Any) -> None:
        identifier = _identifier(params)
        if identifier is not None:
            server.next_edits.accepted(identifier)


def _edits(offer: Offer) -> list[dict[str, Any]]:
    """One edit for each place; clients that show one at a time take the first."""
    document = {"uri": offer.snapshot.uri, "version": offer.snapshot.version}
    command = {"title": offer.proposal.reason, "command": ACCEPTED, "arguments": [offer.id]}
    return [
        {"textDocument": document, "range": _range(offer, start, end), "text": text, "command": command}
        for start, end, text in offer.places
    ]


def _range(offer: Offer, start: int, end: int) -> dict[str, Any]:
    found = offer.snapshot.range(start, end)
    return {
        name: {"line": position.line, "character": position.character}
        for name, position in (("start", found.start), ("end", found.end))
    }


def _read(params: Any) -> tuple[str, int | None, types.Position, bool] | None:
    """The document, its version, the position, and whether the user asked by hand; None if they cannot be read."""
    try:
        values = as_dict(params)
        document, position = as_dict(values["textDocument"]), as_dict(values["position"])
        uri, line, character = document["uri"], position["line"], position["character"]
    except (KeyError, TypeError):
        return None
    if not isinstance(uri, str) or not isinstance(line, int) or not isinstance(character, int):
        return None
    version, context = document.get("version"), as_dict(values.get("context") or {})
    known = version if isinstance(version, int) else None
    line, character = (min(max(0, one), LARGEST) for one in (line, character))
    return uri, known, types.Position(line, character), context.get("triggerKind") == INVOKED


def _identifier(params: Any) -> str | None:
    """The offer's id, which is in the item's command."""
    try:
        found = as_dict(as_dict(as_dict(params)["item"])["command"])["arguments"][0]
    except (KeyError, IndexError, TypeError):
        return None
    return found if isinstance(found, str) else None
