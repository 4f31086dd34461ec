"""Suggestions in the ordinary popup, for clients that know no ghost text: one item, last in the list.

Must not know how a suggestion is found.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lsprotocol import types

if TYPE_CHECKING:
    from lsp.server import GessoServer

LABEL = 60  # characters
_WORD = re.compile(r"\w*\Z")
_LANGUAGE = re.compile(r"\A[\w+#-]+\Z")


async def ordinary_completion(server: GessoServer, params: types.CompletionParams) -> types.CompletionList:
    """The best suggestion as one item. It is asked for by hand where the client says so by its trigger kind alone when
    nothing was typed yet; filtering is by the word at the cursor, which the item replaces."""
    found = server.place(params.text_document.uri, params.position, invoked=False)
    if found is None or server.session.settings.ordinary_completion == "never":
        return types.CompletionList(True, [])
    place, span = found
    answer = await server.inline.answer(place)
    server.offers.offered(place, answer)
    if not answer.suggestions:
        return types.CompletionList(True, [])
    suggestion = answer.suggestions[0]
    match = _WORD.search(place.before[-200:])
    word = match[0] if match else ""
    text = word + suggestion.text
    first, *more = text.strip().split("\n")
    start = types.Position(span.start.line, place.snapshot.position(len(place.before) - len(word)).character)
    fence = place.snapshot.language_id if _LANGUAGE.match(place.snapshot.language_id) else ""
    item = types.CompletionItem(
        label=first[:LABEL] + ("…" if more or len(first) > LABEL else ""),
        kind=types.CompletionItemKind.Text,
        detail="Gesso",
        documentation=types.MarkupContent(types.MarkupKind.Markdown, f"```{fence}\n{text.strip()}\n```"),
        sort_text="\uffff",
        filter_text=word or first[:LABEL],
        insert_text_format=types.InsertTextFormat.PlainText,
        insert_text_mode=types.InsertTextMode.AsIs,
        text_edit=types.TextEdit(types.Range(start, span.end), text),
        command=types.Command("Accepted", "gesso.accepted", arguments=[suggestion.id]),
    )
    return types.CompletionList(True, [item])
