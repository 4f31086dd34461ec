"""`gesso stats`: its tables, their width, and its output without any events."""

from __future__ import annotations

import json
import time
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest
from rich.cells import cell_len
from typer.testing import CliRunner, Result

from infill import statistics
from infill.cli.main import app
from infill.statistics import EventRow, Statistics, read

MINUTE_S = 60


@pytest.fixture(autouse=True)
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "statistics.sqlite"
    monkeypatch.setattr(statistics, "default_path", lambda: path)
    for variable in ("COLUMNS", "FORCE_COLOR"):
        monkeypatch.delenv(variable, raising=False)
    return path


def gesso(*arguments: str, charset: str = "utf-8") -> Result:
    return CliRunner(charset=charset).invoke(app, ["stats", *arguments])


def noon(days_ago: int) -> float:
    return datetime.combine(date.today() - timedelta(days=days_ago), datetime.min.time()).timestamp() + 12 * 3600


def day(days_ago: int) -> str:
    return (date.today() - timedelta(days=days_ago)).isoformat()


def write(path: Path, *days_ago: int, model: str = "pocket") -> None:
    """Adds four suggestions per day: one accepted, one accepted in part, one rejected, one ignored."""
    store = Statistics(path)
    for ago in days_ago:
        at = noon(ago)
        for number, language in enumerate(("python", "python", "python", "typescript")):
            store.add(
                EventRow(at + number, "shown", language, model, "model" if number else "cache", 20, 100.0 * number)
            )
        store.add(EventRow(at + 1, "accepted", "python", model, "model", 1200))
        store.add(EventRow(at + 2, "partly", "python", model, "model", 34))
        store.add(EventRow(at + 3, "rejected", "typescript", model, "model", 20))
        store.add(EventRow(at + MINUTE_S, "kept", None, model, None, 0, 0.9))
    store.close()


def line_with(result: Result, word: str) -> list[str]:
    (line,) = [line for line in result.stdout.splitlines() if word in line]
    return line.split()


def test_no_events_is_one_sentence() -> None:
    result = gesso()
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.startswith("gesso: No suggestions in the last 30 days") and result.stderr.count("\n") == 1
    assert json.loads(gesso("--json").stdout)["shown"] == 0


def test_figures(path: Path) -> None:
    write(path, 0, 2)
    result = gesso("--days", "5")
    assert result.exit_code == 0 and result.stderr == ""
    assert result.stdout.splitlines()[0] == f"Suggestions in the last 5 days, since {day(4)}"
    assert result.stdout.splitlines()[1].split() == ["shown", "8"]
    assert line_with(result, "of those shown")[:3] == ["accepted", "2", "25"]
    assert line_with(result, "partly")[:2] == ["partly", "2"]
    assert line_with(result, "rejected")[:2] == ["rejected", "2"]
    assert line_with(result, "still there")[:4] == ["kept", "2", "90", "%"]
    assert line_with(result, "have to type")[:2] == ["saved", "2,468"]
    assert line_with(result, "cached")[1:5] == ["2", "0", "0", "0"]
    assert line_with(result, "new model run")[3:7] == ["6", "200", "300", "300"]
    assert line_with(result, "python ")[:6] == ["python", "6", "2", "33", "%", "2,468"]
    assert line_with(result, "typescript")[:5] == ["typescript", "2", "0", "0", "%"]
    assert line_with(result, day(2))[1:6] == [day(2), "4", "1", "25", "%"]
    assert line_with(result, day(1))[1:] == [day(1), "0", "0", "0"]  # a day without events
    assert day(3) not in result.stdout
    assert "a folder" not in result.stdout


def test_bars_are_as_long_as_the_figures_say(path: Path) -> None:
    write(path, 0)
    result = gesso()
    assert line_with(result, "python ")[-1] == "█" * 7 + "░" * 13
    assert line_with(result, "typescript")[-1] == "░" * 7
    plain = gesso(charset="ascii")
    assert plain.exit_code == 0 and plain.stdout.isascii()
    assert line_with(plain, "python ")[-1] == "#" * 7 + "-" * 13


def test_only_the_requested_days_count(path: Path) -> None:
    write(path, 0, 6, 7)
    assert json.loads(gesso("--days", "7", "--json").stdout)["shown"] == 8
    assert json.loads(gesso("--days", "1", "--json").stdout)["shown"] == 4
    assert gesso("--days", "1").stdout.startswith("Suggestions today")


def test_many_days_are_grouped_by_week(path: Path) -> None:
    write(path, 0, 6, 7, 20)
    result = gesso()
    table = result.stdout.split("week")[1]
    assert [line.split()[3] for line in table.splitlines()[1:]] == ["4", "4", "8"]
    assert f"{date.today():%m-%d}" in table.splitlines()[-1]
    assert day(20)[5:] in table.splitlines()[1].split()[0:3]


def test_each_model_has_its_own_line(path: Path) -> None:
    write(path, 0, 1)
    write(path, 0, model="/home/someone/hush-hush")
    result = gesso()
    assert line_with(result, "pocket")[1] == "8"
    assert line_with(result, "a folder")[2] == "4"
    assert "hush" not in result.stdout


@pytest.mark.parametrize("columns", ["", "80", "60"])
@pytest.mark.parametrize("days", [3, 90])
def test_no_line_is_wider_than_the_window(path: Path, monkeypatch: pytest.MonkeyPatch, columns: str, days: int) -> None:
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    store = Statistics(path)
    for number in range(days):
        for language in ("python", "typescript", None):
            store.add(EventRow(noon(number), "shown", language, "pocket", "running", 123_456, 123_456.0))
            store.add(EventRow(noon(number), "accepted", language, "pocket", "running", 1_234_567))
            store.add(EventRow(noon(number), "kept", None, "google/diffusiongemma-26B-A4B-it", None, 0, 1.0))
    store.add(EventRow(noon(0), "shown", "python", "google/diffusiongemma-26B-A4B-it", "model", 1, 1.0))
    store.close()
    shown = gesso("--days", str(days)).stdout
    assert "\x1b" not in shown
    assert max(map(cell_len, shown.splitlines())) <= int(columns or 80)
    if columns in ("", "80"):
        assert "google/diffusiongemma-26B-A4B-it " in shown and "…" not in shown and "█" in shown


def test_json(path: Path) -> None:
    write(path, 0)
    found = json.loads(gesso("--json").stdout)
    assert found["since"] == day(29)
    assert (found["shown"], found["accepted"], found["partly"], found["rejected"]) == (4, 1, 1, 1)
    assert (found["accepted_share"], found["characters"]) == (0.25, 1234)
    assert (found["settled"], found["kept_share"]) == (1, 0.9)
    assert found["latency_ms"]["model"] == {"shown": 3, "p50": 200.0, "p95": 300.0, "p99": 300.0}
    assert found["languages"]["typescript"]["rejected"] == 1
    assert list(found["days"]) == [day(0)] and list(found["models"]) == ["pocket"]


def test_erase(path: Path) -> None:
    write(path, 0)
    result = gesso("--erase")
    assert (result.exit_code, result.stdout) == (0, "") and "Deleted the statistics" in result.stderr
    assert read(path) == []
    assert "no statistics to delete" in gesso("--erase").stderr


@pytest.mark.parametrize(
    "arguments", [["--erase", "--json"], ["--erase", "--days", "3"], ["--days", "0"], ["--days", "91"], ["now"]]
)
def test_usage_errors(path: Path, arguments: list[str]) -> None:
    write(path, 0)
    assert gesso(*arguments).exit_code == 2
    assert read(path) != []


def test_a_broken_file_is_an_error(path: Path) -> None:
    path.write_bytes(b"no database" * 1000)
    result = gesso()
    assert result.exit_code == 3 and result.stdout == ""
    assert result.stderr.count("\n") == 1 and "run `gesso stats --erase` to start over" in result.stderr
    assert gesso("--erase").exit_code == 0 and gesso().exit_code == 0


def test_an_event_of_this_moment_counts(path: Path) -> None:
    store = Statistics(path)
    store.add(EventRow(time.time(), "shown", "python", "pocket", "typed", 3, 1.0))
    store.close()
    assert "typed as suggested" in gesso("--days", "1").stdout
