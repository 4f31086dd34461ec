"""Successive requests while the engine is busy: which run they join, and which they cancel."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import cast

import pytest
from lsprotocol import types

import lsp.inline_completion
from infill.request import Candidate, HoleCompletion, InfillRequest, InfillResult
from infill.service.exchange import ServiceBusy
from infill.statistics import EventRow, Statistics
from lsp.cursor import CursorContext
from lsp.feedback import Feedback
from lsp.inline_completion import InlineCompletion
from lsp.session import Client, Session
from lsp.settings import LspSettings
from lsp.suggestions import Suggestions

URI = "untitled:one.py"


class Engine:
    """Answers when `go` is set, always with the same text."""

    def __init__(self, answer: str) -> None:
        self.answer, self.texts, self.cancelled = answer, list[str](), 0
        self.go = asyncio.Event()

    async def complete(self, request: InfillRequest) -> InfillResult:
        self.texts.append(request.text)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        found = Candidate(self.answer, 0.9, True, None, "model", 1)
        completion = HoleCompletion(request.holes[0], self.answer, True, None, 0.9, (found,))
        return InfillResult((completion,), 1, 1, 1, 1, 1, {"total": 1.0}, "scripted", 0)


class Typing:
    """A user who types at the end of a document and requests a suggestion after each key."""

    def __init__(self, answer: str, delay_ms: int) -> None:
        self.engine = Engine(answer)
        self.session = Session(cast(Client, None))
        self.session.settings = LspSettings(delay_ms=delay_ms)
        self.session.engine.complete = self.engine.complete  # type: ignore[method-assign]
        self.inline = InlineCompletion(self.session)
        self.snapshot = self.session.documents.open(types.TextDocumentItem(URI, "python", 1, "total = "))
        self.requests: list[asyncio.Task[Suggestions]] = []

    def request(self) -> asyncio.Task[Suggestions]:
        context = CursorContext(self.snapshot, self.snapshot.text, "")
        self.requests.append(asyncio.ensure_future(self.inline.suggest(context)))
        return self.requests[-1]

    def key(self, letter: str) -> asyncio.Task[Suggestions]:
        end = types.Position(0, len(self.snapshot.text))
        change = types.TextDocumentContentChangePartial(range=types.Range(end, end), text=letter)
        document = types.VersionedTextDocumentIdentifier(self.snapshot.version + 1, URI)
        self.snapshot = self.session.documents.change(document, [change])
        self.inline.changed(self.snapshot)
        return self.request()


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

    asyncio.run(play())


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

    asyncio.run(asyncio.wait_for(play(), 20))


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

    asyncio.run(play())


def test_a_document_that_was_closed_and_reopened_gets_suggestions() -> None:
    """The next request does not cancel the task that reported the closing."""

    async def play() -> None:
        typing = Typing("first", delay_ms=0)
        typing.engine.go.set()
        typing.inline.closed(URI)
        assert (await typing.request()).items

    asyncio.run(play())


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

    asyncio.run(play())


def test_a_busy_service_means_no_suggestion_now() -> None:
    async def play() -> None:
        typing = Typing("first", delay_ms=0)

        async def refuse(_: InfillRequest) -> InfillResult:
            raise ServiceBusy("The engine is too busy.")

        typing.session.engine.complete = refuse  # type: ignore[method-assign]
        found = await typing.request()  # the client of this session is None, so a message would fail
        assert found.items == () and found.skipped is not None and found.skipped.rule == "the model is busy"
        (record,) = typing.session.activity.last(1)
        assert record.outcome == "nothing"
        typing.session.engine.complete = typing.engine.complete  # type: ignore[method-assign]
        typing.engine.go.set()
        assert [one.text for one in (await typing.request()).items] == ["first"]

    asyncio.run(asyncio.wait_for(play(), 20))
