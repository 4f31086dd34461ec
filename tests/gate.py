"""Holds work in another process until a test lets it go on, so that the test decides what happens first."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from tests.waiting import POLL_S, until

VARIABLE = "SCRIPTED_GATE"


class Gate:
    """For the test. environment: of the process. path: a file that does not exist."""

    def __init__(self, path: Path) -> None:
        self.path, self.environment = path, {VARIABLE: str(path)}

    def wait_until_reached(self) -> None:
        until(_reached(self.path).exists)

    def open(self) -> None:
        self.path.touch()


def wait_at_gate() -> None:
    """In the other process."""
    path = _reach()
    while not path.exists():
        time.sleep(POLL_S)


async def wait_at_gate_async() -> None:
    path = _reach()
    while not path.exists():
        await asyncio.sleep(POLL_S)


def _reach() -> Path:
    path = Path(os.environ[VARIABLE])
    _reached(path).touch()
    return path


def _reached(path: Path) -> Path:
    return path.with_name(f"{path.name}.reached")
