"""Reads small files that others may have made: never a pipe, a device or more than a limit. Names a full disk.

Must not know what the files are for.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

JSON_BYTES, LARGE_JSON_BYTES = 1 << 20, 32 << 20  # a configuration; a tokenizer, or the index of many weight files


def open_regular(file: Path, follow_link: bool = True) -> BinaryIO:
    """A regular file, opened to be read. Raises OSError. Reading returns None where the file would wait, as those of
    the system in /proc.

    The type is checked before the file is opened, because opening a pipe waits and opening a device may do something.
    follow_link: whether the path may name a symbolic link.
    """
    _check_regular(file, os.stat(file, follow_symlinks=follow_link))
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow_link else os.O_NOFOLLOW)
    stream = os.fdopen(os.open(file, flags), "rb")
    try:
        _check_regular(file, os.fstat(stream.fileno()))
    except OSError:
        stream.close()
        raise
    return stream


def read_small_file(file: Path, limit: int, follow_link: bool = True) -> bytes:
    """The content of a regular file of at most `limit` bytes. Raises OSError. follow_link: as in `open_regular`."""
    with open_regular(file, follow_link) as stream:
        content: bytes | None = stream.read(limit + 1)
    if content is None:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), str(file))
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"it is larger than {limit:,} bytes", str(file))
    return content


def is_disk_full(error: OSError) -> bool:
    """Whether a file could not be written for lack of space."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def read_json_object(file: Path, limit: int = JSON_BYTES) -> dict[str, Any]:
    """The JSON object in a small file. Raises OSError, and ValueError for anything else than an object."""
    try:
        content = json.loads(read_small_file(file, limit), object_pairs_hook=unique_names)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(content, dict):
        raise ValueError("it does not hold a JSON object")
    return content


def _check_regular(file: Path, state: os.stat_result) -> None:
    if not stat.S_ISREG(state.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(file))


def unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An `object_pairs_hook` that raises ValueError if a name occurs twice."""
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a name occurs twice")
    return content
