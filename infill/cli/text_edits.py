"""Reads a source file and writes it back with only its holes changed.

Keeps the encoding, line ends, byte order mark, links, owner, mode and extended attributes. Must not know where the new
text comes from.
"""

from __future__ import annotations

import difflib
import errno
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engine.errors import InputError
from engine.files import is_disk_full, read_small_file
from infill.cli.encodings import Decoded, decode, label
from infill.privacy import check_named
from infill.request import Hole

MOST_BYTES = 8 << 20  # of a text; its size in characters is limited by `infill.request`
UNUSUAL = re.compile(r'[\x00-\x1f\x7f"\\\udc80-\udcff]')  # in a name
NO_FINAL_NEWLINE = "\\ No newline at end of file\n"


@dataclass(frozen=True)
class SourceFile:
    """decoded: its text, with its line ends. original: the bytes it was decoded from."""

    path: Path
    decoded: Decoded
    original: bytes

    @property
    def text(self) -> str:
        return self.decoded.text

    @property
    def notice(self) -> str | None:
        """A sentence about a guessed encoding."""
        if not self.decoded.is_guess:
            return None
        return (
            f"{self.path} is not UTF-8; treating it as {label(self.decoded.encoding)}, unless you name its --encoding."
        )

    def encode(self, text: str) -> bytes:
        """The bytes of the file with this text. Raises InputError if its encoding does not have a character."""
        return self.encode_part(self.decoded.marked(text))

    def encode_part(self, text: str) -> bytes:
        """Otherwise as `encode`, without a byte order mark."""
        try:
            return text.encode(self.decoded.encoding)
        except UnicodeEncodeError as error:
            missing, encoding = error.object[error.start : error.end], label(self.decoded.encoding)
            raise InputError(
                f"{self.path} is {encoding} text, which has no {missing!r}; convert it to UTF-8 first."
            ) from error

    def diff(self, text: str, name: str) -> str:
        """A diff from the file to the file with this text, for `encode_part`."""
        return unified_diff(self.decoded.marked(self.text), self.decoded.marked(text), name)


def read_source(path: Path, encoding: str | None = None) -> SourceFile:
    """encoding: see `decode`. Raises InputError if there is no such regular file, or if it is too large, must not or
    cannot be read, or is not text."""
    check_named(path)
    try:
        content = read_small_file(path, MOST_BYTES)
    except FileNotFoundError as error:
        raise InputError(f"There is no file {path}; check the name.") from error
    except OSError as error:
        if os.path.isdir(path):
            raise InputError(f"{path} is a folder; name a file in it.") from error
        if error.errno == errno.EFBIG:
            raise InputError(f"{path} has more than {MOST_BYTES >> 20} MiB; name a smaller file.") from error
        if error.errno == errno.EINVAL:
            raise InputError(f"{path} is not a regular file; send its text to `gesso infill -`.") from error
        raise InputError(f"{path} cannot be read ({error.strerror}); check its permissions.") from error
    return SourceFile(path, decode(content, str(path), encoding), content)


def read_stdin(encoding: str | None = None) -> SourceFile:
    """The text of standard input; otherwise as `read_source`."""
    try:
        content = sys.stdin.buffer.read(MOST_BYTES + 1)
    except OSError as error:
        raise InputError(f"Standard input cannot be read ({error.strerror}); name a file instead of -.") from error
    if len(content) > MOST_BYTES:
        raise InputError(f"Standard input has more than {MOST_BYTES >> 20} MiB; send a shorter text.")
    return SourceFile(Path("stdin"), decode(content, "Standard input", encoding), content)


def apply(text: str, fillings: Iterable[tuple[Hole, str]]) -> str:
    """The text with every hole replaced by its filling. Holes must not overlap."""
    parts, end = [], 0
    for hole, filling in sorted(fillings, key=lambda entry: (entry[0].start, entry[0].end)):
        parts += [text[end : hole.start], filling]
        end = hole.end
    return "".join([*parts, text[end:]])


def unified_diff(before: str, after: str, name: str) -> str:
    """A diff that `git apply` and `patch` accept; empty if the texts are equal."""
    lines = difflib.unified_diff(_lines(before), _lines(after), _quoted(f"a/{name}"), _quoted(f"b/{name}"))
    return "".join(line if line.endswith("\n") else f"{line}\n{NO_FINAL_NEWLINE}" for line in lines)


def _quoted(name: str) -> str:
    """As git writes a name: in quotes if it has characters that could end it, with these escaped."""
    if not UNUSUAL.search(name):
        return name
    return '"' + UNUSUAL.sub(lambda match: "".join(f"\\{byte:03o}" for byte in os.fsencode(match[0])), name) + '"'


def named_tree(path: Path) -> Path:
    """The folder that a file named by the user may not lead out of: the working directory, or else its own folder."""
    absolute, here = Path(os.path.abspath(path)), Path.cwd()
    return here if absolute.is_relative_to(here) else absolute.parent


def write_in_place(source: SourceFile, text: str, tree: Path) -> None:
    """Replaces the content of a file of this user in the folder `tree`. A symbolic link is kept if it stays in `tree`.

    The replacement is atomic, unless a new file would lose what the file has: another hard link, its owner or group, an
    extended attribute. Then the content is overwritten. Raises InputError and writes nothing if the file cannot be
    written, leads out of `tree`, is not a regular file of this user, has the setuid or setgid bit, or has changed since
    it was read, or if its encoding does not have a character of the text.
    """
    content = source.encode(text)
    try:
        with _folder_in(tree, source.path) as (folder, name):
            file = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
            try:
                _check_target(file, source)
                if not _replace(folder, name, file, content):
                    _overwrite(file, source.original, content)
            finally:
                os.close(file)
    except OSError as error:
        remedy = "free disk space" if is_disk_full(error) else "make it and its folder writable"
        raise InputError(
            f"{source.path} cannot be written ({error.strerror}); {remedy}, or print the change with --diff."
        ) from error


def real_path(path: Path, tree: Path) -> Path:
    """The path without symbolic links. Raises InputError if it leads out of the folder `tree`."""
    root, target = Path(os.path.realpath(tree)), Path(os.path.realpath(path))
    if not target.is_relative_to(root):
        raise InputError(f"{path} leads out of {root} and was not written; name {target} itself to change it.")
    return target


@contextmanager
def _folder_in(tree: Path, path: Path) -> Iterator[tuple[int, str]]:
    """A descriptor of the folder that really holds `path`, and the file's name there.

    Opens folder by folder without following links, so that nobody can exchange one for a link in the meantime.
    """
    root, target = Path(os.path.realpath(tree)), real_path(path, tree)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    folder = os.open(root, flags)
    try:
        for part in target.relative_to(root).parts[:-1]:
            inner = os.open(part, flags, dir_fd=folder)
            os.close(folder)
            folder = inner
        yield folder, target.name
    finally:
        os.close(folder)


def check_own(path: Path, status: os.stat_result, remedy: str) -> None:
    """Raises InputError unless it is a regular file of this user without the setuid and setgid bits."""
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path} is not a regular file and was not written; {remedy}.")
    if status.st_uid != os.geteuid():
        raise InputError(f"{path} belongs to another user and was not written; {remedy}.")
    if status.st_mode & (stat.S_ISUID | stat.S_ISGID):
        raise InputError(f"{path} is setuid or setgid and was not written; {remedy}.")


def _check_target(file: int, source: SourceFile) -> None:
    check_own(source.path, os.fstat(file), "print the change with --diff")
    if os.pread(file, len(source.original) + 1, 0) != source.original:
        raise InputError(f"{source.path} has changed since it was read and was not written; run the command again.")


def _replace(folder: int, name: str, file: int, content: bytes) -> bool:
    """Renames a new file over `file`. Does nothing and returns False if that would change more than the content."""
    if os.fstat(file).st_nlink > 1:
        return False
    temporary = f".{name[:100]}.{secrets.token_hex(6)}.gesso"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    new = os.open(temporary, flags, 0o600, dir_fd=folder)
    try:
        os.fchmod(new, stat.S_IMODE(os.fstat(file).st_mode))
        same = _attributes(new) == _attributes(file)
        if same:
            _write(new, content)
            os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        os.unlink(temporary, dir_fd=folder)
        raise
    finally:
        os.close(new)
    if not same:
        os.unlink(temporary, dir_fd=folder)
    return same


def _attributes(file: int) -> object:
    """What a new file must have in common with the old one. Where Python cannot list extended attributes, as on macOS,
    equal to nothing."""
    status = os.fstat(file)
    if not hasattr(os, "listxattr"):
        return object()
    extended = {name: os.getxattr(file, name) for name in os.listxattr(file)}
    return status.st_uid, status.st_gid, status.st_mode, extended


def _overwrite(file: int, original: bytes, content: bytes) -> None:
    """Overwrites the content. If that fails, as on a full disk, writes the original back."""
    try:
        _write(file, content)
        os.ftruncate(file, len(content))
    except BaseException:
        _write(file, original)
        os.ftruncate(file, len(original))
        raise


def _write(file: int, content: bytes) -> None:
    written = 0
    while written < len(content):
        written += os.pwrite(file, content[written : written + 2**20], written)
    os.fsync(file)


def _lines(text: str) -> list[str]:
    """Lines with their ends. Unlike `str.splitlines`, only a line feed ends a line."""
    *complete, last = text.split("\n")
    return [line + "\n" for line in complete] + ([last] if last else [])
