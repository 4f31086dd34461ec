"""The list of trusted folders, and `gesso trust`."""

import errno
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engine.errors import InputError
from infill import settings
from infill.cli.main import app
from infill.trust import TrustList


def gesso(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, arguments)
    return result.exit_code, result.stdout


def test_the_command_adds_lists_and_removes_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path)
    assert gesso("trust", "--list") == (0, "")
    assert gesso("trust", "a") == (0, "") and gesso("trust") == (0, "")
    assert gesso("trust", "--list") == (0, f"{tmp_path}\n{tmp_path / 'a'}\n")
    assert settings.trust_list().file.parent == settings.user_file().parent
    assert settings.trust_list().file.stat().st_mode & 0o777 == 0o600
    assert gesso("trust", "--remove") == (0, "")
    assert gesso("trust", "--list") == (0, f"{tmp_path / 'a'}\n")
    assert gesso("trust", "--remove")[0] == 3
    assert gesso("trust", "none")[0] == 3
    assert gesso("trust", "--list", "--remove")[0] == 2


@pytest.mark.parametrize("content", ["{}", "[1]", "[", "[" * 100_000])
def test_a_damaged_list_trusts_nothing(tmp_path: Path, content: str) -> None:
    file = tmp_path / "trusted.json"
    file.write_text(content)
    with pytest.raises(InputError, match="trust your folders again"):
        TrustList(file).includes(tmp_path)


def test_a_full_disk_leaves_the_list_and_no_other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trusted = TrustList(tmp_path / "trusted.json")
    trusted.add(tmp_path / "a")

    def full(source: str, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match="free disk space"):
        trusted.add(tmp_path / "b")
    assert trusted.folders() == {tmp_path / "a"} and os.listdir(tmp_path) == ["trusted.json"]


def test_a_pipe_is_not_a_list(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "trusted.json")
    with pytest.raises(InputError, match="not a regular file"):
        TrustList(tmp_path / "trusted.json").includes(tmp_path)
