"""What every HTTP request must pass before any API sees it: no web pages, the token, limits of size and time.

An ASGI application around another. Must not know the APIs, nor read what a body says.
"""

from __future__ import annotations

import asyncio
import hmac
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import JSONResponse

from infill.api.http import error_value

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]
LARGEST = 8 << 20  # bytes of a body
READ_S = 10.0  # for all of a body to arrive
SEND_S = 15.0  # for a client to take what was sent
THIS_MACHINE = re.compile(rb"(127\.0\.0\.1|localhost|\[::1\])(:\d+)?")


@dataclass
class Activity:
    """busy: requests under way; last: time.monotonic() of the last sign of a client that wants something."""

    busy: int = 0
    last: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class Refused(Exception):
    """A request that no API will see."""

    status: int
    message: str
    kind: str = "invalid_request_error"


class Guard:
    """token: asked of every request where there is one. hosts: whether the Host header must name this machine, which
    a page that reached us by a name of its own making (DNS rebinding) cannot do."""

    def __init__(self, app: App, activity: Activity, token: str | None = None, hosts: bool = False) -> None:
        self.app, self.activity, self.token, self.hosts = app, activity, token, hosts

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        wants = scope["method"] == "POST"
        self.activity.busy += wants
        try:
            headers = {name.lower(): value for name, value in scope["headers"]}
            self._check(headers)
            body = await _body(headers, receive) if wants else b""
            await self.app(scope, _replayed(body, receive), _in_time(send))
        except Refused as refused:
            close = {"Connection": "close"} if wants else {}
            extra = {"WWW-Authenticate": "Bearer"} if refused.status == 401 else {}
            value = error_value(refused.message, refused.kind, refused.status)
            await JSONResponse(value, refused.status, close | extra)(scope, receive, _in_time(send))
        finally:
            self.activity.busy -= wants
            if wants:
                self.activity.last = time.monotonic()

    def _check(self, headers: dict[bytes, bytes]) -> None:
        if b"origin" in headers or headers.get(b"sec-fetch-site", b"none") != b"none":
            raise Refused(403, "Requests from web pages are refused; use a program.", "forbidden_error")
        if self.hosts and THIS_MACHINE.fullmatch(headers.get(b"host", b"")) is None:
            raise Refused(403, "The Host is not this machine; connect to 127.0.0.1 or localhost.", "forbidden_error")
        given = headers.get(b"authorization", b"")
        if self.token is not None and not hmac.compare_digest(given, b"Bearer " + self.token.encode()):
            raise Refused(401, "The token is missing or wrong; send it as `Authorization: Bearer …`.", "auth_error")


async def _body(headers: dict[bytes, bytes], receive: Receive) -> bytes:
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind != b"application/json":
        raise Refused(415, "The body must be JSON; send `Content-Type: application/json`.")
    said = headers.get(b"content-length", b"0")
    if said.isdigit() and int(said) > LARGEST:
        raise Refused(413, f"The body is too large; send at most {LARGEST >> 20} MiB.")
    body = bytearray()
    try:
        async with asyncio.timeout(READ_S):
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Refused(400, "The body ended early; send all of it.")
                body += message.get("body", b"")
                more = message.get("more_body", False)
                if len(body) > LARGEST:
                    raise Refused(413, f"The body is too large; send at most {LARGEST >> 20} MiB.")
    except TimeoutError as late:
        raise Refused(408, f"The body took longer than {READ_S:g} s to arrive; send it at once.") from late
    return bytes(body)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """The body in one message, afterwards what comes from the client, which is that it hangs up."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _in_time(send: Send) -> Send:
    """Gives up on a client that does not read; what was being written for it ends with TimeoutError."""

    async def sent(message: Message) -> None:
        async with asyncio.timeout(SEND_S):
            await send(message)

    return sent
