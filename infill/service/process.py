"""The resident service as a process: its lock, its sockets, its log and its end.

The lock is taken before anything slow, so that of many services started at once, all but one end at once. Must not know
the APIs.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import logging
import os
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import UsageError
from infill.backends.routes import NONE, Routes
from infill.connection import LOOPBACK, LOOPBACK_HOSTS
from infill.engine_protocol import Engine
from infill.printable import PrintableFormatter
from infill.service.location import (
    ServiceLocation,
    listening,
    make_private,
    open_private,
    take_lock,
    write_holder,
)
from infill.service.memory import limit_memory
from infill.settings import Settings

if TYPE_CHECKING:
    from infill.service.guard import RequestActivity

logger = logging.getLogger("gesso.service")
IDLE_MINUTES = 30.0
LOG_BYTES = 256 << 10
DRAIN_S = 3  # for requests that run when the service ends


@dataclass(frozen=True)
class Network:
    """A TCP port. Beyond loopback it needs a token and a certificate, which `check` enforces."""

    port: int
    host: str = LOOPBACK
    token: str | None = field(default=None, repr=False)
    certificate: Path | None = None
    key: Path | None = None

    def check(self) -> None:
        """Raises UsageError if others could use the port or read what is sent."""
        if self.host not in LOOPBACK_HOSTS and (self.token is None or self.certificate is None):
            raise UsageError(
                f"The host {self.host} can be reached from other machines; give --token-file, --tls-cert and --tls-key."
            )
        if self.token is not None and len(self.token) < 16:
            raise UsageError("The token is shorter than 16 characters; make one with `openssl rand -hex 32`.")
        if (self.certificate is None) != (self.key is None):
            raise UsageError("--tls-cert and --tls-key go together; give both.")
        for file in (self.certificate, self.key):
            if file is not None and not file.is_file():
                raise UsageError(f"{file} is not a regular file; give --tls-cert and --tls-key a PEM file each.")

    def fingerprint(self) -> str:
        """Equal for equal options; does not contain the token."""
        files = [str(file.resolve()) for file in (self.certificate, self.key) if file is not None]
        return hashlib.sha256(json.dumps([self.host, self.port, self.token, files]).encode()).hexdigest()


@dataclass(frozen=True)
class ServiceOptions:
    """idle_minutes: without a request, after which the service ends; 0 means never. batch: most canvases in a step."""

    location: ServiceLocation
    settings: Settings
    network: Network | None = None
    idle_minutes: float = IDLE_MINUTES
    batch: int | None = None
    routes: Routes = NONE


def serve(
    options: ServiceOptions,
    make_engine: Callable[[ServiceOptions], Engine] | None = None,
    report: Callable[[str], None] = lambda sentence: None,
) -> bool:
    """Serves until a signal or the idle time ends it; returns False at once if a service runs at this location.

    make_engine: replaces the engine of the options. report: gets a sentence when the service listens and one when its
    model is ready. Raises UsageError or NotPrivate for options that would let others in, InputError if the socket
    cannot be created, KeyboardInterrupt after Ctrl-C.
    """
    if options.network is not None:
        options.network.check()
    make_private(options.location.socket.parent)
    lock = take_lock(options.location.lock)
    if lock is None:
        return False
    limit_memory()
    with suppress(OSError):  # on a full disk, clients ask the service for its process id
        write_holder(lock)
    with _logging(options.location.log):
        try:
            asyncio.run(_serve(options, make_engine or _build, lock, report))
        finally:
            os.close(lock)
    return True


def _build(options: ServiceOptions) -> Engine:
    from infill.service.build import build_engine

    return build_engine(options.settings, options.batch, options.routes)


async def _serve(
    options: ServiceOptions,
    make_engine: Callable[[ServiceOptions], Engine],
    lock: int,
    report: Callable[[str], None],
) -> None:
    engine = make_engine(options)
    with listening(options.location, lock) as unix:
        await _serve_engine(engine, options, unix, report)


async def _serve_engine(
    engine: Engine, options: ServiceOptions, unix: socket.socket, report: Callable[[str], None]
) -> None:
    import uvicorn

    from infill.service.app import make_app
    from infill.service.connections import Server, connection_limits
    from infill.service.guard import Guard, RequestActivity

    ended, limits = asyncio.Event(), connection_limits()

    def config(app: object, **more: object) -> uvicorn.Config:
        timeouts = {"timeout_keep_alive": 30, "timeout_graceful_shutdown": DRAIN_S}
        quiet = {
            "log_config": None,
            "access_log": False,
            "server_header": False,
            "date_header": False,
            "proxy_headers": False,
        }
        protocols = {"loop": "asyncio", "http": "h11", "ws": "none", "lifespan": "off"}
        return uvicorn.Config(app, **protocols, **timeouts, **quiet, **more)  # type: ignore[arg-type]

    activity = RequestActivity()
    app = make_app(engine, options.network.fingerprint() if options.network is not None else None)
    servers = [Server(config(Guard(app, activity)), ended, limits.unix, limits.unix)]
    sockets = [[unix]]
    if (network := options.network) is not None:
        guarded = Guard(app, activity, network.token, check_host=network.token is None)
        files = {"ssl_certfile": network.certificate, "ssl_keyfile": network.key} if network.certificate else {}
        tcp = config(guarded, host=network.host, port=network.port, **files)
        try:
            sockets.append([tcp.bind_socket()])
        except (SystemExit, OSError, ssl.SSLError) as reason:
            message = f"Port {network.port} of {network.host} cannot be used; choose another --port."
            raise UsageError(message) from reason
        servers.append(Server(tcp, ended, limits.tcp, limits.peer))

    received: set[int] = set()

    def end(number: int = 0) -> None:
        received.add(number)
        for server in servers:
            server.should_exit = True
        ended.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, end, number)
    logger.warning("started, process %d, model %s", os.getpid(), options.settings.model)
    report(f"Listening on {_addresses(options)}; loading the model {options.settings.model}.")
    threading.Thread(target=_load, args=(engine, report), name="load", daemon=True).start()
    tasks = [
        asyncio.create_task(_end_when_idle(engine, activity, 60 * options.idle_minutes, end)),
        asyncio.create_task(engine.maintain()),
    ]
    try:
        await asyncio.gather(*(server.serve(bound) for server, bound in zip(servers, sockets, strict=True)))
    finally:
        for task in tasks:
            task.cancel()
        logger.warning("ended")
        # the model's thread may be in the middle of a load or a pass; there is nothing to save
        engine.close()
    if signal.SIGINT in received:
        raise KeyboardInterrupt


def _addresses(options: ServiceOptions) -> str:
    if (network := options.network) is None:
        return str(options.location.socket)
    host = f"[{network.host}]" if ":" in network.host else network.host
    return f"{options.location.socket} and {'https' if network.certificate else 'http'}://{host}:{network.port}"


def _load(engine: Engine, report: Callable[[str], None]) -> None:
    started = time.monotonic()
    try:
        engine.load()
    except BaseException as error:
        logger.error("loading failed: %s", type(error).__name__)
    gc.collect()
    gc.freeze()  # otherwise each full collection visits all objects of the model's libraries
    gc.collect()  # of nothing, so that the next one does not wait for a quarter as many new objects as are frozen
    state, elapsed_s = engine.state, time.monotonic() - started
    logger.warning("model %s: %s after %.1f s", state.model, state.kind, elapsed_s)
    if state.kind == "ready":
        report(f"The model {state.model} is ready after {elapsed_s:.1f} s; stop with Ctrl-C.")
    if state.message:
        logger.error("%s", state.message)
        report(state.message)


async def _end_when_idle(engine: Engine, activity: RequestActivity, idle_s: float, end: Callable[[], None]) -> None:
    """Sleeps until the idle time could have passed, so that an idle service does not wake up."""
    if not idle_s:
        return
    while True:
        left = idle_s - (time.monotonic() - activity.last)
        if left > 0 or activity.busy:
            await asyncio.sleep(max(left, 1.0) if not activity.busy else 1.0)
        elif engine.state.kind == "loading":
            await asyncio.sleep(1.0)
        else:
            logger.warning("idle for %g minutes", idle_s / 60)
            end()
            return


@contextmanager
def _logging(file: Path) -> Iterator[None]:
    """Writes warnings and the service's own messages to `file` and one predecessor of limited size; never code."""
    handler = PrivateLog(file, maxBytes=LOG_BYTES, backupCount=1)
    handler.setFormatter(PrintableFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        with suppress(OSError):  # the disk is full
            handler.close()


class PrivateLog(RotatingFileHandler):
    """Only its user can read the file, also after a rotation. Messages are lost if the file cannot be written."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def _open(self) -> TextIOWrapper:
        file = open_private(Path(self.baseFilename), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        return open(file, "a", encoding="utf-8", errors="backslashreplace")
