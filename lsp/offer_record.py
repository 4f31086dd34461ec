"""Whether the user of this machine was asked to download a model, in any editor, and what the answer was.

Must not know the protocol.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Literal

from infill.user_folders import make_own

AGAIN_S = 24 * 3600.0  # least time between two questions
Answer = Literal["later", "download", "never"]


class OfferRecord:
    """The file with the time of the last question and the answer. A file that cannot be written prevents questions."""

    def __init__(self, file: Path) -> None:
        self._file = file

    @property
    def answer(self) -> Answer:
        """`later` if there was no question or no answer."""
        try:
            answer = _parsed(self._file.read_text("utf-8"))["answer"]
        except OSError:
            return "later"
        return answer

    def may_ask(self) -> bool:
        """True for one caller in AGAIN_S, on the whole machine, unless the answer was `never`."""
        with suppress(OSError), self._locked() as stream:
            record = _parsed(stream.read())
            if record["answer"] == "later" and not 0 <= time.time() - record["asked"] < AGAIN_S:
                _write(stream, {"asked": time.time(), "answer": "later"})
                return True
        return False

    def remember(self, answer: Answer) -> None:
        with suppress(OSError), self._locked() as stream:
            _write(stream, {"asked": time.time(), "answer": answer})

    @contextmanager
    def _locked(self) -> Iterator[TextIOWrapper]:
        make_own(self._file.parent)
        file = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(file, "r+", encoding="utf-8") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield stream


def _parsed(text: str) -> dict[str, Any]:
    """The record; that of a user who was never asked if the text is damaged."""
    with suppress(ValueError):
        record = json.loads(text)
        if isinstance(record, dict) and record.get("answer") in ("later", "download", "never"):
            if isinstance(record.get("asked"), int | float):
                return record
    return {"asked": 0.0, "answer": "later"}


def _write(stream: TextIOWrapper, record: dict[str, Any]) -> None:
    stream.seek(0)
    stream.truncate()
    json.dump(record, stream)
