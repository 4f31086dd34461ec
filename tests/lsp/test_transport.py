"""Bytes that editors send: whatever they are, documents stay in step with the editor, or the user is warned."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsp.server import GessoServer, create_server
from lsp.transport import KEEP_BYTES, decode, read_all

URI = "file:///work/thing.py"
RAW = st.binary(max_size=12) | st.sampled_from([b"\xed\xa0\xbd", b"\xf0\x9f\x98", b"\xe9", b"\x00\x01", b'"', b"\\"])
CHARACTERS = st.sampled_from([b"a", b"\n", b"\xe9", b"\xff", b"\x80", b"\x01", *map(str.encode, "é漢😀")])
TEXTS = st.lists(CHARACTERS, max_size=8)


class Editor:
    """A server without a transport, and what it sent. Waits for no model."""

    def __init__(self, encoding: str = "utf-16") -> None:
        self.server: GessoServer = create_server()
        self.sent: list[dict[str, Any]] = []
        self.server.protocol.set_writer(self, include_headers=False)
        self.server.session.private_reason = _public  # type: ignore[method-assign]
        capabilities = {"general": {"positionEncodings": [encoding]}, "textDocument": {"inlineCompletion": {}}}
        self.send("initialize", {"processId": None, "rootUri": None, "capabilities": capabilities}, id=1)

    def write(self, data: bytes) -> None:
        self.sent.append(json.loads(data))

    def close(self) -> None:
        pass

    def send(self, method: str, params: Any, **more: Any) -> None:
        self.server.receive(json.dumps({"jsonrpc": "2.0", "method": method, "params": params, **more}).encode())

    def send_raw(self, method: str, params: Any, hole: bytes) -> None:
        """Sends a message with these bytes in place of `@@`."""
        message = {"jsonrpc": "2.0", "method": method, "params": params}
        self.server.receive(json.dumps(message).encode().replace(b"@@", hole))

    def open(self, text: str = "", uri: str = URI) -> None:
        document = {"uri": uri, "languageId": "python", "version": 1, "text": text}
        self.send("textDocument/didOpen", {"textDocument": document})

    def text(self, uri: str = URI) -> str | None:
        snapshot = self.server.session.documents.get(uri)
        return None if snapshot is None else snapshot.text

    def is_off(self, uri: str = URI) -> bool:
        snapshot = self.server.session.documents.get(uri)
        return snapshot is None or self.server.session.off_reason(snapshot) is not None

    def warnings(self) -> list[str]:
        return [one["params"]["message"] for one in self.sent if one.get("method") == "window/showMessage"]


async def _public(snapshot: object) -> None:
    return None


def run(play: Callable[[Editor], None], encoding: str = "utf-16") -> None:
    async def body() -> None:
        play(Editor(encoding))
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    asyncio.run(body())


def change(text: str, *ends: int, version: int = 2, uri: str = URI) -> dict[str, Any]:
    """ends: line and column of the start and of the end; without, the whole text."""
    one: dict[str, Any] = {"text": text}
    if ends:
        one["range"] = {
            "start": {"line": ends[0], "character": ends[1]},
            "end": {"line": ends[2], "character": ends[3]},
        }
    return {"textDocument": {"uri": uri, "version": version}, "contentChanges": [one]}


def test_each_invalid_byte_is_one_character() -> None:
    assert decode(b'["caf\xe9 \xc3\xa9 \xe2\x82 \xff", "\\ud83d\xf0\x9f\x98\x80"]') == [
        "caf\udce9 é \udce2\udc82 \udcff",
        "\ud83d😀",
    ]
    assert decode(b'"\xed\xa0\xbd"') == "\ud83d" and decode(b'"\xed\xb2\x80"') == "\udced\udcb2\udc80"
    assert decode(b'"\x00\x1f\n"') == "\x00\x1f\n"


@given(TEXTS, st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9), st.integers(0, 5), st.integers(0, 9), TEXTS)))
@settings(max_examples=60)
def test_edits_of_any_bytes_give_what_neovim_has(first: list[bytes], edits: list[Any]) -> None:
    """Neovim counts bytes, one for each that is not UTF-8, and sends a buffer as it is."""

    def play(editor: Editor) -> None:
        document = {"uri": URI, "languageId": "python", "version": 1, "text": "@@"}
        buffer = list(first)
        editor.send_raw("textDocument/didOpen", {"textDocument": document}, escaped(buffer))
        for version, (line, column, last_line, last_column, new) in enumerate(edits, start=2):
            places = positions(buffer)
            start, end = sorted((nearest(places, line, column), nearest(places, last_line, last_column)))
            params = change("@@", *places[start], *places[end], version=version)
            editor.send_raw("textDocument/didChange", params, escaped(new))
            buffer[start:end] = new
            text = editor.text()
            assert text is not None and text.encode("utf-8", "surrogateescape") == b"".join(buffer)
        assert not editor.warnings() and not editor.is_off()

    run(play, "utf-8")


def escaped(characters: list[bytes]) -> bytes:
    return b"".join(b"\\n" if one == b"\n" else one for one in characters)


def positions(characters: list[bytes]) -> list[tuple[int, int]]:
    """Line and byte of each character, and of the end."""
    found, line, column = [], 0, 0
    for one in characters:
        found.append((line, column))
        line, column = (line + 1, 0) if one == b"\n" else (line, column + len(one))
    return [*found, (line, column)]


def nearest(places: list[tuple[int, int]], line: int, column: int) -> int:
    return max(index for index, place in enumerate(places) if place <= (line, column))


MESSAGES: list[tuple[str, dict[str, Any]]] = [
    ("textDocument/didChange", change("a@@b", 0, 0, 0, 0)),
    ("textDocument/didChange", change("a@@b")),
    ("textDocument/didChange", change("ab", 0, 0, 0, 0, uri=URI + "@@")),
    ("textDocument/didChange", change("ab", 0, 0, 0, 0) | {"more": "@@"}),
    ("textDocument/did@@Change", change("ab", 0, 0, 0, 0)),
]


@given(st.sampled_from(MESSAGES), RAW)
@settings(max_examples=150)
def test_a_change_with_any_bytes_is_applied_or_reported(message: tuple[str, dict[str, Any]], hole: bytes) -> None:
    def play(editor: Editor) -> None:
        editor.open("first\n")
        editor.send_raw(*message, hole)
        if editor.text() == "first\n":
            assert editor.warnings()
            return
        assert not editor.is_off() and not editor.warnings()
        if b"\\" not in hole and b'"' not in hole and "@@" in json.dumps(message[1]["contentChanges"]):
            text = editor.text()
            assert text is not None and text.startswith(f"a{hole.decode('utf-8', KEEP_BYTES)}b")

    run(play, "utf-8")


@given(st.sampled_from(["uri", "languageId", "text"]), RAW)
@settings(max_examples=60)
def test_a_document_with_any_bytes_is_opened_or_reported(name: str, hole: bytes) -> None:
    def play(editor: Editor) -> None:
        document = {"uri": URI, "languageId": "python", "version": 1, "text": "text"}
        document[name] = f"{document[name]}@@"
        editor.send_raw("textDocument/didOpen", {"textDocument": document}, hole)
        found = editor.server.session.documents.recent()
        refused = [one for one in editor.sent if one.get("error", {}).get("code") == -32700]
        assert found or editor.warnings() or refused

    run(play)


BROKEN: list[Any] = [
    {"textDocument": {"uri": URI, "version": 2}, "contentChanges": [{"range": {"start": {}}, "text": "x"}]},
    {"textDocument": {"uri": URI, "version": "two"}, "contentChanges": []},
    {"textDocument": {"uri": URI, "version": 2}, "contentChanges": [{"text": None}]},
    {"textDocument": {"uri": URI, "version": 2}, "contentChanges": [{"text": 3}]},
    {"textDocument": {"uri": URI, "version": 2}, "contentChanges": "x"},
    {"textDocument": {"uri": URI}, "contentChanges": [{"text": "x"}]},
    {"contentChanges": [{"text": "x"}]},
    {"textDocument": 5, "contentChanges": []},
    None,
    [],
]


@pytest.mark.parametrize("params", BROKEN)
def test_an_unreadable_change_switches_the_document_off_until_its_text_comes(params: Any) -> None:
    def play(editor: Editor) -> None:
        session = editor.server.session
        editor.open("first\n")
        editor.send("textDocument/didChange", params)
        editor.send("textDocument/didChange", params)
        assert editor.is_off()
        (warning,) = editor.warnings()
        assert "thing.py" in warning and "save or reopen" in warning
        editor.send("textDocument/didChange", change("x", 0, 0, 0, 0, version=3))
        assert editor.is_off()
        editor.send("textDocument/didChange", change("whole\n", version=4))
        assert not editor.is_off() and editor.text() == "whole\n"
        editor.send("textDocument/didChange", params)
        editor.send("textDocument/didSave", {"textDocument": {"uri": URI}, "text": "saved\n"})
        assert not editor.is_off() and editor.text() == "saved\n"
        editor.send("textDocument/didChange", params)
        editor.open("opened again\n")
        assert not editor.is_off() and len(editor.warnings()) == 3
        assert session.is_in_step(URI)

    run(play)


CUT = b'{"jsonrpc":"2.0","method":"textDocument/didChange","params":{"te'


@pytest.mark.parametrize("body", [b"{", CUT, b"[" * 100_000])
def test_a_message_that_is_not_json_may_have_changed_any_document(body: bytes) -> None:
    def play(editor: Editor) -> None:
        editor.open("a", URI)
        editor.open("b", "file:///work/other%20one.py")
        editor.server.receive(body)
        assert editor.is_off() and editor.is_off("file:///work/other%20one.py")
        (warning,) = editor.warnings()
        assert "other one.py, thing.py" in warning
        assert [one["error"]["code"] for one in editor.sent if "error" in one] == [-32700]

    run(play)


class Bytes:
    """The stream of a client."""

    def __init__(self, content: bytes) -> None:
        self.stream = io.BytesIO(content)

    async def readline(self) -> bytes:
        return self.stream.readline()

    async def readexactly(self, n: int) -> bytes:
        return self.stream.read(n)


def sent(params: Any, header: bytes | None = None) -> bytes:
    """A change as bytes. header: in place of the right one."""
    body = json.dumps({"jsonrpc": "2.0", "method": "textDocument/didChange", "params": params}).encode()
    return (b"Content-Length: %d\r\n\r\n" % len(body) if header is None else header) + body


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"Content-Length: 20\r\n\r\n",
        b"Content-Length: 260\r\n\r\n",
        b"Content-Length: x\r\n\r\n",
        b"Content-Length: 0\r\n\r\n",
        b"Content-Length: -5\r\n\r\n",
        b"Content-Length: 99999999999\r\n\r\n",
        b"Content-Length: %d\r\n\r\n" % 10**30,
        b"Content-Length : 200\r\n\r\n",
        b"\xff\xfe\x00\r\n\r\n",
    ],
)
def test_a_wrong_header_is_reported_and_later_messages_are_read(header: bytes) -> None:
    """As of a client that counts characters instead of bytes: it may have been any message."""

    async def body() -> None:
        editor = Editor()
        editor.open("a")
        lost = sent(change("b" * 60, 0, 0, 0, 1), header) + sent(change("c", 0, 0, 0, 0, version=3))
        await read_all(editor.server, Bytes(lost))
        assert editor.is_off() and "thing.py" in editor.warnings()[0]
        assert {one["error"]["code"] for one in editor.sent if "error" in one} == {-32700}
        await read_all(editor.server, Bytes(lost + sent(change("whole\n", version=4))))
        assert not editor.is_off() and editor.text() == "whole\n"

    asyncio.run(body())


@pytest.mark.parametrize(
    "field", [b"content-length:%d\r\n", b"Content-Type: x; charset=utf-8\r\nContent-Length: %d\r\n"]
)
def test_other_spellings_of_a_header_are_read(field: bytes) -> None:
    async def body() -> None:
        editor = Editor()
        editor.open("a")
        message = sent(change("b", 0, 0, 0, 1), b"")
        await read_all(editor.server, Bytes(b"\r\n" + field % len(message) + b"\r\n" + message))
        assert editor.text() == "b" and not editor.is_off()

    asyncio.run(body())


@pytest.mark.parametrize("key", ["methd", "id"])
def test_a_message_without_a_method_may_have_been_a_change(key: str, caplog: pytest.LogCaptureFixture) -> None:
    def play(editor: Editor) -> None:
        editor.open("a")
        params = {"textDocument": {"uri": URI}} if key == "methd" else change("x", 0, 0, 0, 0)
        message = {"jsonrpc": "2.0", key: None if key == "id" else "textDocument/didChange", "params": params}
        editor.server.receive(json.dumps(message).encode())
        assert editor.is_off() and "thing.py" in editor.warnings()[0]

    run(play)
    assert "Traceback" not in caplog.text


def test_a_refused_message_is_logged_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    def play(editor: Editor) -> None:
        editor.open("a")
        editor.send("textDocument/didChange", {**change("x", 0, 0, 0, 0), "textDocument": 7})
        assert editor.is_off()

    run(play)
    assert "cannot be read" in caplog.text and "Traceback" not in caplog.text


def test_a_message_about_something_else_switches_nothing_off() -> None:
    def play(editor: Editor) -> None:
        editor.open("a")
        for method in ("textDocument/didClose", "textDocument/didSave", "unknown/thing", "$/cancelRequest"):
            editor.send(method, {"textDocument": {"uri": 7}})
        assert not editor.is_off() and not editor.warnings()

    run(play)


def test_a_document_whose_opening_was_lost_is_known_after_its_whole_text() -> None:
    def play(editor: Editor) -> None:
        editor.send("textDocument/didChange", change("x", 0, 0, 0, 0))
        assert editor.text() is None and "thing.py" in editor.warnings()[0]
        editor.send("textDocument/didChange", change("whole\n", version=3))
        assert editor.text() == "whole\n" and not editor.is_off()

    run(play)


def test_an_unreadable_opening_is_reported() -> None:
    def play(editor: Editor) -> None:
        editor.send("textDocument/didOpen", {"textDocument": {"uri": URI, "version": "x", "text": "a"}})
        assert "thing.py" in editor.warnings()[0]

    run(play)


def test_a_saved_text_is_used_only_out_of_step() -> None:
    """A client that delays changes may save before it sends them."""

    def play(editor: Editor) -> None:
        editor.open("a")
        editor.send("textDocument/didSave", {"textDocument": {"uri": URI}, "text": "b"})
        assert editor.text() == "a"

    run(play)


def test_a_request_for_an_unknown_document_has_a_reason() -> None:
    async def body() -> None:
        editor = Editor()
        params = {"textDocument": {"uri": URI}, "position": {"line": 4, "character": 0}, "context": {"triggerKind": 1}}
        editor.send("textDocument/inlineCompletion", params, id=2)
        await asyncio.sleep(0)
        (record,) = editor.server.session.activity.last(5)
        assert record.rule == "unknown document" and record.line == 5 and "open it again" in (record.sentence or "")

    asyncio.run(body())
