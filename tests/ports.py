"""A port for a server in another process."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

from infill.connection import LOOPBACK

FIRST, LAST = 10_000, 30_000  # below the ports that Linux and macOS give to outgoing connections and to port 0


def free_port() -> int:
    """One that no other test gets before the server has bound it: not chosen by the system, which may give it away."""
    while True:
        port = random.SystemRandom().randrange(FIRST, LAST)
        with suppress(OSError), socket.create_server((LOOPBACK, port)):
            return port
