"""When the model looks for what is wrong, where, and what of that is marked.

After typing has paused, for the parts of the text near where the user is; what was found in a part is kept by its text,
so an unchanged one is not looked at again. One run a document, given up with the next change. Must not know the
protocol's methods, nor how an editor shows a mark.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

from lsprotocol import types

from engine.errors import GessoError
from infill.engine_protocol import EngineState
from infill.findings import Finding, LintRequest, ignores
from infill.instructions import follows_instructions
from infill.lint.kinds import ALL_KINDS, STYLE, link
from lsp.dismissals import Dismissals
from lsp.documents import Snapshot
from lsp.engine import EngineGone, EngineLoading
from lsp.marks import Mark, moved
from lsp.session import Session
from lsp.units import Unit, units

logger = logging.getLogger(__name__)
PAUSE_S = 0.6  # without a change; longer than inline completion waits by itself, so that it asks first
NEAR_LINES = 60  # above and below the place where the user is: about what a screen shows
RECENT = 4  # documents last opened or changed; others are looked at when the user turns to them
TREE_S = 1.0
TOGETHER = 1_500  # characters of parts that one request asks about
KEPT = 500  # parts of a document whose findings are kept
MOST_MARKS = 100  # of a document that are shown
MOST_EDITS = 64  # in one message; after more the marks are put anew, from what is kept
SOURCE = "gesso"
SEVERITIES = {
    "hint": types.DiagnosticSeverity.Hint,
    "information": types.DiagnosticSeverity.Information,
    "warning": types.DiagnosticSeverity.Warning,
    "error": types.DiagnosticSeverity.Error,
}
Places = tuple[tuple[int, int, int], ...]


@dataclass
class _Watched:
    """A document. known: what was found in a part, by its text, with offsets from its start. at: where the user is.

    told: number, start and end of the marks that the client was last told of. run: waits for a pause, then looks.
    visited: the user was seen here.
    """

    snapshot: Snapshot
    at: int = 0
    marks: list[Mark] = field(default_factory=list)
    known: OrderedDict[str, tuple[Finding, ...]] = field(default_factory=OrderedDict)
    told: Places = ()
    run: asyncio.Task[None] | None = None
    visited: bool = False


class Diagnostics:
    """Of all open documents; lives on the event loop.

    announce: called where the client should hear of a document's marks. pulled: the client asks for them after each
    change by itself.
    """

    def __init__(self, session: Session, announce: Callable[[Snapshot], None]) -> None:
        self.session, self.announce = session, announce
        self.pulled = False
        self.dismissals = Dismissals()
        self.ignored_kinds: set[str] = set()
        self._watched: dict[str, _Watched] = {}
        self._numbers = count(1)
        self._lints = False  # as the engine said when it was last ready
        self._off = self._kinds_off()
        self._explains: tuple[EngineState, bool] | None = None
        self._severity = session.settings.lint_severity

    def opened(self, snapshot: Snapshot) -> None:
        self.closed(snapshot.uri)
        self._watched[snapshot.uri] = watched = _Watched(snapshot)
        self._begin(watched)

    def changed(self, snapshot: Snapshot) -> None:
        """Marks move with the text; one whose own text changed is gone at once."""
        watched = self._watched.get(snapshot.uri)
        if watched is None:
            return
        watched.snapshot, edits, watched.visited = snapshot, snapshot.edits, True
        if edits:
            watched.at = edits[-1].start + len(edits[-1].inserted)
        watched.marks = moved(watched.marks, snapshot) if len(edits) <= MOST_EDITS else []
        if watched.told and not self.pulled:
            shown = {mark.number for mark in self._shown(watched)}
            if any(number not in shown for number, _, _ in watched.told):
                self._tell(watched)
        self._begin(watched)

    def closed(self, uri: str) -> None:
        """The client is told that nothing is marked there any more."""
        watched = self._watched.pop(uri, None)
        if watched is None:
            return
        _cancel(watched)
        if not self.pulled:
            self._clear(watched)

    def looked_at(self, uri: str, offset: int) -> None:
        """The user is at this place of a document; what is near is looked at unless it is known."""
        watched = self._watched.get(uri)
        if watched is not None and not (watched.visited and watched.at == offset):
            watched.at, watched.visited = offset, True
            if watched.run is None:
                self._begin(watched)

    def engine_changed(self, state: EngineState) -> None:
        """What another model found is not what this one finds."""
        if state.kind == "loading" and not state.done:
            for watched in self._watched.values():
                watched.known.clear()
        elif state.kind == "ready":
            self._lints = state.lints
            self.reconsider()

    def reconsider(self) -> None:
        """Settings changed, or what is private: everything is looked at again, as far as it is not known."""
        off, severity = self._kinds_off(), self.session.settings.lint_severity
        for watched in self._watched.values():
            if not off >= self._off:
                watched.known.clear()
            if watched.told and severity != self._severity:
                self.announce(watched.snapshot)
            self._begin(watched)
        self._off, self._severity = off, severity

    def ignore_kind(self, code: str) -> None:
        """Findings of this kind are not shown any more in this session."""
        self.ignored_kinds.add(code)
        self._off = self._kinds_off()
        for watched in self._watched.values():
            self._tell(watched)

    def dismiss(self, uri: str, number: int) -> None:
        """This mark is not shown any more, however the text around it changes; an unknown one is passed over."""
        watched = self._watched.get(uri)
        mark = next((one for one in watched.marks if one.number == number), None) if watched else None
        if watched is not None and mark is not None:
            self.dismissals.dismiss(watched.snapshot, mark)
            self._tell(watched)

    def marks(self, uri: str) -> list[Mark]:
        """What is shown in a document, in text order."""
        watched = self._watched.get(uri)
        return [] if watched is None else self._shown(watched)

    def report(self, snapshot: Snapshot) -> list[types.Diagnostic]:
        """What is shown in the newest snapshot, for the client, which is then taken to know it."""
        watched = self._watched.get(snapshot.uri)
        if watched is None or watched.snapshot is not snapshot:
            return []
        shown = self._shown(watched)
        watched.told = _places(shown)
        return [self.diagnostic(snapshot, mark) for mark in shown]

    def diagnostic(self, snapshot: Snapshot, mark: Mark) -> types.Diagnostic:
        return types.Diagnostic(
            range=snapshot.range(mark.start, mark.end),
            message=mark.message,
            severity=SEVERITIES[self.session.settings.lint_severity],
            code=mark.code,
            code_description=types.CodeDescription(link(mark.code)) if mark.code in ALL_KINDS else None,
            source=SOURCE,
            data={"number": mark.number, "replacement": mark.replacement},
        )

    async def can_explain(self) -> bool:
        """Whether the model that is ready follows instructions; asked of its folder once."""
        state = self.session.engine.state
        if state.kind != "ready":
            return False
        if self._explains is None or self._explains[0] is not state:
            self._explains = state, await asyncio.to_thread(follows_instructions, state.model)
        return self._explains[1]

    async def explain(self, uri: str, number: int) -> str | None:
        """Why this mark may be right, in a sentence of the model; None where it has none, or there is no such mark.

        Raises EngineLoading, EngineGone, or InputError where the model cannot explain.
        """
        watched = self._watched.get(uri)
        mark = next((one for one in watched.marks if one.number == number), None) if watched else None
        if watched is None or mark is None:
            return None
        snapshot = watched.snapshot
        if await self.session.why_private(snapshot):
            return None
        finding = Finding(mark.start, mark.end, mark.code, mark.message, mark.replacement, 0.0)
        request = LintRequest(snapshot.text, snapshot.language, snapshot.path, findings=(finding,), explain=True)
        (explained,) = await self.session.engine.lint(request)
        return explained.explanation

    async def settled(self, uri: str) -> bool:
        """Waits for the run on its way in a document, where there is one; whether it came to its end."""
        watched = self._watched.get(uri)
        run = watched.run if watched is not None else None
        if run is None:
            return True
        await asyncio.wait([run])
        return not run.cancelled()

    def stop(self) -> None:
        for watched in self._watched.values():
            _cancel(watched)

    def _kinds_off(self) -> frozenset[str]:
        """What the user does not want, and of style all that was not asked for."""
        return self._ignored() | (STYLE.keys() - set(self.session.settings.lint_include))

    def _ignored(self) -> frozenset[str]:
        return frozenset(self.session.settings.lint_ignore) | self.ignored_kinds

    def _is_on(self, snapshot: Snapshot) -> bool:
        wanted = self.session.settings.lint
        return (self._lints if wanted is None else wanted) and self.session.why_off(snapshot) is None

    def _shown(self, watched: _Watched) -> list[Mark]:
        """Without what the user ignores or dismissed."""
        off, snapshot, shown = self._kinds_off(), watched.snapshot, []
        for mark in watched.marks:
            lines = snapshot.range(mark.start, mark.end)
            on_lines = snapshot.lines[lines.start.line : lines.end.line + 1]
            if mark.code in off or any(ignores(line, mark.code) for line in on_lines):
                continue
            if not self.dismissals.is_dismissed(snapshot, mark):
                shown.append(mark)
        return shown[:MOST_MARKS]

    def _tell(self, watched: _Watched) -> None:
        """Announces the marks, where they are not as the client knows them."""
        places = _places(self._shown(watched))
        if places != watched.told:
            watched.told = places
            self.announce(watched.snapshot)

    def _clear(self, watched: _Watched) -> None:
        watched.marks = []
        self._tell(watched)

    def _begin(self, watched: _Watched) -> None:
        """A run instead of the one on its way, where the user wants any."""
        _cancel(watched)
        if not self._is_on(watched.snapshot):
            self._clear(watched)
            return
        watched.run = run = asyncio.ensure_future(self._run(watched))
        run.add_done_callback(lambda task: self._ended(watched, task))

    def _ended(self, watched: _Watched, task: asyncio.Task[None]) -> None:
        if watched.run is task:
            watched.run = None
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("While looking for what is wrong: %r", error, exc_info=error)

    async def _run(self, watched: _Watched) -> None:
        """A change gives this run up, so the snapshot is the newest throughout."""
        await asyncio.sleep(PAUSE_S)
        session, snapshot = self.session, watched.snapshot
        if await session.why_private(snapshot):
            self._clear(watched)
            return
        if session.engine.state.kind != "ready":
            return
        if not watched.visited and snapshot not in session.documents.recent()[:RECENT]:
            return
        tree = await session.trees.tree(snapshot, TREE_S)
        if tree is None:
            return
        near = await asyncio.to_thread(units, tree, *_window(snapshot, watched.at))
        unknown = []
        for unit in near:
            if unit.text in watched.known:
                watched.known.move_to_end(unit.text)
                self._put(watched, unit)
            else:
                unknown.append(unit)
        self._tell(watched)
        for group in _groups(unknown, watched.at):
            try:
                found = await self._ask(snapshot, group)
            except (EngineLoading, EngineGone):
                return
            for unit in group:
                watched.known[unit.text] = _within(unit, found)
                self._put(watched, unit)
            while len(watched.known) > KEPT:
                watched.known.popitem(last=False)
            self._tell(watched)

    async def _ask(self, snapshot: Snapshot, group: Sequence[Unit]) -> tuple[Finding, ...]:
        request = LintRequest(
            text=snapshot.text,
            language=snapshot.language,
            path=snapshot.path,
            ranges=tuple((unit.start, unit.end) for unit in group),
            neighbours=self.session.neighbours(snapshot),
            off=self._ignored(),
            on=frozenset(self.session.settings.lint_include) & STYLE.keys(),
        )
        try:
            return await self.session.engine.lint(request)
        except (EngineLoading, EngineGone):
            raise
        except GessoError as error:  # asked again it would fail again: nothing is known to be wrong there
            logger.warning("Nothing could be found out: %s", error)
            return ()

    def _put(self, watched: _Watched, unit: Unit) -> None:
        """Marks in this part are those that are known for it; a mark that stays keeps its number."""
        inside = [mark for mark in watched.marks if unit.start <= mark.start and mark.end <= unit.end]
        outside = [mark for mark in watched.marks if mark.end < unit.start or mark.start > unit.end]
        for finding in watched.known[unit.text]:
            start, end = unit.start + finding.start, unit.start + finding.end
            text = unit.text[finding.start : finding.end]
            fresh = Mark(next(self._numbers), start, end, text, finding.code, finding.message, finding.replacement)
            outside.append(next((mark for mark in inside if mark.is_like(fresh)), fresh))
        watched.marks = sorted(outside, key=lambda mark: mark.start)


def _cancel(watched: _Watched) -> None:
    if watched.run is not None:
        watched.run.cancel()
        watched.run = None


def _places(marks: Iterable[Mark]) -> Places:
    return tuple((mark.number, mark.start, mark.end) for mark in marks)


def _window(snapshot: Snapshot, at: int) -> tuple[int, int]:
    line = snapshot.position(at).line
    first, last = max(0, line - NEAR_LINES), line + NEAR_LINES + 1
    return snapshot.offset(types.Position(first, 0)), snapshot.offset(types.Position(last, 0))


def _groups(unknown: Iterable[Unit], at: int) -> list[list[Unit]]:
    """The nearest first; small ones together."""
    groups: list[list[Unit]] = []
    room = 0
    for unit in sorted(unknown, key=lambda unit: max(unit.start - at, at - unit.end, 0)):
        size = unit.end - unit.start
        if size > room:
            groups.append([])
            room = TOGETHER
        groups[-1].append(unit)
        room -= size
    return [sorted(group, key=lambda unit: unit.start) for group in groups]


def _within(unit: Unit, found: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings in this part, with offsets from its start.

    Without further places that change with them: those are looked for anew once the change is wanted, since other parts
    may be edited meanwhile.
    """
    return tuple(
        replace(one, start=one.start - unit.start, end=one.end - unit.start, also=())
        for one in found
        if unit.start <= one.start <= one.end <= unit.end
    )
