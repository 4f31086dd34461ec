"""Where a service lives on this machine: its socket, its lock, its log; and who holds the lock.

One folder that nobody else can enter. Must not import anything slow: every command asks here whether a service runs.
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
LONGEST = 100  # bytes of a socket's path; the system's limit is 104 (macOS) or 108 (Linux) with the 0 behind it


class NotPrivate(GessoError):
    """The folder of the socket belongs to another user, or others may enter it."""


@dataclass(frozen=True)
class Place:
    """The files of one service, all beside its socket."""

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

    def beside(self, what: str) -> Place:
        """The place in the same folder of a service that differs from the usual one in `what`."""
        mark = hashlib.sha256(what.encode()).hexdigest()[:8]
        return place_at(self.socket.with_stem(f"{self.socket.stem}-{mark}"))


def place_at(path: Path | None = None) -> Place:
    """The place with this socket, or the user's usual one; raises InputError for a path that no socket can have."""
    chosen = path.absolute() if path is not None else _folder() / NAME
    if len(os.fsencode(chosen)) > LONGEST:
        raise InputError(f"The path {chosen} is too long for a socket; choose one of at most {LONGEST} bytes.")
    if chosen.suffix in (".lock", ".start", ".log"):
        raise InputError(f"The path {chosen} cannot be a socket's; let it end in .sock.")
    return Place(chosen)


def all_places() -> list[Place]:
    """The user's usual place, and those beside it where a service is or was."""
    usual = place_at()
    others = sorted(usual.socket.parent.glob(f"{usual.socket.stem}-*.lock"))
    return [usual, *(Place(lock.with_suffix(usual.socket.suffix)) for lock in others)]


def make_private(folder: Path) -> None:
    """Makes the folder, for its user alone; raises NotPrivate where one is there that others may enter."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = os.lstat(folder)
    except OSError as reason:
        sentence = f"The folder {folder} cannot be made ({reason.strerror}); choose another --socket."
        raise NotPrivate(sentence) from reason
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise NotPrivate(f"Others may enter the folder {folder}; run `chmod 700` on it, or choose another --socket.")


def take(lock: Path) -> int | None:
    """The lock as an open file that holds it until it is closed or the process dies; None where another has it."""
    file = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return file


def sign(file: int) -> None:
    """Writes who holds the lock into it."""
    os.ftruncate(file, 0)
    os.pwrite(file, f"{os.getpid()}\n".encode(), 0)


def holder(place: Place) -> int | None:
    """The process that is the service here, None where there is none."""
    try:
        file = os.open(place.lock, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        signed = os.pread(file, 32, 0).strip()
        return int(signed) if signed.isdigit() else None
    finally:
        os.close(file)
    return None


def bind(place: Place) -> socket.socket:
    """The listening socket, in place of one that a dead service left. Only the holder of the lock may call this."""
    place.socket.unlink(missing_ok=True)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        bound.bind(str(place.socket))
    finally:
        os.umask(before)
    bound.listen(128)
    return bound


def _folder() -> Path:
    """The user's folder for sockets, else one in the folder for temporary files that carries the user's number."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and Path(runtime).is_absolute() and sys.platform != "darwin":
        return Path(runtime) / "gesso"
    return Path(tempfile.gettempdir()) / f"gesso-{os.getuid()}"
