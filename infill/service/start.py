"""Starts the process of a service, and ends it. Standard library alone. Must not know what is requested."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from infill.service.exchange import QUICK_S, Health, ServiceGone, read_health
from infill.service.location import (
    ServiceLocation,
    connect,
    is_unreachable,
    lock_holder,
    make_private,
    open_private,
    peer,
    start_time,
)

LAUNCHER = Path(__file__).parents[2] / "gesso_launcher.py"
GESSO = (sys.executable, "-P", str(LAUNCHER))  # the command line
COMMAND = (*GESSO, "serve")
START_S = 120.0  # until a new service answers at all; more than a busy machine needs
MOST_STARTS = 3
END_S = 10.0
POLL_S = 0.03
LOG_TAIL = 64 << 10  # bytes of the log that are searched for the reason
MESSAGE = "gesso: "  # before each sentence that a command prints


def start_service(location: ServiceLocation, arguments: Sequence[str], command: Sequence[str] = COMMAND) -> Health:
    """Starts a service in the background unless one runs at this location; returns once it answers, perhaps loading.

    arguments: of `gesso serve`. Callers in several processes at once get the same service. A service whose socket was
    removed is replaced. Raises ServiceGone if it does not start, NotPrivate if others may enter its folder.
    """
    make_private(location.socket.parent)
    with suppress(ServiceGone):
        return read_health(location)
    try:
        with _start_lock(location):
            with suppress(ServiceGone):
                return read_health(location)
            if is_unreachable(location):
                stop_service(location)
            return _spawn_and_wait(location, [*command, "--socket", str(location.socket), *arguments])
    except OSError as reason:
        raise ServiceGone(f"The service cannot be started ({reason.strerror}); try `gesso serve`.") from reason


def stop_service(location: ServiceLocation) -> bool:
    """Ends the service, by force if needed, and returns once its process is gone; False if none runs."""
    if (process := _service_pid(location)) is None:
        return False
    started = start_time(process)
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.kill(process, number)
        except ProcessLookupError:
            return True
        until = time.monotonic() + END_S
        while time.monotonic() < until:
            if _is_gone(process, started):
                return True
            time.sleep(POLL_S)
    raise ServiceGone(f"The service, process {process}, does not end; see `ps -p {process}`.")


def _is_gone(process: int, started: str | None) -> bool:
    """started: the start time of the process when it ran; None if the system does not say it."""
    if started is not None:
        return start_time(process) != started
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False


def _service_pid(location: ServiceLocation) -> int | None:
    """From the lock, or if its id could not be written there, what both the service and the system report."""
    if (process := lock_holder(location)) is not None:
        return process
    try:
        reported = read_health(location).pid
        with closing(connect(location, QUICK_S)) as connected:
            _, process = peer(connected)
    except (ServiceGone, OSError):
        return None
    return process if process and process == reported else None


@contextmanager
def _start_lock(location: ServiceLocation) -> Iterator[None]:
    """One process at a time starts a service."""
    file = open_private(location.start_lock, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def _spawn(location: ServiceLocation, command: Sequence[str]) -> subprocess.Popen[bytes]:
    """A process that outlives this one; its output goes to the log."""
    log = open_private(location.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=location.socket.parent,
        )
    finally:
        os.close(log)


def _spawn_and_wait(location: ServiceLocation, command: list[str]) -> Health:
    """Starts another process, at most MOST_STARTS in all, if one was killed, or left the start to another one that
    ended."""
    logged = _log_size(location)
    process, starts = _spawn(location, command), 1
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        with suppress(ServiceGone):
            return read_health(location)
        code = process.poll()
        if code is not None and lock_holder(location) is None:
            if code > 0 or starts == MOST_STARTS:
                break
            process, starts = _spawn(location, command), starts + 1
        time.sleep(POLL_S)
    if (reason := _last_message(location, logged)) is not None:
        raise ServiceGone(f"The service did not start: {reason}")
    raise ServiceGone(f"The service did not start; see {location.log}, or try `gesso serve`.")


def _log_size(location: ServiceLocation) -> int:
    try:
        return location.log.stat().st_size
    except OSError:
        return 0


def _last_message(location: ServiceLocation, start: int) -> str | None:
    """The last sentence that `gesso serve` printed into the log after `start` bytes."""
    try:
        with open(open_private(location.log, os.O_RDONLY), "rb") as file:
            file.seek(start)
            lines = file.read(LOG_TAIL).decode("utf-8", "replace").splitlines()
    except OSError:
        return None
    messages = [line.removeprefix(MESSAGE) for line in lines if line.startswith(MESSAGE)]
    return messages[-1] if messages else None
