"""A source file read, changed and written back without touching anything but the holes.

Line ends, a byte order mark, the mode and links stay as they are. Must not know where the text comes from.
"""

from __future__ import annotations

import difflib
import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from engine.errors import InputError
from infill.request import Hole

MARK = "\ufeff"
NO_FINAL_NEWLINE = "\\ No newline at end of file\n"


@dataclass(frozen=True)
class SourceFile:
    """The text of a file, line ends as they are there, without byte order mark; and the bytes it was read from."""

    path: Path
    text: str
    original: bytes

    @property
    def has_mark(self) -> bool:
        return self.original.startswith(MARK.encode())


def read_source(path: Path) -> SourceFile:
    """Raises InputError where there is no such file, it cannot be read, or it is not UTF-8."""
    try:
        content = path.read_bytes()
    except FileNotFoundError as absent:
        raise InputError(f"There is no file {path}; check the name.") from absent
    except IsADirectoryError as folder:
        raise InputError(f"{path} is a folder; name a file in it.") from folder
    except OSError as reason:
        raise InputError(f"{path} cannot be read ({reason.strerror}); check its permissions.") from reason
    return SourceFile(path, decode(content, str(path)), content)


def decode(content: bytes, name: str) -> str:
    """The text without a byte order mark; raises InputError where it is not UTF-8."""
    try:
        return content.decode("utf-8").removeprefix(MARK)
    except UnicodeDecodeError as wrong:
        line = content.count(b"\n", 0, wrong.start) + 1
        raise InputError(f"{name} is not UTF-8 text (line {line}); convert it to UTF-8 first.") from wrong


def apply(text: str, fillings: Iterable[tuple[Hole, str]]) -> str:
    """The text with every hole replaced by its filling; holes do not overlap."""
    parts, at = [], 0
    for hole, filling in sorted(fillings, key=lambda entry: (entry[0].start, entry[0].end)):
        parts += [text[at : hole.start], filling]
        at = hole.end
    return "".join([*parts, text[at:]])


def unified_diff(before: str, after: str, name: str) -> str:
    """A diff that `git apply` and `patch` take; empty where nothing differs."""
    lines = difflib.unified_diff(_lines(before), _lines(after), f"a/{name}", f"b/{name}")
    return "".join(line if line.endswith("\n") else f"{line}\n{NO_FINAL_NEWLINE}" for line in lines)


def write_in_place(source: SourceFile, text: str) -> None:
    """Replaces the content of the file, at once or not at all; a link's target is replaced and the link kept.

    Raises InputError, with nothing written, where the file changed since it was read or cannot be written.
    """
    target = Path(os.path.realpath(source.path))
    content = (MARK if source.has_mark else "").encode() + text.encode("utf-8")
    try:
        if target.read_bytes() != source.original:
            raise InputError(f"{source.path} was changed by someone else meanwhile and was left alone; run again.")
        if not os.access(target, os.W_OK):
            raise InputError(f"{source.path} is write-protected; make it writable or print with --diff.")
        _replace(target, content)
    except OSError as reason:
        raise InputError(
            f"{source.path} cannot be written ({reason.strerror}); check its folder's permissions."
        ) from reason


def _replace(target: Path, content: bytes) -> None:
    """Written next to the target, with its mode, and then moved over it."""
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".gesso", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        shutil.copymode(target, name)
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _lines(text: str) -> list[str]:
    """Lines with their ends; only a line feed ends a line."""
    *whole, last = text.split("\n")
    return [line + "\n" for line in whole] + ([last] if last else [])
