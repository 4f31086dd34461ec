"""The engine in a process of its own, seen from the event loop: asked, cancelled, restarted when it dies.

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
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from multiprocessing.connection import Connection
from typing import Any, Literal, Protocol

from engine.errors import GessoError
from infill.request import InfillRequest, InfillResult
from infill.settings import Settings
from infill.worker_messages import Answer, Ask, Cancel, FromWorker, Loading, Ready, Start

logger = logging.getLogger(__name__)
DELAYS_S = (0.5, 1.0, 2.0, 5.0, 15.0)  # before each restart in a row
END_S = 1.0


class EngineLoading(GessoError):
    """Asked before the model is ready."""


class EngineGone(GessoError):
    """The engine died before it answered."""


@dataclass(frozen=True)
class EngineState:
    """done, total: bytes of the weights while loading. message: what went wrong."""

    kind: Literal["stopped", "loading", "ready", "failed"]
    model: str = ""
    done: int = 0
    total: int = 0
    message: str | None = None


class Engine(Protocol):
    """Where requests run."""

    state: EngineState

    async def start(self, settings: Settings) -> None:
        """With these settings from now on; a running model is put away."""
        ...

    async def stop(self) -> None: ...

    async def complete(self, request: InfillRequest) -> InfillResult:
        """Cancelling the task that waits here cancels down to the model."""
        ...


class EngineProcess:
    """One worker process at a time; everything but the pipes' ends lives on the event loop."""

    def __init__(self, on_state: Callable[[EngineState], None]) -> None:
        self.on_state = on_state
        self.state = EngineState("stopped")
        self._settings = Settings()
        self._numbers = count(1)
        self._pending: dict[int, asyncio.Future[InfillResult]] = {}
        self._worker: _Worker | None = None
        self._deaths = 0
        self._restart: asyncio.TimerHandle | None = None

    async def start(self, settings: Settings) -> None:
        await self.stop()
        self._settings, self._deaths = settings, 0
        self._spawn()

    async def stop(self) -> None:
        if self._restart is not None:
            self._restart.cancel()
            self._restart = None
        worker, self._worker = self._worker, None
        self._fail_pending("The engine was stopped.")
        if worker is not None:
            await asyncio.to_thread(worker.end)
        if self.state.kind != "stopped":
            self._change(EngineState("stopped", self._settings.model))

    async def complete(self, request: InfillRequest) -> InfillResult:
        """Raises EngineLoading, EngineGone, or the engine's own GessoError."""
        worker = self._worker
        if self.state.kind != "ready" or worker is None:
            raise self._not_ready()
        number = next(self._numbers)
        answer: asyncio.Future[InfillResult] = asyncio.get_running_loop().create_future()
        self._pending[number] = answer
        worker.send(Ask(number, request))
        try:
            return await answer
        except asyncio.CancelledError:
            worker.send(Cancel(number))
            raise
        finally:
            self._pending.pop(number, None)

    def _not_ready(self) -> GessoError:
        if self.state.kind == "loading":
            return EngineLoading(f"The model {self.state.model} is still loading.")
        return EngineGone(self.state.message or "The engine is not running.")

    def _spawn(self) -> None:
        self._restart = None
        self._change(EngineState("loading", self._settings.model))
        self._worker = _Worker(asyncio.get_running_loop(), self._take)
        self._worker.send(Start(self._settings))

    def _take(self, worker: _Worker, message: FromWorker | None) -> None:
        """A message of the worker; None when it is gone."""
        if worker is not self._worker:
            return
        model = self._settings.model
        if isinstance(message, Loading):
            self._change(EngineState("loading", model, message.done, message.total))
        elif isinstance(message, Ready):
            if message.failure is None:
                self._change(EngineState("ready", model))
            else:
                self._worker = None
                self._change(EngineState("failed", model, message=message.failure))
        elif isinstance(message, Answer):
            self._deaths = 0
            self._answer(message)
        else:
            self._died(worker)

    def _answer(self, message: Answer) -> None:
        waiting = self._pending.get(message.number)
        if waiting is None or waiting.done() or message.cancelled:
            return
        if message.error is not None:
            waiting.set_exception(message.error)
        elif message.result is not None:
            waiting.set_result(message.result)

    def _died(self, worker: _Worker) -> None:
        self._worker = None
        model = self._settings.model
        self._fail_pending("The engine died; it is being restarted.")
        if self._deaths == len(DELAYS_S):
            again = "restart it by the command of your editor"
            self._change(EngineState("failed", model, message=f"The engine died {self._deaths + 1} times; {again}."))
            return
        delay = DELAYS_S[self._deaths]
        self._deaths += 1
        self._change(EngineState("loading", model))
        self._restart = asyncio.get_running_loop().call_later(delay, self._spawn)

    def _fail_pending(self, sentence: str) -> None:
        for waiting in self._pending.values():
            if not waiting.done():
                waiting.set_exception(EngineGone(sentence))

    def _change(self, state: EngineState) -> None:
        self.state = state
        self.on_state(state)


class _Worker:
    """The process and the threads at its pipes; `on_message` is called on the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_message: Callable[[Any, FromWorker | None], None]) -> None:
        self._loop, self._on_message = loop, on_message
        command = [sys.executable, "-m", "infill.worker"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self.process.stdin is not None and self.process.stdout is not None
        self._to_send: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._outbox = Connection(os.dup(self.process.stdin.fileno()), readable=False)
        self._inbox = Connection(os.dup(self.process.stdout.fileno()), writable=False)
        self.process.stdin.close()
        self.process.stdout.close()
        for target in (self._write, self._read, self._read_log):
            threading.Thread(target=target, daemon=True).start()

    def send(self, message: Any) -> None:
        """Returns at once; a thread pickles and writes."""
        self._to_send.put(message)

    def end(self) -> None:
        """Blocks until the process is gone, a second at most."""
        self._to_send.put(None)
        try:
            self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _write(self) -> None:
        try:
            while (message := self._to_send.get()) is not None:
                self._outbox.send(message)
        except OSError:
            return  # it died; the reader says so
        finally:
            self._outbox.close()

    def _read(self) -> None:
        try:
            while True:
                self._tell(self._inbox.recv())
        except Exception as error:  # noqa: BLE001 - cut off in the middle of a message, it may be anything
            if not isinstance(error, (EOFError, OSError)):
                logger.error("What the engine said cannot be read: %s", error)
                self.process.kill()
            self._inbox.close()
            self.process.wait()
            self._tell(None)

    def _tell(self, message: FromWorker | None) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._on_message, self, message)

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            logger.warning("engine: %s", line.decode(errors="replace").rstrip())
