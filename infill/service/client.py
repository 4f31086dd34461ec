"""The resident service from outside: found, started where there is none, asked. Standard library alone.

A request is a connection of its own over the Unix socket, so hanging up is how one is cancelled (`Line`). Must not know
who asks; not for the event loop of a server, as every call blocks.
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
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import Cancelled, GessoError, InputError
from infill.api.values import (
    findings_from_json,
    lint_request_to_json,
    request_to_json,
    result_from_json,
    step_from_json,
)
from infill.findings import Finding, LintRequest
from infill.request import InfillRequest, InfillResult, OnStep
from infill.service.location import Place, holder, make_private
from infill.version import installed_version

LAUNCHER = Path(__file__).parents[2] / "gesso_launcher.py"
COMMAND = (sys.executable, "-P", str(LAUNCHER), "serve")
START_S = 30.0  # until a service that was started answers at all
ANSWER_S = 130.0  # a little longer than the service gives any infill
LINT_ANSWER_S = 610.0  # and any lint
QUICK_S = 5.0
PAUSE_S, LONGEST_PAUSE_S = 0.03, 0.25  # between two questions whether it is ready
END_S = 10.0
Progress = Callable[[int, int], None]


class ServiceGone(GessoError):
    """There is no service, it ended before it answered, or it does not answer."""


class ServiceRefused(GessoError):
    """The service has too much to do, or failed at this request."""


class ServiceNotReady(ServiceRefused):
    """The service is loading its model, or could not load it."""


@dataclass(frozen=True)
class Health:
    """status: "ok", "loading" or "failed". done, total: bytes of the weights while loading. can_lint: whether
    its model has findings; lints: whether those are good enough to be shown unasked. meanwhile: the smaller model
    that answers those who take any, until this one is ready."""

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
    meanwhile: str | None = None


class Line:
    """The connection of one request, which any thread may hang up; whoever waits for its answer gets Cancelled."""

    def __init__(self) -> None:
        self.hung_up = False
        self._socket: socket.socket | None = None
        self._turn = threading.Lock()

    def hang_up(self) -> None:
        with self._turn:
            self.hung_up = True
            if self._socket is not None:
                with suppress(OSError):  # the other end was quicker
                    self._socket.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def on(self, connected: socket.socket) -> Iterator[None]:
        """While `connected` is the line; Cancelled where it was hung up before."""
        with self._turn:
            self.leave_if_hung_up()
            self._socket = connected
        try:
            yield
        finally:
            with self._turn:
                self._socket = None

    def leave_if_hung_up(self) -> None:
        """Raises Cancelled."""
        if self.hung_up:
            raise Cancelled("The request was cancelled; ask again if it is still wanted.")


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
            return Health(**{name: value[name] for name in Health.__annotations__ if name in value})
        except TypeError as wrong:
            raise ServiceGone(f"What answers at {self.place.socket} is no Gesso service; remove the file.") from wrong

    def complete(
        self,
        request: InfillRequest,
        on_step: OnStep | None = None,
        priority: str = "inline",
        line: Line | None = None,
        settings: Mapping[str, Any] | None = None,
        any_model: bool = False,
    ) -> InfillResult:
        """The result, from the same values as from a `Completer`; with `on_step` the canvas after each step.

        Where `on_step` returns False the steps that follow are no longer told. settings: those of
        `infill.api.values.OWN` that stand for this request. any_model: a smaller one may answer while that of the
        service loads. Raises ServiceGone, ServiceRefused, InputError for a
        request that cannot be used, or Cancelled where `line` was hung up.
        """
        body = request_to_json(request) | {"priority": priority, "client": self.name, "stream": on_step is not None}
        body["any_model"] = any_model
        with self._asked("POST", "/v1/infill", {**body, **(settings or {})}, ANSWER_S, line) as response:
            if response.status != 200:
                raise _error(_value(response), response.status)
            return result_from_json(_value(response) if on_step is None else _followed(response, on_step))

    def lint(
        self, request: LintRequest, priority: str = "lint", line: Line | None = None, any_model: bool = False
    ) -> tuple[Finding, ...]:
        """What looks wrong, from the same values as from a `Linter`; otherwise as `complete`."""
        body = lint_request_to_json(request) | {"priority": priority, "client": self.name, "any_model": any_model}
        with self._asked("POST", "/v1/lint", body, LINT_ANSWER_S, line) as response:
            value = _value(response)
        if response.status != 200:
            raise _error(value, response.status)
        return findings_from_json(value)

    def metrics(self) -> str:
        """The service's counts, as Prometheus reads them. Raises ServiceGone where nothing answers."""
        with self._asked("GET", "/metrics", None, QUICK_S) as response:
            return response.read().decode()

    def wait_until_ready(self, on_progress: Progress | None = None, any_model: bool = False) -> Health:
        """Returns when the model is loaded; with `any_model` as soon as a smaller one answers meanwhile.

        Raises ServiceNotReady where it cannot be, ServiceGone without a service.
        """
        pause_s = PAUSE_S
        while (health := self.health()).status == "loading" and not (any_model and health.meanwhile):
            if on_progress is not None:
                on_progress(health.done, health.total)
            time.sleep(pause_s)
            pause_s = min(LONGEST_PAUSE_S, 1.5 * pause_s)
        if health.status == "failed" and not (any_model and health.meanwhile):
            raise ServiceNotReady(health.message or "The model of the service could not be loaded; see its log.")
        return health

    @contextmanager
    def _asked(
        self, method: str, path: str, body: Any, timeout_s: float, line: Line | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        line = line or Line()
        connection = _Connection(str(self.place.socket), timeout_s)
        content = None if body is None else json.dumps(body).encode()
        try:
            connection.connect()
            with line.on(connection.sock):
                connection.request(method, path, content, {"Content-Type": "application/json"} if content else {})
                yield connection.getresponse()
        except (OSError, http.client.HTTPException, ServiceGone) as reason:
            line.leave_if_hung_up()
            if isinstance(reason, ServiceGone):
                raise
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
    try:
        with _alone(place):
            if (found := find(place)) is not None:
                return found
            process = _spawn(place, [*command, "--socket", str(place.socket), *arguments])
            return _first_answer(place, process)
    except OSError as reason:
        raise ServiceGone(f"The service cannot be started ({reason.strerror}); try `gesso serve`.") from reason


def find_with(place: Place, model: str) -> Client | None:
    """The service with this model and of this version, loading, ready or failed; at `place` or beside it."""
    for at in _places(place, model):
        found = Client(at)
        with suppress(ServiceGone):
            if _suits(found.health(), model):
                return found
    return None


def start_with(place: Place, model: str, arguments: Sequence[str] = ()) -> Client:
    """As `start`, a service with this model and of this version: where one with another has the place, one beside it.

    One that could not load its model is replaced, as what was missing may be there now.
    """
    if (found := find_with(place, model)) is not None:
        with suppress(ServiceGone):
            if found.health().status != "failed" or found.health().meanwhile:
                return found
        stop(found.place)
    for at in _places(place, model):
        started = start(at, ("--model", model, *arguments))
        if _suits(started.health(), model):
            return started
    raise ServiceGone(f"Another service took the place of the one for {model}; ask again.")


def _places(place: Place, model: str) -> tuple[Place, Place]:
    return place, place.beside(f"{model} {installed_version()}")


def _suits(health: Health, model: str) -> bool:
    return (health.model, health.version) == (model, installed_version())


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
    if (process := _process(place)) is None:
        return False
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.kill(process, number)
        except ProcessLookupError:
            return True
        until = time.monotonic() + END_S
        while time.monotonic() < until:
            if _process(place) != process:
                return True
            time.sleep(PAUSE_S)
    raise ServiceGone(f"The service, process {process}, does not end; see `ps -p {process}`.")


def _process(place: Place) -> int | None:
    """Of the service: who holds the lock, by its own word where the lock could not be signed."""
    if (process := holder(place)) is not None:
        return process
    try:
        return Client(place).health().pid
    except ServiceGone:
        return None


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
    """A process that outlives this one; its last words go to the log."""
    log = os.open(place.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=place.socket.parent,
        )
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
    kinds = {400: InputError, 503: ServiceNotReady}
    return kinds.get(status, ServiceRefused)(message)
