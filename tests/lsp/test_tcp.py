"""`gesso-lsp --tcp`: what is not a language client is refused and logged, and the client is served afterwards."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, cast

import pytest

from engine.errors import UsageError
from lsp.server import create_server
from lsp.tcp import FIRST_BYTES, MAX_WAITING, TcpServer
from tests.lsp.client import ROOT
from tests.waiting import PATIENCE_S, until

PARAMS = {"processId": None, "rootUri": None, "capabilities": {}}
INITIALIZE = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": PARAMS}


def framed(message: Any) -> bytes:
    body = json.dumps(message).encode()
    return b"Content-Length: %d\r\n\r\n%s" % (len(body), body)


class Server:
    """A server process on a free port."""

    def __init__(self, environment: dict[str, str]) -> None:
        command = [sys.executable, "-m", "lsp", "--tcp", "0", "--log", "info"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, cwd=ROOT, env=environment, text=True)
        self.log: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()
        self.port = int(self.wait_for(r"Listening on port (\d+) of 127\.0\.0\.1")[1])

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line.rstrip())

    def wait_for(self, pattern: str) -> re.Match[str]:
        def found() -> re.Match[str] | None:
            return next(filter(None, (re.search(pattern, line) for line in list(self.log))), None)

        match = until(found, lambda: "\n".join(self.log))
        assert match is not None
        return match

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE_S)

    def is_refused(self, content: bytes) -> str:
        """The server closes the connection without an answer; returns the reason in its log."""
        with self.connect() as connection:
            own = connection.getsockname()[1]
            with suppress(ConnectionError):  # closed while it was sent
                connection.sendall(content)
                connection.shutdown(socket.SHUT_WR)
                assert connection.recv(1) == b""
        return self.wait_for(rf"Closed the connection from port {own} of 127\.0\.0\.1, which (.*)\.")[1]


@pytest.fixture
def server(environment: dict[str, str]) -> Iterator[Server]:
    started = Server(environment)
    yield started
    started.process.kill()
    started.process.wait(PATIENCE_S)


def read_message(connection: socket.socket) -> Any:
    with connection.makefile("rb") as stream:
        length = 0
        while (line := stream.readline()).strip():
            if line.startswith(b"Content-Length:"):
                length = int(line.split(b":")[1])
        return json.loads(stream.read(length))


FETCH = framed(INITIALIZE)  # as the body of a request that a web page may send without asking
REFUSED = [
    (
        b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n%s" % (len(FETCH), FETCH),
        "other than JSON-RPC",
    ),
    (b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", "other than JSON-RPC"),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n", "other than JSON-RPC"),
    (b'{"jsonrpc": "2.0", "id": 1, "method": "initialize"}\n', "other than JSON-RPC"),
    (b"\x00" * 5000, "header that is too long"),
    (b"Content-Type: " + b"a" * 5000, "header that is too long"),
    (b"Content-Type: a\r\n" * 100, "header that is too long"),
    (b"Content-Length: 99999999999999\r\n\r\n", "1 to 1,048,576 bytes"),
    (b"Content-Length: %d\r\n\r\n" % (FIRST_BYTES + 1), "1 to 1,048,576 bytes"),
    (b"Content-Length: " + b"9" * 200 + b"\r\n\r\n", "1 to 1,048,576 bytes"),
    (b"Content-Length: -1\r\n\r\n", "1 to 1,048,576 bytes"),
    (b"Content-Length: 0\r\n\r\n", "1 to 1,048,576 bytes"),
    (b"Content-Length: 100\r\n\r\n{}", "ended within a message"),
    (b"Content-Len", "ended within a header"),
    (framed([INITIALIZE]), "did not begin with"),
    (framed({"method": "initialize", "id": 1}), "did not begin with"),
    (framed(INITIALIZE | {"method": "workspace/executeCommand"}), "did not begin with"),
    (b"Content-Length: 90000\r\n\r\n" + b"[" * 90_000, "did not begin with"),
    (b"Content-Length: 2\r\n\r\n\xff\xfe", "did not begin with"),
]


def test_what_is_not_a_language_client_is_refused_and_the_client_is_served(server: Server) -> None:
    silent = server.connect()
    for content, reason in REFUSED:
        assert reason in server.is_refused(content), content[:60]
    with server.connect() as client:
        for byte in framed(INITIALIZE)[:40]:
            client.sendall(bytes([byte]))
        client.sendall(framed(INITIALIZE)[40:])
        answer = read_message(client)
        assert answer["id"] == 1 and "capabilities" in answer["result"]
        assert "another client" in server.is_refused(framed(INITIALIZE))
        client.sendall(framed({"jsonrpc": "2.0", "id": 2, "method": "shutdown"}))
        assert read_message(client)["id"] == 2
        client.sendall(framed({"jsonrpc": "2.0", "method": "exit"}))
        assert server.process.wait(PATIENCE_S) == 0
    silent.close()
    assert "Traceback" not in "\n".join(server.log)
    closed = [line for line in server.log if "Closed the connection" in line and "sent no message" not in line]
    assert len(closed) == len(REFUSED) + 1


def test_a_client_that_breaks_the_protocol_ends_the_server(server: Server) -> None:
    with server.connect() as client:
        client.sendall(framed(INITIALIZE))
        assert read_message(client)["id"] == 1
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert server.process.wait(PATIENCE_S) == 0
    assert "other than JSON-RPC" in "\n".join(server.log) and "Traceback" not in "\n".join(server.log)


def test_silent_connections_do_not_keep_the_client_out(server: Server) -> None:
    silent = [server.connect() for _ in range(3 * MAX_WAITING)]
    with server.connect() as client:
        client.sendall(framed(INITIALIZE))
        assert read_message(client)["id"] == 1
    for connection in silent[:MAX_WAITING]:
        with suppress(ConnectionError):
            assert connection.recv(1) == b""
    for connection in silent:
        connection.close()
    assert server.process.wait(PATIENCE_S) == 0, "it ends with its client"
    assert "Traceback" not in "\n".join(server.log)


def test_a_flood_of_silent_connections_leaves_descriptors_for_the_client(server: Server) -> None:
    silent = [socket.socket() for _ in range(MAX_WAITING + 600)]
    for connection in silent:
        connection.setblocking(False)
        connection.connect_ex(("127.0.0.1", server.port))
    with server.connect() as client:
        client.sendall(framed(INITIALIZE))
        assert read_message(client)["id"] == 1
        descriptors = f"/proc/{server.process.pid}/fd"
        assert not os.path.isdir(descriptors) or len(os.listdir(descriptors)) < MAX_WAITING + 200
    for connection in silent:
        connection.close()


def test_a_connection_without_a_message_is_closed(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.setattr("lsp.tcp.FIRST_S", 0.05)
    writer = Writer("127.0.0.1")

    async def silent() -> None:
        await TcpServer(create_server()).connected(asyncio.StreamReader(), cast(Any, writer))

    asyncio.run(silent())
    assert writer.is_closed and "sent no message within 0.05 s" in caplog.text


@pytest.mark.parametrize("host", ["192.168.1.7", "0.0.0.0", "::ffff:10.0.0.1", "2001:db8::1"])
def test_another_machine_is_refused_before_it_is_read(host: str, caplog: Any) -> None:
    writer = Writer(host)

    async def connect() -> None:
        await TcpServer(create_server()).connected(cast(Any, None), cast(Any, writer))

    asyncio.run(connect())
    assert writer.is_closed and "came from another machine" in caplog.text


@pytest.mark.parametrize("port", [-1, 65536, 10**12])
def test_a_port_that_cannot_be_used_is_one_sentence(port: int) -> None:
    with pytest.raises(UsageError, match="cannot be used; choose another port"):
        TcpServer(create_server()).run(port)


def test_the_command_reports_a_port_in_use(environment: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = [sys.executable, "-m", "lsp", "--tcp", str(taken.getsockname()[1])]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 2 and "cannot be used; choose another port" in done.stderr
    assert "Traceback" not in done.stderr


class Writer:
    """Records that it was closed."""

    is_closed = False

    def __init__(self, host: str) -> None:
        self.host = host

    def get_extra_info(self, _: str) -> tuple[str, int]:
        return self.host, 5

    def close(self) -> None:
        self.is_closed = True
