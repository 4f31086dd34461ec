"""The engine in another process, seen from the event loop: asked, cancelled, restarted when it dies.

That process is the resident service, which other editors share, or a worker of this server alone; both speak the
messages of `infill.service.worker_messages`.

The server itself never imports the model's libraries, so it starts at once and no step of the model can hold its loop.
`Engine` is what the rest of the server knows; another one may stand behind it. Must not know editors.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from multiprocessing.connection import Connection
from typing import Literal, Protocol, cast

from engine.errors import GessoError
from infill.findings import Finding, LintRequest
from infill.request import InfillRequest, InfillResult
from infill.service.link import ServiceLink
from infill.service.worker_messages import Answer, Ask, Cancel, FromWorker, Loading, Ready, Start
from infill.settings import Settings

logger = logging.getLogger(__name__)
COMMAND = (
    sys.executable,
    "-P",
    "-m",
    "infill.service.worker",
)  # -P: nothing is imported from the folder of the user's project
DELAYS_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)  # before each restart in a row
END_S = 0.5  # until a process that was told to end is killed


@dataclass(frozen=True)
class EngineState:
    """done, total: bytes of the weights while loading, total 0 while not known. message: what went wrong, also where
    something else answers in place of it.

    lints: whether the findings of the model that is ready are good enough to be shown unasked.
    """

    kind: Literal["stopped", "loading", "ready", "failed"]
    model: str = ""
    done: int = 0
    total: int = 0
    message: str | None = None
    lints: bool = False


class EngineLoading(GessoError):
    """Asked before the model is ready; `state` says how far it is."""

    def __init__(self, state: EngineState) -> None:
        super().__init__(f"The model {state.model} is still loading; ask again in a moment.")
        self.state = state


class EngineGone(GessoError):
    """The engine ended before it answered, or does not run."""


class Engine(Protocol):
    """Where requests run. All methods are called on the event loop, and never hold it."""

    @property
    def state(self) -> EngineState:
        """Changes are told to whoever made the engine."""
        ...

    async def start(self, settings: Settings, shared: bool = False) -> None:
        """With these settings from now on; what runs is put away first. After a failure it tries again.

        shared: in the resident service, else for this server alone. Returns when loading has begun.
        """
        ...

    async def stop(self) -> None:
        """Requests that wait get EngineGone."""
        ...

    async def complete(self, request: InfillRequest) -> InfillResult:
        """The result; cancelling the task that waits for it cancels down to the model.

        Raises EngineLoading, EngineGone, or the engine's own GessoError for this request.
        """
        ...

    async def lint(self, request: LintRequest) -> tuple[Finding, ...]:
        """What looks wrong, as `complete` otherwise; completions that are asked for later are answered before it."""
        ...


class Host(Protocol):
    """Where the engine is, and the threads between it and the event loop. `start` and `end` block, the rest returns
    at once; after `close` or `end` nothing that it tells counts."""

    def start(self) -> None:
        """Raises OSError where there is nothing to be started."""
        ...

    def send(self, message: Start | Ask | Cancel) -> None: ...

    def close(self) -> None: ...

    def end(self) -> None: ...


class EngineProcess:
    """An `Engine` in one host at a time; everything but the threads of that lives on the event loop.

    on_state: called with every change. command: what is run as a worker.
    """

    def __init__(self, on_state: Callable[[EngineState], None], command: Sequence[str] = COMMAND) -> None:
        self.on_state, self.command = on_state, command
        self.state = EngineState("stopped")
        self._settings, self._shared = Settings(), False
        self._numbers = count(1)
        self._pending: dict[int, asyncio.Future[InfillResult | tuple[Finding, ...]]] = {}
        self._host: Host | None = None
        self._deaths = 0  # since the last answer
        self._restart: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()  # of `start` and `stop`

    async def start(self, settings: Settings, shared: bool = False) -> None:
        async with self._turn:
            await self._put_away()
            self._settings, self._shared, self._deaths = settings, shared, 0
            await self._spawn()

    async def stop(self) -> None:
        async with self._turn:
            await self._put_away()

    async def complete(self, request: InfillRequest) -> InfillResult:
        return cast(InfillResult, await self._asked(request))

    async def lint(self, request: LintRequest) -> tuple[Finding, ...]:
        return cast("tuple[Finding, ...]", await self._asked(request))

    async def _asked(self, request: InfillRequest | LintRequest) -> InfillResult | tuple[Finding, ...]:
        host = self._host
        if self.state.kind == "loading":
            raise EngineLoading(self.state)
        if self.state.kind != "ready" or host is None:
            raise EngineGone(self.state.message or "The engine does not run; start it by the command of your editor.")
        number = next(self._numbers)
        answer: asyncio.Future[InfillResult | tuple[Finding, ...]] = asyncio.get_running_loop().create_future()
        self._pending[number] = answer
        host.send(Ask(number, request))
        try:
            return await answer
        except asyncio.CancelledError:
            host.send(Cancel(number))
            raise
        finally:
            del self._pending[number]

    async def _put_away(self) -> None:
        if self._restart is not None:
            self._restart.cancel()
            self._restart = None
        host, self._host = self._host, None
        if self.state.kind != "stopped":
            self._change(EngineState("stopped", self._settings.model))
        self._fail_pending("The engine was stopped.")
        if host is not None:
            await asyncio.to_thread(host.end)

    async def _spawn(self) -> None:
        self._change(EngineState("loading", self._settings.model))
        host = self._host = self._new_host(asyncio.get_running_loop())
        host.send(Start(self._settings))
        try:
            await asyncio.to_thread(host.start)
        except OSError as reason:
            logger.error("The engine cannot be started: %s", reason)
            self._died()

    def _new_host(self, loop: asyncio.AbstractEventLoop) -> Host:
        def tell(message: FromWorker | None) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody is there to be told
                loop.call_soon_threadsafe(self._take, host, message)

        host: Host = ServiceLink(tell) if self._shared else _Worker(self.command, tell)
        return host

    async def _respawn(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        await self._spawn()

    def _take(self, host: Host, message: FromWorker | None) -> None:
        """A message of the host; None when it is gone."""
        if host is not self._host:
            return
        model = self._settings.model
        if isinstance(message, Loading):
            self._change(EngineState("loading", model, message.done, message.total))
        elif isinstance(message, Ready) and message.failure is None:
            self._change(EngineState("ready", model, message=message.note, lints=message.lints))
        elif isinstance(message, Ready):
            self._host = None
            host.close()
            self._change(EngineState("failed", model, message=message.failure))
        elif isinstance(message, Answer):
            self._deaths = 0
            self._answer(message)
        else:
            self._died()

    def _answer(self, message: Answer) -> None:
        waiting = self._pending.get(message.number)
        if waiting is None or waiting.done():
            return
        if message.error is not None:
            waiting.set_exception(message.error)
        elif message.result is not None:
            waiting.set_result(message.result)

    def _died(self) -> None:
        self._host = None
        model = self._settings.model
        if self._deaths < len(DELAYS_S):
            delay = DELAYS_S[self._deaths]
            self._deaths += 1
            logger.warning("The engine died; it is started again in %g s.", delay)
            self._change(EngineState("loading", model))
            self._restart = asyncio.get_running_loop().create_task(self._respawn(delay))
        else:
            message = (
                f"The engine died {self._deaths + 1} times in a row; see the log for its last words, and start it by "
                "the command of your editor."
            )
            self._change(EngineState("failed", model, message=message))
        self._fail_pending("The engine died before it answered; see the log for its last words.")

    def _fail_pending(self, sentence: str) -> None:
        for waiting in self._pending.values():
            if not waiting.done():
                waiting.set_exception(EngineGone(sentence))

    def _change(self, state: EngineState) -> None:
        self.state = state
        self.on_state(state)


class _Worker:
    """A process of ours and the threads at its pipes; a `Host`.

    tell: called by one of them with each message, and with None when the process is gone.
    """

    def __init__(self, command: Sequence[str], tell: Callable[[FromWorker | None], None]) -> None:
        self._command, self._tell = command, tell
        self._to_send: queue.SimpleQueue[Start | Ask | Cancel | None] = queue.SimpleQueue()
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = False
        self._turn = threading.Lock()  # of `start` and `end`

    def start(self) -> None:
        """Starts the process, unless `end` came first; it finds modules where this one does. Raises OSError."""
        with self._turn:
            if self._ended:
                return
            path = os.pathsep.join(filter(None, sys.path))
            process = self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": path},
            )
            assert process.stdin is not None and process.stdout is not None
            outbox = Connection(os.dup(process.stdin.fileno()), readable=False)
            inbox = Connection(os.dup(process.stdout.fileno()), writable=False)
            process.stdin.close()
            process.stdout.close()
            for target, arguments in ((self._write, (outbox,)), (self._read, (inbox, process)), (_log, (process,))):
                threading.Thread(target=target, args=arguments, daemon=True).start()

    def send(self, message: Start | Ask | Cancel) -> None:
        """A thread pickles and writes it."""
        self._to_send.put(message)

    def close(self) -> None:
        """Closes the pipe, at which the process ends by itself."""
        self._to_send.put(None)

    def end(self) -> None:
        """Until the process is gone."""
        with self._turn:
            self._ended = True
        self.close()
        if self._process is not None:
            _reap(self._process)

    def _write(self, outbox: Connection) -> None:
        try:
            while (message := self._to_send.get()) is not None:
                outbox.send(message)
        except OSError:
            return  # it died; the reader says so
        finally:
            outbox.close()

    def _read(self, inbox: Connection, process: subprocess.Popen[bytes]) -> None:
        try:
            while True:
                self._tell(inbox.recv())
        except (EOFError, OSError):
            pass
        except Exception as error:  # what is no message of ours may fail in any way
            logger.error("What the engine said cannot be read: %s", error)
        finally:
            inbox.close()
            self.close()
            _reap(process)
            self._tell(None)


def _reap(process: subprocess.Popen[bytes]) -> None:
    """Waits for the process, and kills it where that takes too long."""
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _log(process: subprocess.Popen[bytes]) -> None:
    """What the process says on standard error, line by line."""
    assert process.stderr is not None
    with process.stderr:
        for line in process.stderr:
            logger.warning("engine: %s", line.decode(errors="replace").rstrip())
