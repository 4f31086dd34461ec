"""Reads a client's messages from a stream of bytes: header fields, then JSON.

Neovim sends a buffer's bytes as they are, so a message may not be UTF-8. pygls drops such a message, and the edit in it
with it. Here each invalid byte becomes one character, as PEP 383 defines, so that positions after it stay right. Must
not know what a message means.
"""

from __future__ import annotations

import asyncio
import codecs
import json
import logging
import re
import sys
from collections.abc import Awaitable, Coroutine
from typing import Any, Protocol

from pygls.io_ import StdinAsyncReader, StdoutWriter
from pygls.lsp.server import LanguageServer

logger = logging.getLogger(__name__)
KEEP_BYTES = "gesso-keep-bytes"
MOST_BYTES = 256 << 20  # of a message
_LENGTH = re.compile(rb"content-length:[ \t]*(\d{1,12})\s*$", re.IGNORECASE)
_FIELD = re.compile(rb"(?!content-length)[\w-]+:", re.IGNORECASE)
_SURROGATE = re.compile(rb"\xed[\xa0-\xbf][\x80-\xbf]")


class Reader(Protocol):
    """A stream of bytes."""

    def readline(self) -> Awaitable[bytes]: ...

    def readexactly(self, n: int) -> Awaitable[bytes]: ...


class Receiver(LanguageServer):
    """A language server that reads its messages with this module."""

    def receive(self, body: bytes) -> None:
        """Handles one message."""
        raise NotImplementedError

    def receive_unreadable(self, reason: str) -> None:
        """Handles bytes that are not a message, which may have been any message."""
        raise NotImplementedError

    def serve_stdio(self) -> None:
        """Runs until the client disconnects."""
        self.protocol.set_writer(StdoutWriter(sys.stdout.buffer))
        self._run(read_all(self, StdinAsyncReader(sys.stdin.buffer, self.thread_pool)))

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            asyncio.run(work)
        except BrokenPipeError:
            logger.error("The connection to the client is lost.")
        except (KeyboardInterrupt, SystemExit, asyncio.CancelledError):
            pass
        finally:
            self.shutdown()


def decode(body: bytes) -> Any:
    """The JSON value of a message. Raises ValueError or RecursionError if it is not JSON.

    Control characters in strings are allowed, as editors send what a buffer contains.
    """
    return json.loads(body.decode("utf-8", KEEP_BYTES), strict=False)


def _keep_bytes(error: UnicodeError) -> tuple[str, int]:
    """U+DC80 to U+DCFF for a byte that is not UTF-8; a lone surrogate in three bytes stays what it is."""
    assert isinstance(error, UnicodeDecodeError)
    start = error.start
    if _SURROGATE.match(error.object, start):
        character = error.object[start : start + 3].decode("utf-8", "surrogatepass")
        if not "\udc80" <= character <= "\udcff":
            return character, start + 3
    return chr(0xDC00 + error.object[start]), start + 1


codecs.register_error(KEEP_BYTES, _keep_bytes)


async def read_all(server: Receiver, reader: Reader) -> None:
    """Passes each message to `server` until the stream ends.

    A message with another length than announced, or without a length, takes the beginning of the next one with it. So
    what is neither a header nor a message is reported once, and reading goes on at the next length.
    """
    length: int | None = None
    is_lost = False
    while line := await reader.readline():
        match = _LENGTH.search(line)
        length = int(match[1]) if match else length
        is_header = match.start() == 0 if match else _FIELD.match(line) or not line.strip()
        if not is_lost and (not is_header or (length is not None and not 0 < length <= MOST_BYTES)):
            is_lost = True
            server.receive_unreadable("its header is not valid")
        if not line.strip() and length is not None:
            if 0 < length <= MOST_BYTES:
                try:
                    body = await reader.readexactly(length)
                except asyncio.IncompleteReadError:
                    return
                is_lost = False
                server.receive(body)
            length = None
