"""JSON over HTTP to one server on the network, connections kept; a token, and TLS with the system's authorities or
one's own.

Standard library alone. Must not know what is asked.
"""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from engine.errors import InputError
from infill.backends.backend import BackendDown, BackendRefused
from infill.service.client import Line

LOOPBACK = ("127.0.0.1", "localhost", "::1")
LARGEST = 32 << 20  # bytes of an answer
KEPT = 8  # connections that wait for the next request


@dataclass(frozen=True)
class Address:
    """Where a server is. url: http or https, with what all its paths begin with; token: sent as a bearer's."""

    url: str
    token: str | None = field(default=None, repr=False)
    authorities: Path | None = None

    @property
    def is_local(self) -> bool:
        return urlsplit(self.url).hostname in LOOPBACK

    def check(self, place: str, plain: bool = False) -> None:
        """Raises InputError that names `place`. plain: whether code may go over the network for all to read."""
        try:
            parts, port = urlsplit(self.url), urlsplit(self.url).port
        except ValueError:
            parts, port = urlsplit(""), 0
        if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or parts.query or parts.fragment:
            raise InputError(f"{place} is {self.url!r}; write an address such as https://host:8012.")
        if parts.scheme == "http" and not self.is_local and not plain:
            raise InputError(
                f"{place} is {self.url!r}, where anyone on the way can read your code; use https, or set plain = true."
            )


class Remote:
    """One server, for any number of threads. name: of the backend, for messages."""

    def __init__(self, name: str, address: Address) -> None:
        self.name, self.address = name, address
        self._parts = urlsplit(address.url)
        self._idle: list[http.client.HTTPConnection] = []
        self._context: ssl.SSLContext | None = None
        if self._parts.scheme == "https":
            self._context = ssl.create_default_context(cafile=address.authorities)

    def post(self, path: str, body: Mapping[str, Any], timeout_s: float, line: Line) -> Any:
        """The answer's JSON. Raises BackendDown, BackendRefused, InputError where the server says 400, or Cancelled."""
        until = time.monotonic() + timeout_s
        content = json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        if self.address.token is not None:
            headers["Authorization"] = f"Bearer {self.address.token}"
        while True:
            kept = bool(self._idle)
            try:
                status, answer = self._exchanged(path, content, headers, until, line)
                break
            except (OSError, http.client.HTTPException) as reason:
                line.leave_if_hung_up()
                if kept and isinstance(reason, (ConnectionError, http.client.BadStatusLine)):
                    continue  # the server had closed one that was kept; in the end none is
                late = isinstance(reason, TimeoutError)
                what = f"did not answer within {timeout_s:.3g} s" if late else f"cannot be reached ({_why(reason)})"
                raise BackendDown(f"The backend {self.name} {what}; see that it runs, or change its route.") from reason
        return self._read(status, answer)

    def _exchanged(
        self, path: str, content: bytes, headers: dict[str, str], until: float, line: Line
    ) -> tuple[int, bytes]:
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection = self._taken(left)
        try:
            if connection.sock is None:
                connection.connect()
            connection.sock.settimeout(max(0.001, until - time.monotonic()))
            with line.on(connection.sock):
                connection.request("POST", self._parts.path.rstrip("/") + path, content, headers)
                response = connection.getresponse()
                answer = _all_of(response, connection, until)
                response.close()  # so that the connection can be used again
        except BaseException:
            connection.close()
            raise
        if response.will_close or len(self._idle) >= KEPT:
            connection.close()
        else:
            self._idle.append(connection)
        return response.status, answer

    def _taken(self, timeout_s: float) -> http.client.HTTPConnection:
        with suppress(IndexError):
            return self._idle.pop()
        host, port = self._parts.hostname or "", self._parts.port
        if self._context is not None:
            return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=self._context)
        return http.client.HTTPConnection(host, port, timeout=timeout_s)

    def _read(self, status: int, answer: bytes) -> Any:
        try:
            value = json.loads(answer)
        except (ValueError, RecursionError):
            value = None
        if status == 200 and value is not None:
            return value
        error = (value.get("error") or value.get("detail")) if isinstance(value, dict) else None
        said = str(error.get("message", "") if isinstance(error, dict) else error or "")[:300]
        if status == 400:
            raise InputError(said or f"The backend {self.name} cannot use the request.")
        raise BackendRefused(f"The backend {self.name} answered with status {status}: {said or 'no reason given'}")


def _all_of(response: http.client.HTTPResponse, connection: http.client.HTTPConnection, until: float) -> bytes:
    """All of the answer, however slowly it comes, but no longer than `until`."""
    answer = bytearray()
    while piece := response.read1(1 << 16):
        answer += piece
        left = until - time.monotonic()
        if left <= 0 or len(answer) > LARGEST:
            raise TimeoutError
        if connection.sock is not None:
            connection.sock.settimeout(left)
    return bytes(answer)


def _why(reason: Exception) -> str:
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {reason.verify_message}"
    return str(getattr(reason, "strerror", None) or type(reason).__name__)
