"""The commands that clients send with `workspace/executeCommand`. Must not know how an editor shows the results."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from lsprotocol import types

from engine.errors import GessoError
from infill.service.exchange import ServiceBusy
from lsp.client_settings import as_dict
from lsp.host import Host
from lsp.rewriting import rewrite

REQUESTS = 200  # most that gesso.whyNothing returns


def register_commands(server: Host) -> None:
    """Registers all commands. Arguments are JSON values; pygls answers wrong ones with an error."""
    session, feedback, diagnostics = server.session, server.feedback, server.diagnostics

    @server.command("gesso.accepted")
    def accepted(suggestion: str) -> None:
        feedback.accepted(suggestion)

    @server.command("gesso.partlyAccepted")
    def partly_accepted(suggestion: str, length: int) -> None:
        feedback.partly_accepted(suggestion, length)

    @server.command("gesso.rejected")
    def rejected(suggestion: str) -> None:
        feedback.rejected(suggestion)

    @server.command("gesso.nextEditAccepted")
    def next_edit_accepted(identifier: str) -> None:
        server.next_edits.accepted(identifier)

    @server.command("gesso.nextEditDismissed")
    def next_edit_dismissed(identifier: str) -> None:
        """Proposals of this kind do not come for a while."""
        server.next_edits.dismissed(identifier)

    @server.command("gesso.ignoreKind")
    def ignore_kind(code: str) -> None:
        """Hides findings of this kind until the server ends, and tells the user how to hide them permanently."""
        diagnostics.ignore_kind(code)
        server.inform(
            f'Findings of kind "{code}" are hidden until you close the editor; add the kind to the setting '
            "gesso.lintIgnore to hide them permanently."
        )

    @server.command("gesso.dismiss")
    def dismiss(uri: str, number: int) -> None:
        """Hides a finding, however the text around it changes. number: from the data of its diagnostic."""
        diagnostics.dismiss(uri, number)

    @server.command("gesso.lint.explain")
    async def explain(uri: str, number: int) -> str | None:
        """The model's explanation of a finding, which is also shown. number: from the data of its diagnostic."""
        try:
            sentence = await diagnostics.explain(uri, number)
        except ServiceBusy as error:
            server.inform(str(error))
            return None
        except GessoError as error:
            server.warn(str(error))
            return None
        server.inform(sentence or "The model has no explanation for this finding.")
        return sentence

    @server.command("gesso.edit")
    async def edit(uri: str, range_: types.Range, instruction: str, *options: Any) -> dict[str, Any]:
        """Rewrites a range as the instruction says; options: at most one object; see `lsp.rewriting`."""
        return asdict(await rewrite(server, uri, range_, instruction, as_dict(options[0]) if options else {}))

    @server.command("gesso.whyNothing")
    def why_nothing() -> list[dict[str, Any]]:
        """The last requests, newest first, with their outcomes, reasons and timings."""
        return [asdict(record) for record in reversed(session.activity.last(REQUESTS))]

    @server.command("gesso.report")
    def report() -> str:
        """Markdown for a bug report, without code and file names."""
        return session.report(server.status())

    @server.command("gesso.status")
    def status() -> dict[str, Any]:
        return server.status()

    @server.command("gesso.restartEngine")
    async def restart_engine() -> None:
        await session.start_engine(again=True)

    @server.command("gesso.downloadModel")
    def download_model() -> None:
        """Returns at once; the download has a progress display, and a message says how it ended."""
        server.model_offer.request_download()

    @server.command("gesso.setEnabled")
    async def set_enabled(enabled: bool) -> None:
        """For this session, until the settings change."""
        session.settings = replace(session.settings, enabled=enabled)
        if enabled:
            await session.start_engine()
        else:
            server.inline.stop()
        diagnostics.reconsider()
        server.send_status()
