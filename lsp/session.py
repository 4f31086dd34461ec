"""The state of one editor's session: settings, documents, engine, suggestions and their history.

Answers the questions that need several of these. Must not know the protocol's messages; notices for the user go
through the `Client` it was given.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from engine.errors import GessoError
from infill.engine_protocol import EngineState
from infill.request import Neighbour
from infill.settings import Resolved, Settings
from infill.statistics import Statistics
from lsp.accepted_text import AcceptedText
from lsp.activity import Activity, Record
from lsp.debounce import Debounce
from lsp.documents import Documents, Snapshot
from lsp.engine import AsyncServiceClient
from lsp.privacy import private_reason
from lsp.rejections import Rejections
from lsp.settings import LspSettings, parse
from lsp.suggestion_cache import SuggestionCache
from lsp.suggestions import SkipReason
from lsp.trees import Trees

UNREPORTED = ("model", "disabled_paths")  # settings that may name folders
NEIGHBOURS, NEIGHBOUR_CHARS = 4, 100_000
CAUTION = {"calm": 1.5, "balanced": 1.0, "eager": 0.6}


class Client(Protocol):
    """What a session sends to the editor."""

    def show_state(self, state: EngineState) -> None: ...

    def warn(self, sentence: str) -> None: ...


class Session:
    """One client's session. Used on the event loop only."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.settings = LspSettings()
        self.folders: tuple[Path, ...] = ()
        self.is_trusted = False  # whether the user told the editor to trust the workspace
        self.documents = Documents()
        self.trees = Trees()
        self.engine = AsyncServiceClient(self._engine_changed)
        self.cache = SuggestionCache(time.monotonic)
        self.rejections = Rejections(time.monotonic)
        self.debounce = Debounce(time.monotonic)
        self.accepted_text = AcceptedText(time.monotonic)
        self.activity = Activity()
        self.statistics: Statistics | None = None
        self.latency_ms: float | None = None
        self.last_shown: dict[str, str] = {}  # the suggestion shown last, by document
        self._numbers: dict[str, int] = {}
        self._private: dict[str, SkipReason | None] = {}
        self.engine_settings: Settings | None = None
        self.auto_model = False  # whether Gesso chose the model in `engine_settings`
        self._start = Path.cwd()  # the folder may be deleted later
        self._notices: set[str] = set()  # those that the user has seen

    async def configure(self, value: Mapping[str, Any]) -> None:
        """Applies the editor's settings. A wrong value is replaced by its default, with a warning."""
        before = self.settings
        self.settings, problems = parse(value)
        for problem in problems:
            self.client.warn(problem)
        if self.settings.disabled_paths != before.disabled_paths:
            self._private.clear()
        if self.settings.statistics and self.statistics is None:
            with suppress(GessoError):  # there is no home, as `start_engine` reports
                self.statistics = Statistics()
        elif not self.settings.statistics and self.statistics is not None:
            closing, self.statistics = self.statistics, None
            await asyncio.to_thread(closing.close)
        await self.start_engine()

    async def start_engine(self, again: bool = False) -> None:
        """Starts the engine; restarts a running one only if its settings changed or `again` is set."""
        if not self.settings.enabled:
            return
        try:
            resolved = self._resolved()
        except GessoError as error:
            self.client.warn(str(error))
            return
        for notice in resolved.notices:
            if notice not in self._notices:
                self._notices.add(notice)
                self.client.warn(notice)
        self.auto_model = resolved.auto_model
        if resolved.settings == self.engine_settings and not again:
            return
        self.engine_settings = resolved.settings
        self.engine.start(resolved.settings)

    async def prepare_engine(self) -> None:
        """Loads the model of the current settings while the old one answers; `start_engine` then changes to it.

        Raises GessoError.
        """
        await self.engine.prepare(self._resolved().settings)

    def _resolved(self) -> Resolved:
        return self.settings.engine_settings(self.folders[0] if self.folders else self._start, self.is_trusted)

    async def close(self) -> None:
        self.engine.stop()
        self.trees.close()
        if self.statistics is not None:
            await asyncio.to_thread(self.statistics.close)

    def off_reason(self, snapshot: Snapshot) -> SkipReason | None:
        """The reason if the user switched Gesso off, for this language or everywhere."""
        if not self.settings.enabled:
            return SkipReason("switched off", "Gesso is switched off (setting gesso.enabled).")
        languages = self.settings.languages
        if not languages.get(snapshot.language_id, languages.get(snapshot.language or "", languages.get("*", True))):
            sentence = f"Gesso is switched off for {snapshot.language_id} (setting gesso.languages)."
            return SkipReason("language off", sentence)
        return None

    async def private_reason(self, snapshot: Snapshot) -> SkipReason | None:
        """The reason if the file must not be read. Checked once per file, off the event loop."""
        if snapshot.uri not in self._private:
            globs, folders = self.settings.disabled_paths, self.folders
            sentence = await asyncio.to_thread(
                private_reason, snapshot.path or urlsplit(snapshot.uri).path, globs, folders, snapshot.text
            )
            self._private[snapshot.uri] = SkipReason("private file", sentence) if sentence else None
        return self._private[snapshot.uri]

    def neighbours(self, snapshot: Snapshot) -> tuple[Neighbour, ...]:
        """The most recently used documents in the same language that are known not to be private."""
        public = {uri for uri, reason in self._private.items() if reason is None}
        others = [
            other
            for other in self.documents.recent()
            if other.uri != snapshot.uri
            and other.language == snapshot.language
            and other.uri in public
            and other.length <= NEIGHBOUR_CHARS
        ]
        return tuple(Neighbour(other.path or other.uri, other.text) for other in others[:NEIGHBOURS])

    def caution(self, invoked: bool) -> float:
        """The factor on the model's confidence threshold; 0 if the user invoked suggestions by hand."""
        return 0.0 if invoked else CAUTION[self.settings.eagerness]

    def report(self, status: Mapping[str, Any]) -> str:
        """Markdown for a bug report, without code and file names."""
        defaults, now = vars(LspSettings()), vars(self.settings)
        changed = {name: value for name, value in now.items() if value != defaults[name] and name not in UNREPORTED}
        return self.activity.report(status, changed)

    def number_of(self, uri: str) -> int:
        """A number for a document, so that records need no file name."""
        return self._numbers.setdefault(uri, len(self._numbers) + 1)

    def forget(self, uris: Sequence[str]) -> None:
        """These documents were closed, or their ignore files may have changed."""
        for uri in uris:
            self._private.pop(uri, None)

    def record(self, record: Record) -> None:
        self.activity.add(record)
        if record.outcome == "shown":
            self.latency_ms = record.total_ms

    def _engine_changed(self, state: EngineState) -> None:
        message = state.message
        if message and (state.kind in ("failed", "ready") or message not in self._notices):
            self._notices.add(message)
            self.client.warn(message)
        self.client.show_state(state)
