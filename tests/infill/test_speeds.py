"""Speeds of code models that were measured earlier."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from infill import speeds
from infill.speeds import MOST_AGE_S, MOST_MODELS, Speed, measured_token_s, remember_speed, remembered_speed

FAST, SLOW = Speed(500.0, 0.02, 1), Speed(100.0, 0.1, 1)


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(speeds, "models_folder", lambda: tmp_path)
    return tmp_path


def test_a_speed_is_remembered_by_name(models: Path) -> None:
    assert measured_token_s("coder") is None and remembered_speed("coder", "this") is None
    remember_speed("coder", "this", SLOW)
    remember_speed("coder-1.5b", "this", SLOW)
    remember_speed("coder", "this", FAST)
    assert measured_token_s("coder") == 0.02 and measured_token_s("coder-1.5b") == 0.1
    assert remembered_speed("coder", "this") == FAST
    assert measured_token_s("other") is None
    assert [file.name for file in models.iterdir()] == ["speeds.json"]
    assert stat.S_IMODE((models / "speeds.json").stat().st_mode) == 0o600


def test_it_is_measured_again_for_another_setup(models: Path) -> None:
    remember_speed("coder", "this", FAST)
    assert remembered_speed("coder", "another") is None
    assert measured_token_s("coder") == 0.02, "the choice of a model needs no exact figure"


@pytest.mark.parametrize(("passed_s", "known"), [(MOST_AGE_S - 60, True), (MOST_AGE_S + 60, False), (-60, False)])
def test_it_is_measured_again_after_a_while(
    models: Path, monkeypatch: pytest.MonkeyPatch, passed_s: int, known: bool
) -> None:
    now = [1e9]
    monkeypatch.setattr(speeds.time, "time", lambda: now[0])
    remember_speed("coder", "this", FAST)
    now[0] += passed_s
    assert remembered_speed("coder", "this") == (FAST if known else None)


def test_only_the_last_models_are_remembered(models: Path) -> None:
    for number in range(3 * MOST_MODELS):
        remember_speed(f"/models/{number}", "this", FAST)
    assert len(json.loads((models / "speeds.json").read_text())) == MOST_MODELS
    assert measured_token_s(f"/models/{3 * MOST_MODELS - 1}") == 0.02 and measured_token_s("/models/0") is None


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"coder": "fast"}', '{"coder": 0.02}', "\xff"])
def test_a_damaged_file_counts_as_no_measurement(models: Path, content: str) -> None:
    (models / "speeds.json").write_text(content, "latin-1")
    assert measured_token_s("coder") is None and remembered_speed("coder", "this") is None
    remember_speed("coder", "this", FAST)
    assert measured_token_s("coder") == 0.02


@pytest.mark.parametrize(
    "change",
    [{"threads": 0}, {"threads": 10**6}, {"threads": None}, {"token_s": -1}, {"token_s": "nan"}, {"prompt": 0},
     {"measured_at": "now"}, {"measured_at": None}, {"setup": ["this"]}],
)  # fmt: skip
def test_an_entry_that_cannot_be_is_not_used(models: Path, change: dict[str, object]) -> None:
    remember_speed("coder", "this", FAST)
    entries = json.loads((models / "speeds.json").read_text())
    entries["coder"] |= change
    (models / "speeds.json").write_text(json.dumps(entries))
    assert remembered_speed("coder", "this") is None


def test_speeds_that_cannot_be_written_are_not_remembered(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speeds, "models_folder", lambda: models / "absent")
    remember_speed("coder", "this", FAST)
    assert measured_token_s("coder") is None
