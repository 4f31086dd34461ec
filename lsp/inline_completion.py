"""One request for a suggestion: from the cursor in a document to suggestions, or the reason for none.

Defines the order of the steps: use the cache, apply the trigger rules, wait for a pause in typing, join a model run
that still agrees, run the model. One run per document; a superseded run is cancelled down to the engine. Must not know
the protocol's methods nor how an editor shows a suggestion.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from engine.errors import GessoError
from infill.code.indentation import indentation_at
from infill.code.syntax import in_comment, in_string
from infill.request import NO_TIME, Hole, InfillRequest
from infill.service.exchange import ServiceBusy
from lsp.activity import Outcome, Record
from lsp.cursor import CursorContext
from lsp.documents import Snapshot
from lsp.engine import EngineLoading
from lsp.session import Session
from lsp.suggestion_cache import Anchor
from lsp.suggestions import SkipReason, Suggestion, Suggestions
from lsp.triggers import Kind, Situation, lines_to_request, reason_to_skip

GRACE_S = 0.25  # a run without waiters continues this long, since the next request often agrees with it
TREE_S = 0.01  # longest wait for the syntax tree of the newest version
EARLY_S = {True: 0.0, False: 0.6}  # after the start of a run, the beginning that the model is sure of is shown without
# the rest; by whether the client shows the rest once there is more
UNWRITTEN_CAUTION = 1.2  # on an empty line, where confidence does not know that the lines below are still to come
LEAST_EARLY = 4  # characters that are worth showing before the rest
DEADLINE_MS = {False: 5_000.0, True: 10_000.0}  # automatic, which the next key cancels, and invoked by hand
NEAR = 4_000  # characters on either side that the trigger rules see
NOTHING_BEFORE = SkipReason("nothing a moment ago", "The model had no good suggestion here a moment ago.")
REJECTED = SkipReason("rejected before", "You rejected this suggestion here, or deleted its text.")


@dataclass
class _Run:
    """A model run in a document. ahead: for a position that the cursor has not reached yet.

    draft: the beginning of the text that the model writes; early: the part of it that the model is sure of; grown: done
    when that grows. typed: what the user typed since the run started. contradicted: whether the run was stopped
    because draft and typed text disagree. started_at, left_at: when it started and its last waiter left, by the loop's
    clock.
    """

    anchor: Anchor
    task: asyncio.Task[Suggestions]
    ahead: bool
    grown: asyncio.Future[None]
    started_at: float
    early: Suggestion | None = None
    draft: str = ""
    typed: str = ""
    contradicted: bool = False
    waiters: int = 0
    left_at: float = 0.0

    @property
    def disagrees(self) -> bool:
        """Whether the text that the model writes cannot go on as the user types."""
        draft, typed = self.draft.replace("\r\n", "\n"), self.typed.replace("\r\n", "\n")
        if self.anchor.indenting:
            draft, typed = draft.lstrip(), typed.lstrip()
        return not (draft.startswith(typed) or typed.startswith(draft))

    def early_for(self, context: CursorContext) -> Suggestion | None:
        """`early` if enough of it is still to come here; None for a request by hand, which wants the whole."""
        if context.invoked or self.early is None:
            return None
        left = self.anchor.fitting((self.early,), context.before, context.after)
        return self.early if left and len(left[0].text.strip()) >= LEAST_EARLY else None


class InlineCompletion:
    """Finds suggestions for cursor contexts. Used on the event loop only."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.runs: dict[str, _Run] = {}
        self.requests: dict[str, asyncio.Task[object]] = {}
        self.numbers = count(1)
        self.last_read: CursorContext | None = None  # whose prompt the model read last

    async def suggest(self, context: CursorContext) -> Suggestions:
        """The suggestions at the cursor. Cancels an earlier request of the same document (CancelledError there)."""
        session, begun = self.session, time.perf_counter()
        self._supersede(context.uri)
        try:
            found = await self._suggest(context)
            outcome: Outcome = "shown" if found.items else "nothing"
        except asyncio.CancelledError:
            self._record(context, "superseded", Suggestions(total_ms=_since(begun)))
            raise
        except EngineLoading as error:
            found, outcome = Suggestions(skipped=SkipReason("model is loading", str(error))), "nothing"
        except ServiceBusy as error:
            found, outcome = Suggestions(skipped=SkipReason("the model is busy", str(error))), "nothing"
        except GessoError as error:
            found, outcome = Suggestions(skipped=SkipReason("the engine failed", str(error))), "failed"
        found = replace(found, total_ms=_since(begun))
        self._record(context, outcome, found)
        if found.origin in ("model", "running"):
            session.debounce.responded(found.timings_ms.get("total", found.total_ms))
        if found.items:
            session.cache.shown(context.uri, context.before, context.after, found.items[0])
            session.last_shown[context.uri] = found.items[0].text
        return found

    def changed(self, snapshot: Snapshot) -> None:
        """The document changed: cancels its run if the change disagrees with it."""
        run = self.runs.get(snapshot.uri)
        if run is None or run.ahead:
            return
        if len(snapshot.edits) == 1:
            end = snapshot.edits[0].start + len(snapshot.edits[0].inserted)
            before, after = snapshot.text[:end], snapshot.text[end:]
            if run.anchor.agrees(before, after):
                run.typed = run.anchor.typed(before) or ""
                if not run.disagrees:
                    return
        self._stop(snapshot.uri)

    def closed(self, uri: str) -> None:
        if (request := self.requests.pop(uri, None)) is not None:
            request.cancel()
        self._stop(uri)
        self.session.cache.forget(uri)
        self.session.last_shown.pop(uri, None)

    def requested_unknown(self, uri: str, line: int) -> None:
        """Records a request for a document that is not open. line: from 0."""
        sentence = "The editor has not sent this file, or it could not be read; close it and open it again."
        skipped = SkipReason("unknown document", sentence)
        self._record_at(uri, None, line + 1, "nothing", Suggestions(skipped=skipped))

    def run_ahead(self, snapshot: Snapshot, before: str, after: str, line_goes_on: bool) -> None:
        """Runs the model for the likely next cursor position after an acceptance: this line or the next."""
        if self.runs.get(snapshot.uri) is not None or not self.session.settings.enabled:
            return
        line = before[before.rfind("\n") + 1 :]
        if not line_goes_on and line.strip() and not after.split("\n", 1)[0].strip():
            end = "\r\n" if "\r\n" in before[-NEAR:] else "\n"
            before += end + indentation_at((before + end)[-NEAR:], min(NEAR, len(before + end)), snapshot.language)
        context = CursorContext(snapshot, before, after)
        if self.session.cache.look_up(context.uri, before, after) is not None:
            return
        if reason_to_skip(self._situation(context, "code")) is None:
            self._start(context, ahead=True)

    async def request(self, context: CursorContext) -> InfillRequest:
        """What the model is asked for at the cursor."""
        session = self.session
        return InfillRequest(
            text=context.before + context.after,
            holes=(Hole(len(context.before), len(context.before)),),
            language=context.snapshot.language,
            path=context.snapshot.path,
            lines=lines_to_request(self._situation(context, "code")),
            candidates=session.settings.alternatives if context.invoked else 1,
            deadline_ms=DEADLINE_MS[context.invoked],
            neighbours=await session.neighbours(context.snapshot),
            rejected=session.rejections.texts(context.uri, context.before, context.after),
            caution=session.caution(context.invoked) * (1.0 if _line(context).strip() else UNWRITTEN_CAUTION),
            beginning=not context.invoked,
        )

    def stop(self) -> None:
        for uri in list(self.runs):
            self._stop(uri)

    async def _suggest(self, context: CursorContext) -> Suggestions:
        session, position = self.session, (context.uri, context.before, context.after)
        skipped = session.off_reason(context.snapshot) or await session.private_reason(context.snapshot)
        if skipped is not None:
            return Suggestions(skipped=skipped)
        cached = None if context.invoked else session.cache.look_up(*position)
        if cached is not None and cached.origin == "typed":
            return self._without_rejected(context, cached)
        skipped = reason_to_skip(self._situation(context, await self._kind(context)))
        if skipped is not None:
            return Suggestions(skipped=skipped)
        if cached is not None:
            return self._without_rejected(context, cached) if cached.items else replace(cached, skipped=NOTHING_BEFORE)
        run = self._agreeing_run(context)
        if run is None and not context.invoked:
            await asyncio.sleep(self._delay(context))
            run = self._agreeing_run(context)
        if run is not None and (found := await self._wait(run, context)) is not None:
            fitting = run.anchor.fitting(found.items, context.before, context.after)
            if fitting or not found.items and not run.anchor.typed(context.before):
                return self._without_rejected(context, replace(found, items=fitting, origin="running"))
        found = await self._wait(self._start(context), context)
        assert found is not None, "nothing was typed since this run started"
        return self._without_rejected(context, found)

    def _agreeing_run(self, context: CursorContext) -> _Run | None:
        """The document's current run, if its suggestions may still fit here."""
        run = self.runs.get(context.uri)
        agrees = run is not None and not context.invoked and run.anchor.agrees(context.before, context.after)
        return run if agrees else None

    def _delay(self, context: CursorContext) -> float:
        settings = self.session.settings
        at_line_start = not _line(context).strip()
        return self.session.debounce.delay_s(settings.eagerness, settings.delay_ms, at_line_start)

    def _situation(self, context: CursorContext, kind: Kind) -> Situation:
        return Situation(
            before=context.before[-NEAR:],
            after=context.after[:NEAR],
            language=context.snapshot.language,
            invoked=context.invoked,
            kind=kind,
            edits=context.snapshot.edits,
            selected=context.entry or None,
            typed=context.snapshot.text[context.start : context.offset],
            last_shown=self.session.last_shown.get(context.uri, ""),
            eagerness=self.session.settings.eagerness,
            multiline=self.session.settings.multiline,
        )

    async def _kind(self, context: CursorContext) -> Kind:
        """Whether the cursor is in a comment or string; "code" if the tree is not ready in time."""
        tree = await self.session.trees.tree(context.snapshot, TREE_S)
        if tree is None:
            return "code"
        if in_comment(tree, context.offset):
            return "comment"
        return "string" if in_string(tree, context.offset) else "code"

    def _start(self, context: CursorContext, ahead: bool = False) -> _Run:
        """Starts a model run, in place of the document's current one."""
        self._stop(context.uri)
        anchor = Anchor(context.before, context.after)
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(self._run(context, lambda *draft: self._drafted(context.uri, anchor, *draft)))
        run = self.runs[context.uri] = _Run(anchor, task, ahead, loop.create_future(), loop.time())
        task.add_done_callback(lambda task: self._ended(context.uri, task))
        return run

    def _drafted(self, uri: str, anchor: Anchor, draft: str, sure: int) -> None:
        """The run from `anchor` has written `draft`: stops it if the user typed something else in the meantime."""
        run = self.runs.get(uri)
        if run is None or run.anchor is not anchor:
            return
        run.draft = draft
        if run.disagrees:
            run.contradicted = True
            self._stop(uri)
        elif sure > (len(run.early.text) if run.early is not None else 0):
            model = self.session.engine.state.model
            run.early = Suggestion(f"{next(self.numbers)}", draft[:sure], "", 1.0, model, beginning=True)
            if not run.grown.done():
                run.grown.set_result(None)

    def _ended(self, uri: str, task: asyncio.Task[Suggestions]) -> None:
        if (run := self.runs.get(uri)) is not None and run.task is task:
            del self.runs[uri]
        if not task.cancelled():
            task.exception()  # marks it as retrieved: there may be no waiter left

    async def _run(self, context: CursorContext, on_draft: Callable[[str, int], None]) -> Suggestions:
        session, position = self.session, (context.uri, context.before, context.after)
        if (skipped := await session.private_reason(context.snapshot)) is not None:
            return Suggestions(skipped=skipped)
        request = await self.request(context)
        result = await session.engine.complete(request, on_draft)
        self.last_read = context
        completion = result.completions[0]
        if completion.reason == NO_TIME:  # not a judgement of this position, so it is not cached
            if not context.invoked:
                session.answered_late(result.model, DEADLINE_MS[False])
            sentence = (
                f"The model {result.model} had no time to read the code within {DEADLINE_MS[context.invoked]:.0f} ms."
            )
            return Suggestions((), "model", SkipReason("the model is too slow", sentence), result.timings_ms)
        session.answered_in_time()
        shown = [candidate for candidate in completion.candidates if candidate.shown][: request.candidates]
        found = [
            Suggestion(f"{next(self.numbers)}", one.text, "", one.confidence, result.model, one.beginning)
            for one in shown
        ]
        items = session.cache.store(*position, found, request.lines)
        if items:
            return Suggestions(items, "model", timings_ms=result.timings_ms)
        reason = completion.reason
        sentence = f"The best suggestion was not shown: {reason}." if reason else "The model suggested nothing here."
        return Suggestions((), "model", SkipReason("not good enough", sentence), result.timings_ms)

    def _without_rejected(self, context: CursorContext, found: Suggestions) -> Suggestions:
        if context.invoked or not found.items:
            return found
        is_rejected, position = self.session.rejections.is_rejected, (context.uri, context.before, context.after)
        items = tuple(item for item in found.items if not is_rejected(*position, item.text))
        return replace(found, items=items, skipped=None if items else REJECTED)

    async def _wait(self, run: _Run, context: CursorContext) -> Suggestions | None:
        """The result of a run; None if it was contradicted, and the document is still that of `context`.

        A run without waiters is stopped unless another request joins it soon.
        """
        loop = asyncio.get_running_loop()
        run.waiters += 1
        try:
            early_at = run.started_at + EARLY_S[self.session.extends_suggestions]
            await asyncio.wait({run.task}, timeout=max(0.0, early_at - loop.time()))
            while not run.task.done():
                if (early := run.early_for(context)) is not None:
                    run.left_at = loop.time()  # it goes on, for the rest of the line
                    run.task.add_done_callback(lambda _: self._extend(run, context, early))
                    return Suggestions((early,), "model")
                run.grown = loop.create_future()
                futures: set[asyncio.Future[Any]] = {run.task, run.grown}
                await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            run.left_at = loop.time()
            loop.call_later(GRACE_S, self._stop_if_left, run, run.left_at)
            raise
        finally:
            run.waiters -= 1
        if run.contradicted and self.session.documents.get(context.uri) is context.snapshot:
            return None
        return run.task.result()

    def _extend(self, run: _Run, context: CursorContext, early: Suggestion) -> None:
        """Replaces `early`, if it is still on the screen, by all that its run has written."""
        if run.task.cancelled() or run.task.exception() is not None:
            return
        position = context.before, context.after
        begun = run.anchor.fitting((early,), *position)
        if begun and self.session.rejections.is_rejected(context.uri, *position, begun[0].text):
            return
        for whole in run.anchor.fitting(run.task.result().items, *position):
            if begun and whole.text.startswith(begun[0].text):
                if self.session.cache.extended(context.uri, early.id, whole) and self.session.extends_suggestions:
                    self.session.client.suggestion_extended(context.uri)
                return

    def _stop_if_left(self, run: _Run, left_at: float) -> None:
        if not run.waiters and run.left_at == left_at:
            run.task.cancel()

    def _stop(self, uri: str) -> None:
        if (run := self.runs.pop(uri, None)) is not None:
            run.task.cancel()

    def _supersede(self, uri: str) -> None:
        earlier, current = self.requests.get(uri), asyncio.current_task()
        if earlier is not None and earlier is not current:
            earlier.cancel()
        if current is not None:
            self.requests[uri] = current
            current.add_done_callback(lambda task: self._forget(uri, task))

    def _forget(self, uri: str, task: asyncio.Task[object]) -> None:
        if self.requests.get(uri) is task:
            del self.requests[uri]

    def _record(self, context: CursorContext, outcome: Outcome, found: Suggestions) -> None:
        self._record_at(context.uri, context.snapshot.language, context.before.count("\n") + 1, outcome, found)

    def _record_at(self, uri: str, language: str | None, line: int, outcome: Outcome, found: Suggestions) -> None:
        best = found.items[0] if found.items else None
        record = Record(
            at=time.time(),
            document=self.session.number_of(uri),
            language=language,
            line=line,
            outcome=outcome,
            rule=found.skipped.rule if found.skipped else None,
            sentence=found.skipped.sentence if found.skipped else None,
            origin=found.origin,
            timings_ms=found.timings_ms,
            total_ms=found.total_ms,
            characters=len(best.text) if best else 0,
            confidence=best.confidence if best else None,
        )
        self.session.record(record)


def _line(context: CursorContext) -> str:
    """The line left of the cursor."""
    return context.before[context.before.rfind("\n") + 1 :]


def _since(begun: float) -> float:
    return 1000 * (time.perf_counter() - begun)
