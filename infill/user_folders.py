"""The user's folders for settings and data, which only the user can write. Must not know what is in them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from engine.errors import InputError


def config_folder() -> Path:
    """Raises InputError if it is not known."""
    import platformdirs  # absent on a machine that only measures

    return _absolute(platformdirs.user_config_dir)


def data_folder() -> Path:
    """Raises InputError if it is not known."""
    import platformdirs

    return _absolute(platformdirs.user_data_dir)


def make_own(folder: Path) -> None:
    """Creates a folder, and those above it, for the user alone under any umask. Raises OSError."""
    for missing in [one for one in (folder, *folder.parents) if not one.is_dir()][::-1]:
        with suppress(FileExistsError):  # another process was faster
            os.mkdir(missing, 0o700)
            os.chmod(missing, 0o700)
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))


def _absolute(folder_of: Callable[..., str]) -> Path:
    """A relative path would be another folder in each working directory. Without a home, some versions of platformdirs
    raise, others return one."""
    try:
        folder = Path(folder_of("gesso", appauthor=False))
    except RuntimeError:
        folder = Path()
    if not folder.is_absolute():
        raise InputError("You have no home folder; set HOME to the absolute path of one.")
    return folder
