"""The records of requests and the report made from them, which contains nothing of the user's."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

import pytest

from lsp.activity import LAST, Activity, Outcome, Record
from lsp.settings import LspSettings, may_hold_text
from lsp.suggestions import Origin

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
    origin="model",
    timings_ms={"context": 1.2, "encode": 20.4, "denoise": 60.6, "checks": 3.0, "total": 85.2},
    total_ms=120.0,
    characters=24,
    confidence=0.875,
)
SKIPPED = replace(
    SHOWN,
    outcome="nothing",
    rule="in a comment",
    sentence="…",
    origin=None,
    timings_ms={},
    characters=0,
    confidence=None,
)


def report(*records: Record, status: dict[str, Any] | None = None, settings: dict[str, Any] | None = None) -> str:
    activity = Activity()
    for record in records:
        activity.add(record)
    return activity.report(STATUS if status is None else status, settings or {})


def cells(text: str, first: str) -> list[list[str]]:
    """The rows of the table whose first heading is `first`."""
    lines = text.splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith(f"| {first} |"))
    rows = [*lines[begin + 2 :], ""]
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows[: rows.index("")]]


def test_the_last_records_come_oldest_first() -> None:
    activity = Activity(size=5)
    for line in range(8):
        activity.add(replace(SHOWN, line=line))
    assert [record.line for record in activity.last(100)] == [3, 4, 5, 6, 7]
    assert [record.line for record in activity.last(2)] == [6, 7]
    assert activity.last(0) == []


def test_a_report_describes_the_installation() -> None:
    text = report()
    assert text.startswith("## Gesso\n")
    for name in ("gesso", "pygls", "torch", "transformers"):
        assert f"- {name}: " in text
    assert "- pygls: 2." in text
    assert f"- Python {sys.version_info.major}.{sys.version_info.minor}." in text
    assert "- model: pocket, ready\n- enabled: true\n- latest answer: 42 ms\n- settings: defaults\n" in text


def test_a_report_before_the_first_request() -> None:
    text = report(status={**STATUS, "model": "", "state": "stopped", "latencyMs": None, "enabled": False})
    assert "- model: none, stopped\n- enabled: false\n- latest answer: none yet\n" in text


def test_a_report_shows_the_last_requests_with_their_stages() -> None:
    records = [replace(SHOWN, line=line, at=1000.0 + line / 4) for line in range(1, LAST + 6)]
    rows = cells(report(*records, replace(SKIPPED, at=1010.0)), "s ago")
    assert len(rows) == LAST
    assert rows[-2] == [
        *("1.2", "3", "35", "python", "shown", "", "model", "24", "0.88", "120"),
        *("1", "20", "61", "3"),
    ]
    assert rows[-1] == ["0.0", "3", "17", "python", "nothing", "in a comment", "", "0", "", "120", *[""] * 4]


def test_a_report_counts_the_reasons_of_all_records() -> None:
    records = [SKIPPED] * 40 + [SHOWN] * 3 + [replace(SKIPPED, rule="long line")]
    assert cells(report(*records), "outcome") == [
        ["nothing", "in a comment", "40"],
        ["shown", "", "3"],
        ["nothing", "long line", "1"],
    ]


def test_a_report_has_percentiles_of_what_was_shown() -> None:
    model = [replace(SHOWN, total_ms=float(time)) for time in range(100, 0, -1)]
    others = [replace(SHOWN, origin="typed", total_ms=2.0), replace(SHOWN, outcome="failed", total_ms=9e9)]
    assert cells(report(*model, *others), "shown by origin") == [
        ["typed", "1", "2", "2", "2"],
        ["model", "100", "50", "95", "99"],
    ]


def test_settings_are_shown_if_they_cannot_hold_the_users_own_words() -> None:
    settings = {"delay_ms": 200, "eagerness": "calm", "statistics": False, "min_confidence": None, "device": "cuda:1"}
    text = report(settings=settings)
    line = "- settings: eagerness calm, delay_ms 200, statistics false, device cuda:1, min_confidence None\n"
    assert line in text
    assert "model owner/name" in report(settings={"model": "owner/name"})


def test_a_record_cannot_hold_code_or_names() -> None:
    """A new field must be added here: strings come from fixed sets, except the sentence for the user."""
    assert [field.name for field in fields(Record)] == [
        *("at", "document", "language", "line", "outcome", "rule", "sentence", "origin", "timings_ms"),
        *("total_ms", "characters", "confidence"),
    ]
    texts = {field.name for field in fields(Record) if "str" in str(field.type)} - {"timings_ms"}
    assert texts == {"language", "rule", "sentence"}
    assert set(get_args(Outcome)) == {"shown", "nothing", "superseded", "failed"}
    assert set(get_args(Origin)) == {"typed", "cache", "running", "remainder", "model", "next edit"}


def changed_settings() -> dict[str, Any]:
    """Every setting, with the secret in each that can hold any text."""
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
def test_a_report_contains_no_secret(model: str) -> None:
    failed = replace(
        SKIPPED,
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


def test_it_imports_nothing_slow() -> None:
    script = (
        "import sys; from lsp.activity import Activity; Activity().report({'model': 'pocket'}, {});"
        "print([name for name in ('torch', 'transformers', 'numpy') if name in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
