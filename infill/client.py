"""The resident service from outside: found, started where there is none, asked. Standard library alone.

A request is a connection of its own over the Unix socket, so hanging up is how one is cancelled. Must not know who
asks; not for the event loop of a server, as every call blocks.
"""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from engine.errors import GessoError, InputError
from infill.api_values import request_to_json, result_from_json, step_from_json
from infill.request import InfillRequest, InfillResult, OnStep
from infill.service_place import Place, holder, make_private

COMMAND = (sys.executable, "-P", "-m", "infill", "serve")  # -P: nothing is imported from the folder of a project
START_S = 30.0  # until a service that was started answers at all
ANSWER_S = 130.0  # a little longer than the service gives any request
QUICK_S = 5.0
PAUSE_S = 0.03
END_S = 10.0
Progress = Callable[[int, int], None]


class ServiceGone(GessoError):
    """There is no service, it ended before it answered, or it does not answer."""


class ServiceRefused(GessoError):
    """The service is loading, has too much to do, or failed at this request."""


@dataclass(frozen=True)
class Health:
    """status: "ok", "loading" or "failed". done, total: bytes of the weights while loading."""

    status: str
    model: str
    done: int
    total: int
    message: str | None
    pending: int
    pid: int
    version: str


class Client:
    """One service. name: whose requests these are; those of one name share one share of the engine."""

    def __init__(self, place: Place, name: str | None = None) -> None:
        self.place = place
        self.name = name if name is not None else f"process-{os.getpid()}"

    def health(self) -> Health:
        """Raises ServiceGone where nothing answers."""
        with self._asked("GET", "/health", None, QUICK_S) as response:
            value = _value(response)
        try:
            return Health(**{name: value[name] for name in Health.__annotations__})
        except (KeyError, TypeError) as wrong:
            raise ServiceGone(f"What answers at {self.place.socket} is no Gesso service; remove the file.") from wrong

    def complete(self, request: InfillRequest, on_step: OnStep | None = None, priority: str = "inline") -> InfillResult:
        """The result, from the same values as from a `Completer`; with `on_step` the canvas after each step.

        Where `on_step` returns False the steps that follow are no longer told. Raises ServiceGone, ServiceRefused, or
        InputError for a request that cannot be used.
        """
        body = request_to_json(request) | {"priority": priority, "client": self.name, "stream": on_step is not None}
        with self._asked("POST", "/v1/infill", body, ANSWER_S) as response:
            if response.status != 200:
                raise _error(_value(response), response.status)
            return result_from_json(_value(response) if on_step is None else _followed(response, on_step))

    def wait_until_ready(self, on_progress: Progress | None = None) -> Health:
        """Returns when the model is loaded. Raises ServiceRefused where it cannot be, ServiceGone without a service."""
        while (health := self.health()).status == "loading":
            if on_progress is not None:
                on_progress(health.done, health.total)
            time.sleep(PAUSE_S)
        if health.status == "failed":
            raise ServiceRefused(health.message or "The model of the service could not be loaded; see its log.")
        return health

    @contextmanager
    def _asked(self, method: str, path: str, body: Any, timeout_s: float) -> Iterator[http.client.HTTPResponse]:
        connection = _Connection(str(self.place.socket), timeout_s)
        content = None if body is None else json.dumps(body).encode()
        try:
            connection.request(method, path, content, {"Content-Type": "application/json"} if content else {})
            yield connection.getresponse()
        except (OSError, http.client.HTTPException) as reason:
            raise ServiceGone(
                f"The service at {self.place.socket} does not answer; ask again to restart it."
            ) from reason
        finally:
            connection.close()


def find(place: Place) -> Client | None:
    """The service that is there, loading or not; None where none is."""
    client = Client(place)
    try:
        client.health()
    except ServiceGone:
        return None
    return client


def start(place: Place, arguments: Sequence[str] = (), command: Sequence[str] = COMMAND) -> Client:
    """The service that is there, or else a new one in the background, as soon as it answers, maybe still loading.

    arguments: of `gesso serve`. Whoever calls this at the same time gets the same service. Raises ServiceGone where
    none comes up.
    """
    make_private(place.socket.parent)
    if (found := find(place)) is not None:
        return found
    with _alone(place):
        if (found := find(place)) is not None:
            return found
        process = _spawn(place, [*command, "--socket", str(place.socket), *arguments])
        return _first_answer(place, process)


def complete(
    place: Place, request: InfillRequest, on_step: OnStep | None = None, arguments: Sequence[str] = ()
) -> InfillResult:
    """As `Client.complete`, from a service that is started where there is none, and again where it dies."""
    for last in (False, True):
        client = start(place, arguments)
        try:
            client.wait_until_ready()
            return client.complete(request, on_step)
        except ServiceGone:
            if last:
                raise
    raise AssertionError("the second try returns or raises")


def stop(place: Place) -> bool:
    """Ends the service, at once where it does not end by itself; False where none runs. Returns when it is gone."""
    if (process := holder(place)) is None:
        return False
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.kill(process, number)
        except ProcessLookupError:
            return True
        until = time.monotonic() + END_S
        while time.monotonic() < until:
            if holder(place) != process:
                return True
            time.sleep(PAUSE_S)
    raise ServiceGone(f"The service, process {process}, does not end; see `ps -p {process}`.")


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


@contextmanager
def _alone(place: Place) -> Iterator[None]:
    """One at a time starts a service; the lock of one that dies is free."""
    file = os.open(place.start_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def _spawn(place: Place, command: Sequence[str]) -> subprocess.Popen[bytes]:
    """A process that outlives this one, from where it finds the same modules; its last words go to the log."""
    path = os.pathsep.join(filter(None, sys.path))
    log = os.open(place.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=place.socket.parent,
            env={**os.environ, "PYTHONPATH": path},
        )
    except OSError as reason:
        raise ServiceGone(f"The service cannot be started ({reason.strerror}); try `gesso serve`.") from reason
    finally:
        os.close(log)


def _first_answer(place: Place, process: subprocess.Popen[bytes]) -> Client:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        if (found := find(place)) is not None:
            return found
        if process.poll() not in (None, 0):
            break
        time.sleep(PAUSE_S)
    raise ServiceGone(f"The service did not start; {place.log} says why, or try `gesso serve`.")


def _followed(response: http.client.HTTPResponse, on_step: OnStep) -> dict[str, Any]:
    """The result at the end of a stream of events."""
    name, wanted = "", True
    while line := response.readline():
        if line.startswith(b"event: "):
            name = line[7:].strip().decode()
        elif line.startswith(b"data: "):
            value = json.loads(line[6:])
            if name == "result":
                return value
            if name == "error":
                raise _error(value, 500)
            wanted = wanted and on_step(step_from_json(value)) is not False
    raise ServiceGone("The service ended before it answered; ask again to restart it.")


def _value(response: http.client.HTTPResponse) -> dict[str, Any]:
    try:
        value = json.loads(response.read())
    except ValueError as wrong:
        raise ServiceGone("The service did not answer in full; ask again.") from wrong
    return value if isinstance(value, dict) else {}


def _error(value: dict[str, Any], status: int) -> GessoError:
    message = str((value.get("error") or {}).get("message") or f"The service answered with status {status}.")
    return InputError(message) if status == 400 else ServiceRefused(message)
