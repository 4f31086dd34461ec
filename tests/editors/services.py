"""The services that editors under test start: their sockets are in one folder, and they end with the tests."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from infill.service.location import ServiceLocation
from infill.service.start import stop_service


@cache
def runtime_folder() -> str:
    """For XDG_RUNTIME_DIR; short enough for a socket's path."""
    folder = tempfile.mkdtemp(prefix="gesso-test-")
    atexit.register(_end, folder)
    return folder


def default_location() -> ServiceLocation:
    return ServiceLocation(Path(runtime_folder()) / "gesso" / "gesso.sock")


def _end(folder: str) -> None:
    for socket in (Path(folder) / "gesso").glob("*.sock"):
        stop_service(ServiceLocation(socket))
    shutil.rmtree(folder, ignore_errors=True)
