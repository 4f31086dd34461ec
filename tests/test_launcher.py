"""Gesso's commands start whatever folder they are started in, and whatever PYTHONPATH holds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import gesso_launcher
from tests.waiting import PATIENCE_S

LAUNCHER = gesso_launcher.__file__
SERVER = "import gesso_launcher; gesso_launcher.language_server()"
FOREIGN = "raise SystemExit('imported from PYTHONPATH')\n"


@pytest.mark.parametrize(
    "name", ["engine/__init__.py", "infill/__init__.py", "lsp.py", "typer.py", "torch/__init__.py"]
)
@pytest.mark.parametrize("arguments", [(LAUNCHER, "config"), ("-c", SERVER, "--version")])
def test_modules_on_pythonpath_are_not_imported(tmp_path: Path, name: str, arguments: tuple[str, ...]) -> None:
    module = tmp_path / name
    module.parent.mkdir(exist_ok=True)
    module.write_text(FOREIGN)
    path = os.pathsep.join([str(tmp_path), str(Path(LAUNCHER).parent)])
    done = run(*arguments, environment={"PYTHONPATH": path})
    assert done.returncode == 0, done.stderr


def test_the_path_keeps_what_only_pythonpath_has(tmp_path: Path) -> None:
    own, foreign = str(Path(LAUNCHER).parent), str(tmp_path)
    ordered = gesso_launcher._ordered([foreign, "/lib", own], foreign)
    assert ordered == [own, "/lib", foreign]


@pytest.mark.parametrize("arguments", [(LAUNCHER, "config"), (LAUNCHER, "--version"), ("-c", SERVER, "--version")])
def test_the_working_folder_may_be_gone(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    script = f"import os; os.chdir({str(gone)!r}); os.rmdir({str(gone)!r}); os.execv({sys.executable!r}, "
    script += f"{[sys.executable, *arguments]!r})"
    done = run("-c", script, environment={"PYTHONPATH": str(Path(LAUNCHER).parent)})
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def run(*arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", *arguments]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
