"""The resident service as a process: its lock, its sockets, its log, its end.

The lock comes before anything slow, so that of many started at once all but one end at once. Must not know the APIs.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import UsageError
from infill.backends.routes import NONE, Routes
from infill.service.location import Place, bind, make_private, sign, take
from infill.service.memory import be_sparing
from infill.settings import Settings

if TYPE_CHECKING:
    from infill.backends.router import Member
    from infill.service.engine import ServiceEngine
    from infill.service.guard import Activity

logger = logging.getLogger("gesso.service")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
IDLE_MINUTES = 30.0
LOG_BYTES = 256 << 10
DRAIN_S = 3  # for requests under way when the service ends
CONNECTIONS = 512


@dataclass(frozen=True)
class Network:
    """A TCP port. Beyond loopback it needs a token and a certificate; `check` says so."""

    port: int
    host: str = "127.0.0.1"
    token: str | None = field(default=None, repr=False)
    certificate: Path | None = None
    key: Path | None = None

    @property
    def is_local(self) -> bool:
        return self.host in LOOPBACK

    def check(self) -> None:
        """Raises UsageError where others could use or read it."""
        if not self.is_local and (self.token is None or self.certificate is None):
            raise UsageError(
                f"The host {self.host} can be reached from other machines; give --token-file, --tls-cert and --tls-key."
            )
        if self.token is not None and len(self.token) < 16:
            raise UsageError("The token is shorter than 16 characters; make one with `openssl rand -hex 32`.")
        if (self.certificate is None) != (self.key is None):
            raise UsageError("--tls-cert and --tls-key go together; give both.")


@dataclass(frozen=True)
class ServiceOptions:
    """idle_minutes: without a request, after which the service ends; 0: never. batch: most canvases of a step."""

    place: Place
    settings: Settings
    network: Network | None = None
    idle_minutes: float = IDLE_MINUTES
    batch: int | None = None
    routes: Routes = NONE


def serve(options: ServiceOptions) -> bool:
    """Serves until it is told to end or idle for long enough; False at once where another service has the place.

    Raises UsageError or NotPrivate for options that would let others in.
    """
    if options.network is not None:
        options.network.check()
    make_private(options.place.socket.parent)
    lock = take(options.place.lock)
    if lock is None:
        return False
    be_sparing()
    with suppress(OSError):  # a full disk: the service itself says which process it is
        sign(lock)
    with _logging(options.place.log):
        try:
            asyncio.run(_serve(options))
        finally:
            options.place.socket.unlink(missing_ok=True)
            os.close(lock)
    return True


async def _serve(options: ServiceOptions) -> None:
    import uvicorn

    from infill.service.app import make_app
    from infill.service.guard import Activity, Guard
    from infill.service.routed import RoutedEngine

    ended = asyncio.Event()

    class Server(uvicorn.Server):
        """Leaves signals to the one who runs several, and sleeps while nobody asks, where uvicorn wakes up ten times a
        second."""

        async def main_loop(self) -> None:
            await self.on_tick(0)
            await ended.wait()

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    def config(app: object, **more: object) -> uvicorn.Config:
        limits = {"limit_concurrency": CONNECTIONS, "timeout_keep_alive": 30, "timeout_graceful_shutdown": DRAIN_S}
        quiet = {
            "log_config": None,
            "access_log": False,
            "server_header": False,
            "date_header": False,
            "proxy_headers": False,
        }
        own = {"loop": "asyncio", "http": "h11", "ws": "none", "lifespan": "off"}
        return uvicorn.Config(app, **own, **limits, **quiet, **more)  # type: ignore[arg-type]

    engine = RoutedEngine(options.settings, options.batch, options.routes, _members(options.routes))
    activity = Activity()
    app = make_app(engine)
    servers = [Server(config(Guard(app, activity)))]
    sockets = [[bind(options.place)]]
    if (network := options.network) is not None:
        guarded = Guard(app, activity, network.token, hosts=network.token is None)
        files = {"ssl_certfile": network.certificate, "ssl_keyfile": network.key} if network.certificate else {}
        own = config(guarded, host=network.host, port=network.port, **files)
        try:
            sockets.append([own.bind_socket()])
        except (SystemExit, OSError, ssl.SSLError) as reason:
            message = f"Port {network.port} of {network.host} cannot be used; choose another --port."
            raise UsageError(message) from reason
        servers.append(Server(own))

    def end() -> None:
        for server in servers:
            server.should_exit = True
        ended.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, end)
    logger.warning("started, process %d, model %s", os.getpid(), options.settings.model)
    threading.Thread(target=_load, args=(engine,), name="load", daemon=True).start()
    watchers = [
        asyncio.create_task(_end_when_idle(engine, activity, 60 * options.idle_minutes, end)),
        asyncio.create_task(engine.watch_memory()),
    ]
    try:
        await asyncio.gather(*(server.serve(own) for server, own in zip(servers, sockets, strict=True)))
    finally:
        for watcher in watchers:
            watcher.cancel()
        logger.warning("ended")
        # the model's thread may be in the middle of a load or a pass; nothing of it has to be kept
        engine.close()


def _members(routes: Routes) -> dict[str, Member]:
    """The backends, whose modules are only imported where there are some."""
    if not routes.backends:
        return {}
    from infill.backends.build import members

    return members(routes)


def _load(engine: ServiceEngine) -> None:
    started = time.monotonic()
    engine.load()
    logger.warning("model %s: %s after %.1f s", engine.state.model, engine.state.kind, time.monotonic() - started)
    if engine.state.message:
        logger.error("%s", engine.state.message)


async def _end_when_idle(engine: ServiceEngine, activity: Activity, idle_s: float, end: object) -> None:
    """Sleeps until it could be time, so that an idle service does not wake up."""
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
            assert callable(end)
            end()
            return


@contextmanager
def _logging(file: Path) -> Iterator[None]:
    """Warnings and what the service says of itself, in a file that two of its kind never outgrow; never code."""
    before = os.umask(0o177)
    try:
        handler = RotatingFileHandler(file, maxBytes=LOG_BYTES, backupCount=1, delay=False)
    finally:
        os.umask(before)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()
