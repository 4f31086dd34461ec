"""Local statistics: what was shown, accepted and kept, and how fast it came. Never code, never a file's name.

One SQLite file in the user's data folder, safe with several servers at once; written on a thread of its own. What goes
wrong with it loses statistics and nothing else. Must not know editors.
"""

from __future__ import annotations

import logging
import queue
import sqlite3
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import platformdirs

logger = logging.getLogger(__name__)
KEPT_DAYS = 90
BUSY_S = 5.0
BATCH, GATHER_S = 200, 0.5  # rows written at once, and how long to wait for more
Event = Literal["shown", "accepted", "partly", "rejected", "kept"]
_TABLE = """
create table if not exists events (
    at real not null, event text not null, language text, model text, rung text, characters integer, value real
);
create index if not exists events_at on events (at);
"""


@dataclass(frozen=True)
class Row:
    """characters: of the suggestion, or of the part that was taken. value: milliseconds (shown), share (kept)."""

    at: float
    event: Event
    language: str | None
    model: str
    rung: str | None = None
    characters: int = 0
    value: float | None = None


def default_path() -> Path:
    return Path(platformdirs.user_data_dir("gesso", appauthor=False)) / "statistics.sqlite"


class Statistics:
    """Writes events; `add` returns at once."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or default_path()
        self._rows: queue.SimpleQueue[Row | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def add(self, row: Row) -> None:
        self._rows.put(row)

    def close(self) -> None:
        """Waits for what was added before, a few seconds at most."""
        self._rows.put(None)
        self._thread.join(BUSY_S)

    def _write(self) -> None:
        ended = told = False
        while not ended:
            row = self._rows.get()
            rows: list[tuple[object, ...]] = []
            while row is not None and len(rows) < BATCH:
                rows.append(tuple(vars(row).values()))
                try:
                    row = self._rows.get(timeout=GATHER_S)
                except queue.Empty:
                    break
            else:
                ended = row is None
                if row is not None:
                    self._rows.put(row)
            try:
                with closing(_connect(self.path)) as database, database:
                    database.execute("delete from events where at < ?", (time.time() - 86_400 * KEPT_DAYS,))
                    database.executemany("insert into events values (?, ?, ?, ?, ?, ?, ?)", rows)
            except (sqlite3.Error, OSError) as error:
                if not told:
                    logger.warning("Statistics cannot be written to %s: %s", self.path, error)
                    told = True


def read(path: Path | None = None, days: int | None = None) -> list[Row]:
    """All events of the last days, oldest first; none where nothing was ever written."""
    path = path or default_path()
    if not path.is_file():
        return []
    since = 0.0 if days is None else time.time() - 86_400 * days
    with closing(_connect(path)) as database:
        return [Row(*found) for found in database.execute("select * from events where at >= ? order by at", (since,))]


def erase(path: Path | None = None) -> bool:
    """Removes everything; whether there was anything."""
    path = path or default_path()
    there = path.is_file()
    for file in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
        file.unlink(missing_ok=True)
    return there


def _connect(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(path, timeout=BUSY_S)
    database.execute("pragma journal_mode = wal")
    database.executescript(_TABLE)
    return database
