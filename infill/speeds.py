"""How fast code models were on this machine, so that not every load has to measure it.

Must not know how a model is measured, or loaded.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine.files import read_json_object
from infill.downloads import models_folder

FILE = "speeds.json"
MOST_MODELS = 32  # the last ones measured
MOST_AGE_S = 24 * 3600  # after which a speed is measured again: the machine may have been busy, or on battery


@dataclass(frozen=True)
class Speed:
    """prompt: tokens of a prompt read per second. token_s: seconds to decode a token. threads: on so many threads."""

    prompt: float
    token_s: float
    threads: int


def measured_token_s(name: str) -> float | None:
    """Seconds per token of a code model, as last measured here; None if it never was."""
    speed = _speed(_entries().get(name))
    return None if speed is None else speed.token_s


def remembered_speed(name: str, setup: str) -> Speed | None:
    """The speed of a code model, if it was measured within MOST_AGE_S, and with the same `setup`: all that it depends
    on, in any form."""
    entry = _entries().get(name)
    if (speed := _speed(entry)) is None or entry is None:
        return None
    is_fresh = 0 <= time.time() - entry["measured_at"] <= MOST_AGE_S
    return speed if is_fresh and entry.get("setup") == setup else None


def remember_speed(name: str, setup: str, speed: Speed) -> None:
    """Stores a measurement; does nothing if the disk cannot be written."""
    others = {key: value for key, value in _entries().items() if key != name and _speed(value) is not None}
    entries = {**dict([*others.items()][1 - MOST_MODELS :]), name: _entry(setup, speed)}
    temporary = _file().with_suffix(f".{os.getpid()}")
    with suppress(OSError):
        temporary.touch(0o600)
        temporary.write_text(json.dumps(entries), "utf-8")
        os.replace(temporary, _file())


def _entry(setup: str, speed: Speed) -> dict[str, Any]:
    return {**asdict(speed), "setup": setup, "measured_at": int(time.time())}


def _speed(entry: Any) -> Speed | None:
    """None if the entry is damaged."""
    try:
        speed = Speed(float(entry["prompt"]), float(entry["token_s"]), int(entry["threads"]))
        is_usable = speed.prompt > 0 and speed.token_s > 0 and 0 < speed.threads <= (os.cpu_count() or 1)
        return speed if is_usable and isinstance(entry.get("measured_at"), int) else None
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _entries() -> dict[str, Any]:
    """By the name of the model; none if the file is missing or damaged."""
    try:
        return read_json_object(_file())
    except (OSError, ValueError):
        return {}


def _file() -> Path:
    return models_folder() / FILE
