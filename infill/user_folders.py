"""The user's folders for settings and data. Must not know what is in them."""

from __future__ import annotations

from pathlib import Path

import platformdirs

from engine.errors import InputError


def config_folder() -> Path:
    """Raises InputError if it is not known."""
    return _absolute(platformdirs.user_config_dir("gesso", appauthor=False))


def data_folder() -> Path:
    """Raises InputError if it is not known."""
    return _absolute(platformdirs.user_data_dir("gesso", appauthor=False))


def _absolute(name: str) -> Path:
    """A relative path would be another folder in each working directory: "~" without a home, or a wrong variable."""
    folder = Path(name)
    if not folder.is_absolute():
        raise InputError(
            f"The folder {folder} has no absolute path; set HOME, XDG_CONFIG_HOME and XDG_DATA_HOME to one."
        )
    return folder
