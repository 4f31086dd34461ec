"""Downloads a code model as `gesso model pull` does, in a process of its own, with progress in the editor.

Must not know when a download is offered, nor what the model is used for.
"""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from engine.errors import Cancelled, ModelError
from infill.downloads import KnownModel, downloaded_bytes
from infill.service.start import GESSO
from lsp.progress import ProgressDisplay

REPORT_S = 0.3  # between two reports of the progress
MIB = 1 << 20


async def download(server: Any, model: KnownModel, command: Sequence[str] = GESSO) -> None:
    """Returns once the file is on this machine. Several downloads at once, of any editors, are one.

    server: a pygls server. command: runs `gesso`. Raises ModelError, or Cancelled if the user cancelled; the next
    download resumes. Cancelling the call ends the process.
    """
    process = await asyncio.create_subprocess_exec(
        *command, "model", "pull", model.name, stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE, start_new_session=True
    )
    display = ProgressDisplay(server, f"Gesso: downloading {model.name}", cancellable=True)
    ended = asyncio.ensure_future(process.communicate())
    try:
        while not ended.done():
            await asyncio.wait([ended], timeout=REPORT_S)
            if display.is_cancelled:
                raise Cancelled(f"The download of {model.name} was cancelled; the next one resumes it.")
            display.report(100 * downloaded_bytes(model) // model.bytes, progress_text(model))
    finally:
        display.end()
        if not ended.done():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)  # with the programs that it runs
    if process.returncode:
        raise ModelError(_reason(ended.result()[1].decode(errors="replace"), model))


def progress_text(model: KnownModel) -> str:
    return f"{downloaded_bytes(model) // MIB} of {model.bytes / MIB:.0f} MiB"


def _reason(output: str, model: KnownModel) -> str:
    """The last sentence of a command of `gesso`."""
    sentences = [line.removeprefix("gesso: ") for line in output.splitlines() if line.startswith("gesso: ")]
    return sentences[-1] if sentences else f"{model.name} was not downloaded; run `gesso model pull {model.name}`."
