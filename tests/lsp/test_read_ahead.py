"""When the model reads ahead, and which text: after opening, typing and resting, and never beside other requests."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, cast

import pytest
from lsprotocol import types

from infill.engine_protocol import EngineState
from infill.request import InfillRequest, InfillResult
from lsp.cursor import CursorContext
from lsp.inline_completion import InlineCompletion
from lsp.read_ahead import ReadAhead
from lsp.session import Client, Session
from tests.lsp.client import ROOT
from tests.lsp.client import Client as EditorClient
from tests.lsp.test_diagnostics import PUSH, SERVER
from tests.virtual_time import run
from tests.waiting import until

URI = "untitled:one.py"
CODE = "def add(one, other):\n    total = one + other\n    \n    print()\n"


class Editor:
    """A session with an open document and a ready engine. read: the text before the cursor of each reading."""

    def __init__(self, text: str = CODE) -> None:
        self.read: list[str] = []
        self.cancelled = 0
        self.hold = False
        self.session = Session(cast(Client, None))
        self.session.engine.state = EngineState("ready", "tiny")
        self.session.engine.read_ahead = self.read_ahead  # type: ignore[method-assign]
        self.session.engine.complete = self.complete  # type: ignore[method-assign]
        self.inline = InlineCompletion(self.session)
        self.ahead = ReadAhead(self.session, self.inline)
        self.snapshot = self.session.documents.open(types.TextDocumentItem(URI, "python", 1, text))

    async def read_ahead(self, request: InfillRequest) -> int:
        self.read.append(request.text[: request.holes[0].start])
        try:
            while self.hold:
                await asyncio.sleep(0.001)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return 1

    async def complete(self, request: InfillRequest, on_draft: Any = None) -> InfillResult:
        raise AssertionError("nothing asks for a suggestion")

    def rest(self, line: int, character: int) -> None:
        self.ahead.rested(URI, self.snapshot.offset(types.Position(line, character)))

    def type(self, line: int, character: int, text: str) -> None:
        at = types.Position(line, character)
        change = types.TextDocumentContentChangePartial(range=types.Range(at, at), text=text)
        document = types.VersionedTextDocumentIdentifier(self.snapshot.version + 1, URI)
        self.snapshot = self.session.documents.change(document, [change])
        self.ahead.changed(self.snapshot)

    async def settled(self) -> list[str]:
        """Waits for the current reading, and returns all of them."""
        if self.ahead._task is not None:
            await asyncio.wait([self.ahead._task])
        return self.read


@pytest.mark.parametrize(
    ("line", "character", "line_before"),
    [
        (2, 4, "    "),
        (3, 10, "    print("),
        (1, 8, "    total = one + other"),
        (0, 0, "def add(one, other):"),
    ],
    ids=["empty line", "before closing brackets", "inside a line", "at the start of a line"],
)
def test_the_place_where_typing_would_request_a_suggestion_is_read(line: int, character: int, line_before: str) -> None:
    async def play() -> None:
        editor = Editor()
        editor.rest(line, character)
        (before,) = await editor.settled()
        assert before == "".join(CODE.splitlines(keepends=True)[:line]) + line_before

    run(play())


def test_a_reading_asks_for_what_the_next_suggestion_asks_for() -> None:
    async def play() -> None:
        editor, asked = Editor(), list[InfillRequest]()

        async def note(request: InfillRequest, on_draft: Any = None) -> Any:
            asked.append(request)
            raise asyncio.CancelledError

        editor.session.engine.read_ahead = editor.session.engine.complete = note  # type: ignore[method-assign]
        editor.rest(2, 4)
        await editor.settled()
        context = CursorContext.at(editor.snapshot, types.Position(2, 4))
        with pytest.raises(asyncio.CancelledError):
            await editor.inline.suggest(context)
        assert len(asked) == 2 and asked[0] == asked[1]

    run(play())


def test_a_line_is_read_once_per_version_of_the_document() -> None:
    async def play() -> None:
        editor = Editor()
        for character in (4, 2, 4):
            editor.rest(2, character)
            await editor.settled()
        assert len(editor.read) == 1
        editor.rest(3, 4)
        assert len(await editor.settled()) == 2
        editor.type(3, 4, "x")
        assert len(await editor.settled()) == 3

    run(play())


def test_only_the_last_of_several_events_is_read() -> None:
    async def play() -> None:
        editor = Editor()
        editor.ahead.opened(editor.snapshot)
        editor.type(2, 4, "ret")
        editor.type(2, 7, "urn")
        assert await editor.settled() == [CODE[: CODE.index("    print")].rstrip("\n") + "return"]

    run(play())


def test_a_newer_reading_and_closing_the_document_cancel_the_older() -> None:
    async def play() -> None:
        editor = Editor()
        editor.hold = True
        for line in (2, 3):
            editor.rest(line, 4)
            while len(editor.read) < line - 1:
                await asyncio.sleep(0.001)
        task = editor.ahead._task
        editor.ahead.closed("untitled:two.py")
        assert editor.cancelled == 1 and task is editor.ahead._task
        editor.ahead.closed(URI)
        await editor.settled()
        assert task is not None and await asyncio.wait([task]) and editor.cancelled == 2

    run(play())


def test_it_waits_until_other_requests_have_ended() -> None:
    async def play() -> None:
        editor = Editor()
        lint: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        editor.session.engine._pending.add(lint)
        editor.rest(2, 4)
        await asyncio.sleep(5.0)
        assert not editor.read
        editor.session.engine._pending.clear()
        editor.inline.requests[URI] = cast("asyncio.Task[object]", lint)
        await asyncio.sleep(5.0)
        assert not editor.read
        editor.inline.requests.clear()
        assert await editor.settled()

    run(play())


def test_a_model_that_has_just_been_loaded_reads_where_the_cursor_is() -> None:
    async def play() -> None:
        editor = Editor()
        ready = editor.session.engine.state
        editor.session.engine.state = EngineState("loading", "tiny")
        editor.rest(2, 4)
        assert not await editor.settled()
        for number in (1, 2):
            editor.session.engine.state = ready
            editor.ahead.engine_changed(ready)
            assert len(await editor.settled()) == number

    run(play())


@pytest.mark.parametrize("text", ["", "\n\n", "x" * 500])
def test_nothing_is_read_where_no_suggestion_is_offered(text: str) -> None:
    async def play() -> None:
        editor = Editor(text)
        editor.rest(0, 0)
        assert not await editor.settled()

    run(play())


def test_the_server_reads_where_the_editor_says_but_no_private_file(
    environment: dict[str, str], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    client = EditorClient({**environment, "PYTHONPATH": str(ROOT), "SCRIPTED_READ_LOG": str(log)}, server=SERVER)

    def read(before: str) -> None:
        """Waits until this was read last."""

        def is_last() -> bool:
            client.command("gesso.status")
            lines = log.read_text().splitlines() if log.exists() else []
            return bool(lines) and json.loads(lines[-1])["before"] == before

        until(is_last, lambda: log.exists() and log.read_text())

    try:
        client.initialize(PUSH, settings={})
        client.wait_until_ready()
        secret, public = (tmp_path / ".env").as_uri(), (tmp_path / "one.py").as_uri()
        client.open(secret, "TOKEN=1\n")
        client.notify("gesso/cursorRested", {"textDocument": {"uri": secret}, "position": {"line": 0, "character": 7}})
        client.open(public, CODE)
        read("def add(one, other):")
        position = {"line": 2, "character": 4}
        client.notify("gesso/cursorRested", {"textDocument": {"uri": public}, "position": position})
        read(CODE[: CODE.index("\n    print")])
        client.notify("gesso/cursorRested", {"textDocument": public, "position": 3})
        client.request(
            "textDocument/codeAction",
            {
                "textDocument": {"uri": public},
                "range": {"start": {"line": 3, "character": 4}, "end": {"line": 3, "character": 4}},
                "context": {"diagnostics": []},
            },
        )
        read(CODE[:-1])
        assert "TOKEN" not in log.read_text()
    finally:
        client.kill()
