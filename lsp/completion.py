"""Suggestions in the ordinary completion list, for clients without inline completion: one item, sorted last.

Must not know how a suggestion is found.
"""

from __future__ import annotations

import re

from lsprotocol import types

from lsp.cursor import CursorContext
from lsp.host import Host

LABEL = 60  # characters
_WORD = re.compile(r"\w*\Z")
_LANGUAGE = re.compile(r"\A[\w+#-]+\Z")


async def ordinary_completion(server: Host, params: types.CompletionParams) -> types.CompletionList:
    """The best suggestion as one item, filtered by the word before the cursor, which it replaces.

    The request counts as automatic: clients send the same trigger kind while typing and by hand.
    """
    snapshot = server.session.documents.get(params.text_document.uri)
    if server.session.settings.ordinary_completion == "never":
        return types.CompletionList(True, [])
    if snapshot is None:
        server.inline.requested_unknown(params.text_document.uri, params.position.line)
        return types.CompletionList(True, [])
    context = CursorContext.at(snapshot, params.position)
    found = await server.inline.suggest(context)
    server.feedback.sent(context, found)
    if not found.items:
        return types.CompletionList(True, [])
    suggestion = found.items[0]
    match = _WORD.search(context.before[-200:])
    word = match[0] if match else ""
    text = word + suggestion.text
    first, *more = text.strip().split("\n")
    fence = snapshot.language_id if _LANGUAGE.match(snapshot.language_id) else ""
    item = types.CompletionItem(
        label=first[:LABEL] + ("…" if more or len(first) > LABEL else ""),
        kind=types.CompletionItemKind.Text,
        detail="Gesso",
        documentation=types.MarkupContent(types.MarkupKind.Markdown, f"```{fence}\n{text.strip()}\n```"),
        sort_text="\uffff",
        filter_text=word or first[:LABEL],
        insert_text_format=types.InsertTextFormat.PlainText,
        insert_text_mode=types.InsertTextMode.AsIs,
        text_edit=types.TextEdit(snapshot.range(context.offset - len(word), context.offset), text),
        command=types.Command("Accepted", "gesso.accepted", arguments=[suggestion.id]),
    )
    return types.CompletionList(True, [item])
