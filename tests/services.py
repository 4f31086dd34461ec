"""Services that tests start, or keep from starting."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from infill.service.location import ServiceLocation, make_private, open_private
from infill.service.start import stop_service


@contextmanager
def no_service_starts(location: ServiceLocation) -> Iterator[None]:
    """Ends the service there; until the end of the block its clients wait, and their model counts as loading."""
    make_private(location.socket.parent)
    held = open_private(location.start_lock, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        stop_service(location)
        yield
    finally:
        os.close(held)
