"""One request for a suggestion: from the place in a document to what is offered there, or the reason for nothing.

The order of the steps stands here: reuse what is known, be quiet where a rule says so, wait for a pause in typing, join
a run that still agrees, run the model. One run a document; what is superseded is cancelled down to the engine. Must not
know the protocol's methods nor how an editor draws a suggestion.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Literal

from engine.errors import GessoError
from infill.code.indentation import indentation_at
from infill.code.syntax import in_comment, in_string
from infill.request import Candidate, Hole, InfillRequest, InfillResult
from lsp.activity import Record, Rung
from lsp.documents import Snapshot
from lsp.engine import EngineLoading
from lsp.reuse import Running, Suggestion
from lsp.session import Session
from lsp.triggers import Quiet, Situation, lines_wanted, why_quiet

GRACE_S = 0.25  # how long a run that nobody waits for goes on: the next request often agrees with it
TREE_S = 0.01  # how long to wait for the syntax tree of the newest version
DEADLINE_MS = {False: 2_000.0, True: 10_000.0}  # by itself, and asked for by hand
NEAR = 4_000  # characters on either side that the rules see
NOT_OPEN = Quiet("not open", "The editor has not opened this document with the server.")


@dataclass(frozen=True)
class Place:
    """Where a suggestion is wanted: before + after is the text, as if the popup's chosen entry were in it already.

    typed: characters left of the cursor that the chosen entry replaces; lead: the entry, which the answer begins with.
    """

    snapshot: Snapshot
    before: str
    after: str
    invoked: bool
    lead: str = ""
    typed: int = 0
    selecting: bool = False

    @property
    def uri(self) -> str:
        return self.snapshot.uri

    def situation(self, session: Session, kind: Literal["code", "comment", "string"]) -> Situation:
        start = len(self.before) - len(self.lead)
        return Situation(
            before=self.before[-NEAR:],
            after=self.after[:NEAR],
            language=self.snapshot.language,
            invoked=self.invoked,
            place=kind,
            edits=self.snapshot.edits,
            selected=self.lead or None,
            typed=self.snapshot.text[start : start + self.typed],
            offered=session.offered.get(self.uri, ""),
            eagerness=session.settings.eagerness,
            multiline=session.settings.multiline,
            has_selection=self.selecting,
        )


@dataclass(frozen=True)
class Answer:
    """What to offer at a place; quiet: why there is nothing."""

    suggestions: tuple[Suggestion, ...] = ()
    rung: Rung | None = None
    quiet: Quiet | None = None
    timings_ms: dict[str, float] = field(default_factory=dict)
    total_ms: float = 0.0


@dataclass
class _Run:
    """A run of the model in a document; `ahead`: for a place where the cursor is not yet.

    left_at: when the last who waited for it ceased to, by the loop's clock.
    """

    running: Running
    task: asyncio.Task[Answer]
    ahead: bool
    waiting: int = 0
    left_at: float = 0.0


class InlineCompletion:
    """Answers places; all of it lives on the event loop."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.runs: dict[str, _Run] = {}
        self.asked: dict[str, asyncio.Task[object]] = {}
        self.numbers = count(1)

    async def answer(self, place: Place) -> Answer:
        """What to offer. An older request of the same document is cancelled, and ends with CancelledError."""
        session, begun = self.session, time.perf_counter()
        self._supersede(place.uri)
        try:
            answer = await self._answer(place)
        except asyncio.CancelledError:
            self._record(place, "superseded", Answer(), begun)
            raise
        except GessoError as error:
            loading = isinstance(error, EngineLoading)
            quiet = Quiet("model is loading" if loading else "the engine failed", str(error))
            answer = Answer(quiet=quiet)
            self._record(place, "nothing" if loading else "failed", answer, begun)
            return answer
        milliseconds = self._record(place, "shown" if answer.suggestions else "nothing", answer, begun)
        if answer.rung in ("model", "running"):
            session.pace.answered(answer.timings_ms.get("total", milliseconds))
        if answer.suggestions:
            session.ladder.shown(place.uri, place.before, place.after, answer.suggestions[0])
            session.offered[place.uri] = answer.suggestions[0].text
        return replace(answer, total_ms=milliseconds)

    def changed(self, snapshot: Snapshot) -> None:
        """The document changed: a run that the change contradicts is cancelled."""
        run = self.runs.get(snapshot.uri)
        if run is None or run.ahead or len(snapshot.edits) != 1:
            if run is not None and not run.ahead:
                self._stop(snapshot.uri)
            return
        end = snapshot.edits[0].start + len(snapshot.edits[0].inserted)
        if not run.running.agrees(snapshot.text[:end], snapshot.text[end:]):
            self._stop(snapshot.uri)

    def closed(self, uri: str) -> None:
        if (asked := self.asked.pop(uri, None)) is not None:
            asked.cancel()
        self._stop(uri)
        self.session.ladder.forget(uri)
        self.session.offered.pop(uri, None)

    def ask_ahead(self, snapshot: Snapshot, before: str, after: str) -> None:
        """The model runs for where the cursor most likely is next, after what was accepted: this line or the next."""
        if self.runs.get(snapshot.uri) is not None or not self.session.settings.enabled:
            return
        line = before[before.rfind("\n") + 1 :]
        if line.strip() and not after.split("\n", 1)[0].strip():
            end = "\r\n" if "\r\n" in before[-NEAR:] else "\n"
            before += end + indentation_at((before + end)[-NEAR:], min(NEAR, len(before + end)), snapshot.language)
        place = Place(snapshot, before, after, False)
        if self.session.ladder.look_up(place.uri, before, after) is not None:
            return
        if why_quiet(place.situation(self.session, "code")) is None:
            self._start(place, ahead=True)

    def stop(self) -> None:
        for uri in list(self.runs):
            self._stop(uri)

    async def _answer(self, place: Place) -> Answer:
        session = self.session
        if quiet := session.why_off(place.snapshot) or await session.why_private(place.snapshot):
            return Answer(quiet=quiet)
        served = None if place.invoked else session.ladder.look_up(place.uri, place.before, place.after)
        if served is not None and served.rung == "typed" and served.suggestions:
            suggestions = self._unrejected(place, served.suggestions)
            return Answer(suggestions, "typed", None if suggestions else REJECTED)
        kind = await self._kind(place)
        if quiet := why_quiet(place.situation(session, kind)):
            return Answer(quiet=quiet)
        if served is not None:
            suggestions = self._unrejected(place, served.suggestions)
            return Answer(suggestions, served.rung, None if suggestions else NOTHING_BEFORE)
        run = self._agreeing(place)
        if run is None and not place.invoked:
            await asyncio.sleep(self._delay(place))
            run = self._agreeing(place)
        joined = run is not None
        if run is None:
            run = self._start(place)
        answer = await self._wait(run)
        if joined:
            fitting = run.running.still_fits(answer.suggestions, place.before, place.after)
            if not fitting and answer.suggestions:
                answer = await self._wait(self._start(place))
            else:
                answer = replace(answer, suggestions=fitting, rung="running")
        suggestions = self._unrejected(place, answer.suggestions)
        if answer.suggestions and not suggestions:
            return replace(answer, suggestions=(), quiet=REJECTED)
        return replace(answer, suggestions=suggestions)

    def _agreeing(self, place: Place) -> _Run | None:
        """The run that is on its way in this document, where its answer may still fit here."""
        run = self.runs.get(place.uri)
        agrees = run is not None and not place.invoked and run.running.agrees(place.before, place.after)
        return run if agrees else None

    def _delay(self, place: Place) -> float:
        settings = self.session.settings
        at_line_start = not place.before[place.before.rfind("\n") + 1 :].strip()
        return self.session.pace.delay_s(settings.eagerness, settings.delay_ms, at_line_start)

    async def _kind(self, place: Place) -> Literal["code", "comment", "string"]:
        """Whether the place lies in a comment or in a string, as far as the tree is there in time."""
        tree = await self.session.trees.tree(place.snapshot, TREE_S)
        if tree is None:
            return "code"
        offset = len(place.before) - len(place.lead) + place.typed
        if in_comment(tree, offset):
            return "comment"
        return "string" if in_string(tree, offset) else "code"

    def _start(self, place: Place, ahead: bool = False) -> _Run:
        """A run of the model at this place, instead of the one that is on its way in this document."""
        self._stop(place.uri)
        running = Running(place.uri, place.before, place.after, time.monotonic())
        run = _Run(running, asyncio.ensure_future(self._run(place)), ahead)
        self.runs[place.uri] = run
        run.task.add_done_callback(lambda task: self._ended(place.uri, task))
        return run

    def _ended(self, uri: str, task: asyncio.Task[Answer]) -> None:
        if (run := self.runs.get(uri)) is not None and run.task is task:
            del self.runs[uri]
        if not task.cancelled():
            task.exception()  # whoever waited has it; nobody may have waited

    async def _run(self, place: Place) -> Answer:
        session = self.session
        situation = place.situation(session, "code")
        alternatives = session.settings.alternatives if place.invoked else 1
        request = InfillRequest(
            text=place.before + place.after,
            holes=(Hole(len(place.before), len(place.before)),),
            language=place.snapshot.language,
            path=place.snapshot.path,
            lines=lines_wanted(situation),
            candidates=alternatives,
            deadline_ms=DEADLINE_MS[place.invoked],
            neighbours=session.neighbours(place.snapshot),
            rejected=session.rejections.texts(place.uri, place.before, place.after),
            caution=session.caution(place.invoked),
        )
        result = await session.engine.complete(request)
        completion = result.completions[0]
        shown = [one for one in completion.candidates if one.shown][:alternatives]
        found = tuple(self._suggestion(candidate) for candidate in shown)
        suggestions = session.ladder.store(place.uri, place.before, place.after, found, request.lines)
        quiet = None if suggestions else Quiet("not good enough", _sentence(completion.reason, result))
        return Answer(suggestions, "model", quiet, result.timings_ms)

    def _suggestion(self, candidate: Candidate) -> Suggestion:
        return Suggestion(
            id=f"{next(self.numbers)}",
            text=candidate.text,
            swallow="",
            confidence=candidate.confidence,
            source=candidate.source,
            created=time.monotonic(),
        )

    def _unrejected(self, place: Place, suggestions: tuple[Suggestion, ...]) -> tuple[Suggestion, ...]:
        if place.invoked:
            return suggestions
        rejected = self.session.rejections.is_rejected
        return tuple(one for one in suggestions if not rejected(place.uri, place.before, place.after, one.text))

    async def _wait(self, run: _Run) -> Answer:
        """The run's answer. A run that nobody waits for any more is stopped, unless another request joins it soon."""
        run.waiting += 1
        try:
            return await asyncio.shield(run.task)
        except asyncio.CancelledError:
            if not run.task.cancelled():
                loop = asyncio.get_running_loop()
                run.left_at = loop.time()
                loop.call_later(GRACE_S, self._stop_if_left, run, run.left_at)
            raise
        finally:
            run.waiting -= 1

    def _stop_if_left(self, run: _Run, left_at: float) -> None:
        if not run.waiting and run.left_at == left_at:
            run.task.cancel()

    def _stop(self, uri: str) -> None:
        if (run := self.runs.pop(uri, None)) is not None:
            run.task.cancel()

    def _supersede(self, uri: str) -> None:
        earlier, current = self.asked.get(uri), asyncio.current_task()
        if earlier is not None and earlier is not current:
            earlier.cancel()
        if current is not None:
            self.asked[uri] = current
            current.add_done_callback(lambda task: self._forget(uri, task))

    def _forget(self, uri: str, task: asyncio.Task[object]) -> None:
        if self.asked.get(uri) is task:
            del self.asked[uri]

    def _record(
        self, place: Place, outcome: Literal["shown", "nothing", "superseded", "failed"], answer: Answer, begun: float
    ) -> float:
        milliseconds = 1000 * (time.perf_counter() - begun)
        best = answer.suggestions[0] if answer.suggestions else None
        record = Record(
            at=time.time(),
            document=self.session.number_of(place.uri),
            language=place.snapshot.language,
            line=place.before.count("\n") + 1,
            outcome=outcome,
            rule=answer.quiet.rule if answer.quiet else None,
            sentence=answer.quiet.sentence if answer.quiet else None,
            rung=answer.rung,
            timings_ms=answer.timings_ms,
            total_ms=milliseconds,
            characters=len(best.text) if best else 0,
            confidence=best.confidence if best else None,
        )
        self.session.note(record)
        return milliseconds


NOTHING_BEFORE = Quiet("nothing a moment ago", "The model had nothing good enough here a moment ago.")
REJECTED = Quiet("rejected before", "You rejected the same suggestion here before.")


def _sentence(reason: str | None, result: InfillResult) -> str:
    return f"The best suggestion was held back: {reason}." if reason else "The model had nothing to write here."
