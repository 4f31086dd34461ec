"""Decides when the model lints a document, which part of it, and which findings are shown.

Linting starts after a pause in typing, for the chunks of text near the user, and rests between two changes for longer
than it took. Findings are cached by the chunk's text, so an unchanged chunk is not linted again. One run per document,
cancelled by the next change. Must not know the protocol's methods nor how an editor shows a finding.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

from lsprotocol import types

from engine.errors import GessoError
from infill.engine_protocol import EngineState
from infill.findings import Finding, LintRequest, ignores
from infill.instructions import follows_instructions
from infill.lint.kinds import ALL_KINDS, ON_BY_DEFAULT, link
from infill.printable import one_line
from infill.service.exchange import ServiceBusy
from lsp.chunks import Chunk, chunks_in
from lsp.dismissals import Dismissals
from lsp.documents import Snapshot
from lsp.engine import EngineGone, EngineLoading
from lsp.session import Session
from lsp.tracked_findings import TrackedFinding, shifted

logger = logging.getLogger(__name__)
EXPLAIN_ATTEMPTS = 3  # if the service is busy
PAUSE_S = 0.6  # without a change; longer than the wait of inline completion, which comes first
REST = 4.0  # seconds without linting per second of it while the user types: 40 % of one core on two threads
MOST_REST_S = 8.0
NEAR_LINES = 60  # above and below the user's position: about one screen
RECENT = 4  # recently used documents that are linted before the user visits them
REQUEST_CHARS = 1_500  # of the chunks in one request
CACHED_CHUNKS = 500  # per document
MOST_SHOWN = 100  # findings per document
MOST_EDITS = 64  # in one message; with more, findings are restored from the cache instead of shifted
SOURCE = "gesso"
SEVERITIES = {
    "hint": types.DiagnosticSeverity.Hint,
    "information": types.DiagnosticSeverity.Information,
    "warning": types.DiagnosticSeverity.Warning,
    "error": types.DiagnosticSeverity.Error,
}


@dataclass
class _Document:
    """The lint state of an open document.

    cursor: offset of the last change or visit; visited: the user was there since the document was opened. cache:
    findings by the text of their chunk, with offsets from its start. reported: the findings that the client has, as
    (number, start, end). run: the current lint run.
    """

    snapshot: Snapshot
    cursor: int = 0
    visited: bool = False
    findings: list[TrackedFinding] = field(default_factory=list)
    cache: OrderedDict[str, tuple[Finding, ...]] = field(default_factory=OrderedDict)
    reported: tuple[tuple[int, int, int], ...] = ()
    run: asyncio.Task[None] | None = None

    def cancel(self) -> None:
        if self.run is not None:
            self.run.cancel()
            self.run = None

    def finding(self, number: int) -> TrackedFinding | None:
        return next((finding for finding in self.findings if finding.number == number), None)


class Diagnostics:
    """The findings of all open documents. Used on the event loop only.

    on_change: called when the findings of a document differ from those that the client has. pulled: the client asks
    for diagnostics after each change.
    """

    def __init__(self, session: Session, on_change: Callable[[Snapshot], None]) -> None:
        self.session, self.on_change = session, on_change
        self.pulled = False
        self.dismissals = Dismissals()
        self.ignored_kinds: set[str] = set()
        self._documents: dict[str, _Document] = {}
        self._numbers = count(1)
        self._rested = 0.0  # when linting may start again after a change, time.monotonic()
        self._lints = False  # by default, for the model that was ready last
        self._hidden = self._hidden_kinds()
        self._explains: tuple[EngineState, bool] | None = None
        self._severity = session.settings.lint_severity

    def opened(self, snapshot: Snapshot) -> None:
        self.closed(snapshot.uri)
        self._documents[snapshot.uri] = document = _Document(snapshot)
        self._start(document)

    def changed(self, snapshot: Snapshot) -> None:
        """Shifts the findings with the text; one whose own text changed is dropped at once."""
        document = self._documents.get(snapshot.uri)
        if document is None:
            return
        document.snapshot, edits, document.visited = snapshot, snapshot.edits, True
        if edits:
            document.cursor = edits[-1].start + len(edits[-1].inserted)
        document.findings = shifted(document.findings, snapshot) if len(edits) <= MOST_EDITS else []
        if document.reported and not self.pulled:
            shown = {finding.number for finding in self._shown(document)}
            if any(number not in shown for number, _, _ in document.reported):
                self._report_changes(document)
        self._start(document)

    def closed(self, uri: str) -> None:
        """Clears the document's findings in the client."""
        document = self._documents.pop(uri, None)
        if document is None:
            return
        document.cancel()
        if not self.pulled:
            self._clear(document)

    def visited(self, uri: str, offset: int) -> None:
        """The user is at this offset: lints the chunks around it that are not cached."""
        document = self._documents.get(uri)
        if document is not None and not (document.visited and document.cursor == offset):
            document.cursor, document.visited = offset, True
            if document.run is None:
                self._start(document)

    def engine_changed(self, state: EngineState) -> None:
        """Another model may have other findings."""
        if state.kind == "loading" and not state.done:
            for document in self._documents.values():
                document.cache.clear()
        elif state.kind == "ready":
            self._lints = state.lints
            self.reconsider()

    def reconsider(self) -> None:
        """Settings or private files changed: starts all runs again, with the cache where it is still valid."""
        hidden, severity = self._hidden_kinds(), self.session.settings.lint_severity
        for document in self._documents.values():
            if not hidden >= self._hidden:
                document.cache.clear()
            if document.reported and severity != self._severity:
                self.on_change(document.snapshot)
            self._start(document)
        self._hidden, self._severity = hidden, severity

    def ignore_kind(self, code: str) -> None:
        """Hides findings of this kind for this session."""
        self.ignored_kinds.add(code)
        self._hidden = self._hidden_kinds()
        for document in self._documents.values():
            self._report_changes(document)

    def dismiss(self, uri: str, number: int) -> None:
        """Hides a finding, however the text around it changes. An unknown number is ignored."""
        document = self._documents.get(uri)
        finding = document.finding(number) if document else None
        if document is not None and finding is not None:
            self.dismissals.dismiss(document.snapshot, finding)
            self._report_changes(document)

    def shown(self, uri: str) -> list[TrackedFinding]:
        """The findings shown in a document, in text order."""
        document = self._documents.get(uri)
        return [] if document is None else self._shown(document)

    def report(self, snapshot: Snapshot) -> list[types.Diagnostic]:
        """The diagnostics of the newest snapshot; from now on the client counts as having them."""
        document = self._documents.get(snapshot.uri)
        if document is None or document.snapshot is not snapshot:
            return []
        shown = self._shown(document)
        document.reported = _positions(shown)
        return [self.diagnostic(snapshot, finding) for finding in shown]

    def diagnostic(self, snapshot: Snapshot, finding: TrackedFinding) -> types.Diagnostic:
        return types.Diagnostic(
            range=snapshot.range(finding.start, finding.end),
            message=one_line(finding.message),
            severity=SEVERITIES[self.session.settings.lint_severity],
            code=finding.code,
            code_description=types.CodeDescription(link(finding.code)) if finding.code in ALL_KINDS else None,
            source=SOURCE,
            data={"number": finding.number, "replacement": finding.replacement},
        )

    async def can_explain(self) -> bool:
        """Whether the current model follows instructions; read from its folder once."""
        state = self.session.engine.state
        if state.kind != "ready":
            return False
        if self._explains is None or self._explains[0] is not state:
            self._explains = state, await asyncio.to_thread(follows_instructions, state.model)
        return self._explains[1]

    async def explain(self, uri: str, number: int) -> str | None:
        """The model's explanation of a finding, one sentence; None if it has none or the finding is unknown.

        Asks again if the service is busy. Raises EngineLoading, EngineGone, ServiceBusy, or InputError if the model
        cannot explain findings.
        """
        document = self._documents.get(uri)
        tracked = document.finding(number) if document else None
        if document is None or tracked is None:
            return None
        snapshot = document.snapshot
        if await self.session.private_reason(snapshot):
            return None
        finding = Finding(tracked.start, tracked.end, tracked.code, tracked.message, tracked.replacement, 0.0)
        request = LintRequest(snapshot.text, snapshot.language, snapshot.path, findings=(finding,), explain=True)
        for left in reversed(range(EXPLAIN_ATTEMPTS)):
            try:
                (explained,) = await self.session.engine.lint(request)
                return explained.explanation
            except ServiceBusy as error:
                if not left:
                    raise
                await asyncio.sleep(error.retry_s)
        return None

    async def settled(self, uri: str) -> bool:
        """Waits for the current run of a document, if any. Returns False if it was cancelled."""
        document = self._documents.get(uri)
        run = document.run if document is not None else None
        if run is None:
            return True
        await asyncio.wait([run])
        return not run.cancelled()

    def stop(self) -> None:
        for document in self._documents.values():
            document.cancel()

    def _hidden_kinds(self) -> frozenset[str]:
        """The kinds that the user ignores, and those that are off by default and not enabled."""
        return self._ignored() | (ALL_KINDS.keys() - ON_BY_DEFAULT - set(self.session.settings.lint_include))

    def _ignored(self) -> frozenset[str]:
        return frozenset(self.session.settings.lint_ignore) | self.ignored_kinds

    def _is_on(self, snapshot: Snapshot) -> bool:
        setting = self.session.settings.lint
        return (self._lints if setting is None else setting) and self.session.off_reason(snapshot) is None

    def _shown(self, document: _Document) -> list[TrackedFinding]:
        """The findings that the user has neither ignored nor dismissed."""
        hidden, snapshot, shown = self._hidden_kinds(), document.snapshot, []
        for finding in document.findings:
            span = snapshot.range(finding.start, finding.end)
            lines = snapshot.lines[span.start.line : span.end.line + 1]
            if finding.code in hidden or any(ignores(line, finding.code) for line in lines):
                continue
            if not self.dismissals.is_dismissed(snapshot, finding):
                shown.append(finding)
        return shown[:MOST_SHOWN]

    def _report_changes(self, document: _Document) -> None:
        """Calls `on_change` if the client has other findings."""
        positions = _positions(self._shown(document))
        if positions != document.reported:
            document.reported = positions
            self.on_change(document.snapshot)

    def _clear(self, document: _Document) -> None:
        document.findings = []
        self._report_changes(document)

    def _start(self, document: _Document) -> None:
        """Starts a run in place of the current one, if linting is on."""
        document.cancel()
        if not self._is_on(document.snapshot):
            self._clear(document)
            return
        document.run = asyncio.ensure_future(self._run(document))
        document.run.add_done_callback(lambda task: self._ended(document, task))

    def _ended(self, document: _Document, task: asyncio.Task[None]) -> None:
        if document.run is task:
            document.run = None
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("Linting a document failed: %r", error, exc_info=error)

    async def _run(self, document: _Document) -> None:
        """A change cancels this run, so the snapshot is the newest throughout."""
        await asyncio.sleep(max(PAUSE_S, self._rested - time.monotonic()))
        session, snapshot = self.session, document.snapshot
        if await session.private_reason(snapshot):
            self._clear(document)
            return
        if session.engine.state.kind != "ready":
            return
        if not document.visited and snapshot not in session.documents.recent()[:RECENT]:
            return
        tree = await session.trees.tree(snapshot)
        if tree is None:
            return
        near = await asyncio.to_thread(chunks_in, tree, *_window(snapshot, document.cursor))
        new = []
        for chunk in near:
            if chunk.text in document.cache:
                document.cache.move_to_end(chunk.text)
                self._apply(document, chunk)
            else:
                new.append(chunk)
        self._report_changes(document)
        for group in _groups(new, document.cursor):
            try:
                found = await self._lint(snapshot, group)
            except (EngineLoading, EngineGone, ServiceBusy):  # the next change or visit lints the rest
                return
            for chunk in group:
                document.cache[chunk.text] = _relative(chunk, found)
                self._apply(document, chunk)
            while len(document.cache) > CACHED_CHUNKS:
                document.cache.popitem(last=False)
            self._report_changes(document)

    async def _lint(self, snapshot: Snapshot, group: Sequence[Chunk]) -> tuple[Finding, ...]:
        request = LintRequest(
            text=snapshot.text,
            language=snapshot.language,
            path=snapshot.path,
            ranges=tuple((chunk.start, chunk.end) for chunk in group),
            neighbours=await self.session.neighbours(snapshot),
            off=self._ignored(),
            on=frozenset(self.session.settings.lint_include) & ALL_KINDS.keys(),
        )
        started = time.monotonic()
        try:
            return await self.session.engine.lint(request)
        except (EngineLoading, EngineGone, ServiceBusy):
            raise
        except GessoError as error:  # cached as no findings: another attempt would fail too
            logger.warning("The engine could not lint a part of a document: %s", error)
            return ()
        finally:
            now = time.monotonic()
            self._rested = now + min(MOST_REST_S, REST * (now - started))

    def _apply(self, document: _Document, chunk: Chunk) -> None:
        """Replaces the findings in a chunk by the cached ones; one that is still there keeps its number."""
        inside = [one for one in document.findings if chunk.start <= one.start and one.end <= chunk.end]
        outside = [one for one in document.findings if one.end < chunk.start or one.start > chunk.end]
        for found in document.cache[chunk.text]:
            start, end = chunk.start + found.start, chunk.start + found.end
            text = chunk.text[found.start : found.end]
            new = TrackedFinding(next(self._numbers), start, end, text, found.code, found.message, found.replacement)
            outside.append(next((one for one in inside if one.is_like(new)), new))
        document.findings = sorted(outside, key=lambda finding: finding.start)


def _positions(findings: Iterable[TrackedFinding]) -> tuple[tuple[int, int, int], ...]:
    return tuple((finding.number, finding.start, finding.end) for finding in findings)


def _window(snapshot: Snapshot, cursor: int) -> tuple[int, int]:
    line = snapshot.position(cursor).line
    first, last = max(0, line - NEAR_LINES), line + NEAR_LINES + 1
    return snapshot.offset(types.Position(first, 0)), snapshot.offset(types.Position(last, 0))


def _groups(chunks: Iterable[Chunk], cursor: int) -> list[list[Chunk]]:
    """The chunks of each request: the nearest first, small ones together."""
    groups: list[list[Chunk]] = []
    left = 0
    for chunk in sorted(chunks, key=lambda chunk: max(chunk.start - cursor, cursor - chunk.end, 0)):
        size = chunk.end - chunk.start
        if size > left:
            groups.append([])
            left = REQUEST_CHARS
        groups[-1].append(chunk)
        left -= size
    return [sorted(group, key=lambda chunk: chunk.start) for group in groups]


def _relative(chunk: Chunk, found: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings in a chunk, with offsets from its start.

    Drops the other ranges that a fix changes: code actions compute them when needed, since other chunks may be edited.
    """
    return tuple(
        replace(one, start=one.start - chunk.start, end=one.end - chunk.start, also=())
        for one in found
        if chunk.start <= one.start <= one.end <= chunk.end
    )
