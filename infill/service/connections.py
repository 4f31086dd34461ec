"""Accepts the connections of a service: how many there may be, and how long each may take to send a request.

A connection without a whole request is closed after a while, and earlier if another one needs its descriptor: the
oldest first. So connections that send nothing, or a byte now and then, keep nobody out. Must not know requests.
"""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from infill.api.http import error_value
from infill.service.guard import READ_S

Phase = Literal["head", "body", "answer", "idle"]
LIMITS_S: dict[Phase, float] = {
    "head": 10.0,
    "body": READ_S + 2.0,
    "idle": 30.0,
}  # the guard refuses a late body itself
CLOSING_S = 5.0  # for a client to read the end of a response
REFUSAL_S = 1.0  # for a client to read that there are too many connections
SWEEP_S = 1.0
DESCRIPTORS = 4096  # that the service asks the system for
RESERVED = 128  # descriptors for files, pipes, and the sockets of backends
MOST_UNIX, MOST_TCP = 1024, 512
REFUSALS = 32  # connections above the limit that are answered at once
BACKLOG = 1024
EMFILE_PAUSE_S = 0.1


def _refusal() -> bytes:
    message = "Too many connections are open; close some, or try again in a moment."
    body = json.dumps(error_value(message, "busy_error", 429)).encode()
    head = "HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\nRetry-After: 1\r\nConnection: close\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body


REFUSAL = _refusal()


@dataclass(frozen=True)
class ConnectionLimits:
    """Of the Unix socket, of the port, and of one address that connects to the port."""

    unix: int
    tcp: int
    peer: int


def connection_limits() -> ConnectionLimits:
    """Raises the process's limit of open files if it can, and shares it: most of it is the owner's, on the Unix
    socket."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    usable = DESCRIPTORS if soft == resource.RLIM_INFINITY else soft
    usable = max(usable - RESERVED - 2 * REFUSALS, usable // 2)
    tcp = min(MOST_TCP, usable // 4)
    return ConnectionLimits(min(MOST_UNIX, usable - tcp), tcp, max(1, tcp // 2))


@dataclass(eq=False)
class _Connection:
    """since: time.monotonic() when the phase began. protocol: None until the TLS handshake is done."""

    socket: socket.socket
    peer: str
    phase: Phase = "head"
    since: float = field(default_factory=time.monotonic)
    protocol: _Protocol | None = None
    task: asyncio.Task[None] | None = None
    closing_since: float | None = None

    def enter(self, phase: Phase) -> None:
        if phase != self.phase:
            self.phase, self.since = phase, time.monotonic()

    def abort(self) -> None:
        if self.protocol is not None:
            self.protocol.transport.abort()
        elif self.task is not None:
            self.task.cancel()

    def is_late(self, now: float) -> bool:
        if self.protocol is not None and self.protocol.transport.is_closing():
            self.closing_since = self.closing_since or now
            return now >= self.closing_since + CLOSING_S
        return now >= self.since + LIMITS_S.get(self.phase, float("inf"))


class _Protocol(H11Protocol):
    """uvicorn's protocol, which says in which phase its connection is."""

    connection: _Connection
    on_lost: Callable[[], object]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.connection.protocol = self

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.on_lost()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._update("head")

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._update("idle")

    def _update(self, without_request: Phase) -> None:
        """without_request: the phase of a connection on which no request is under way."""
        cycle = self.cycle
        if cycle is None or (cycle.response_complete and not cycle.more_body):
            self.connection.enter(without_request)
        else:
            self.connection.enter("body" if cycle.more_body else "answer")


class _Refusal(asyncio.Protocol):
    """Says that there are too many connections; reads what the client sends, since closing at once would reset the
    connection before the client has read the response."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        transport.write(REFUSAL)
        if transport.can_write_eof():
            transport.write_eof()
        asyncio.get_running_loop().call_later(REFUSAL_S, transport.abort)


class Server(uvicorn.Server):
    """Accepts at most `most` connections, `per_peer` from one address. Leaves signals to others, and sleeps while idle;
    uvicorn's own loop wakes up ten times a second.

    ended: set when the service ends.
    """

    def __init__(self, config: uvicorn.Config, ended: asyncio.Event, most: int, per_peer: int) -> None:
        super().__init__(config)
        self.ended, self.most, self.per_peer = ended, most, per_peer
        self._connections: set[_Connection] = set()
        self._refusals = 0
        self._accepting: list[asyncio.Task[None]] = []
        self._timer: asyncio.TimerHandle | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self.lifespan.startup()
        self.servers = []
        self._accepting = [asyncio.create_task(self._accept(listener)) for listener in sockets or ()]
        self.started = True

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self.ended.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for task in self._accepting:
            task.cancel()
        await asyncio.gather(*self._accepting, return_exceptions=True)
        await super().shutdown(sockets)
        for connection in list(self._connections):
            connection.abort()
        if self._timer is not None:
            self._timer.cancel()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def _accept(self, listener: socket.socket) -> None:
        """One connection at a time, so that the limits hold before the next one takes a descriptor."""
        loop = asyncio.get_running_loop()
        listener.listen(BACKLOG)
        listener.setblocking(False)
        while True:
            try:
                accepted, address = await loop.sock_accept(listener)
            except OSError:  # no descriptor is left, or the client has gone
                self._evict(None)
                await asyncio.sleep(EMFILE_PAUSE_S)
                continue
            accepted.setblocking(False)
            self._take(accepted, str(address[0]) if isinstance(address, tuple) else "")
            await asyncio.sleep(0)

    def _take(self, accepted: socket.socket, peer: str) -> None:
        same = sum(one.peer == peer for one in self._connections)
        is_full = len(self._connections) >= self.most or same >= self.per_peer
        if is_full and not self._evict(peer if same >= self.per_peer else None):
            if self._refusals >= REFUSALS:
                accepted.close()
                return
            self._refusals += 1
            self._run(accepted, _Refusal(), REFUSAL_S).add_done_callback(self._refused)
            return
        connection = _Connection(accepted, peer)
        protocol = _Protocol(self.config, self.server_state, self.lifespan.state)
        protocol.connection, protocol.on_lost = connection, partial(self._connections.discard, connection)
        self._connections.add(connection)
        connection.task = self._run(accepted, protocol, LIMITS_S["head"])
        connection.task.add_done_callback(lambda task: self._connected(connection, task))
        if self._timer is None:
            self._sweep_later()

    def _run(self, accepted: socket.socket, protocol: asyncio.Protocol, handshake_s: float) -> asyncio.Task[None]:
        async def connect() -> None:
            secure: dict[str, Any] = {"ssl": self.config.ssl, "ssl_handshake_timeout": handshake_s}
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: protocol, accepted, **(secure if self.config.ssl else {})
            )

        return asyncio.create_task(connect())

    def _connected(self, connection: _Connection, task: asyncio.Task[None]) -> None:
        connection.task = None
        if task.cancelled() or task.exception() is not None:
            connection.socket.close()
            self._connections.discard(connection)

    def _refused(self, task: asyncio.Task[None]) -> None:
        def end() -> None:
            self._refusals -= 1

        if not task.cancelled():
            task.exception()  # marks it as retrieved
        asyncio.get_running_loop().call_later(REFUSAL_S, end)

    def _evict(self, peer: str | None) -> bool:
        """Closes the oldest connection without a whole request, of this address or of any; False if there is none."""
        unused = [one for one in self._connections if one.phase != "answer" and peer in (None, one.peer)]
        if not unused:
            return False
        oldest = min(unused, key=lambda one: one.since)
        oldest.abort()
        self._connections.discard(oldest)
        return True

    def _sweep_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)

    def _sweep(self) -> None:
        """Closes the connections that are late."""
        now = time.monotonic()
        for connection in list(self._connections):
            if connection.is_late(now):
                connection.abort()
        self._timer = None
        if self._connections:
            self._sweep_later()
