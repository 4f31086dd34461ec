"""Folders of files for tests."""

from __future__ import annotations

from pathlib import Path


def put(folder: Path, files: dict[str, str]) -> None:
    """Writes files by their name within `folder`, with the folders that they need."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
