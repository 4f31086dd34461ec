"""Another user who made the folder, the socket or the lock first gets nothing; lost sockets and killed services are
replaced."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engine.errors import InputError
from infill.cli.main import app
from infill.request import InfillRequest
from infill.service import location as location_module
from infill.service.client import ServiceClient
from infill.service.exchange import ServiceGone, ServiceNotReady, read_health
from infill.service.location import (
    LONGEST,
    NotPrivate,
    ServiceLocation,
    bind,
    listening,
    location_at,
    lock_holder,
    open_private,
    peer,
    start_time,
    take_lock,
)
from infill.service.process import Network, PrivateLog
from infill.service.start import stop_service
from infill.settings import Settings
from tests.gate import Gate
from tests.infill.fakes import request
from tests.infill.service.scripted_service import COMMAND

OTHER = 12345  # the id of another user
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can give files to another user")
REQUEST: InfillRequest = request("x = §\n")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short enough for a socket's path."""
    with tempfile.TemporaryDirectory(prefix="gesso-test-") as name:
        yield Path(name)


@pytest.fixture
def location(folder: Path) -> Iterator[ServiceLocation]:
    location = location_at(folder / "own" / "gesso.sock")
    yield location
    if location.socket.parent.exists():
        stop_service(location)


@pytest.fixture
def victim() -> Iterator[subprocess.Popen[bytes]]:
    """A process that no attack may end."""
    process = subprocess.Popen(["sleep", "600"])
    yield process
    assert process.poll() is None
    process.kill()
    process.wait()


@dataclass(frozen=True)
class Attack:
    location: ServiceLocation
    listener: socket.socket

    def received_nothing(self) -> bool:
        try:
            self.listener.accept()
        except BlockingIOError:
            return True
        return False


def hold_lock(location: ServiceLocation, line: str) -> int:
    """The descriptor of a lock that is held, with this line in it."""
    held = os.open(location.lock, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(held, fcntl.LOCK_EX)
    os.pwrite(held, line.encode(), 0)
    return held


def mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


@pytest.fixture(params=["fake", pytest.param("real", marks=needs_root)])
def attack(
    request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch, victim: subprocess.Popen[bytes]
) -> Iterator[Attack]:
    """Without XDG_RUNTIME_DIR, another user made `<tmp>/gesso-UID/` first, listens there and names a process."""
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    if request.param == "fake":
        me = os.getuid() + 1
        monkeypatch.setattr(os, "getuid", lambda: me)
    location = location_at()
    assert location.socket.parent.parent == folder
    location.socket.parent.mkdir(mode=0o700)
    listener = bind(location)
    listener.setblocking(False)
    location.log.write_text("theirs\n")
    held = hold_lock(location, f"{victim.pid} {start_time(victim.pid)} \n")
    if request.param == "real":
        os.chown(location.socket.parent, OTHER, OTHER)
    yield Attack(location, listener)
    os.close(held)
    listener.close()


# another user


@pytest.mark.parametrize(
    "call",
    [
        lambda: ServiceClient().find(),
        lambda: ServiceClient().metrics(),
        lambda: ServiceClient().start(),
        lambda: ServiceClient().complete(REQUEST),
        lambda: read_health(location_at()),
        lambda: lock_holder(location_at()),
        lambda: stop_service(location_at()),
    ],
)
def test_nothing_is_sent_to_or_read_from_a_folder_of_another_user(call: Callable[[], object], attack: Attack) -> None:
    with pytest.raises(NotPrivate, match="another user"):
        call()
    assert attack.received_nothing()


@pytest.mark.parametrize(
    "command",
    [
        ["serve"],
        ["serve", "status"],
        ["serve", "stop"],
        ["serve", "logs"],
        ["infill", "app.py", "--at", "1:5", "--in-place"],
        ["infill", "app.py", "--at", "1:5", "--service"],
        ["lint", "app.py"],
    ],
)
def test_commands_refuse_a_folder_of_another_user(
    command: list[str], attack: Attack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("app.py").write_text("x = \n")
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 3 and "another user" in result.stderr, result.output
    assert result.stdout == "" and attack.received_nothing() and Path("app.py").read_text() == "x = \n"


def test_a_linked_or_open_folder_is_not_used_by_clients_either(location: ServiceLocation) -> None:
    real = location.socket.parent.with_name("real")
    real.mkdir(mode=0o700)
    location.socket.parent.symlink_to(real)
    for call in (ServiceClient(location).find, lambda: stop_service(location), lambda: lock_holder(location)):
        with pytest.raises(NotPrivate, match="is a link"):
            call()
    location.socket.parent.unlink()
    location.socket.parent.mkdir(mode=0o700)
    location.socket.parent.chmod(0o711)
    for call in (ServiceClient(location).find, lambda: stop_service(location), lambda: lock_holder(location)):
        with pytest.raises(NotPrivate, match="chmod 700"):
            call()
    location.socket.parent.chmod(0o700)


@needs_root
def test_a_socket_of_another_user_in_our_folder_is_not_used(location: ServiceLocation) -> None:
    """It may be left from a time when others could enter the folder."""
    location.socket.parent.mkdir(mode=0o700)
    unheard = socket.socket(socket.AF_UNIX)
    unheard.bind(str(location.socket))
    ready, write = os.pipe()
    if (child := os.fork()) == 0:
        os.setgroups([])
        os.setgid(OTHER)
        os.setuid(OTHER)
        unheard.listen()
        os.write(write, b"x")
        connected, _ = unheard.accept()
        os._exit(len(connected.recv(1 << 20)) > 0)
    os.read(ready, 1)
    with pytest.raises(NotPrivate, match=f"another user \\(id {OTHER}\\)"):
        ServiceClient(location).complete(REQUEST)
    assert os.waitpid(child, 0)[1] == 0, "it received something"
    unheard.close()
    location.socket.unlink()


def test_a_peer_with_another_id_is_not_used(location: ServiceLocation, monkeypatch: pytest.MonkeyPatch) -> None:
    location.socket.parent.mkdir(mode=0o700)
    with bind(location) as listener, monkeypatch.context() as patch:
        patch.setattr(location_module, "peer", lambda _: (os.getuid() + 1, os.getpid()))
        with pytest.raises(NotPrivate, match="another user"):
            ServiceClient(location).complete(REQUEST)
        connected, _ = listener.accept()
        with connected:
            assert connected.recv(1) == b""
    location.socket.unlink()


def test_the_system_names_the_peer(location: ServiceLocation) -> None:
    location.socket.parent.mkdir(mode=0o700)
    with bind(location), location_module.connect(location, 5.0) as connected:
        assert peer(connected) == (os.getuid(), os.getpid())
    location.socket.unlink()


def test_a_process_that_the_lock_does_not_name_by_its_start_is_not_ended(
    location: ServiceLocation, victim: subprocess.Popen[bytes]
) -> None:
    location.socket.parent.mkdir(mode=0o700)
    started = start_time(victim.pid)
    assert started is not None
    for line in (f"{victim.pid}\n", f"{victim.pid} 1 \n", f"{victim.pid} - \n", f"{victim.pid} {started} ", "-1 - \n"):
        location.lock.unlink(missing_ok=True)
        held = hold_lock(location, line)
        assert lock_holder(location) is None and stop_service(location) is False
        os.close(held)
    location.lock.unlink()
    held = hold_lock(location, f"{victim.pid} {started} \n")
    assert lock_holder(location) == victim.pid
    os.close(held)
    assert lock_holder(location) is None


# files


def test_a_full_disk_loses_messages_of_the_log_in_silence(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = PrivateLog(folder / "gesso.log")

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(log, "flush", full)
    log.emit(logging.makeLogRecord({"msg": "x"}))
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("umask", [0, 0o22, 0o777])
def test_files_are_their_users_alone_under_any_umask(folder: Path, umask: int) -> None:
    (folder / "old").touch(0o644)
    before = os.umask(umask)
    try:
        for name in ("old", "new"):
            os.close(open_private(folder / name, os.O_WRONLY | os.O_CREAT))
        log = PrivateLog(folder / "gesso.log", maxBytes=100, backupCount=1)
        for _ in range(10):
            log.emit(logging.makeLogRecord({"msg": "x" * 40}))
        log.close()
    finally:
        os.umask(before)
    assert {file.name: mode(file) for file in folder.iterdir()} == dict.fromkeys(
        ("old", "new", "gesso.log", "gesso.log.1"), 0o600
    )


def test_links_pipes_and_files_of_others_are_not_opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "file").touch(0o600)
    (folder / "link").symlink_to(folder / "file")
    os.mkfifo(folder / "pipe", 0o600)
    for name in ("link", "pipe"):
        for flags in (os.O_RDONLY, os.O_RDWR):
            with pytest.raises(OSError):
                open_private(folder / name, flags)
        with pytest.raises(NotPrivate, match="remove it"):
            take_lock(folder / name)
    me = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: me)
    with pytest.raises(PermissionError):
        open_private(folder / "file", os.O_RDWR)


@pytest.mark.parametrize("kind", ["unset", "relative", "not to be made", "too long"])
def test_without_a_usable_runtime_folder_the_temporary_folder_is_used(
    kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    (folder / "file").touch()
    values = {"relative": "run", "not to be made": str(folder / "file" / "run"), "too long": str(folder / ("r" * 90))}
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    if kind in values:
        monkeypatch.setenv("XDG_RUNTIME_DIR", values[kind])
    location = location_at()
    assert location.socket == folder / f"gesso-{os.getuid()}" / "gesso.sock"
    assert len(os.fsencode(location.variant("other").socket)) <= LONGEST


# lost sockets and killed services


def test_a_service_removes_only_its_own_socket(location: ServiceLocation) -> None:
    location.socket.parent.mkdir(mode=0o700)
    lock = take_lock(location.lock)
    assert lock is not None
    with listening(location, lock):
        assert location.socket.exists()
    assert not location.socket.exists()
    with listening(location, lock):
        location.socket.parent.rename(location.socket.parent.with_name("old"))
        location.socket.parent.mkdir(mode=0o700)
        successor = bind(location)
    assert location.socket.exists()
    successor.close()
    location.socket.unlink()
    os.close(lock)


def scripted(location: ServiceLocation, *arguments: str) -> ServiceClient:
    return ServiceClient(location, arguments=arguments, command=COMMAND)


def test_a_service_whose_socket_was_removed_is_replaced(location: ServiceLocation) -> None:
    client = scripted(location)
    assert client.complete(REQUEST).prompt_tokens == len(REQUEST.text)
    first = lock_holder(location)
    location.socket.unlink()
    assert client.complete(REQUEST).prompt_tokens == len(REQUEST.text)
    assert client.health().pid == lock_holder(location) not in (None, first)


@pytest.mark.slow
def test_a_service_whose_folder_was_made_again_leaves_its_successor_alone(location: ServiceLocation) -> None:
    first = scripted(location).start().pid
    moved = location_at(location.socket.parent.with_name("old") / "gesso.sock")
    location.socket.parent.rename(moved.socket.parent)
    second = scripted(location).start().pid
    assert second != first and stop_service(moved)
    assert ServiceClient(location).health().pid == second


def test_commands_that_wait_for_a_service_that_is_killed_while_it_loads_get_the_next_one(
    location: ServiceLocation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(tmp_path / "gate")
    for name, value in gate.environment.items():
        monkeypatch.setenv(name, value)
    with ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(scripted(location, "--model", "slow").connect) for _ in range(4)]
        gate.wait_until_reached()
        found = ServiceClient(location).health()
        assert found.status == "loading"
        os.kill(found.pid, signal.SIGKILL)
        gate.open()
        assert {one.result().pid for one in waiting} == {lock_holder(location)}
    assert lock_holder(location) != found.pid


def test_a_service_that_is_killed_before_it_answers_is_started_again(location: ServiceLocation, folder: Path) -> None:
    mark = folder / "mark"
    script = f'if [ -e {mark} ]; then exec "$@"; fi; touch {mark}; kill -9 $$'
    client = ServiceClient(location, command=("sh", "-c", script, "-", *COMMAND))
    assert client.start().pid == lock_holder(location)


def test_another_users_runtime_folder_is_not_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after `su`: its content can be neither read nor created."""
    real = location_module._make

    def make(path: Path) -> None:
        if path.is_relative_to(folder / "run"):
            raise PermissionError
        real(path)

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(location_module, "_make", make)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder / "run"))
    assert location_at().socket.parent == folder / f"gesso-{os.getuid()}"


def test_a_temporary_folder_that_cannot_be_used_is_replaced(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr(location_module, "FALLBACK", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder / ("t" * 90)))
    assert location_at().socket.parent == folder / f"gesso-{os.getuid()}"

    def none() -> str:
        raise FileNotFoundError

    monkeypatch.setattr(tempfile, "gettempdir", none)
    assert location_at().socket.parent == folder / f"gesso-{os.getuid()}"


def test_a_folder_is_private_and_usable_under_any_umask(folder: Path) -> None:
    before = os.umask(0o777)
    try:
        location_module.make_private(folder / "a" / "b")
    finally:
        os.umask(before)
    assert mode(folder / "a") == mode(folder / "a" / "b") == 0o700


def test_a_socket_that_cannot_be_created_is_named(location: ServiceLocation, monkeypatch: pytest.MonkeyPatch) -> None:
    location.socket.parent.mkdir(mode=0o700)
    location.socket.mkdir()
    with pytest.raises(InputError, match=r"The socket .*gesso.sock cannot be created .*; choose another --socket"):
        bind(location)
    location.socket.rmdir()


def test_a_service_that_does_not_start_says_why(location: ServiceLocation) -> None:
    print_reason = "import sys; print('gesso: odd.toml is wrong; correct it.', file=sys.stderr); sys.exit(3)"
    client = ServiceClient(location, command=(sys.executable, "-c", print_reason))
    for _ in range(2):
        with pytest.raises(ServiceGone, match="^The service did not start: odd.toml is wrong; correct it.$"):
            client.start()
    silent = ServiceClient(location, command=(sys.executable, "-c", "raise SystemExit(3)"))
    with pytest.raises(ServiceGone, match="see .*gesso.log"):
        silent.start()


def test_stop_returns_when_the_process_is_gone(location: ServiceLocation) -> None:
    """The lock is free before that."""
    script = f"import atexit, runpy, sys, time; atexit.register(time.sleep, 1.0); sys.argv[0] = {COMMAND[1]!r}; "
    command = (sys.executable, "-c", script + f"runpy.run_path({COMMAND[1]!r}, run_name='__main__')")
    process = ServiceClient(location, command=command).start().pid
    assert start_time(process) is not None
    assert stop_service(location)
    assert start_time(process) is None


def test_a_service_whose_model_cannot_be_loaded_ends(location: ServiceLocation) -> None:
    client = ServiceClient(location, settings=Settings(model="absent"), command=COMMAND)
    with pytest.raises(ServiceNotReady, match="no such model"):
        client.connect()
    assert client.find() is None and lock_holder(location) is None


def test_a_second_service_that_cannot_do_what_is_asked_exits_with_3(location: ServiceLocation) -> None:
    process = scripted(location).start().pid
    at = ("serve", "--socket", str(location.socket))
    other = CliRunner().invoke(app, [*at, "--model", "coder"])
    assert other.exit_code == 3 and f"process {process}, with the model pocket; run" in other.stderr
    port = CliRunner().invoke(app, [*at, "--model", "pocket", "--port", "8765"])
    assert port.exit_code == 3 and f"process {process}, so port 8765 is not opened; run" in port.stderr


def test_a_second_service_with_the_same_port_says_that_it_is_open(
    location: ServiceLocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    health = replace(scripted(location).start(), network=Network(8765).fingerprint())
    monkeypatch.setattr(ServiceClient, "find", lambda client: health)
    at = ("serve", "--socket", str(location.socket), "--model", "pocket")
    same = CliRunner().invoke(app, [*at, "--port", "8765"])
    assert same.exit_code == 0 and "listens on port 8765; use it" in same.stderr
    assert CliRunner().invoke(app, [*at, "--port", "8766"]).exit_code == 3
    assert CliRunner().invoke(app, [*at, "--port", "8765", "--host", "localhost"]).exit_code == 3
    assert Network(8765, token="a" * 32).fingerprint() not in (health.network, Network(8765, token="b" * 32))


@pytest.mark.parametrize("option", ["--token-file", "--tls-cert"])
def test_a_pipe_is_not_waited_for(location: ServiceLocation, tmp_path: Path, option: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    others = ["--tls-key", str(tmp_path / "pipe")] if option == "--tls-cert" else []
    at = ["serve", "--socket", str(location.socket), "--port", "8765"]
    refused = CliRunner().invoke(app, [*at, option, str(tmp_path / "pipe"), *others])
    assert refused.exit_code == 2 and "pipe" in refused.stderr
