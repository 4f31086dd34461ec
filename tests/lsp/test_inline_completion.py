"""Successive requests while the engine is busy: which run they join, and which they cancel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest
from lsprotocol import types

import lsp.inline_completion
from infill.request import NO_TIME, Candidate, HoleCompletion, InfillRequest, InfillResult
from infill.service.exchange import ServiceBusy
from infill.statistics import EventRow, Statistics
from lsp.cursor import CursorContext
from lsp.feedback import Feedback
from lsp.inline_completion import InlineCompletion
from lsp.session import Client, Session
from lsp.settings import LspSettings
from lsp.suggestions import Suggestions
from tests.virtual_time import run

URI = "untitled:one.py"


class Engine:
    """Answers when `go` is set, always with the same text. drafts: how the runs report theirs."""

    def __init__(self, answer: str) -> None:
        self.answer, self.texts, self.cancelled, self.is_sure = answer, list[str](), 0, True
        self.is_beginning = False
        self.go, self.drafts = asyncio.Event(), list[Callable[[str, int], None]]()

    async def complete(self, request: InfillRequest, on_draft: Callable[[str, int], None]) -> InfillResult:
        self.texts.append(request.text)
        self.drafts.append(on_draft)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        reason = None if self.is_sure else "not sure"
        found = Candidate(self.answer, 0.9, self.is_sure, reason, "model", 1, beginning=self.is_beginning)
        completion = HoleCompletion(request.holes[0], self.answer, self.is_sure, reason, 0.9, (found,))
        return InfillResult((completion,), 1, 1, 1, 1, 1, {"total": 1.0}, "scripted", 0)


class Typing:
    """A user who types at the end of a document and requests a suggestion after each key."""

    def __init__(self, answer: str, delay_ms: int) -> None:
        self.engine = Engine(answer)
        self.extended: list[str] = []
        self.session = Session(cast(Client, SimpleNamespace(suggestion_extended=self.extended.append)))
        self.session.settings = LspSettings(delay_ms=delay_ms)
        self.session.engine.complete = self.engine.complete  # type: ignore[method-assign]
        self.inline = InlineCompletion(self.session)
        self.snapshot = self.session.documents.open(types.TextDocumentItem(URI, "python", 1, "total = "))
        self.requests: list[asyncio.Task[Suggestions]] = []

    def request(self, invoked: bool = False) -> asyncio.Task[Suggestions]:
        context = CursorContext(self.snapshot, self.snapshot.text, "", invoked)
        self.requests.append(asyncio.ensure_future(self.inline.suggest(context)))
        return self.requests[-1]

    def key(self, letter: str) -> asyncio.Task[Suggestions]:
        self.type(letter)
        return self.request()

    def type(self, letter: str) -> None:
        end = types.Position(0, len(self.snapshot.text))
        change = types.TextDocumentContentChangePartial(range=types.Range(end, end), text=letter)
        document = types.VersionedTextDocumentIdentifier(self.snapshot.version + 1, URI)
        self.snapshot = self.session.documents.change(document, [change])
        self.inline.changed(self.snapshot)


def test_one_run_serves_all_keys_that_agree_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys come faster than the wait before a run and the grace period of a run; none of them cancels it."""
    monkeypatch.setattr(lsp.inline_completion, "GRACE_S", 0.06)

    async def play() -> None:
        typing = Typing("first + second", delay_ms=50)
        typing.request()
        while not typing.engine.texts:
            await asyncio.sleep(0.005)
        for letter in "first ":
            last = typing.key(letter)
            await asyncio.sleep(0.055)
        typing.engine.go.set()
        found = await last
        assert ([one.text for one in found.items], found.origin) == (["+ second"], "running")
        assert typing.engine.texts == ["total = "] and not typing.engine.cancelled
        assert all(one.cancelled() for one in typing.requests[:-1])

    run(play())


def test_a_run_without_waiters_is_cancelled_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lsp.inline_completion, "GRACE_S", 0.02)

    async def play() -> None:
        typing = Typing("first", delay_ms=0)
        request = typing.request()
        while not typing.engine.texts:
            await asyncio.sleep(0.005)
        request.cancel()
        while not typing.engine.cancelled or typing.inline.runs:
            await asyncio.sleep(0.005)

    run(play())


def test_a_key_that_disagrees_with_the_run_starts_another(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        typing = Typing("first", delay_ms=0)
        typing.request()
        while not typing.engine.texts:
            await asyncio.sleep(0.005)
        last = typing.key("o")
        typing.engine.go.set()
        found = await last
        assert typing.engine.texts == ["total = ", "total = o"]
        assert [one.text for one in found.items] == ["first"] and found.origin == "model"

    run(play())


@pytest.mark.parametrize("key_first", [True, False])
def test_a_run_whose_draft_disagrees_with_what_is_typed_is_replaced_at_once(key_first: bool) -> None:
    """The draft or the key may come first; while both agree the run goes on."""

    async def play() -> None:
        typing = Typing("first", delay_ms=0)
        typing.request()
        while not typing.engine.texts:
            await asyncio.sleep(0.005)
        typing.engine.drafts[0]("fi", 0)
        typing.key("f")
        await asyncio.sleep(0.02)
        assert typing.engine.texts == ["total = "] and not typing.engine.cancelled
        if key_first:
            last = typing.key("o")
            await asyncio.sleep(0.005)
            typing.engine.drafts[0]("first", 0)
        else:
            typing.engine.drafts[0]("first", 0)
            last = typing.key("o")
        while len(typing.engine.texts) < 2:
            await asyncio.sleep(0.005)
        assert typing.engine.texts == ["total = ", "total = fo"] and typing.engine.cancelled == 1
        typing.engine.go.set()
        found = await last
        assert [one.text for one in found.items] == ["first"] and found.origin == "model"

    run(play())


def test_a_draft_that_disagrees_with_a_later_key_leaves_an_older_request_superseded() -> None:
    """The key arrived and its request has not: a run for the older request would be useless."""

    async def play() -> None:
        typing = Typing("first", delay_ms=0)
        request = typing.request()
        while not typing.engine.texts:
            await asyncio.sleep(0.005)
        typing.type("o")
        typing.engine.drafts[0]("first", 0)
        with pytest.raises(asyncio.CancelledError):
            await request
        assert typing.engine.texts == ["total = "]

    run(play())


def test_a_pause_after_a_run_that_found_nothing_gets_a_run_of_its_own() -> None:
    async def play() -> None:
        typing = Typing("first", delay_ms=0)
        typing.engine.is_sure = False
        typing.request()
        while not typing.engine.texts:
            await asyncio.sleep(0.005)
        last = typing.key("f")
        await asyncio.sleep(0.02)
        assert typing.engine.texts == ["total = "]
        typing.engine.go.set()
        assert not (await last).items
        assert typing.engine.texts == ["total = ", "total = f"]

    run(play())


def test_a_document_that_was_closed_and_reopened_gets_suggestions() -> None:
    """The next request does not cancel the task that reported the closing."""

    async def play() -> None:
        typing = Typing("first", delay_ms=0)
        typing.engine.go.set()
        typing.inline.closed(URI)
        assert (await typing.request()).items

    run(play())


def test_statistics_have_the_model_that_wrote_the_suggestion() -> None:
    """It may be the retry model rather than the service's own."""

    async def play() -> None:
        typing, rows = Typing("first", delay_ms=0), list[EventRow]()
        typing.session.statistics = cast(Statistics, SimpleNamespace(add=rows.append))
        feedback = Feedback(typing.session, typing.inline)
        typing.engine.go.set()
        found = await typing.request()
        feedback.sent(CursorContext(typing.snapshot, typing.snapshot.text, ""), found)
        feedback.rejected(found.items[0].id)
        assert typing.session.engine.state.model != "scripted"
        assert [(row.event, row.model) for row in rows] == [("shown", "scripted"), ("rejected", "scripted")]

    run(play())


@pytest.mark.parametrize("beginning", [True, False])
def test_after_an_accepted_beginning_the_line_goes_on(beginning: bool) -> None:
    """A whole line is followed by the next one, for which the model runs ahead."""

    async def play() -> None:
        typing = Typing("first", delay_ms=0)
        typing.engine.is_beginning = beginning
        feedback = Feedback(typing.session, typing.inline)
        typing.engine.go.set()
        found = await typing.request()
        feedback.sent(CursorContext(typing.snapshot, typing.snapshot.text, ""), found)
        typing.type("first")
        feedback.accepted(found.items[0].id)
        while len(typing.engine.texts) < 2:
            await asyncio.sleep(0.005)
        assert typing.engine.texts[1] == "total = first" + ("" if beginning else "\n")

    run(play())


def requested(typing: Typing, context: CursorContext) -> InfillRequest:
    return run(typing.inline.request(context))


def test_a_suggestion_for_a_new_line_takes_more_confidence() -> None:
    typing = Typing("first", delay_ms=0)
    within = CursorContext(typing.snapshot, typing.snapshot.text, "")
    new_line, by_hand = replace(within, before="total = 1\n    "), replace(within, before="a\n", invoked=True)
    assert requested(typing, new_line).caution > requested(typing, within).caution
    assert requested(typing, by_hand).caution == 0


def test_only_automatic_requests_allow_beginnings() -> None:
    typing = Typing("first", delay_ms=0)
    automatic = CursorContext(typing.snapshot, typing.snapshot.text, "")
    by_hand = CursorContext(typing.snapshot, typing.snapshot.text, "", invoked=True)
    assert requested(typing, automatic).beginning and not requested(typing, by_hand).beginning


def test_the_beginning_the_model_is_sure_of_is_shown_before_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not sooner than EARLY_S, in which a fast model has the whole; the run goes on and gives the rest."""
    monkeypatch.setattr(lsp.inline_completion, "EARLY_S", {False: 0.05})
    monkeypatch.setattr(lsp.inline_completion, "GRACE_S", 0.0)

    async def play() -> None:
        typing = Typing("first + second", delay_ms=0)
        request = typing.request()
        while not typing.engine.texts:
            await asyncio.sleep(0.005)
        typing.engine.drafts[0]("first +", 5)
        await asyncio.sleep(0.01)
        assert not request.done()
        found = await request
        assert [(one.text, one.beginning) for one in found.items] == [("first", True)]
        rests = [[one.text for one in (await typing.key(letter)).items] for letter in "firs"]
        assert rests == [["irst"], ["rst"], ["st"], ["t"]]
        typing.key("t")
        last = typing.key(" ")
        await asyncio.sleep(0.02)
        typing.engine.go.set()
        assert [one.text for one in (await last).items] == ["+ second"]
        assert typing.engine.texts == ["total = "] and not typing.engine.cancelled

    run(play())


def test_a_beginning_grows_until_the_client_is_told_of_the_rest() -> None:
    """A client that asks again sees the beginning at once, and the whole at the same position without another key."""

    async def play(reject: bool) -> None:
        typing = Typing("first + second", delay_ms=0)
        typing.session.extends_suggestions = True
        request = typing.request()
        while not typing.engine.texts:
            await asyncio.sleep(0.005)
        typing.engine.drafts[0]("fir", 3)
        await asyncio.sleep(0.02)
        assert not request.done(), "too short"
        typing.engine.drafts[0]("first +", 5)
        (begun,) = (await request).items
        assert begun.text == "first" and begun.beginning
        typing.engine.drafts[0]("first + sec", 7)
        (again,) = (await typing.request()).items
        assert again == begun, "what is on the screen stays"
        if reject:
            typing.session.rejections.rejected(URI, "total = ", "", begun.text)
        typing.engine.go.set()
        while typing.inline.runs:
            await asyncio.sleep(0.005)
        assert typing.extended == ([] if reject else [URI])
        whole = await typing.request()
        if not reject:
            assert [(one.text, one.id, one.beginning) for one in whole.items] == [("first + second", begun.id, False)]
            assert whole.origin == "typed"

    run(play(False))
    run(play(True))


def test_what_follows_another_beginning_does_not_replace_what_is_on_the_screen() -> None:
    async def play() -> None:
        typing = Typing("other", delay_ms=0)
        typing.session.extends_suggestions = True
        request = typing.request()
        while not typing.engine.texts:
            await asyncio.sleep(0.005)
        typing.engine.drafts[0]("first +", 5)
        assert [one.text for one in (await request).items] == ["first"]
        typing.engine.go.set()
        while typing.inline.runs:
            await asyncio.sleep(0.005)
        assert [one.text for one in (await typing.request()).items] == ["first"] and not typing.extended

    run(play())


def test_too_short_an_early_beginning_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer than four characters that are still to be typed; by hand, the whole is awaited."""

    async def play(typed: str, invoked: bool) -> None:
        typing = Typing("first + second", delay_ms=0)
        typing.session.extends_suggestions = True
        request = typing.request(invoked)
        while not typing.engine.texts:
            await asyncio.sleep(0.005)
        for letter in typed:
            request = typing.key(letter)
        typing.engine.drafts[0]("first +", 5)
        await asyncio.sleep(0.02)
        assert not request.done()
        typing.engine.go.set()
        assert [one.text for one in (await request).items] == ["first + second"[len(typed) :]]

    run(play("fi", False))
    run(play("", True))


def test_a_model_without_time_is_reported_once_and_asked_again() -> None:
    async def play() -> None:
        typing, warnings, states = Typing("first", delay_ms=0), list[str](), list[str]()
        host = SimpleNamespace(
            warn=warnings.append, show_state=lambda state: states.append(typing.session.slow_message)
        )
        typing.session.client = cast(Client, host)

        async def late(request: InfillRequest, on_draft: object) -> InfillResult:
            completion = HoleCompletion(request.holes[0], "", False, NO_TIME, 0.0, ())
            return InfillResult((completion,), 0, 1, 0, 0, 0, {"total": 5000.0}, "slow", 0)

        typing.session.engine.complete = late  # type: ignore[method-assign]
        for number in range(5):  # in the same position: it is no judgement, so it is not cached
            found = await typing.request()
            assert found.skipped is not None and found.skipped.rule == "the model is too slow"
            assert bool(warnings) == (number >= 2)
        (sentence,) = warnings
        assert "The model slow needs more than 5 s" in sentence and states == [sentence]
        typing.session.engine.complete = typing.engine.complete  # type: ignore[method-assign]
        typing.engine.go.set()
        assert [one.text for one in (await typing.request()).items] == ["first"]
        assert states == [sentence, ""]

    run(play())


def test_a_busy_service_means_no_suggestion_now() -> None:
    async def play() -> None:
        typing = Typing("first", delay_ms=0)

        async def refuse(_: InfillRequest, on_draft: object) -> InfillResult:
            raise ServiceBusy("The engine is too busy.")

        typing.session.engine.complete = refuse  # type: ignore[method-assign]
        found = await typing.request()  # the client of this session is None, so a message would fail
        assert found.items == () and found.skipped is not None and found.skipped.rule == "the model is busy"
        (record,) = typing.session.activity.last(1)
        assert record.outcome == "nothing"
        typing.session.engine.complete = typing.engine.complete  # type: ignore[method-assign]
        typing.engine.go.set()
        assert [one.text for one in (await typing.request()).items] == ["first"]

    run(play())
