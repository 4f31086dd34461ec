"""One HTTP request to a service over its Unix socket, and the errors that come back. Imports nothing slow.

Each request has a connection of its own, so that closing the connection cancels the request. Must not know what is
requested, nor how a service is started.
"""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from engine.errors import GessoError, InputError
from infill.connection import CancellableConnection
from infill.service.location import ServiceLocation, connect
from infill.validation import structure

_SURROGATES = re.compile("[\ud800-\udfff]")
QUICK_S = 5.0  # for requests that no model answers


class ServiceGone(GessoError):
    """No service runs, it ended before it answered, or it does not answer."""


class ServiceRefused(GessoError):
    """The service has too much work, or failed on this request."""


class ServiceBusy(ServiceRefused):
    """The service has too much work to answer before the deadline. retry_s: when it may have less."""

    def __init__(self, message: str, retry_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_s = retry_s


class ServiceNotReady(ServiceRefused):
    """The service is loading its model or could not load it."""


@dataclass(frozen=True)
class Health:
    """status: "ok", "loading" or "failed". done, total: bytes of the weights while loading. can_lint: whether the model
    produces findings; lints: whether they are good enough to be shown without being requested. fallback_model: the
    smaller model that answers requests that accept any model, until this one is ready. network: the fingerprint of the
    options of its port, if it has one."""

    status: str
    model: str
    done: int
    total: int
    message: str | None
    pending: int
    pid: int
    version: str
    can_lint: bool = False
    lints: bool = False
    fallback_model: str | None = None
    network: str | None = None


def read_health(location: ServiceLocation) -> Health:
    """Raises ServiceGone, or NotPrivate if another user could answer."""
    with exchange(location, "GET", "/health", None, QUICK_S) as response:
        value = read_json(response)
    try:
        return structure(Health, value, "health")
    except InputError as wrong:
        raise ServiceGone(f"The process at {location.socket} is not a Gesso service; remove the file.") from wrong


@contextmanager
def exchange(
    location: ServiceLocation,
    method: str,
    path: str,
    body: Any,
    timeout_s: float,
    connection: CancellableConnection | None = None,
) -> Iterator[http.client.HTTPResponse]:
    """The response to one request. body: sent as JSON unless it is None.

    Raises ServiceGone, Cancelled, or NotPrivate if another user could answer.
    """
    connection = connection or CancellableConnection()
    unix = _UnixConnection(location, timeout_s)
    content = None if body is None else encode(body)
    try:
        unix.connect()
        with connection.using(unix.sock):
            unix.request(method, path, content, {"Content-Type": "application/json"} if content else {})
            yield unix.getresponse()
    except (OSError, http.client.HTTPException, ServiceGone) as reason:
        connection.raise_if_cancelled()
        if isinstance(reason, ServiceGone):
            raise
        raise ServiceGone(f"The service at {location.socket} does not answer; try again to restart it.") from reason
    finally:
        unix.close()


def read_json(response: http.client.HTTPResponse) -> dict[str, Any]:
    """The JSON object of a response, empty if it is not an object; raises ServiceGone for an incomplete one."""
    try:
        value = json.loads(response.read())
    except (ValueError, RecursionError) as wrong:
        raise ServiceGone("The response of the service is incomplete; try again.") from wrong
    return value if isinstance(value, dict) else {}


def error_from(value: dict[str, Any], status: int, retry_s: float = 1.0) -> GessoError:
    """The error that a response with this status describes. retry_s: from its header Retry-After."""
    error = value.get("error")
    message = str(isinstance(error, dict) and error.get("message") or f"The service answered with status {status}.")
    if status == 429:
        return ServiceBusy(message, retry_s)
    kinds = {400: InputError, 503: ServiceNotReady}
    return kinds.get(status, ServiceRefused)(message)


def encode(body: Any) -> bytes:
    """JSON in UTF-8. A lone surrogate, which the service refuses, becomes U+FFFD, so that offsets stay the same."""
    text = json.dumps(body, ensure_ascii=False)
    try:
        return text.encode()
    except UnicodeEncodeError:
        return _SURROGATES.sub("\ufffd", text).encode()


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, location: ServiceLocation, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self.location = location

    def connect(self) -> None:
        self.sock = connect(self.location, self.timeout)
