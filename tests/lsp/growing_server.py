"""A language server whose model writes `first + second` everywhere; until the test opens its gate it is sure only of
`first`."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from infill.request import Candidate, HoleCompletion, InfillRequest, InfillResult  # noqa: E402
from lsp import session  # noqa: E402
from tests.gate import wait_at_gate_async  # noqa: E402
from tests.lsp import scripted_server  # noqa: E402

TEXT, SURE = "first + second", "first"


class GrowingClient(session.AsyncServiceClient):
    """The scripted service, but for completions."""

    async def complete(
        self, request: InfillRequest, on_draft: Callable[[str, int], None] | None = None
    ) -> InfillResult:
        assert on_draft is not None
        on_draft(TEXT[:-3], len(SURE))
        await wait_at_gate_async()
        found = Candidate(TEXT, 0.9, True, None, "model", 3)
        completion = HoleCompletion(request.holes[0], TEXT, True, None, 0.9, (found,))
        return InfillResult((completion,), 3, 1, 1, 0, 3, {"total": 1500.0}, "scripted", 0)


if __name__ == "__main__":
    session.AsyncServiceClient = partial(GrowingClient, command=scripted_server.COMMAND)  # type: ignore[misc, assignment]
    scripted_server.run()
