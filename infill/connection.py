"""A network connection of one request that another thread may cancel, and which hosts are this machine.

Standard library alone. Must not know what is requested.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from engine.errors import Cancelled

LOOPBACK = "127.0.0.1"
LOOPBACK_HOSTS = (LOOPBACK, "localhost", "::1")


class CancellableConnection:
    """Any thread may cancel it; the thread that waits for the response then gets Cancelled."""

    def __init__(self) -> None:
        self.cancelled = False
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()

    def cancel(self) -> None:
        """Closes the connection if it is open, and prevents it from being opened otherwise."""
        with self._lock:
            self.cancelled = True
            if self._socket is not None:
                with suppress(OSError):  # the server closed it first
                    self._socket.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def using(self, connected: socket.socket) -> Iterator[None]:
        """Makes `connected` the socket that `cancel` shuts down. Raises Cancelled if it was cancelled before."""
        with self._lock:
            self.raise_if_cancelled()
            self._socket = connected
        try:
            yield
        finally:
            with self._lock:
                self._socket = None

    def raise_if_cancelled(self) -> None:
        if self.cancelled:
            raise Cancelled
