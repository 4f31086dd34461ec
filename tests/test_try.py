"""The command that `./try` runs."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from infill.cli.main import app

ROOT = Path(__file__).parents[1]


def test_the_example_is_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    *_, last_line = (ROOT / "try").read_text().splitlines()
    command = shlex.split(last_line.removeprefix("exec .venv/bin/gesso "))
    command = ["pocket" if word == "$model" else word for word in command]
    result = CliRunner().invoke(app, [*command, "--no-service"])
    assert (result.exit_code, result.stdout) == (0, "amount <= 0")
