"""Checks every HTTP request before an API sees it: no web pages, the token, limits of size and time.

An ASGI application around another. Must not know the APIs, nor parse a body.
"""

from __future__ import annotations

import asyncio
import hmac
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import JSONResponse

from infill.api.http import error_value
from infill.connection import LOOPBACK_HOSTS

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]
MAX_BODY = 8 << 20  # bytes
MAX_BODIES = 64 << 20  # bytes of all bodies together
MAX_LENGTH_DIGITS = 20  # as in h11; int() refuses thousands of digits
READ_S = 10.0  # for a whole body to arrive
SEND_S = 15.0  # for a client to read what was sent
_HOSTS = "|".join(re.escape(f"[{host}]" if ":" in host else host) for host in LOOPBACK_HOSTS)
LOOPBACK_HOST = re.compile(rf"({_HOSTS})(:\d+)?".encode())  # as in a Host header


@dataclass
class RequestActivity:
    """busy: requests in progress; last: time.monotonic() at the end of the last request. body_bytes: of all bodies."""

    busy: int = 0
    body_bytes: int = 0
    last: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class Rejected(Exception):
    """The request does not reach an API."""

    status: int
    message: str
    kind: str = "invalid_request_error"


class Guard:
    """token: required of every request, unless it is None. check_host: whether the Host header must name this machine,
    which stops web pages that use DNS rebinding."""

    def __init__(self, app: App, activity: RequestActivity, token: str | None = None, check_host: bool = False) -> None:
        self.app, self.activity, self.token, self.check_host = app, activity, token, check_host

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        is_post = scope["method"] == "POST"
        self.activity.busy += is_post
        try:
            headers = {name.lower(): value for name, value in scope["headers"]}
            self._check(headers)
            if not is_post:
                await self.app(scope, _replay(b"", receive), _with_timeout(send))
                return
            async with self._body(headers, receive) as body:
                await self.app(scope, _replay(body, receive), _with_timeout(send))
        except Rejected as rejected:
            close = {"Connection": "close"} if is_post else {}
            extra = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "1"}}.get(rejected.status, {})
            value = error_value(rejected.message, rejected.kind, rejected.status)
            await JSONResponse(value, rejected.status, close | extra)(scope, receive, _with_timeout(send))
        finally:
            self.activity.busy -= is_post
            if is_post:
                self.activity.last = time.monotonic()

    def _check(self, headers: dict[bytes, bytes]) -> None:
        if b"origin" in headers or headers.get(b"sec-fetch-site", b"none") != b"none":
            raise Rejected(403, "Requests from web pages are refused; use a program.", "forbidden_error")
        if self.check_host and LOOPBACK_HOST.fullmatch(headers.get(b"host", b"")) is None:
            raise Rejected(
                403, "The Host header does not name this machine; connect to 127.0.0.1 or localhost.", "forbidden_error"
            )
        given = headers.get(b"authorization", b"")
        if self.token is not None and not hmac.compare_digest(given, b"Bearer " + self.token.encode()):
            raise Rejected(401, "The token is missing or wrong; send it as `Authorization: Bearer …`.", "auth_error")

    @asynccontextmanager
    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> AsyncIterator[bytes]:
        """The body, which counts until the request is answered."""
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if kind != b"application/json":
            raise Rejected(415, "The body must be JSON; send `Content-Type: application/json`.")
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and (len(length) > MAX_LENGTH_DIGITS or int(length) > MAX_BODY):
            raise Rejected(413, f"The body is too large; send at most {MAX_BODY >> 20} MiB.")
        body = bytearray()
        try:
            await self._read(body, receive)
            yield bytes(body)
        finally:
            self.activity.body_bytes -= len(body)

    async def _read(self, body: bytearray, receive: Receive) -> None:
        try:
            async with asyncio.timeout(READ_S):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Rejected(400, "The body is incomplete; send all of it.")
                    part = message.get("body", b"")
                    body += part
                    self.activity.body_bytes += len(part)
                    more = message.get("more_body", False)
                    if len(body) > MAX_BODY:
                        raise Rejected(413, f"The body is too large; send at most {MAX_BODY >> 20} MiB.")
                    if self.activity.body_bytes > MAX_BODIES:
                        raise Rejected(429, "Too many large requests are waiting; try again in a moment.", "busy_error")
        except TimeoutError as late:
            raise Rejected(408, f"The body took longer than {READ_S:g} s to arrive; send it at once.") from late


def _replay(body: bytes, receive: Receive) -> Receive:
    """Receives the body in one message, then what the client sends, which is its disconnect."""
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _with_timeout(send: Send) -> Send:
    """Raises TimeoutError for a client that does not read what was sent."""

    async def send_in_time(message: Message) -> None:
        async with asyncio.timeout(SEND_S):
            await send(message)

    return send_in_time
