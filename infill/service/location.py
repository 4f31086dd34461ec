"""The files of a service on this machine: its socket, its lock and its log; and which process holds the lock.

They are in a folder that no other user can enter. Must not import anything slow, since every command imports this.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import socket
import stat
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from engine.errors import GessoError, InputError

NAME = "gesso.sock"
LONGEST = 100  # bytes of a socket's path; the system's limit is 104 (macOS) or 108 (Linux), terminator included


class NotPrivate(GessoError):
    """The folder of the socket belongs to another user, or others may enter it."""


@dataclass(frozen=True)
class ServiceLocation:
    """The files of one service, all next to its socket."""

    socket: Path

    @property
    def lock(self) -> Path:
        return self.socket.with_suffix(".lock")

    @property
    def start_lock(self) -> Path:
        return self.socket.with_suffix(".start")

    @property
    def log(self) -> Path:
        return self.socket.with_suffix(".log")

    def variant(self, difference: str) -> ServiceLocation:
        """The location, in the same folder, of a service that differs from this one in `difference`."""
        mark = hashlib.sha256(difference.encode()).hexdigest()[:8]
        return location_at(self.socket.with_stem(f"{self.socket.stem}-{mark}"))


def location_at(path: Path | None = None) -> ServiceLocation:
    """The location with this socket, or the user's default; raises InputError for a path that no socket can have."""
    chosen = path.absolute() if path is not None else _folder() / NAME
    if len(os.fsencode(chosen)) > LONGEST:
        raise InputError(f"The path {chosen} is too long for a socket; choose one of at most {LONGEST} bytes.")
    if chosen.suffix in (".lock", ".start", ".log"):
        raise InputError(f"The path {chosen} has the suffix of another file of the service; use .sock.")
    return ServiceLocation(chosen)


def all_locations() -> list[ServiceLocation]:
    """The user's default location, and its variants where a service runs or ran."""
    default = location_at()
    others = sorted(default.socket.parent.glob(f"{default.socket.stem}-*.lock"))
    return [default, *(ServiceLocation(lock.with_suffix(default.socket.suffix)) for lock in others)]


def make_private(folder: Path) -> None:
    """Creates the folder for its user alone; raises NotPrivate if it exists and others may enter it."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = os.lstat(folder)
    except OSError as reason:
        sentence = f"The folder {folder} cannot be created ({reason.strerror}); choose another --socket."
        raise NotPrivate(sentence) from reason
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise NotPrivate(f"Other users can access {folder}; run `chmod 700` on it, or choose another --socket.")


def take_lock(lock: Path) -> int | None:
    """A file descriptor that holds the lock until it is closed or the process dies; None if another process has it."""
    file = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return file


def write_pid(lock_file: int) -> None:
    """Writes the id of this process into the lock."""
    os.ftruncate(lock_file, 0)
    os.pwrite(lock_file, f"{os.getpid()}\n".encode(), 0)


def lock_holder(location: ServiceLocation) -> int | None:
    """The id of the service's process; None if there is none."""
    try:
        file = os.open(location.lock, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        content = os.pread(file, 32, 0).strip()
        return int(content) if content.isdigit() else None
    finally:
        os.close(file)
    return None


def bind(location: ServiceLocation) -> socket.socket:
    """The listening socket; replaces the one of a dead service. Only the holder of the lock may call this."""
    location.socket.unlink(missing_ok=True)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        bound.bind(str(location.socket))
    finally:
        os.umask(before)
    bound.listen(128)
    return bound


def _folder() -> Path:
    """The user's folder for sockets, else one in the folder for temporary files, named after the user's id."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and Path(runtime).is_absolute() and sys.platform != "darwin":
        return Path(runtime) / "gesso"
    return Path(tempfile.gettempdir()) / f"gesso-{os.getuid()}"
