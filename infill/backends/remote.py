"""JSON over HTTP to one server, with kept connections, a token, and TLS with the system's or other authorities.

Standard library alone. Must not know what is requested.
"""

from __future__ import annotations

import errno
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
from infill.connection import LOOPBACK_HOSTS, CancellableConnection
from infill.printable import one_line

MAX_RESPONSE = 8 << 20  # bytes
MAX_IDLE = 8  # connections kept for the next request


@dataclass(frozen=True)
class Address:
    """Of a server. url: http or https, with the common prefix of its paths; token: sent as a bearer token."""

    url: str
    token: str | None = field(default=None, repr=False)
    authorities: Path | None = None

    @property
    def is_local(self) -> bool:
        return urlsplit(self.url).hostname in LOOPBACK_HOSTS

    def check(self, setting: str, plain: bool = False) -> None:
        """Raises InputError that names `setting`. plain: whether code may be sent over the network unencrypted."""
        try:
            parts, port = urlsplit(self.url), urlsplit(self.url).port
            (parts.hostname or "").encode("idna")
        except ValueError:
            parts, port = urlsplit(""), 0
        if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or parts.query or parts.fragment:
            raise InputError(f"{setting} is {self.url!r}; write an address such as https://host:8012.")
        if parts.scheme == "http" and not self.is_local and not plain:
            raise InputError(
                f"{setting} is {self.url!r}, which sends your code unencrypted; use https, or set plain = true."
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

    def post(self, path: str, body: Mapping[str, Any], timeout_s: float, connection: CancellableConnection) -> Any:
        """The JSON of the response. Raises BackendDown, BackendRefused, InputError for status 400, or Cancelled."""
        until = time.monotonic() + timeout_s
        content = json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        if self.address.token is not None:
            headers["Authorization"] = f"Bearer {self.address.token}"
        while True:
            kept = bool(self._idle)
            try:
                status, response = self._exchange(path, content, headers, until, connection)
                break
            except (OSError, http.client.HTTPException) as reason:
                connection.raise_if_cancelled()
                if kept and isinstance(reason, (ConnectionError, http.client.BadStatusLine)):
                    continue  # the server closed a kept connection; after the last one, a new one is opened
                late = isinstance(reason, TimeoutError)
                what = f"did not answer within {timeout_s:.3g} s" if late else f"cannot be reached ({_why(reason)})"
                raise BackendDown(f"The backend {self.name} {what}; see that it runs, or change its route.") from reason
        return self._read(status, response)

    def _exchange(
        self, path: str, content: bytes, headers: dict[str, str], until: float, connection: CancellableConnection
    ) -> tuple[int, bytes]:
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        server = self._server_connection(left)
        try:
            if server.sock is None:
                server.connect()
            server.sock.settimeout(max(0.001, until - time.monotonic()))
            with connection.using(server.sock):
                server.request("POST", self._parts.path.rstrip("/") + path, content, headers)
                response = server.getresponse()
                received = _read_all(response, server, until)
                response.close()  # so that the connection can be used again
        except BaseException:
            server.close()
            raise
        if response.will_close or len(self._idle) >= MAX_IDLE:
            server.close()
        else:
            self._idle.append(server)
        return response.status, received

    def _server_connection(self, timeout_s: float) -> http.client.HTTPConnection:
        with suppress(IndexError):
            return self._idle.pop()
        host, port = self._parts.hostname or "", self._parts.port
        if self._context is not None:
            return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=self._context)
        return http.client.HTTPConnection(host, port, timeout=timeout_s)

    def _read(self, status: int, content: bytes) -> Any:
        try:
            value = json.loads(content)
        except (ValueError, RecursionError):
            value = None
        if status == 200:
            if value is None:
                raise BackendRefused(
                    f"The backend {self.name} answered with status 200, but not in JSON; check its url."
                )
            return value
        error = (value.get("error") or value.get("detail")) if isinstance(value, dict) else None
        reason = one_line(str(error.get("message", "") if isinstance(error, dict) else error or "")[:300])
        if status == 400:
            raise InputError(reason or f"The backend {self.name} rejected the request.")
        raise BackendRefused(f"The backend {self.name} answered with status {status}: {reason or 'no reason given'}")


def _read_all(response: http.client.HTTPResponse, server: http.client.HTTPConnection, until: float) -> bytes:
    """The whole response; raises TimeoutError after `until`, even if it keeps arriving slowly."""
    content = bytearray()
    while piece := response.read1(1 << 16):
        content += piece
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        if len(content) > MAX_RESPONSE:
            raise OSError(errno.EFBIG, f"its response is larger than {MAX_RESPONSE >> 20} MiB")
        if server.sock is not None:
            server.sock.settimeout(left)
    return bytes(content)


def _why(reason: Exception) -> str:
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {reason.verify_message}"
    return str(getattr(reason, "strerror", None) or type(reason).__name__)
