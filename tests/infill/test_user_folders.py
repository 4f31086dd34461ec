"""The user's folders without a usable home."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import platformdirs
import pytest

from engine.errors import InputError
from infill import user_folders


def no_home(*arguments: object, **options: object) -> str:
    raise RuntimeError("no home")


@pytest.mark.parametrize("folder_of", [no_home, lambda *arguments, **options: "~/.config/gesso"])
def test_without_a_home_a_sentence_says_what_to_set(
    folder_of: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platformdirs, "user_config_dir", folder_of)
    monkeypatch.setattr(platformdirs, "user_data_dir", folder_of)
    for folder in (user_folders.config_folder, user_folders.data_folder):
        with pytest.raises(InputError, match="set HOME"):
            folder()


def test_the_folders_are_those_of_the_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert user_folders.data_folder().is_absolute()


@pytest.mark.parametrize("umask", [0, 0o22, 0o777])
def test_new_folders_are_their_users_alone_under_any_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        user_folders.make_own(tmp_path / "a" / "b")
        user_folders.make_own(tmp_path / "a" / "b")
    finally:
        os.umask(before)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a", "a/b")] == [0o700, 0o700]


def test_a_file_in_the_way_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(OSError):
        user_folders.make_own(tmp_path / "a")
