"""Small regular files are read; nothing else is opened."""

import os
from pathlib import Path

import pytest

from engine.files import open_regular, read_json_object, read_small_file


def test_a_small_file_is_read(tmp_path: Path) -> None:
    file, link = tmp_path / "a", tmp_path / "link"
    file.write_bytes(b"12345")
    link.symlink_to(file)
    assert read_small_file(file, 5) == b"12345" == read_small_file(link, 5)
    with pytest.raises(OSError, match="larger than 4 bytes"):
        read_small_file(file, 4)
    with pytest.raises(OSError, match="not a regular file"):
        read_small_file(link, 5, follow_link=False)
    with pytest.raises(FileNotFoundError):
        read_small_file(tmp_path / "none", 5)


def test_pipes_devices_and_folders_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for path in (tmp_path / "pipe", tmp_path / "zero", tmp_path):
        with pytest.raises(OSError, match="not a regular file"):
            read_small_file(path, 10)


@pytest.mark.skipif(not os.access("/proc/kmsg", os.R_OK), reason="needs root on Linux")
def test_a_file_of_the_system_that_waits_is_an_error() -> None:
    """Its type is that of a regular file."""
    with open_regular(Path("/proc/kmsg")) as stream:
        while stream.read(1 << 16):
            pass
    with pytest.raises(OSError):
        read_small_file(Path("/proc/kmsg"), 10)


def test_the_read_ends_at_the_limit(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as stream:
        stream.truncate(1 << 42)
    with pytest.raises(OSError, match="larger than"):
        read_small_file(tmp_path / "sparse", 100)


@pytest.mark.parametrize("text", ["[]", "1", "[" * 100_000, '{"a": 1, "a": 2}', '{"a": ' + "9" * 5000 + "}", "\xff"])
def test_what_is_not_a_json_object_is_a_value_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "a").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError):
        read_json_object(tmp_path / "a")
