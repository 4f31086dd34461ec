"""The client of the service, for commands and editors: finds, starts and restarts it, and sends requests.

Standard library alone, since every command imports it. Must not know who uses it. Every call blocks, so it is not for
an event loop.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from http.client import HTTPResponse
from pathlib import Path
from typing import Any, Literal, TypeVar

from engine.errors import Cancelled, GessoError
from infill.api.values import (
    REQUEST_SETTINGS,
    edit_result_from_json,
    findings_from_json,
    lint_request_to_json,
    request_to_json,
    result_from_json,
    step_from_json,
)
from infill.connection import CancellableConnection
from infill.edit_request import EditRequest, EditResult
from infill.engine_protocol import INFILL_LIMIT_S, LINT_LIMIT_S, READ_AHEAD_LIMIT_S, EngineState, PriorityName
from infill.findings import Finding, LintRequest
from infill.model_store import absolute, concrete
from infill.request import InfillRequest, InfillResult, OnStep
from infill.service.exchange import (
    QUICK_S,
    Health,
    ServiceBusy,
    ServiceGone,
    ServiceNotReady,
    error_from,
    exchange,
    read_health,
    read_json,
)
from infill.service.location import ServiceLocation, location_at
from infill.service.start import COMMAND, start_service, stop_service
from infill.settings import Settings
from infill.validation import structure
from infill.version import installed_version

ATTEMPTS = 3  # per request if the service keeps ending: the request itself may be the cause
IN_FLIGHT = 16  # requests of a batch: two batches of the engine's steps, so that one waits while one runs
SLACK_S = 10.0  # added to the time limits of the service
POLL_S, LONGEST_POLL_S = 0.03, 0.25  # between two looks at a service that loads
Result = TypeVar("Result")


@dataclass(frozen=True)
class _Service:
    location: ServiceLocation
    health: Health


class ServiceClient:
    """A service, for any number of threads. The first request starts it, and it is restarted whenever it ends.

    location: None is the user's default. settings: the service must have their model and this version of Gesso; if
    another service is at `location`, the right one is at a variant of it. Requests carry the settings that a request
    can override. Without settings, any service at `location` will do. name: the engine shares its time fairly between
    names. priority: of all requests; None is "inline" for `complete` and "lint" for `lint`. arguments: more of those of
    `gesso serve`. any_model: a smaller model may answer while the model loads. on_state: called by any thread with
    every change; "stopped" means that no service could be started, for the reason in `message`.
    """

    def __init__(
        self,
        location: ServiceLocation | None = None,
        settings: Settings | None = None,
        *,
        name: str | None = None,
        priority: PriorityName | None = None,
        arguments: Sequence[str] = (),
        command: Sequence[str] = COMMAND,
        any_model: bool = False,
        on_state: Callable[[EngineState], None] | None = None,
    ) -> None:
        self.location = location or location_at()
        self.name = name if name is not None else f"process-{os.getpid()}"
        self._priority, self._any_model = priority, any_model
        if settings is not None:
            settings = replace(settings, model=absolute(concrete(settings.model), Path(), bare=False))
        self._settings, self._command, self._on_state = settings, command, on_state
        self._arguments = (*_arguments(settings), *arguments)
        self._overrides = {name: getattr(settings, name) for name in REQUEST_SETTINGS} if settings is not None else {}
        self._service: _Service | None = None
        self._started: int | None = None  # process that this client started
        self._connecting = threading.Lock()
        self._connections: set[CancellableConnection] = set()
        self._closed = False

    def find(self) -> Health | None:
        """The health of a running service; None if none runs. Starts nothing. Raises NotPrivate."""
        found = self._find()
        return found.health if found is not None else None

    def health(self) -> Health:
        """Raises ServiceGone if no service runs."""
        if (health := self.find()) is None:
            raise ServiceGone(f"No service answers at {self.location.socket}; start one with `gesso serve`.")
        return health

    def metrics(self) -> str:
        """The service's counts in Prometheus's format. Raises ServiceGone if no service runs."""
        found = self._find()
        with exchange(found.location if found else self.location, "GET", "/metrics", None, QUICK_S) as response:
            return response.read().decode()

    def start(self) -> Health:
        """Starts the service unless it runs; returns once it answers, perhaps still loading. Raises ServiceGone."""
        return self._start().health

    def connect(self) -> Health:
        """Starts the service unless it runs, and returns once its model is ready, or a smaller one with `any_model`.

        Raises ServiceGone if it does not start, ServiceNotReady if its model cannot be loaded.
        """
        return self._connect().health

    def complete(
        self,
        request: InfillRequest,
        on_step: OnStep | None = None,
        *,
        connection: CancellableConnection | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> InfillResult:
        """The same result as from a `Completer`; with `on_step` the canvas after each step, until it returns False.

        overrides: settings of this request, by the names in `infill.api.values.REQUEST_SETTINGS`. Raises ServiceGone,
        ServiceRefused, InputError for an invalid request, or Cancelled once `connection` is cancelled.
        """
        body = request_to_json(request) | self._overrides | dict(overrides or {})
        body |= self._common(self._priority or "inline") | {"stream": on_step is not None}

        def read(response: HTTPResponse) -> InfillResult:
            return result_from_json(read_json(response) if on_step is None else _read_stream(response, on_step))

        return self._send("/v1/infill", body, INFILL_LIMIT_S + SLACK_S, connection, read)

    def complete_batch(self, requests: Sequence[InfillRequest]) -> list[InfillResult | GessoError]:
        """In the order of the requests, IN_FLIGHT at a time; the error of an invalid request takes its position.

        A request that a busy service refuses is sent again, for at most INFILL_LIMIT_S.
        """

        def complete(request: InfillRequest) -> InfillResult | GessoError:
            end = time.monotonic() + INFILL_LIMIT_S
            while True:
                try:
                    return self.complete(request)
                except ServiceGone:
                    raise
                except ServiceBusy as busy:
                    if self._closed or time.monotonic() + busy.retry_s > end:
                        return busy
                    time.sleep(busy.retry_s)
                except GessoError as error:
                    return error

        with ThreadPoolExecutor(IN_FLIGHT) as threads:
            return list(threads.map(complete, requests))

    def edit(
        self, request: EditRequest, on_step: OnStep | None = None, connection: CancellableConnection | None = None
    ) -> EditResult:
        """The same result as from a `Rewriter`; otherwise as `complete`."""
        body = request_to_json(request) | self._common(self._priority or "inline") | {"stream": on_step is not None}

        def read(response: HTTPResponse) -> EditResult:
            return edit_result_from_json(read_json(response) if on_step is None else _read_stream(response, on_step))

        return self._send("/v1/edit", body, INFILL_LIMIT_S + SLACK_S, connection, read)

    def lint(self, request: LintRequest, connection: CancellableConnection | None = None) -> tuple[Finding, ...]:
        """The same findings as from a `Linter`; otherwise as `complete`."""
        body = lint_request_to_json(request) | self._common(self._priority or "lint")

        def read(response: HTTPResponse) -> tuple[Finding, ...]:
            return findings_from_json(read_json(response))

        return self._send("/v1/lint", body, LINT_LIMIT_S + SLACK_S, connection, read)

    def read_ahead(self, request: InfillRequest, connection: CancellableConnection | None = None) -> int:
        """Lets the service encode the prompt of a likely request; otherwise as `complete`.

        Returns the number of encoded tokens.
        """
        body = request_to_json(request) | self._overrides | self._common("lint")

        def read(response: HTTPResponse) -> int:
            return structure(int, read_json(response).get("encoded_tokens"), "encoded_tokens")

        return self._send("/v1/read-ahead", body, READ_AHEAD_LIMIT_S + SLACK_S, connection, read)

    @property
    def can_lint(self) -> bool:
        """Whether the model of the connected service produces findings."""
        return self._service is not None and self._service.health.can_lint

    def close(self) -> None:
        """Cancels all requests; nothing is reported afterwards. The service stays for others, and ends when idle."""
        self._closed = True
        for connection in list(self._connections):
            connection.cancel()

    def _common(self, priority: PriorityName) -> dict[str, Any]:
        return {"priority": priority, "client": self.name, "any_model": self._any_model}

    def _send(
        self,
        path: str,
        body: Mapping[str, Any],
        timeout_s: float,
        connection: CancellableConnection | None,
        read: Callable[[HTTPResponse], Result],
    ) -> Result:
        """Sends again, at most ATTEMPTS times in all, if the service ends or loads its model again."""
        connection = connection or CancellableConnection()
        self._connections.add(connection)
        if self._closed:
            connection.cancel()
        try:
            lost = None
            for attempt in range(1, ATTEMPTS + 1):
                service = self._connect(lost)
                try:
                    with exchange(service.location, "POST", path, body, timeout_s, connection) as response:
                        if response.status != 200:
                            retry_s = response.getheader("Retry-After", "1")
                            seconds = float(retry_s) if retry_s.isdecimal() else 1.0
                            raise error_from(read_json(response), response.status, seconds)
                        return read(response)
                except (ServiceGone, ServiceNotReady):
                    if attempt == ATTEMPTS:
                        raise
                    lost = service
            raise AssertionError("the last attempt returns or raises")
        finally:
            self._connections.discard(connection)

    def _connect(self, lost: _Service | None = None) -> _Service:
        """lost: a service that does not answer. One thread finds or starts another, and the others wait for it."""
        service = self._service
        if service is not None and service is not lost:
            return service
        with self._connecting:
            if self._service is not None and self._service is not lost:
                return self._service
            self._report(EngineState("loading", self._model))
            try:
                service = self._start_and_wait()
            except GessoError as error:
                kind: Literal["stopped", "failed"] = "stopped" if isinstance(error, ServiceGone) else "failed"
                self._report(EngineState(kind, self._model, message=str(error)))
                raise
            self._service = service
            self._report(_ready_state(service.health))
        if service.health.status == "loading":
            threading.Thread(target=self._report_main_model, args=(service,), name="service", daemon=True).start()
        return service

    def _start_and_wait(self) -> _Service:
        """Starts another service, once, if the first one ends while it loads."""
        service = self._start()
        try:
            return self._wait_until_ready(service)
        except ServiceGone:
            return self._wait_until_ready(self._start())

    def _start(self) -> _Service:
        """A service that could not load its model is replaced, since what was missing may exist now."""
        if (found := self._find()) is not None:
            if found.health.status != "failed" or (self._any_model and found.health.fallback_model):
                return found
            stop_service(found.location)
        for location in self._locations():
            health = start_service(location, self._arguments, self._command)
            if self._suits(health):
                self._started = health.pid
                return _Service(location, health)
        raise ServiceGone(f"Another service took the socket of the one for {self._model}; try again.")

    def _find(self) -> _Service | None:
        for location in self._locations():
            with suppress(ServiceGone):
                health = read_health(location)
                if self._suits(health):
                    return _Service(location, health)
        return None

    def _locations(self) -> Sequence[ServiceLocation]:
        if self._settings is None:
            return (self.location,)
        return self.location, self.location.variant(f"{self._model} {installed_version()}")

    def _suits(self, health: Health) -> bool:
        return self._settings is None or (health.model, health.version) == (self._model, installed_version())

    def _wait_until_ready(self, service: _Service) -> _Service:
        for health in self._poll(service):
            if health.status == "ok" or (self._any_model and health.fallback_model):
                return _Service(service.location, health)
            if health.status == "failed":
                if health.pid == self._started or not health.fallback_model:
                    stop_service(service.location)  # it would answer nobody until it is idle for long
                raise ServiceNotReady(health.message or "The service could not load its model; see its log.")
            self._report(EngineState("loading", health.model, health.done, health.total))
        raise AssertionError("the health is polled until it is good or bad")

    def _report_main_model(self, service: _Service) -> None:
        """Reports again once the model itself is loaded, since it may lint better than the smaller one, or failed."""
        with suppress(GessoError):  # the next request gets the error
            for health in self._poll(service):
                if health.status != "loading":
                    self._report(_ready_state(health))
                    return

    def _poll(self, service: _Service) -> Iterator[Health]:
        """The health of the service, again and again. Raises Cancelled once the client is closed, or ServiceGone."""
        pause_s, health = POLL_S, service.health
        while True:
            if self._closed:
                raise Cancelled("The client was closed; create another one to send requests.")
            yield health
            time.sleep(pause_s)
            pause_s = min(LONGEST_POLL_S, 1.5 * pause_s)
            health = read_health(service.location)

    @property
    def _model(self) -> str:
        return self._settings.model if self._settings is not None else ""

    def _report(self, state: EngineState) -> None:
        if self._on_state is not None and not self._closed:
            self._on_state(state)


def _ready_state(health: Health) -> EngineState:
    """message: why the smaller model answers, if the model could not be loaded, or why nothing is retried."""
    message = health.message
    if message and health.fallback_model:
        message = f"{message} Until then, {health.fallback_model} answers."
    return EngineState(
        "ready",
        health.model,
        message=message,
        can_lint=health.can_lint,
        lints=health.lints,
        fallback_model=health.fallback_model,
    )


def _read_stream(response: HTTPResponse, on_step: OnStep) -> dict[str, Any]:
    """The result at the end of a stream of server-sent events."""
    name, wants_steps = "", True
    while line := response.readline():
        if line.startswith(b"event: "):
            name = line[7:].strip().decode()
        elif line.startswith(b"data: "):
            value = json.loads(line[6:])
            if name == "result":
                return dict(value)
            if name == "error":
                raise error_from(value, (value.get("error") or {}).get("code", 500))
            wants_steps = wants_steps and on_step(step_from_json(value)) is not False
    raise ServiceGone("The service ended before it answered; try again to restart it.")


def _arguments(settings: Settings | None) -> tuple[str, ...]:
    """Of `gesso serve`, for settings that a request cannot carry."""
    if settings is None:
        return ()
    options = {
        "--model": settings.model,
        "--device": settings.device,
        "--dtype": settings.dtype,
        "--threads": str(settings.threads),
    }
    if settings.retry_model is not None:
        options["--retry-model"] = settings.retry_model
    return tuple(part for option in options.items() for part in option)
