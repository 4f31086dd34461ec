"""The language server on a local TCP port, for one client.

Any program of this machine can connect, and so can a web page in its user's browser. A connection becomes the client
with its first message, if that is the request `initialize`; all others are closed, with a sentence in the log. Must not
know what later messages mean.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address

from lsprotocol import types

from engine.errors import UsageError
from infill.connection import LOOPBACK
from lsp.server import GessoServer
from lsp.transport import read_all

logger = logging.getLogger(__name__)
LINE_BYTES, HEADER_LINES = 256, 8  # of the header of one message
FIRST_BYTES, MESSAGE_BYTES = 1 << 20, 64 << 20  # of the body of the first message, and of the others
FIRST_S = 10.0  # for the first message to arrive
MAX_WAITING = 256  # connections without a first message; asyncio accepts 100 before it reads from the first of them


class Refused(Exception):
    """The connection is closed. The message completes a sentence that begins with the connection."""


class MessageReader:
    """The reader of a connection of bytes, with limits.

    on_first: called with the first message before pygls gets it; may raise Refused.
    """

    def __init__(self, stream: asyncio.StreamReader, on_first: Callable[[bytes], None]) -> None:
        self._stream, self._on_first = stream, on_first
        self._most = FIRST_BYTES
        self._lines = 0  # of the present header

    async def readline(self) -> bytes:
        """One line of a header, or b"" at the end of the stream. Raises Refused."""
        try:
            line = await self._stream.readuntil(b"\n")
        except asyncio.IncompleteReadError as end:
            if end.partial:
                raise Refused("ended within a header") from end
            return b""
        except asyncio.LimitOverrunError as error:
            raise Refused("sent a header that is too long") from error
        if not line.strip():
            self._lines = 0
            return line
        self._lines += 1
        name, _, value = line.partition(b":")
        name = name.lower()
        if self._lines > HEADER_LINES:
            raise Refused("sent a header that is too long")
        if name not in (b"content-length", b"content-type"):
            raise Refused("sent something other than JSON-RPC")
        return self._length(value.strip()) if name == b"content-length" else line

    def _length(self, digits: bytes) -> bytes:
        if not digits.isdigit() or len(digits) > len(str(self._most)) or not 1 <= int(digits) <= self._most:
            raise Refused(f"announced a message that does not have 1 to {self._most:,} bytes")
        return b"Content-Length: %d\r\n" % int(digits)

    async def readexactly(self, size: int) -> bytes:
        """The body of a message. Raises Refused."""
        try:
            body = await self._stream.readexactly(size)
        except asyncio.IncompleteReadError as end:
            raise Refused("ended within a message") from end
        if self._most == FIRST_BYTES:
            self._on_first(body)
            self._most = MESSAGE_BYTES
        return body


class TcpServer:
    """Listens until a client has connected and disconnected."""

    def __init__(self, server: GessoServer) -> None:
        self._server = server
        self._client: asyncio.StreamWriter | None = None
        self._waiting: list[asyncio.StreamWriter] = []  # oldest first
        self._ended = asyncio.Event()
        self._exit_code = 0

    def run(self, port: int) -> int:
        """The exit code that the client asked for. port: 0 for any free one. Raises UsageError if it cannot be used."""
        try:
            asyncio.run(self._listen(port))
        finally:
            self._server.shutdown()
        return self._exit_code

    async def _listen(self, port: int) -> None:
        try:
            listener = await asyncio.start_server(self.connected, LOOPBACK, port, limit=LINE_BYTES)
        except (OSError, OverflowError) as reason:
            raise UsageError(f"Port {port} of {LOOPBACK} cannot be used; choose another port.") from reason
        logger.info("Listening on port %d of %s.", listener.sockets[0].getsockname()[1], LOOPBACK)
        await self._ended.wait()
        listener.close()

    async def connected(self, stream: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves or refuses one connection, and closes it."""
        host, port = writer.get_extra_info("peername")[:2]
        try:
            if not ip_address(host).is_loopback:
                raise Refused("came from another machine")
            await self._serve(stream, writer)
        except Refused as refused:
            logger.warning("Closed the connection from port %d of %s, which %s.", port, host, refused)
        except SystemExit as exit:  # the notification `exit`
            self._exit_code = int(exit.code or 0)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            if writer is self._client:
                self._ended.set()

    async def _serve(self, stream: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Until the client disconnects. Raises Refused."""

        def accept(first: bytes) -> None:
            if not _is_initialize(first):
                raise Refused("did not begin with the request `initialize`")
            if self._client is not None:
                raise Refused("came while another client was connected")
            self._client = writer
            limit.reschedule(None)
            self._server.protocol.set_writer(writer)

        self._waiting.append(writer)
        if len(self._waiting) > MAX_WAITING:
            self._waiting.pop(0).close()
        try:
            async with asyncio.timeout(FIRST_S) as limit:
                await read_all(self._server, MessageReader(stream, accept))
        except TimeoutError as late:
            raise Refused(f"sent no message within {FIRST_S:g} s") from late
        finally:
            with suppress(ValueError):  # it was closed for a newer one
                self._waiting.remove(writer)


def _is_initialize(body: bytes) -> bool:
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        return False
    start = {"jsonrpc": "2.0", "method": types.INITIALIZE}
    return isinstance(message, dict) and "id" in message and start.items() <= message.items()
