"""Local statistics: which suggestions were shown, accepted and kept, and how fast. Never code or file names.

One SQLite file in the user's data folder, shared by several servers and written on a thread of its own. Errors only
lose statistics. Must not know editors, nor how the figures are drawn.
"""

from __future__ import annotations

import logging
import math
import queue
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import astuple, dataclass, fields, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Literal, TypeVar, get_args

from engine.errors import GessoError, InputError
from infill.model_store import ALIASES, POCKET, hub_id
from infill.user_folders import data_folder, make_own

logger = logging.getLogger(__name__)
KEPT_DAYS = 90
CONFIRMING_DAYS = 7  # with events, until a clock that went forward by more than a day is believed
DAY_S = 86_400
RETRY_S = 0.05  # pause before the next attempt on a locked file
BUSY_S = 2.0  # longest wait for another process that writes
CLOSE_S = 3.0
BATCH, GATHER_S = 200, 0.5  # rows written at once, and the longest wait for more
Key = TypeVar("Key", str, date)
NEXT_EDIT: Literal["next edit"] = "next edit"  # origin of rows that count next edits
Event = Literal["shown", "accepted", "partly", "rejected", "kept"]
_TABLE = """
create table if not exists events (
    at real not null, event text not null, language text, model text, rung text, characters integer, value real
);
create index if not exists events_at on events (at);
"""


@dataclass(frozen=True)
class EventRow:
    """at: seconds of the epoch. characters: of the suggestion or the accepted part. origin: stored in the column
    `rung`, so that existing files stay readable.

    value: for `shown` the milliseconds from request to answer, for `kept` the share that is still in the text, 0 to 1.
    """

    at: float
    event: Event
    language: str | None
    model: str
    origin: str | None = None
    characters: int = 0
    value: float | None = None

    @property
    def day(self) -> date:
        """In local time."""
        return datetime.fromtimestamp(self.at).date()


COLUMNS = tuple("rung" if entry.name == "origin" else entry.name for entry in fields(EventRow))


def default_path() -> Path:
    """The path of the file, whether or not it exists."""
    return data_folder() / "statistics.sqlite"


def plain_model(name: str) -> str:
    """The name of a model; "a folder" instead of a path, which is private."""
    if name in ("", POCKET, *ALIASES):
        return name
    try:
        return "a folder" if Path(name).exists() else hub_id(name)
    except (GessoError, OSError):
        return "a folder"


class Statistics:
    """Writes events on a thread of its own."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or default_path()
        self._rows: queue.SimpleQueue[EventRow | None] = queue.SimpleQueue()
        self._warned = False
        self._thread = threading.Thread(target=self._run, name="statistics", daemon=True)
        self._thread.start()

    def add(self, row: EventRow) -> None:
        """Returns at once. Only the name of a model is written, never its folder."""
        self._rows.put(row)

    def close(self) -> None:
        """Waits until all rows are written, at most `CLOSE_S`. Rows added later are lost."""
        self._rows.put(None)
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        ended = False
        while not ended:
            rows, ended = self._gather()
            if rows:
                self._write(rows)

    def _gather(self) -> tuple[list[EventRow], bool]:
        """The next rows, in order, and whether they are the last ones."""
        rows: list[EventRow] = []
        until = float("inf")
        while len(rows) < BATCH:
            try:
                row = self._rows.get(timeout=max(0.0, until - time.monotonic()) if rows else None)
            except queue.Empty:
                break
            if row is None:
                return rows, True
            if not rows:
                until = time.monotonic() + GATHER_S
            rows.append(replace(row, model=plain_model(row.model)))
        return rows, False

    def _write(self, rows: list[EventRow]) -> None:
        deadline = time.monotonic() + BUSY_S
        while True:
            try:
                return _append(self.path, rows)
            except (sqlite3.Error, OSError) as error:
                # while another server creates the file, SQLite reports "locked" at once, whatever the timeout
                if "locked" not in str(error) or time.monotonic() > deadline:
                    if not self._warned:
                        logger.warning("Statistics cannot be written to %s: %s", self.path, error)
                    self._warned = True
                    return None
            time.sleep(RETRY_S)


def _append(path: Path, rows: list[EventRow]) -> None:
    marks = ", ".join("?" * len(COLUMNS))
    with closing(_connect(path)) as database, database:
        _delete_old_rows(database)
        database.executemany(
            f"insert into events ({', '.join(COLUMNS)}) values ({marks})", [astuple(row) for row in rows]
        )


def _delete_old_rows(database: sqlite3.Connection) -> None:
    """Deletes nothing while the clock may be wrong, since a clock that is set ahead makes every row look old.

    The file's `user_version` is the last day on which rows were deleted, counted from 1970.
    """
    now = time.time()
    today = int(now // DAY_S)
    (last,) = database.execute("pragma user_version").fetchone()
    if not last:
        (newest,) = database.execute("select max(at) from events").fetchone()
        last = today if newest is None else int(newest // DAY_S)
    if today <= last + 1 or _days_with_events(database, last + 1) >= CONFIRMING_DAYS:
        database.execute("delete from events where at < ?", (now - DAY_S * KEPT_DAYS,))
        last = today
    database.execute(f"pragma user_version = {last}")


def _days_with_events(database: sqlite3.Connection, first: int) -> int:
    """The number of days with events from the day `first` on, counted from 1970."""
    query = "select count(distinct cast(at / ? as integer)) from events where at >= ?"
    return int(database.execute(query, (DAY_S, DAY_S * first)).fetchone()[0])


def read(path: Path | None = None, since: date | None = None) -> list[EventRow]:
    """All events since the start of that day, oldest first; empty if there is no file.

    Raises InputError if the file cannot be read.
    """
    path = path or default_path()
    begin = 0.0 if since is None else datetime(since.year, since.month, since.day).timestamp()
    query = f"select {', '.join(COLUMNS)} from events where at >= ? order by at, rowid"
    try:
        if not path.is_file():
            return []
        with closing(_connect(path)) as database:
            rows = [EventRow(*found) for found in database.execute(query, (begin,))]
    except (sqlite3.Error, OSError) as error:
        raise _unusable(path, error) from error
    return [row for row in rows if row.event in get_args(Event)]


def erase(path: Path | None = None) -> bool:
    """Removes all events, also while servers run; returns whether there were any. Raises InputError if it fails.

    The file stays, since removing it while a server writes to it would break the database.
    """
    path = path or default_path()
    try:
        if not path.is_file():
            return False
        try:
            with closing(_connect(path)) as database:
                with database:
                    erased = database.execute("delete from events").rowcount
                database.execute("vacuum")
                database.execute("pragma wal_checkpoint(truncate)")
            return erased > 0
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:  # not a database, or a damaged one, so that no server writes to it
            for file in _files(path):
                file.unlink(missing_ok=True)
            return True
    except (sqlite3.Error, OSError) as error:
        raise _unusable(path, error) from error


def days_back(count: int) -> date:
    """The first of the last `count` days, including today."""
    return date.today() - timedelta(days=count - 1)


@dataclass(frozen=True)
class Counts:
    """characters: accepted in total, as a whole or in part."""

    shown: int
    accepted: int
    partly: int
    rejected: int
    characters: int

    @property
    def accepted_share(self) -> float | None:
        """The share of shown suggestions that were accepted as a whole."""
        return self.accepted / self.shown if self.shown else None


@dataclass(frozen=True)
class Latency:
    """Milliseconds from request to answer. shown: number of suggestions."""

    shown: int
    p50: float
    p95: float
    p99: float


@dataclass(frozen=True)
class Summary:
    """kept_share: the mean share that is still in the text, over `settled` acceptances. days: those with an event.

    Next edits have their own counts and are left out of the others, except of the latencies.
    """

    total: Counts
    settled: int
    kept_share: float | None
    languages: dict[str, Counts]
    models: dict[str, Counts]
    days: dict[date, Counts]
    latencies: dict[str, Latency]
    next_edits: Counts


def summarize(rows: Sequence[EventRow]) -> Summary:
    """The totals; languages and models sorted by how many were shown, days in order."""
    next_edits = [row for row in rows if row.origin == NEXT_EDIT]
    counted = [row for row in rows if row.event != "kept" and row.origin != NEXT_EDIT]
    kept = [row.value for row in rows if row.event == "kept" and row.value is not None]
    times: dict[str, list[float]] = {}
    for row in [*counted, *next_edits]:
        if row.event == "shown" and row.value is not None:
            times.setdefault(row.origin or "other", []).append(row.value)
    return Summary(
        total=count(counted),
        settled=len(kept),
        kept_share=sum(kept) / len(kept) if kept else None,
        languages=_most_shown(_counts_by(counted, lambda row: row.language or "other")),
        models=_most_shown(_counts_by(counted, lambda row: row.model or "other")),
        days=dict(sorted(_counts_by(counted, lambda row: row.day).items())),
        latencies={origin: latency(found) for origin, found in sorted(times.items())},
        next_edits=count(next_edits),
    )


def count(rows: Iterable[EventRow]) -> Counts:
    """The number of events of each kind."""
    numbers = dict.fromkeys(get_args(Event), 0)
    characters = 0
    for row in rows:
        numbers[row.event] += 1
        characters += row.characters if row.event in ("accepted", "partly") else 0
    return Counts(numbers["shown"], numbers["accepted"], numbers["partly"], numbers["rejected"], characters)


def latency(milliseconds: Sequence[float]) -> Latency:
    """Percentiles by the nearest rank, each one of the given times, of which there must be at least one."""
    ranked = sorted(milliseconds)
    p50, p95, p99 = (ranked[math.ceil(share * len(ranked) / 100) - 1] for share in (50, 95, 99))
    return Latency(len(ranked), p50, p95, p99)


def _counts_by(rows: Iterable[EventRow], key: Callable[[EventRow], Key]) -> dict[Key, Counts]:
    groups: dict[Key, list[EventRow]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return {name: count(group) for name, group in groups.items()}


def _most_shown(groups: dict[str, Counts]) -> dict[str, Counts]:
    return dict(sorted(groups.items(), key=lambda item: (-item[1].shown, item[0])))


def _connect(path: Path) -> sqlite3.Connection:
    make_own(path.parent)
    database = sqlite3.connect(path, timeout=BUSY_S)
    try:
        _make_private(path)
        database.execute("pragma journal_mode = wal")
        database.execute("pragma synchronous = normal")
        database.executescript(_TABLE)
    except BaseException:
        database.close()
        raise
    return database


def _files(path: Path) -> tuple[Path, Path, Path]:
    """The database, its write-ahead log and the index of that."""
    return path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")


def _make_private(path: Path) -> None:
    """Sets the mode 0600 under any umask. SQLite creates the other files with the mode of the database.

    By path, since closing a file of the database would drop SQLite's locks in this process.
    """
    for file in _files(path):
        with suppress(FileNotFoundError):
            if stat.S_IMODE(file.stat().st_mode) != 0o600:
                file.chmod(0o600)


def _unusable(path: Path, error: Exception) -> InputError:
    if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
        return InputError(f"The statistics in {path} are damaged ({error}); run `gesso stats --erase` to start over.")
    reason = error.strerror if isinstance(error, OSError) else error
    return InputError(f"The statistics in {path} cannot be used ({reason}); check its permissions, or try again.")
