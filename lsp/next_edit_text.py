"""The text of a proposal that the syntax does not give: arguments, written by the model.

Must not know how a proposal is found, chosen or shown.
"""

from __future__ import annotations

import asyncio

from engine.errors import GessoError
from infill.next_edit.calls import is_argument
from infill.next_edit.edits import Proposal, apply
from infill.request import Hole, InfillRequest
from lsp.documents import Snapshot
from lsp.session import Session
from lsp.suggestions import SkipReason

MOST_BLANKS = 4  # of a proposal; the model writes one after the other
LEAST_CONFIDENCE = 0.7  # in each
DEADLINE_MS = 10_000.0

NO_MODEL = SkipReason("no model", "The proposal needs a text by the model, which is not ready.")
TOO_MANY = SkipReason("too many blanks", f"The model would have to write more than {MOST_BLANKS} arguments.")
NOT_SURE = SkipReason("not sure", "The model is not sure enough of an argument of the proposal.")


async def written(session: Session, snapshot: Snapshot, proposal: Proposal) -> Proposal | SkipReason:
    """The proposal with a text for each blank. Cancelling the call cancels the model's work."""
    if session.engine.state.kind != "ready":
        return NO_MODEL
    if len(proposal.blanks) > MOST_BLANKS:
        return TOO_MANY
    request = InfillRequest(
        apply(snapshot.text, proposal.places),
        tuple(Hole(at, at) for at in proposal.holes()),
        snapshot.language,
        snapshot.path,
        lines="one",
        deadline_ms=DEADLINE_MS,
        neighbours=await session.neighbours(snapshot),
    )
    try:
        result = await session.engine.complete(request)
    except GessoError as error:
        return SkipReason("no answer", str(error))
    texts = [one.text for one in result.completions if one.shown and one.confidence >= LEAST_CONFIDENCE]
    if len(texts) < len(proposal.blanks):
        return NOT_SURE
    is_code = await asyncio.to_thread(lambda: all(is_argument(text, snapshot.language or "") for text in texts))
    return proposal.filled(texts) if is_code else NOT_SURE
