"""The state of one editor's session: settings, documents, engine, suggestions and their history.

Answers the questions that need several of these. Must not know the protocol's messages; notices for the user go
through the `Client` it was given.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePath
from typing import Any, Protocol

from engine.errors import GessoError
from infill.engine_protocol import EngineState
from infill.ignore_files import Verdicts
from infill.printable import one_line, printable
from infill.privacy import private_reason
from infill.request import Neighbour
from infill.settings import Resolved, Settings
from infill.statistics import Statistics
from lsp.accepted_text import AcceptedText
from lsp.activity import Activity, Record
from lsp.debounce import Debounce
from lsp.documents import Documents, Snapshot, uri_path
from lsp.engine import AsyncServiceClient
from lsp.rejections import Rejections
from lsp.settings import LspSettings, parse
from lsp.suggestion_cache import SuggestionCache
from lsp.suggestions import SkipReason
from lsp.trees import Trees
from lsp.unsuitable import unsuitable_reason

UNREPORTED = ("model", "disabled_paths")  # settings that may name folders
NEIGHBOURS, NEIGHBOUR_CHARS = 4, 100_000
CANDIDATES = 20  # documents that are considered as neighbours
LATE_ANSWERS = 3  # in a row, after which the model counts as too slow
NAMED = 3  # documents that a warning names
CAUTION = {"calm": 1.5, "balanced": 1.0, "eager": 0.6}


class Client(Protocol):
    """What a session sends to the editor."""

    def show_state(self, state: EngineState) -> None: ...

    def warn(self, sentence: str) -> None: ...

    def suggestion_extended(self, uri: str) -> None: ...


class Session:
    """One client's session. Used on the event loop only."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.settings = LspSettings()
        self.folders: tuple[Path, ...] = ()
        self.is_trusted = False  # whether the user told the editor to trust the workspace
        self.extends_suggestions = False  # whether the client asks again after `Client.suggestion_extended`
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
        self._unsuitable: dict[str, str | None] = {}  # why the text of a document is left out
        self._out_of_step: set[str] = set()  # documents whose text the editor may have changed without our knowledge
        self.engine_settings: Settings | None = None
        self._answering = ""  # the model that answers
        self.auto_model = False  # whether Gesso chose the model in `engine_settings`
        self._start = Path.cwd()  # the folder may be deleted later
        self._notices: set[str] = set()  # those that the user has seen
        self._late = 0  # requests in a row without time to read the prompt
        self.slow_message = ""  # while the model is too slow for this machine

    async def configure(self, value: Mapping[str, Any]) -> None:
        """Applies the editor's settings. A wrong value is replaced by its default, with a warning."""
        self.settings, problems = parse(value)
        for problem in problems:
            self.client.warn(problem)
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
        if snapshot.uri in self._out_of_step:
            return SkipReason("out of step", "A change of this file could not be read; save or reopen the file.")
        return None

    def lose_step(self, uri: str | None) -> list[str]:
        """A message about the text of this document, or about an unknown one, could not be read.

        Until `regain_step` the document counts as switched off. Warns the user once; returns the documents to which
        this is new.
        """
        uris = [uri] if uri is not None else [snapshot.uri for snapshot in self.documents.recent()]
        lost = [one for one in uris if one not in self._out_of_step]
        self._out_of_step.update(lost)
        if lost:
            names = printable(one_line(", ".join(PurePath(uri_path(one)).name for one in lost[:NAMED])))
            self.client.warn(
                f"Gesso could not read a change of {names}{' and others' if lost[NAMED:] else ''}. It makes no "
                "suggestions there until you save or reopen the file."
            )
        return lost

    def regain_step(self, uri: str) -> bool:
        """The whole text of this document is known. Returns whether it was out of step."""
        was_lost = uri in self._out_of_step
        self._out_of_step.discard(uri)
        return was_lost

    def is_in_step(self, uri: str) -> bool:
        return uri not in self._out_of_step

    async def private_reason(self, snapshot: Snapshot) -> SkipReason | None:
        """The reason if the file must not be read. Checked every time, off the event loop, since links and ignore files
        change; only the verdict on the text is kept until the document is closed."""
        (sentence,) = await asyncio.to_thread(self._private_reasons, [snapshot])
        return SkipReason("private file", sentence) if sentence else None

    async def neighbours(self, snapshot: Snapshot) -> tuple[Neighbour, ...]:
        """The most recently used documents in the same language that are not private."""
        others = [
            other
            for other in self.documents.recent()
            if other.uri != snapshot.uri
            and other.language == snapshot.language
            and other.length <= NEIGHBOUR_CHARS
            and self.is_in_step(other.uri)
        ][:CANDIDATES]
        reasons = await asyncio.to_thread(self._private_reasons, others)
        public = [other for other, reason in zip(others, reasons, strict=True) if reason is None]
        return tuple(Neighbour(other.path or other.uri, other.text) for other in public[:NEIGHBOURS])

    def _private_reasons(self, snapshots: Sequence[Snapshot]) -> list[str | None]:
        """A sentence for each document that must not be read. Runs on another thread."""
        known = Verdicts()
        return [self._private_reason(snapshot, known) for snapshot in snapshots]

    def _private_reason(self, snapshot: Snapshot, known: Verdicts) -> str | None:
        uri, path = snapshot.uri, uri_path(snapshot.uri)
        if sentence := private_reason(Path(path), self.settings.disabled_paths, self.folders, known):
            return sentence
        if uri not in self._unsuitable:
            self._unsuitable[uri] = unsuitable_reason(path, snapshot.text)
        return self._unsuitable[uri]

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

    def closed(self, uri: str) -> None:
        self._unsuitable.pop(uri, None)
        self.regain_step(uri)

    def record(self, record: Record) -> None:
        self.activity.add(record)
        if record.outcome == "shown":
            self.latency_ms = record.total_ms

    def answered_late(self, model: str, deadline_ms: float) -> None:
        """The model did not read the prompt before the deadline of a request. The user is warned once per model."""
        self._late += 1
        if self._late < LATE_ANSWERS or self.slow_message:
            return
        self.slow_message = (
            f"The model {model} needs more than {deadline_ms / 1000:g} s for a suggestion here, so nothing is shown "
            "while you type. Choose a smaller model (`gesso doctor` lists them), or ask for suggestions by hand."
        )
        if self.slow_message not in self._notices:
            self._notices.add(self.slow_message)
            self.client.warn(self.slow_message)
        self.client.show_state(self.engine.state)

    def answered_in_time(self) -> None:
        self._late = 0
        if self.slow_message:
            self.slow_message = ""
            self.client.show_state(self.engine.state)

    def _engine_changed(self, state: EngineState) -> None:
        message = state.message
        if message and (state.kind in ("failed", "ready") or message not in self._notices):
            self._notices.add(message)
            self.client.warn(message)
        if state.kind == "ready" and self._answering != (answering := state.fallback_model or state.model):
            self._answering = answering
            self._late, self.slow_message = 0, ""
            self.cache = SuggestionCache(time.monotonic)  # what another model suggested, or did not, says nothing
        self.client.show_state(state)
