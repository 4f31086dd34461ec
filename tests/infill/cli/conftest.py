"""Fixtures for commands that start a service."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from infill.service.location import all_locations
from infill.service.start import stop_service


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """Of one user with one service; short enough for a socket's path."""
    with tempfile.TemporaryDirectory(prefix="gesso-test-") as name, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", name)
        patch.setenv("GESSO_DTYPE", "float32")
        patch.setenv("GESSO_THREADS", "1")
        yield Path(name)
        patch.setenv("XDG_RUNTIME_DIR", name)
        for location in all_locations():
            stop_service(location)
