"""Offers to download the code model while `auto` has only the pocket model, and changes to it once it is there.

The user is asked at most once a day, in any editor, and never again after *Never*. Must not know how a model is
downloaded, nor how an engine loads it.
"""

from __future__ import annotations

import asyncio
import json
from asyncio.subprocess import DEVNULL, PIPE
from functools import cached_property
from typing import Any

from lsprotocol import types

from engine.errors import Cancelled, GessoError
from infill.downloads import KNOWN, fetched, has_disk_space, models_folder
from infill.engine_protocol import EngineState
from infill.model_store import POCKET
from infill.service.start import GESSO
from lsp.model_download import MIB, download, progress_text
from lsp.offer_record import OfferRecord

MODEL = KNOWN["coder"]
LOOK_S = 1.0  # between two looks for the file
DOWNLOAD, LATER, NEVER = "Download", "Not Now", "Never"
QUESTION = (
    f"Gesso can download the code model {MODEL.repository.partition('/')[2].removesuffix('-GGUF')} "
    f"({MODEL.bytes / MIB:.0f} MiB, {MODEL.license}), whose suggestions are far better than those of the pocket model. "
    "It runs on this machine, and nothing you type leaves it."
)


class ModelOffer:
    """The offer in one editor. server: the language server."""

    def __init__(self, server: Any) -> None:
        self._server, self._session = server, server.session
        self._is_waiting = self._is_downloading = False

    @cached_property
    def _record(self) -> OfferRecord:
        """Raises InputError without a home, which then has prevented the engine from starting."""
        return OfferRecord(models_folder() / "offer.json")

    def engine_changed(self, state: EngineState) -> None:
        """Takes every state of the engine; the offer begins once the pocket model is ready."""
        if state.kind == "ready" and not self._is_waiting and self._is_useful():
            self._is_waiting = True
            self._server.in_background(self._wait_for_file())
            self._server.in_background(self._offer())

    def request_download(self) -> None:
        """The user wants the model now."""
        self._server.in_background(self._download())

    def _is_useful(self) -> bool:
        settings = self._session.engine_settings
        is_pocket = self._session.auto_model and settings.model == POCKET
        return is_pocket and not settings.offline and fetched(MODEL) is None

    async def _wait_for_file(self) -> None:
        """Also finds a file that another editor or the command line has downloaded."""
        try:
            while self._is_useful():
                await asyncio.sleep(LOOK_S)
            if self._session.auto_model and fetched(MODEL) is not None:
                await self._session.prepare_engine()
                await self._session.start_engine()
                self._server.inform(f"The code model is ready: suggestions now come from {self._model}.")
        except GessoError as error:
            self._server.warn(str(error))
        finally:
            self._is_waiting = False

    async def _offer(self) -> None:
        if self._record.answer == "download":  # the editor was closed during the download
            await self._download()
            return
        window = self._server.client_capabilities.window
        if window is None or window.show_message is None or not self._record.may_ask() or not await _fits():
            return
        actions = [types.MessageActionItem(title) for title in (DOWNLOAD, LATER, NEVER)]
        question = types.ShowMessageRequestParams(types.MessageType.Info, QUESTION, actions)
        chosen = await self._server.window_show_message_request_async(question)
        if chosen is not None and chosen.title == NEVER:
            self._record.remember("never")
        elif chosen is not None and chosen.title == DOWNLOAD:
            await self._download()

    async def _download(self) -> None:
        """Reports every outcome but success while `_wait_for_file` runs, which reports that itself."""
        if self._is_downloading:
            self._server.inform(f"The model {MODEL.name} is being downloaded: {progress_text(MODEL)}.")
            return
        self._is_downloading = True
        before = self._record.answer
        self._record.remember("download")  # if the editor is closed now, the next start continues the download
        report = self._server.inform
        try:
            await download(self._server, MODEL)
            sentence = f"The model {MODEL.name} is on this machine; the model in use is {self._model}."
        except Cancelled as cancelled:
            sentence = str(cancelled)
        except GessoError as error:
            report, sentence = self._server.warn, str(error)
        finally:
            self._is_downloading = False
        self._record.remember("never" if before == "never" else "later")
        if not self._is_waiting or fetched(MODEL) is None:
            report(sentence)

    @property
    def _model(self) -> str:
        return self._session.engine.state.model or "none"


async def _fits() -> bool:
    """Whether the model fits the disk and, as `gesso doctor` says, the memory."""
    if not has_disk_space(MODEL):
        return False
    process = await asyncio.create_subprocess_exec(
        *GESSO, "doctor", "--json", stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL
    )
    output, _ = await process.communicate()
    try:
        return any(one["model"] == MODEL.name and one["fits"] for one in json.loads(output)["models"])
    except (ValueError, KeyError, TypeError):  # it failed
        return False
