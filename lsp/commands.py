"""What a client can ask for by `workspace/executeCommand`. Must not know how an editor shows the answers."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from engine.errors import GessoError

if TYPE_CHECKING:
    from lsp.server import GessoServer

REASONS = 200


def register_commands(server: GessoServer) -> None:
    """Registers all commands. Arguments come as JSON values; a wrong one is answered with an error by pygls."""
    session, offers, diagnostics = server.session, server.offers, server.diagnostics

    @server.command("gesso.accepted")
    def accepted(suggestion: str) -> None:
        offers.accepted(suggestion)

    @server.command("gesso.partlyAccepted")
    def partly_accepted(suggestion: str, length: int) -> None:
        offers.partly_accepted(suggestion, length)

    @server.command("gesso.rejected")
    def rejected(suggestion: str) -> None:
        offers.rejected(suggestion)

    @server.command("gesso.ignoreKind")
    def ignore_kind(code: str) -> None:
        """Findings of this kind are hidden until the server ends; the user is told how to make that last."""
        diagnostics.ignore_kind(code)
        server.inform(
            f'Findings of the kind "{code}" are hidden until the editor closes; add it to the setting gesso.lintIgnore '
            "to hide them for good."
        )

    @server.command("gesso.dismiss")
    def dismiss(uri: str, number: int) -> None:
        """Hides this finding, however the text around it changes; number: from the data of its diagnostic."""
        diagnostics.dismiss(uri, number)

    @server.command("gesso.lint.explain")
    async def explain(uri: str, number: int) -> str | None:
        """Why this finding may be right, in a sentence of the model, which is shown too; number: from the data of its
        diagnostic."""
        try:
            sentence = await diagnostics.explain(uri, number)
        except GessoError as error:
            server.warn(str(error))
            return None
        server.inform(sentence or "The model has nothing to say about this finding.")
        return sentence

    @server.command("gesso.whyNothing")
    def why_nothing() -> list[dict[str, Any]]:
        """The last requests, the newest first, each with its outcome, the rule and the timings by stage."""
        return [asdict(record) for record in reversed(session.activity.last(REASONS))]

    @server.command("gesso.report")
    def report() -> str:
        """Markdown for a bug report; no code and no names of files in it."""
        return session.report(server.status())

    @server.command("gesso.status")
    def status() -> dict[str, Any]:
        return server.status()

    @server.command("gesso.restartEngine")
    async def restart_engine() -> None:
        await session.start_engine(again=True)

    @server.command("gesso.setEnabled")
    async def set_enabled(enabled: bool) -> None:
        """For this session; the editor's setting stands again with the next change of settings."""
        session.settings = replace(session.settings, enabled=enabled)
        if enabled:
            await session.start_engine()
        else:
            server.inline.stop()
        diagnostics.reconsider()
        server.send_status(session.engine.state)
