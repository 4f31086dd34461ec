"""The files of a service on this machine: its socket, its lock and its log; and which process holds the lock.

They are in a folder that no other user can enter. On a shared machine another user may have made that folder first, so
everything here checks the folder before it reads a file, connects or names a process. Must not import anything slow,
since every command imports this.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import socket
import stat
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from engine.errors import GessoError, InputError
from engine.files import is_disk_full

NAME = "gesso.sock"
FALLBACK = "/tmp"
LONGEST = 100  # bytes of a socket's path; the system's limit is 104 (macOS) or 108 (Linux), terminator included
ENDED = "Z"  # state of a process that has ended, until its parent asks for its exit code
MARK = 9  # bytes that a variant adds to the path
LOCK_ATTEMPTS, LOCK_PAUSE_S = 5, 0.01  # `lock_holder` of another process takes the lock for an instant
REMEDY = "choose another --socket, or set XDG_RUNTIME_DIR to a folder of your own"


class NotPrivate(GessoError):
    """The folder of the socket, or the process that listens there, belongs to another user, or others may enter it."""


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
    """Creates the folder for its user alone; raises NotPrivate if it exists and is not private."""
    try:
        _make(folder)
        check_private(folder)
    except OSError as reason:
        raise NotPrivate(f"The folder {folder} cannot be created ({reason.strerror}); {REMEDY}.") from reason


def check_private(folder: Path) -> None:
    """Raises NotPrivate if the folder is a link, another user's, or open to others; OSError if it does not exist."""
    status = os.lstat(folder)
    if not stat.S_ISDIR(status.st_mode):
        raise NotPrivate(f"{folder} is a link or a file instead of a folder; remove it, or {REMEDY}.")
    if status.st_uid != os.getuid():
        raise NotPrivate(f"The folder {folder} belongs to another user (id {status.st_uid}); {REMEDY}.")
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise NotPrivate(f"Other users can access {folder}; run `chmod 700` on it, or {REMEDY}.")


def open_private(file: Path, flags: int) -> int:
    """A file descriptor of a file in a private folder, with mode 0600 under any umask.

    Raises OSError, also for a link and for anything but a regular file of this user: the folder may have been open to
    others before.
    """
    opened = os.open(file, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    try:
        status = os.fstat(opened)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.getuid():
            raise PermissionError(errno.EPERM, "it is another user's, or not a regular file", str(file))
        if stat.S_IMODE(status.st_mode) != 0o600:
            os.fchmod(opened, 0o600)
    except BaseException:
        os.close(opened)
        raise
    return opened


def connect(location: ServiceLocation, timeout_s: float | None) -> socket.socket:
    """A connection to the process that listens on the socket; raises OSError, or NotPrivate if it is another user's."""
    check_private(location.socket.parent)
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connected.settimeout(timeout_s)
        connected.connect(str(location.socket))
        user, _ = peer(connected)
        if user != os.getuid():
            message = f"The process that listens on {location.socket} belongs to another user (id {user})"
            raise NotPrivate(f"{message}; remove the file, or {REMEDY}.")
    except BaseException:
        connected.close()
        raise
    return connected


def peer(connected: socket.socket) -> tuple[int, int]:
    """The user id and process id of the other end of a Unix socket, from the system; the process id may be 0.

    See unix(7) for SO_PEERCRED; `struct xucred` and LOCAL_PEERPID in XNU's sys/ucred.h and sys/un.h.
    """
    if sys.platform == "darwin":
        level, credentials, process = 0, 1, 2  # SOL_LOCAL, LOCAL_PEERCRED, LOCAL_PEERPID
        _, user = struct.unpack_from("=II", connected.getsockopt(level, credentials, 76))
        return user, connected.getsockopt(level, process)
    process, user, _ = struct.unpack("=iII", connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return user, process


def take_lock(lock: Path) -> int | None:
    """A file descriptor that holds the lock until it is closed or the process dies; None if another process has it."""
    try:
        file = open_private(lock, os.O_RDWR | os.O_CREAT)
    except OSError as reason:
        first = "free disk space" if is_disk_full(reason) else "remove it"
        raise NotPrivate(f"The lock {lock} cannot be opened ({reason.strerror}); {first}, or {REMEDY}.") from reason
    for _ in range(LOCK_ATTEMPTS):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            time.sleep(LOCK_PAUSE_S)
    os.close(file)
    return None


def write_holder(lock_file: int, socket_id: str = "") -> None:
    """Writes into the lock: the id and the start time of this process, and the id of its socket once it has one."""
    process = os.getpid()
    line = f"{process} {start_time(process) or '-'} {socket_id}\n".encode()
    os.pwrite(lock_file, line, 0)
    os.ftruncate(lock_file, len(line))


def lock_holder(location: ServiceLocation) -> int | None:
    """The id of the service's process; None if there is none, or if the lock does not name the process that runs now.

    Raises NotPrivate if another user could have written the lock.
    """
    holder = _holder(location)
    return holder[0] if holder is not None else None


def is_unreachable(location: ServiceLocation) -> bool:
    """Whether a service runs and its socket was removed or replaced, so that nobody can connect to it any longer."""
    holder = _holder(location)
    return holder is not None and holder[1] not in ("", _socket_id(location))


def _holder(location: ServiceLocation) -> tuple[int, str] | None:
    """The id of the service's process, and of its socket ("" before it listens)."""
    try:
        check_private(location.socket.parent)
        file = open_private(location.lock, os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        line, end, _ = os.pread(file, 256, 0).decode("ascii", "replace").partition("\n")
        process, _, rest = line.partition(" ")
        started, _, socket_id = rest.partition(" ")
        # the line may be of a process that ended, whose id another one has now
        if end and process.isdecimal() and started == start_time(int(process)):
            return int(process), socket_id
    finally:
        os.close(file)
    return None


def start_time(process: int) -> str | None:
    """Distinguishes a process from a later one with the same id; None if there is none, if it has ended and its parent
    does not know yet, or if the time is unknown."""
    if sys.platform == "linux":
        try:
            fields = Path(f"/proc/{process}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] == ENDED else fields[19]  # fields 3 and 22 of proc(5)
    import subprocess

    command = ["ps", "-o", "state=,lstart=", "-p", str(process)]
    try:
        printed = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}).stdout
    except OSError:
        return None
    state, *started = printed.split() or [ENDED]
    return None if state.startswith(ENDED) else "-".join(started)


def bind(location: ServiceLocation) -> socket.socket:
    """The listening socket; replaces the one of a dead service. Only the holder of the lock may call this.

    Raises InputError if the socket cannot be created, as on a file system without sockets.
    """
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        location.socket.unlink(missing_ok=True)
        bound.bind(str(location.socket))
    except OSError as reason:
        bound.close()
        raise InputError(f"The socket {location.socket} cannot be created ({reason.strerror}); {REMEDY}.") from reason
    finally:
        os.umask(before)
    bound.listen(128)
    return bound


@contextmanager
def listening(location: ServiceLocation, lock_file: int) -> Iterator[socket.socket]:
    """The listening socket of the holder of the lock. Its file is removed at the end, unless it is another service's:
    that is possible once the folder was removed and created again."""
    bound, made = bind(location), _socket_id(location)
    with suppress(OSError):  # on a full disk, clients ask the service for its process id
        write_holder(lock_file, made)
    try:
        yield bound
    finally:
        bound.close()
        if made and made == _socket_id(location):
            location.socket.unlink(missing_ok=True)


def _socket_id(location: ServiceLocation) -> str:
    """The device and inode of the socket; "" if there is none."""
    try:
        status = os.lstat(location.socket)
    except OSError:
        return ""
    return f"{status.st_dev}:{status.st_ino}"


def _folder() -> Path:
    """The user's folder for sockets; if that cannot be used, one named after the user's id in the folder for temporary
    files, or in /tmp."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and Path(runtime).is_absolute() and sys.platform != "darwin":
        folder = Path(runtime) / "gesso"
        if _fits(folder) and _is_usable(folder):
            return folder
    name = f"gesso-{os.getuid()}"
    with suppress(FileNotFoundError):  # no folder for temporary files can be written
        folder = Path(tempfile.gettempdir()) / name
        if _fits(folder):
            return folder
    return Path(FALLBACK) / name


def _fits(folder: Path) -> bool:
    return len(os.fsencode(folder / NAME)) + MARK <= LONGEST


def _is_usable(folder: Path) -> bool:
    """Whether the folder exists or was created, and this user can write it. XDG_RUNTIME_DIR may name a folder that does
    not exist, as in a container, or that is another user's, as after `su`."""
    try:
        _make(folder)
        status = os.lstat(folder)
    except OSError:
        return os.path.lexists(folder)  # then `check_private` refuses it
    return status.st_uid != os.getuid() or os.access(folder, os.W_OK | os.X_OK)


def _make(folder: Path) -> None:
    """Creates a folder for its user alone, under any umask."""
    before = os.umask(0o077)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    finally:
        os.umask(before)
