"""The statistics lose no event, break nothing when they fail, and contain nothing private."""

from __future__ import annotations

import logging
import os
import sqlite3
import stat
import threading
import time
from collections import Counter
from contextlib import closing
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest

from engine.errors import InputError
from infill import statistics
from infill.model_store import POCKET_FOLDER
from infill.statistics import (
    BATCH,
    CONFIRMING_DAYS,
    EventRow,
    Statistics,
    days_back,
    erase,
    latency,
    plain_model,
    read,
    summarize,
)
from tests.waiting import PATIENCE_S, until

DAY_S = 86_400
CREATED = "create table events (at real, event text, language text, model text, rung text, characters integer, value)"


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No event is lost because the machine is busy."""
    monkeypatch.setattr(statistics, "BUSY_S", PATIENCE_S)
    monkeypatch.setattr(statistics, "CLOSE_S", PATIENCE_S)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gesso" / "statistics.sqlite"


def shown(number: int = 1, at: float | None = None, model: str = "pocket", language: str | None = "python") -> EventRow:
    return EventRow(time.time() if at is None else at, "shown", language, model, "model", number, 12.5)


def write(path: Path, *rows: EventRow) -> None:
    store = Statistics(path)
    for row in rows:
        store.add(row)
    store.close()


def noon(days_ago: int) -> float:
    return datetime.combine(date.today() - timedelta(days=days_ago), datetime.min.time()).timestamp() + DAY_S / 2


def test_written_rows_are_read(path: Path) -> None:
    rows = [
        shown(at=100.0 + time.time()),
        EventRow(time.time() + 200, "kept", None, "pocket", None, 0, 0.25),
    ]
    write(path, *rows)
    assert read(path) == rows


@pytest.mark.parametrize("count", [1, BATCH - 1, BATCH, BATCH + 1, 2 * BATCH + 1])
def test_no_row_is_lost_or_moved_at_the_end_of_a_batch(path: Path, count: int) -> None:
    now = time.time()
    write(path, *(shown(number, now) for number in range(count)))
    assert [row.characters for row in read(path)] == list(range(count))


@pytest.mark.parametrize("umask", [0, 0o22, 0o777])
def test_its_files_are_their_users_alone_under_any_umask(path: Path, umask: int) -> None:
    path.parent.mkdir()
    before = os.umask(umask)
    try:
        store = Statistics(path)
        store.add(shown())
        store.close()
        with closing(statistics._connect(path)) as other:
            other.execute("begin immediate")
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert modes == dict.fromkeys((path.name, f"{path.name}-wal", f"{path.name}-shm"), 0o600)


def test_the_mode_of_existing_files_is_corrected(path: Path) -> None:
    write(path, shown())
    path.chmod(0o644)
    assert len(read(path)) == 1 and stat.S_IMODE(path.stat().st_mode) == 0o600


def test_several_servers_write_at_the_same_time(path: Path) -> None:
    threads = [
        threading.Thread(target=write, args=(path, *(shown(number) for number in range(40 * server, 40 * server + 40))))
        for server in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(row.characters for row in read(path)) == list(range(160))


def test_a_server_waits_while_another_one_creates_the_file(path: Path) -> None:
    """Before write-ahead mode is set, SQLite reports "locked" at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("create table made (a)")
        other.execute("begin immediate")
        timer = threading.Timer(0.3, lambda: other.execute("commit"))
        timer.start()
        write(path, shown(7))
        timer.join()
    assert [row.characters for row in read(path)] == [7]


def test_adding_does_not_wait_for_the_file(path: Path) -> None:
    path.parent.mkdir(parents=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute(CREATED)
        other.execute("begin exclusive")
        store = Statistics(path)
        store.add(shown())  # this thread locks the file, so waiting for it would never end
        other.execute("rollback")
    store.close()
    assert len(read(path)) == 1


def test_a_locked_file_loses_statistics_and_warns_once(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(statistics, "BUSY_S", 0.02)
    monkeypatch.setattr(statistics, "GATHER_S", 0.0)
    write(path, shown(1))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("begin immediate")
        for number in (2, 3):
            write(path, shown(number))
        assert len(warnings(caplog)) == 2  # two servers, each once
        store = Statistics(path)
        for number in range(3 * BATCH):
            store.add(shown(number))
        wait_until_taken(store)
        other.execute("rollback")
    store.close()
    assert len(warnings(caplog)) == 3
    write(path, shown(4))
    assert {1, 4} <= {row.characters for row in read(path)}


def warnings(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == "infill.statistics"]


def wait_until_taken(store: Statistics) -> None:
    until(lambda: store._rows.empty() and store._warned)


def test_a_full_disk_loses_statistics_only(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    connect = statistics._connect

    def small(path: Path) -> sqlite3.Connection:
        database = connect(path)
        database.execute("pragma max_page_count = 4")
        return database

    monkeypatch.setattr(statistics, "_connect", small)
    write(path, *(shown(number) for number in range(3 * BATCH)))
    assert [record.getMessage() for record in warnings(caplog)] == [
        f"Statistics cannot be written to {path}: database or disk is full"
    ]


@pytest.mark.parametrize("kind", ["broken", "folder", "no folder"])
def test_a_file_that_cannot_be_written_only_warns(
    path: Path, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    if kind == "broken":
        path.parent.mkdir()
        path.write_bytes(b"no database at all" * 300)
    elif kind == "folder":
        path.mkdir(parents=True)
    else:
        (tmp_path / "gesso").write_text("a file where a folder should be")
    write(path, *(shown(number) for number in range(2 * BATCH + 1)))
    assert len(warnings(caplog)) == 1


def test_a_damaged_file_is_reported_and_can_be_erased(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"no database at all" * 300)
    with pytest.raises(InputError, match=r"damaged .*`gesso stats --erase` to start over\.$"):
        read(path)
    assert erase(path)
    write(path, shown())
    assert len(read(path)) == 1


def test_old_events_are_deleted_when_new_ones_are_written(path: Path) -> None:
    now = time.time()
    write(path, shown(1, now - 91 * DAY_S), shown(2, now - 89 * DAY_S))
    write(path, shown(3, now))
    assert [row.characters for row in read(path)] == [2, 3]


@pytest.mark.parametrize("ahead", [5, 100, 4000])
@pytest.mark.parametrize("known", [True, False])
def test_a_clock_that_is_set_ahead_erases_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, ahead: int, known: bool
) -> None:
    now = time.time()
    write(path, shown(1, now - 89 * DAY_S), shown(2, now))
    if not known:  # a file of an earlier version
        with closing(sqlite3.connect(path)) as database:
            database.execute("pragma user_version = 0")
    for day in range(CONFIRMING_DAYS):
        monkeypatch.setattr(time, "time", lambda day=day: now + DAY_S * (ahead + day))
        write(path, *(shown(3, time.time()) for _ in range(2)))
    monkeypatch.setattr(time, "time", lambda: now)
    write(path, shown(4, now))
    counts = Counter(row.characters for row in read(path))
    assert counts == {1: 1, 2: 1, 3: 2 * CONFIRMING_DAYS, 4: 1}


def test_after_a_long_pause_old_events_are_deleted_once_the_clock_is_confirmed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    write(path, shown(1, now))
    for day in range(CONFIRMING_DAYS + 1):
        monkeypatch.setattr(time, "time", lambda day=day: now + DAY_S * (100 + 3 * day))
        assert 1 in [row.characters for row in read(path)]
        write(path, shown(2, time.time()))
    assert {row.characters for row in read(path)} == {2}


def test_a_period_consists_of_whole_days(path: Path) -> None:
    start = datetime.combine(date.today() - timedelta(days=2), datetime.min.time()).timestamp()
    write(path, shown(1, start - 1), shown(2, start), shown(3))
    assert [row.characters for row in read(path, days_back(3))] == [2, 3]
    assert [row.characters for row in read(path, days_back(1))] == [3]


def test_reading_does_not_create_the_file(path: Path) -> None:
    assert read(path) == [] and not erase(path) and not path.parent.exists()


def test_everything_can_be_erased_while_a_server_runs(path: Path) -> None:
    server = Statistics(path)
    write(path, *(shown(number, model="owner/telling") for number in range(3 * BATCH)))
    before = path.stat().st_size
    assert erase(path)
    assert path.stat().st_size < before / 2
    assert read(path) == [] and not erase(path)
    assert b"telling" not in b"".join(file.read_bytes() for file in path.parent.iterdir())
    server.add(shown(7))
    server.close()
    assert [row.characters for row in read(path)] == [7]


def test_a_failed_erase_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "BUSY_S", 0.02)
    write(path, shown())
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("begin immediate")
        with pytest.raises(InputError, match="cannot be used"):
            erase(path)
    assert len(read(path)) == 1


def test_names_of_folders_are_not_written(path: Path) -> None:
    write(path, shown(model="/home/someone/hush-hush/model"))
    assert [row.model for row in read(path)] == ["a folder"]
    assert b"hush" not in b"".join(file.read_bytes() for file in path.parent.iterdir())


def test_models_have_names_and_folders_have_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine" / "own").mkdir(parents=True)
    for name in ("pocket", "google/diffusiongemma-26B-A4B-it", "26b", ""):
        assert plain_model(name) == name
    for folder in (
        "mine/own",
        "mine",
        "./mine",
        "./gone",
        "../gone",
        "a/..",
        "~/model",
        "C:\\model",
        str(POCKET_FOLDER),
    ):
        assert plain_model(folder) == "a folder"


def test_the_table_has_no_column_for_code(path: Path) -> None:
    write(path, shown())
    with closing(sqlite3.connect(path)) as database:
        columns = [column[1] for column in database.execute("pragma table_info(events)")]
    assert columns == ["at", "event", "language", "model", "rung", "characters", "value"]


def test_totals() -> None:
    today, yesterday = noon(0), noon(1)
    rows = [
        *(EventRow(yesterday, "shown", "python", "pocket", "model", 10, float(time)) for time in range(1, 101)),
        *(EventRow(today, "shown", "rust", "pocket", "cache", 10, 2.0) for _ in range(2)),
        EventRow(today, "shown", None, "26b", "model", 10, 1000.0),
        EventRow(yesterday, "accepted", "python", "pocket", "model", 30),
        EventRow(today, "accepted", "rust", "pocket", "cache", 12),
        EventRow(today, "partly", "rust", "pocket", "cache", 5),
        EventRow(today, "rejected", "rust", "pocket", "cache", 40),
        EventRow(today, "kept", None, "pocket", None, 0, 1.0),
        EventRow(today, "kept", None, "pocket", None, 0, 0.5),
    ]
    summary = summarize(rows)
    total = summary.total
    assert (total.shown, total.accepted, total.partly, total.rejected, total.characters) == (103, 2, 1, 1, 47)
    assert total.accepted_share == 2 / 103
    assert (summary.settled, summary.kept_share) == (2, 0.75)
    assert [(name, counts.shown) for name, counts in summary.languages.items()] == [
        ("python", 100),
        ("rust", 2),
        ("other", 1),
    ]
    assert {name: counts.accepted for name, counts in summary.models.items()} == {"pocket": 2, "26b": 0}
    assert {day.isoformat(): counts.characters for day, counts in summary.days.items()} == {
        days_back(2).isoformat(): 30,
        days_back(1).isoformat(): 17,
    }
    assert summary.latencies["cache"] == statistics.Latency(2, 2.0, 2.0, 2.0)
    assert summary.latencies["model"] == statistics.Latency(101, 51.0, 96.0, 100.0)


def test_totals_of_no_events() -> None:
    summary = summarize([])
    assert summary.total.accepted_share is None and summary.kept_share is None and summary.latencies == {}


def test_percentiles_are_measured_times() -> None:
    assert latency([5.0]) == statistics.Latency(1, 5.0, 5.0, 5.0)
    assert latency([float(time) for time in range(200, 0, -1)]) == statistics.Latency(200, 100.0, 190.0, 198.0)


def test_next_edits_have_their_own_counts() -> None:
    rows = [
        EventRow(noon(0), "shown", "python", "pocket", "model", 10, 5.0),
        EventRow(noon(0), "shown", "python", "", statistics.NEXT_EDIT, 10, 300.0),
        EventRow(noon(0), "accepted", "python", "", statistics.NEXT_EDIT, 10),
    ]
    summary = summarize(rows)
    assert (summary.total.shown, summary.total.accepted, summary.languages["python"].shown) == (1, 0, 1)
    assert (summary.next_edits.shown, summary.next_edits.accepted) == (1, 1)
    assert summary.latencies[statistics.NEXT_EDIT].p50 == 300.0
