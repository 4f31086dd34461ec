"""Reads a source file and writes it back with only its holes changed.

Keeps line ends, byte order mark, file mode and symbolic links. Must not know where the new text comes from.
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

BOM = "\ufeff"
NO_FINAL_NEWLINE = "\\ No newline at end of file\n"


@dataclass(frozen=True)
class SourceFile:
    """text: with its line ends, without byte order mark. original: the bytes it was decoded from."""

    path: Path
    text: str
    original: bytes

    @property
    def has_bom(self) -> bool:
        return self.original.startswith(BOM.encode())


def read_source(path: Path) -> SourceFile:
    """Raises InputError if the file does not exist, cannot be read or is not UTF-8."""
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"There is no file {path}; check the name.") from error
    except IsADirectoryError as error:
        raise InputError(f"{path} is a folder; name a file in it.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check its permissions.") from error
    return SourceFile(path, decode(content, str(path)), content)


def decode(content: bytes, name: str) -> str:
    """The text without a byte order mark. Raises InputError if it is not UTF-8."""
    try:
        return content.decode("utf-8").removeprefix(BOM)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{name} is not UTF-8 text (line {line}); convert it to UTF-8 first.") from error


def apply(text: str, fillings: Iterable[tuple[Hole, str]]) -> str:
    """The text with every hole replaced by its filling. Holes must not overlap."""
    parts, end = [], 0
    for hole, filling in sorted(fillings, key=lambda entry: (entry[0].start, entry[0].end)):
        parts += [text[end : hole.start], filling]
        end = hole.end
    return "".join([*parts, text[end:]])


def unified_diff(before: str, after: str, name: str) -> str:
    """A diff that `git apply` and `patch` accept; empty if the texts are equal."""
    lines = difflib.unified_diff(_lines(before), _lines(after), f"a/{name}", f"b/{name}")
    return "".join(line if line.endswith("\n") else f"{line}\n{NO_FINAL_NEWLINE}" for line in lines)


def write_in_place(source: SourceFile, text: str) -> None:
    """Replaces the file's content atomically. For a symbolic link, replaces the target and keeps the link.

    Raises InputError and writes nothing if the file has changed since it was read or cannot be written.
    """
    target = Path(os.path.realpath(source.path))
    content = (BOM if source.has_bom else "").encode() + text.encode("utf-8")
    try:
        if target.read_bytes() != source.original:
            raise InputError(f"{source.path} has changed since it was read and was not written; run the command again.")
        if not os.access(target, os.W_OK):
            raise InputError(f"{source.path} is read-only; make it writable, or print the change with --diff.")
        _replace(target, content)
    except OSError as error:
        raise InputError(
            f"{source.path} cannot be written ({error.strerror}); check its folder's permissions."
        ) from error


def _replace(target: Path, content: bytes) -> None:
    """Writes a file next to the target, with the target's mode, and renames it over the target."""
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
    """Lines with their ends. Unlike `str.splitlines`, only a line feed ends a line."""
    *complete, last = text.split("\n")
    return [line + "\n" for line in complete] + ([last] if last else [])
