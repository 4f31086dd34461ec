"""What commands and requests use of the language server. Must not know how the server is built."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from lsprotocol import types

from lsp.diagnostics import Diagnostics
from lsp.feedback import Feedback
from lsp.inline_completion import InlineCompletion
from lsp.model_offer import ModelOffer
from lsp.next_edits import NextEdits
from lsp.read_ahead import ReadAhead
from lsp.session import Session

Handler = TypeVar("Handler", bound=Callable[..., Any])


class Host(Protocol):
    """One client's session, the features on top of it, and messages to the client."""

    session: Session
    inline: InlineCompletion
    feedback: Feedback
    diagnostics: Diagnostics
    model_offer: ModelOffer
    next_edits: NextEdits
    read_ahead: ReadAhead

    @property
    def client_capabilities(self) -> types.ClientCapabilities: ...

    def command(self, command_name: str) -> Callable[[Handler], Handler]:
        """A decorator that registers a command."""
        ...

    def feature(self, feature_name: str) -> Callable[[Handler], Handler]:
        """A decorator that registers a request or notification."""
        ...

    def status(self) -> dict[str, Any]: ...

    def report_progress(self, token: str | int, value: dict[str, Any]) -> None: ...

    def send_status(self) -> None: ...

    async def workspace_apply_edit_async(
        self, params: types.ApplyWorkspaceEditParams
    ) -> types.ApplyWorkspaceEditResult: ...

    def warn(self, sentence: str) -> None: ...

    def inform(self, sentence: str) -> None: ...
