"""The service, for the event loop of the language server: its state, requests, cancellation, and restarts.

The server never imports the model's libraries, so it starts at once, and no step of the model can block its loop. Must
not know editors.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import dropwhile, takewhile
from typing import Any, TypeVar

from engine.errors import Cancelled, GessoError, describe_error
from infill.connection import CancellableConnection
from infill.edit_request import EditRequest, EditResult
from infill.engine_protocol import EngineState
from infill.findings import Finding, LintRequest
from infill.request import InfillRequest, InfillResult, StepView
from infill.service.client import ServiceClient
from infill.service.start import COMMAND
from infill.settings import Settings

logger = logging.getLogger(__name__)
DELAYS_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)  # before consecutive restarts
Result = TypeVar("Result")


class EngineLoading(GessoError):
    """A request came before the model was ready; `state` has the progress."""

    def __init__(self, state: EngineState) -> None:
        super().__init__(f"The model {state.model} is still loading; try again in a moment.")
        self.state = state


class EngineGone(GessoError):
    """The service ended before it answered, or does not run."""


class AsyncServiceClient:
    """A `ServiceClient` on threads, which is replaced if the service cannot be started.

    All methods are called on the event loop and never block it. on_state: called with every change. command: starts a
    service.
    """

    def __init__(self, on_state: Callable[[EngineState], None], command: Sequence[str] = COMMAND) -> None:
        self.state = EngineState("stopped")
        self._on_state, self._command = on_state, command
        self._settings = Settings()
        self._client: ServiceClient | None = None
        self._pending: set[asyncio.Future[Any]] = set()
        self._failures = 0  # to start the service, since the last response
        self._restart: asyncio.TimerHandle | None = None

    def start(self, settings: Settings) -> None:
        """Uses these settings from now on; after a failure it tries again. Returns while the model loads."""
        self.stop()
        self._settings, self._failures = settings, 0
        self._connect()

    async def prepare(self, settings: Settings) -> None:
        """Starts the service of these settings, and returns once it has loaded its model; `start` then takes no time.

        Requests still go to the present service. Raises GessoError.
        """
        client = ServiceClient(settings=settings, command=self._command)
        loop = asyncio.get_running_loop()
        loaded: asyncio.Future[None] = loop.create_future()

        def finish(error: GessoError | None) -> None:
            if loaded.done():
                return
            if error is None:
                loaded.set_result(None)
            else:
                loaded.set_exception(error)

        def work() -> None:
            try:
                client.connect()
            except GessoError as error:
                _call_soon(loop, finish, error)
            else:
                _call_soon(loop, finish, None)

        _in_thread(work)
        try:
            await loaded
        finally:
            client.close()

    def stop(self) -> None:
        """Pending requests get EngineGone. The service stays for other clients, and ends when idle."""
        if self._restart is not None:
            self._restart.cancel()
            self._restart = None
        client, self._client = self._client, None
        if client is not None:
            client.close()
        if self.state.kind != "stopped":
            self._change(EngineState("stopped", self._settings.model))
        self._fail_pending("The engine was stopped.")

    async def complete(
        self, request: InfillRequest, on_draft: Callable[[str, int], None] | None = None
    ) -> InfillResult:
        """Cancelling the call cancels the model's work.

        on_draft: called after each step with the hole's text so far, and with `StepView.sure`. Raises EngineLoading,
        EngineGone, or the service's GessoError for this request.
        """
        loop = asyncio.get_running_loop()

        def on_step(view: StepView) -> None:
            if on_draft is not None:
                _call_soon(loop, on_draft, _settled_beginning(view), view.sure)

        watch = None if on_draft is None else on_step
        return await self._send(lambda client, connection: client.complete(request, watch, connection=connection))

    async def edit(self, request: EditRequest, on_text: Callable[[str], None] | None = None) -> EditResult:
        """on_text: called with the new lines so far. Otherwise as `complete`."""
        loop = asyncio.get_running_loop()

        def on_step(view: StepView) -> None:
            if on_text is not None:
                _call_soon(loop, on_text, _settled_beginning(view))

        watch = None if on_text is None else on_step
        return await self._send(lambda client, connection: client.edit(request, watch, connection))

    async def lint(self, request: LintRequest) -> tuple[Finding, ...]:
        """Otherwise as `complete`; the service answers completions first."""
        return await self._send(lambda client, connection: client.lint(request, connection))

    async def read_ahead(self, request: InfillRequest) -> int:
        """Lets the service encode the prompt of a likely request; otherwise as `complete`."""
        return await self._send(lambda client, connection: client.read_ahead(request, connection))

    @property
    def is_busy(self) -> bool:
        """Whether a request of this client waits for its response."""
        return bool(self._pending)

    async def _send(self, send: Callable[[ServiceClient, CancellableConnection], Result]) -> Result:
        client = self._client
        if self.state.kind == "loading":
            raise EngineLoading(self.state)
        if self.state.kind != "ready" or client is None:
            raise EngineGone(self.state.message or "The engine does not run; start it with your editor's command.")
        loop, connection = asyncio.get_running_loop(), CancellableConnection()
        response: asyncio.Future[Result] = loop.create_future()

        def resolve(deliver: Callable[..., None], value: object) -> None:
            if client is self._client:
                self._failures = 0
            if not response.done():
                deliver(value)

        def work() -> None:
            try:
                result = send(client, connection)
            except Cancelled:
                return
            except Exception as error:
                _call_soon(loop, resolve, response.set_exception, error)
            else:
                _call_soon(loop, resolve, response.set_result, result)

        _in_thread(work)
        self._pending.add(response)
        try:
            return await response
        except asyncio.CancelledError:
            connection.cancel()
            raise
        finally:
            self._pending.discard(response)

    def _connect(self) -> None:
        self._restart = None
        self._change(EngineState("loading", self._settings.model))
        loop = asyncio.get_running_loop()

        def report(state: EngineState) -> None:
            _call_soon(loop, self._take, client, state)

        try:
            client = ServiceClient(settings=self._settings, command=self._command, any_model=True, on_state=report)
        except GessoError as error:
            self._change(EngineState("failed", self._settings.model, message=str(error)))
            return
        self._client = client

        def work() -> None:
            try:
                client.connect()
            except GessoError:  # reported as a state
                pass
            except Exception as error:
                logger.exception("The engine cannot be started.")
                message = f"The engine cannot be started ({describe_error(error)}); see the log of `gesso-lsp`."
                report(EngineState("failed", self._settings.model, message=message))

        _in_thread(work)

    def _take(self, client: ServiceClient, state: EngineState) -> None:
        """A state that `client` reports."""
        if client is not self._client:
            return
        if state.kind in ("loading", "ready"):
            self._change(state)
            return
        self._client = None
        client.close()
        if state.kind == "stopped":
            self._start_failed(state)
        else:
            self._change(state)
            self._fail_pending(state.message or "")

    def _start_failed(self, state: EngineState) -> None:
        logger.warning("%s", state.message)
        if self._failures < len(DELAYS_S):
            delay_s = DELAYS_S[self._failures]
            self._failures += 1
            logger.warning("The engine is restarted in %g s.", delay_s)
            self._change(EngineState("loading", self._settings.model, message=state.message))
            self._restart = asyncio.get_running_loop().call_later(delay_s, self._connect)
        else:
            message = (
                f"The engine failed to start {self._failures + 1} times in a row; see `gesso serve logs`, and start it "
                f"with your editor's command. {state.message or ''}".rstrip()
            )
            self._change(EngineState("failed", self._settings.model, message=message))
        self._fail_pending("The engine died before it answered; see `gesso serve logs`.")

    def _fail_pending(self, sentence: str) -> None:
        for response in self._pending:
            if not response.done():
                response.set_exception(EngineGone(sentence))

    def _change(self, state: EngineState) -> None:
        self.state = state
        self._on_state(state)


def _settled_beginning(view: StepView) -> str:
    """The settled text at the beginning of the first hole."""
    inside = dropwhile(lambda piece: piece.state == "known", view.pieces)
    return "".join(piece.text for piece in takewhile(lambda piece: piece.state == "settled", inside))


def _in_thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, name="service", daemon=True).start()


def _call_soon(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *arguments: object) -> None:
    with suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(call, *arguments)
