"""What one editor's session consists of: settings, documents, engine, memory of what was offered, notes.

Holds the parts together and answers the questions that need several of them. Must not know the protocol's messages;
what the client is to be told goes through the `Client` it was given.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from engine.errors import GessoError
from infill.engine_protocol import EngineState
from infill.request import Neighbour
from infill.statistics import Statistics
from lsp.activity import Activity, Record
from lsp.documents import Documents, Snapshot
from lsp.engine import AsyncServiceClient
from lsp.kept import Kept
from lsp.pace import Pace
from lsp.privacy import why_private
from lsp.rejections import Rejections
from lsp.reuse import Ladder
from lsp.settings import LspSettings, parse
from lsp.trees import Trees
from lsp.triggers import Quiet

logger = logging.getLogger(__name__)
UNTOLD = ("model", "disabled_paths")  # they may name folders
NEIGHBOURS, NEIGHBOUR_CHARS = 4, 100_000
CAUTION = {"calm": 1.5, "balanced": 1.0, "eager": 0.6}


class Client(Protocol):
    """What a session may tell the editor."""

    def show_state(self, state: EngineState) -> None: ...

    def warn(self, sentence: str) -> None: ...


class Session:
    """One client's session; lives on the event loop."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.settings = LspSettings()
        self.folders: tuple[Path, ...] = ()
        self.documents = Documents()
        self.trees = Trees()
        self.engine = AsyncServiceClient(self._engine_changed)
        self.ladder = Ladder(time.monotonic)
        self.rejections = Rejections(time.monotonic)
        self.pace = Pace(time.monotonic)
        self.kept = Kept(time.monotonic)
        self.activity = Activity()
        self.statistics: Statistics | None = None
        self.latency_ms: float | None = None
        self.offered: dict[str, str] = {}  # the text last shown in a document
        self._numbers: dict[str, int] = {}
        self._private: dict[str, Quiet | None] = {}
        self._engine_settings: Any = None

    async def configure(self, value: Mapping[str, Any]) -> None:
        """Takes settings as the editor has them; what is wrong in them is told, and its default stands instead."""
        before = self.settings
        self.settings, problems = parse(value)
        for problem in problems:
            self.client.warn(problem)
        if self.settings.disabled_paths != before.disabled_paths:
            self._private.clear()
        if self.settings.statistics and self.statistics is None:
            self.statistics = Statistics()
        elif not self.settings.statistics and self.statistics is not None:
            closing, self.statistics = self.statistics, None
            await asyncio.to_thread(closing.close)
        await self.start_engine()

    async def start_engine(self, again: bool = False) -> None:
        """Starts the engine, or starts it anew where its settings changed or `again` is set."""
        if not self.settings.enabled:
            return
        try:
            settings = self.settings.engine_settings(self.folders[0] if self.folders else Path.cwd())
        except GessoError as error:
            self.client.warn(str(error))
            return
        if settings == self._engine_settings and not again:
            return
        self._engine_settings = settings
        self.engine.start(settings)

    async def close(self) -> None:
        self.engine.stop()
        self.trees.close()
        if self.statistics is not None:
            await asyncio.to_thread(self.statistics.close)

    def why_off(self, snapshot: Snapshot) -> Quiet | None:
        """Whether the user switched suggestions off, here or everywhere."""
        if not self.settings.enabled:
            return Quiet("switched off", "Gesso is switched off (setting gesso.enabled).")
        languages = self.settings.languages
        if not languages.get(snapshot.language_id, languages.get(snapshot.language or "", languages.get("*", True))):
            return Quiet("language off", f"Gesso is switched off for {snapshot.language_id} (setting gesso.languages).")
        return None

    async def why_private(self, snapshot: Snapshot) -> Quiet | None:
        """Whether the file is one that is never read; asked of the disk once, off the loop."""
        if snapshot.uri not in self._private:
            globs, folders = self.settings.disabled_paths, self.folders
            sentence = await asyncio.to_thread(
                why_private, snapshot.path or urlsplit(snapshot.uri).path, globs, folders, snapshot.text
            )
            self._private[snapshot.uri] = Quiet("private file", sentence) if sentence else None
        return self._private[snapshot.uri]

    def is_known_to_be_public(self, snapshot: Snapshot) -> bool:
        return snapshot.uri in self._private and self._private[snapshot.uri] is None

    def neighbours(self, snapshot: Snapshot) -> tuple[Neighbour, ...]:
        """The documents last touched in the same language; none that is private."""
        others = [
            other
            for other in self.documents.recent()
            if other.uri != snapshot.uri
            and other.language == snapshot.language
            and self.is_known_to_be_public(other)
            and other.length <= NEIGHBOUR_CHARS
        ]
        return tuple(Neighbour(other.path or other.uri, other.text) for other in others[:NEIGHBOURS])

    def caution(self, invoked: bool) -> float:
        """Times the confidence that the model's calibration asks for; by hand nothing is too uncertain."""
        return 0.0 if invoked else CAUTION[self.settings.eagerness]

    def report(self, status: Mapping[str, Any]) -> str:
        """For a bug report: no code, no names of files."""
        plain, now = vars(LspSettings()), vars(self.settings)
        changed = {name: value for name, value in now.items() if value != plain[name] and name not in UNTOLD}
        return self.activity.report(status, changed)

    def number_of(self, uri: str) -> int:
        """A running number for a document, so that notes need no name."""
        return self._numbers.setdefault(uri, len(self._numbers) + 1)

    def forget(self, uris: Sequence[str]) -> None:
        """Documents that were closed, or whose rules on disk may have changed."""
        for uri in uris:
            self._private.pop(uri, None)

    def note(self, record: Record) -> None:
        self.activity.add(record)
        if record.outcome == "shown":
            self.latency_ms = record.total_ms

    def _engine_changed(self, state: EngineState) -> None:
        if state.kind in ("failed", "ready") and state.message:
            self.client.warn(state.message)
        self.client.show_state(state)
