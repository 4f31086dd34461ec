"""The notes on requests, and the report made of them: enough to find a fault, and nothing of the user's."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

import pytest

from lsp.activity import LAST, Activity, Outcome, Record, Rung
from lsp.settings import LspSettings, may_hold_text

SECRET = "hush_hush"
STATUS = {"kind": "Normal", "state": "ready", "message": "", "model": "pocket", "enabled": True, "latencyMs": 41.6}
SHOWN = Record(
    at=1000.0,
    document=3,
    language="python",
    line=17,
    outcome="shown",
    rule=None,
    sentence=None,
    rung="model",
    timings_ms={"context": 1.2, "encode": 20.4, "denoise": 60.6, "checks": 3.0, "total": 85.2},
    total_ms=120.0,
    characters=24,
    confidence=0.875,
)
QUIET = replace(
    SHOWN, outcome="nothing", rule="in a comment", sentence="…", rung=None, timings_ms={}, characters=0, confidence=None
)


def report(*records: Record, status: dict[str, Any] | None = None, settings: dict[str, Any] | None = None) -> str:
    activity = Activity()
    for record in records:
        activity.add(record)
    return activity.report(STATUS if status is None else status, settings or {})


def cells(text: str, first: str) -> list[list[str]]:
    """The rows below the heading of the table that begins with `first`."""
    lines = text.splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith(f"| {first} |"))
    rows = [*lines[begin + 2 :], ""]
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows[: rows.index("")]]


def test_the_last_ones_oldest_first() -> None:
    activity = Activity(size=5)
    for line in range(8):
        activity.add(replace(SHOWN, line=line))
    assert [record.line for record in activity.last(100)] == [3, 4, 5, 6, 7]
    assert [record.line for record in activity.last(2)] == [6, 7]
    assert activity.last(0) == []


def test_a_report_says_what_runs_here() -> None:
    text = report()
    assert text.startswith("## Gesso\n")
    for name in ("gesso", "pygls", "torch", "transformers"):
        assert f"- {name}: " in text
    assert "- pygls: 2." in text
    assert f"- Python {sys.version_info.major}.{sys.version_info.minor}." in text
    assert "- model: pocket, ready\n- enabled: true\n- latest answer: 42 ms\n- settings: as they come\n" in text


def test_a_report_before_anything_was_answered() -> None:
    text = report(status={**STATUS, "model": "", "state": "stopped", "latencyMs": None, "enabled": False})
    assert "- model: none, stopped\n- enabled: false\n- latest answer: none yet\n" in text


def test_a_report_shows_the_last_requests_with_their_stages() -> None:
    records = [replace(SHOWN, line=line, at=1000.0 + line / 4) for line in range(1, LAST + 6)]
    rows = cells(report(*records, replace(QUIET, at=1010.0)), "s ago")
    assert len(rows) == LAST
    assert rows[-2] == [
        *("1.2", "3", "35", "python", "shown", "", "model", "24", "0.88", "120"),
        *("1", "20", "61", "3"),
    ]
    assert rows[-1] == ["0.0", "3", "17", "python", "nothing", "in a comment", "", "0", "", "120", *[""] * 4]


def test_a_report_counts_the_reasons_of_all_records() -> None:
    records = [QUIET] * 40 + [SHOWN] * 3 + [replace(QUIET, rule="long line")]
    assert cells(report(*records), "outcome") == [
        ["nothing", "in a comment", "40"],
        ["shown", "", "3"],
        ["nothing", "long line", "1"],
    ]


def test_a_report_has_percentiles_of_what_was_shown() -> None:
    model = [replace(SHOWN, total_ms=float(time)) for time in range(100, 0, -1)]
    others = [replace(SHOWN, rung="typed", total_ms=2.0), replace(SHOWN, outcome="failed", total_ms=9e9)]
    assert cells(report(*model, *others), "shown by rung") == [
        ["typed", "1", "2", "2", "2"],
        ["model", "100", "50", "95", "99"],
    ]


def test_settings_are_shown_where_they_hold_no_words_of_the_user() -> None:
    settings = {"delay_ms": 200, "eagerness": "calm", "statistics": False, "min_confidence": None, "device": "cuda:1"}
    text = report(settings=settings)
    line = "- settings: eagerness calm, delay_ms 200, statistics false, device cuda:1, min_confidence None\n"
    assert line in text
    assert "model owner/name" in report(settings={"model": "owner/name"})


def test_a_record_has_no_place_for_code_or_names() -> None:
    """Whoever adds a field thinks of what it may hold: texts are from closed sets, but for the user's sentence."""
    assert [field.name for field in fields(Record)] == [
        *("at", "document", "language", "line", "outcome", "rule", "sentence", "rung", "timings_ms"),
        *("total_ms", "characters", "confidence"),
    ]
    texts = {field.name for field in fields(Record) if "str" in str(field.type)} - {"timings_ms"}
    assert texts == {"language", "rule", "sentence"}
    assert set(get_args(Outcome)) == {"shown", "nothing", "superseded", "failed"}
    assert set(get_args(Rung)) == {"typed", "cache", "running", "remainder", "model"}


def changed_settings() -> dict[str, Any]:
    """Every setting, with the secret wherever a text can stand."""
    secrets = {
        "languages": {SECRET: False},
        "disabled_paths": (f"{SECRET}/**",),
        "lint_ignore": (SECRET,),
        "lint_include": (SECRET,),
        "model": f"/home/me/{SECRET}",
        "device": SECRET,
    }
    assert {field.name for field in fields(LspSettings) if may_hold_text(field.name)} == set(secrets)
    return {field.name: secrets.get(field.name, getattr(LspSettings(), field.name)) for field in fields(LspSettings)}


@pytest.mark.parametrize("model", [f"/home/me/{SECRET}", f"./{SECRET}", SECRET, f"C:\\{SECRET}\\model"])
def test_no_secret_comes_into_a_report(model: str) -> None:
    failed = replace(
        QUIET,
        outcome="failed",
        rule="the engine failed",
        sentence=f"There is no model folder /home/me/{SECRET}.",
        timings_ms={SECRET: 1.0},
    )
    status = {**STATUS, "model": model, "message": f"{SECRET} is damaged.", SECRET: SECRET, "path": SECRET}
    text = report(failed, SHOWN, status=status, settings={**changed_settings(), "model": model, SECRET: True})
    assert SECRET not in text
    assert "languages changed, disabled_paths changed" in text and "model a folder" in text
    assert "- model: a folder, ready" in text


def test_nothing_slow_is_imported_for_it() -> None:
    script = (
        "import sys; from lsp.activity import Activity; Activity().report({'model': 'pocket'}, {});"
        "print([name for name in ('torch', 'transformers', 'numpy') if name in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
