"""Every test is shielded from the settings of the person who runs it; what it starts has one thread, which gives the
same answers everywhere."""

import os
import tempfile
from importlib.util import find_spec
from pathlib import Path

import pytest

import engine  # noqa: F401  (before PyTorch)

os.environ["XDG_DATA_HOME"] = tempfile.mkdtemp(prefix="gesso-tests-")  # fixtures of a module have no test of their own

if find_spec("hypothesis") is not None:  # absent on a GPU machine that only has PyTorch and pytest
    from hypothesis import HealthCheck, settings

    settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    for variable in list(os.environ):
        if variable.startswith("GESSO_"):
            monkeypatch.delenv(variable)
    folder = tmp_path_factory.mktemp("user")
    if find_spec("platformdirs") is not None:
        monkeypatch.setattr("infill.settings.user_file", lambda: folder / "config.toml")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.setenv("XDG_DATA_HOME", str(folder))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def empty_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, without the ignore file of the user who runs the tests."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return home


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A folder that is a repository without commits."""
    folder = tmp_path / "repository"
    (folder / ".git" / "info").mkdir(parents=True)
    return folder
