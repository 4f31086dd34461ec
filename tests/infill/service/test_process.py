"""The service as a process with the shipped model: starting, finding, stopping, killing it, and many clients."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import psutil
import pytest
from typer.testing import CliRunner

from engine.checkpoints.export import save_model
from engine.errors import Cancelled, InputError, UsageError
from infill.api.values import request_to_json
from infill.cli.main import app
from infill.connection import CancellableConnection
from infill.engine_protocol import EngineState
from infill.request import InfillRequest, StepView
from infill.service.client import ServiceClient
from infill.service.exchange import ServiceGone, ServiceRefused
from infill.service.location import (
    LONGEST,
    NotPrivate,
    ServiceLocation,
    bind,
    location_at,
    lock_holder,
    make_private,
    take_lock,
)
from infill.service.memory import TRIM_S
from infill.service.process import Network, _load
from infill.service.start import COMMAND, stop_service
from infill.settings import Settings
from tests.infill.fakes import POCKET, load_completer, request, tiny_config, tiny_model
from tests.ports import free_port
from tests.waiting import PATIENCE_S, until

ROOT = Path(__file__).parents[3]
MANY = 200  # requests between two looks at the memory; bench/service/day.py makes it thousands
OPTIONS = ("--idle-minutes", "5")
NAMES = ("total", "count", "width", "height", "left", "right", "first", "second")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Short enough for a socket's path."""
    with tempfile.TemporaryDirectory(prefix="gesso-test-") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[ServiceLocation]:
    """A ready service for tests that do not change it; in float32, so that rounding does not decide close calls."""
    location = location_at(folder / "shared" / "gesso.sock")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GESSO_DTYPE", "float32")
        client_of(location).connect()
    yield location
    stop_service(location)


@pytest.fixture
def location(folder: Path, request: pytest.FixtureRequest) -> Iterator[ServiceLocation]:
    """A location for one test, where no service runs yet."""
    location = location_at(folder / f"own-{abs(hash(request.node.name)) % 10**8}" / "gesso.sock")
    yield location
    stop_service(location)


def client_of(location: ServiceLocation, *more: str) -> ServiceClient:
    return ServiceClient(location, arguments=(*OPTIONS, *more))


def kill(process: int | None) -> None:
    assert process is not None  # 0 would be this process and its children
    os.kill(process, signal.SIGKILL)


def function(name: str) -> InfillRequest:
    source = f"def add_{name}({name}, other):\n    total = {name} + other\n    return §\n\n\nprint(add_{name}(1, 2))\n"
    return request(source, candidates=2, caution=0.0)


# locations


def test_the_files_of_a_service_are_next_to_its_socket(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder / "7"))
    usual = location_at()
    assert usual.socket == folder / "7" / "gesso" / "gesso.sock" and usual.log.name == "gesso.log"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert str(os.getuid()) in location_at().socket.parent.name
    with pytest.raises(InputError, match="too long"):
        location_at(tmp_path / ("x" * LONGEST))


def test_a_folder_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    open_folder = tmp_path / "open"
    open_folder.mkdir(mode=0o755)
    with pytest.raises(NotPrivate, match="chmod 700"):
        make_private(open_folder)
    link = tmp_path / "link"
    (tmp_path / "private").mkdir(mode=0o700)
    link.symlink_to(tmp_path / "private")
    with pytest.raises(NotPrivate):
        make_private(link)
    make_private(tmp_path / "new" / "folder")
    assert stat.S_IMODE((tmp_path / "new" / "folder").stat().st_mode) == 0o700


def test_a_lock_has_one_holder_and_is_released_with_it(folder: Path) -> None:
    location = location_at(folder / "lock.sock")
    held = take_lock(location.lock)
    assert held is not None and take_lock(location.lock) is None
    os.close(held)
    assert lock_holder(location) is None
    again = take_lock(location.lock)
    assert again is not None
    os.close(again)


def test_the_socket_of_a_dead_service_is_replaced(folder: Path) -> None:
    location = location_at(folder / "left.sock")
    bind(location).close()
    assert ServiceClient(location).find() is None
    with bind(location):
        assert stat.S_IMODE(location.socket.stat().st_mode) == 0o600


def test_a_token_and_a_certificate_are_required_beyond_loopback(tmp_path: Path) -> None:
    Network(8012).check()
    certificate = tmp_path / "certificate.pem"
    certificate.touch()
    token = "0123456789abcdef"
    for network in (
        Network(8012, "0.0.0.0"),
        Network(8012, "0.0.0.0", token),
        Network(8012, "192.168.1.2", None, certificate, certificate),
        Network(8012, "127.0.0.1", "short"),
        Network(8012, "127.0.0.1", None, certificate, None),
    ):
        with pytest.raises(UsageError):
            network.check()
    Network(8012, "0.0.0.0", token, certificate, certificate).check()


# life cycle


def test_only_its_user_can_reach_it(service: ServiceLocation) -> None:
    assert stat.S_IMODE(service.socket.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in service.socket.parent.iterdir()} == {0o600}


def test_results_equal_those_of_a_completer_in_this_process(service: ServiceLocation) -> None:
    completer = load_completer(dtype="float32", threads=1)
    for name in NAMES[:3]:
        mine = completer.complete(function(name), stop=lambda: False)
        answer = ServiceClient(service).complete(function(name))
        assert answer.completions[0].text == mine.completions[0].text
        assert answer.completions[0].hole == mine.completions[0].hole
        assert [one.text for one in answer.completions[0].candidates] == [
            one.text for one in mine.completions[0].candidates
        ]


def test_the_canvas_is_streamed_after_each_step(service: ServiceLocation) -> None:
    views: list[StepView] = []
    result = ServiceClient(service).complete(function("total"), views.append)
    assert [view.step for view in views][:2] == [1, 2] and len(views) >= result.steps
    last = "".join(piece.text for piece in views[-1].pieces if piece.state == "settled")
    assert result.completions[0].text and views[0].pieces[0].state == "known"
    assert last == "" or any(one.text.strip() in last for one in result.completions[0].candidates)


def test_an_invalid_request_raises_input_error(service: ServiceLocation) -> None:
    with pytest.raises(InputError, match="lies outside"):
        ServiceClient(service).complete(InfillRequest("x", function("total").holes))


def test_a_disconnected_client_frees_the_engine(service: ServiceLocation) -> None:
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(service.socket))
        long = {"lines": "block", "candidates": 32, "steps": 1000, "priority": "batch"}
        body = json.dumps(request_to_json(function("total")) | long).encode()
        head = b"POST /v1/infill HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        raw.sendall(head % len(body) + body)
        until(lambda: ServiceClient(service).health().pending == 1)
    until(lambda: ServiceClient(service).health().pending == 0)
    assert 'priority="batch",outcome="cancelled"} 1' in ServiceClient(service).metrics()


def test_status_logs_and_a_second_start_report_the_running_service(service: ServiceLocation) -> None:
    at = ["--socket", str(service.socket)]
    result = CliRunner().invoke(app, ["serve", "status", *at])
    assert result.exit_code == 0 and "ready" in result.stdout and str(lock_holder(service)) in result.stdout
    assert "model pocket: ready" in CliRunner().invoke(app, ["serve", "logs", *at]).stdout
    again = CliRunner().invoke(app, ["serve", *at])
    assert again.exit_code == 0 and "already runs" in again.stderr


def test_code_is_not_in_the_log(service: ServiceLocation) -> None:
    ServiceClient(service).complete(request("secret_of_mine = §\n"))
    assert "secret" not in service.log.read_text()


def test_status_and_stop_report_that_no_service_runs(location: ServiceLocation) -> None:
    result = CliRunner().invoke(app, ["serve", "status", "--socket", str(location.socket)])
    assert result.exit_code == 1 and "No service" in result.stderr
    assert "No service" in CliRunner().invoke(app, ["serve", "stop", "--socket", str(location.socket)]).stderr


@pytest.mark.slow
def test_twenty_clients_that_start_a_service_at_once_share_it(location: ServiceLocation) -> None:
    with ThreadPoolExecutor(20) as threads:
        processes = {health.pid for health in threads.map(lambda _: client_of(location).start(), range(20))}
    assert processes == {lock_holder(location)}


@pytest.mark.slow
def test_only_one_of_twenty_services_started_at_once_stays(location: ServiceLocation) -> None:
    command = [sys.executable, "-m", "infill", "serve", "--socket", str(location.socket), *OPTIONS]
    quiet = {"cwd": ROOT, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    processes = [subprocess.Popen(command, **quiet) for _ in range(20)]
    until(lambda: sum(process.poll() is not None for process in processes) == 19)
    until(lambda: ServiceClient(location).find())
    (left,) = [process for process in processes if process.poll() is None]
    assert lock_holder(location) == left.pid == ServiceClient(location).health().pid
    assert {process.returncode for process in processes if process is not left} == {0}
    assert stop_service(location) and left.wait(PATIENCE_S) == 0


@pytest.mark.slow
def test_a_killed_service_is_replaced_whatever_it_was_doing(location: ServiceLocation) -> None:
    client_of(location).start()
    kill(lock_holder(location))  # while it loads
    assert client_of(location).complete(function("total")).completions[0].candidates
    first = lock_holder(location)
    killer = threading.Timer(0.05, kill, (first,))
    killer.start()  # while it answers, or has answered
    for name in NAMES:
        assert client_of(location).complete(function(name)).completions[0].candidates
    killer.join()
    assert client_of(location).complete(function("total")).completions[0].candidates
    assert lock_holder(location) not in (None, first)
    second = lock_holder(location)
    kill(second)  # while it is idle
    until(lambda: lock_holder(location) is None)
    with pytest.raises(ServiceGone):
        ServiceClient(location).health()
    assert client_of(location).complete(function("total")).completions[0].candidates


@pytest.mark.slow
def test_an_idle_service_ends_and_removes_its_socket(location: ServiceLocation) -> None:
    ServiceClient(location, arguments=("--idle-minutes", "0.02")).start()
    until(lambda: lock_holder(location) is None)
    assert not location.socket.exists() and "idle" in location.log.read_text()


@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_is_reported(location: ServiceLocation) -> None:
    with pytest.raises(ServiceRefused, match="no-such-folder"):
        client_of(location, "--model", "./no-such-folder").connect()


@pytest.mark.slow
def test_fifty_concurrent_clients_get_the_results_of_a_single_one(service: ServiceLocation) -> None:
    requests = [function(f"{name}_{number}") for name in NAMES for number in range(7)][6:]
    with ThreadPoolExecutor(50) as threads:
        answers = list(
            threads.map(
                lambda one: ServiceClient(service, name=f"client-{one[0]}").complete(one[1]), enumerate(requests)
            )
        )
    alone = [ServiceClient(service).complete(one) for one in requests]
    assert [one.completions[0].text for one in answers] == [one.completions[0].text for one in alone]
    assert len(answers) == 50
    assert ServiceClient(service).health().pending == 0


@pytest.mark.slow
def test_clients_that_never_read_do_not_delay_others(service: ServiceLocation) -> None:
    head = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
    deaf = []
    try:
        for _ in range(20):
            raw = socket.socket(socket.AF_UNIX)
            raw.connect(str(service.socket))
            raw.settimeout(0.2)
            deaf.append(raw)
            try:
                raw.sendall(head * 400)
            except TimeoutError:
                pass
        assert ServiceClient(service).complete(function("total")).completions[0].candidates
    finally:
        for raw in deaf:
            raw.close()
    assert ServiceClient(service).health().status == "ok"


@pytest.mark.slow
def test_it_answers_with_a_full_disk(location: ServiceLocation) -> None:
    """No byte can be written to any file, neither to the lock nor to the log."""
    full = ["bash", "-c", 'ulimit -f 0; exec "$@"', "-", *COMMAND]
    client = ServiceClient(location, arguments=OPTIONS, command=full)
    client.connect()
    assert location.log.stat().st_size == location.lock.stat().st_size == 0
    assert client.complete(function("total")).completions[0].candidates
    assert client_of(location).start().pid == client.health().pid
    assert CliRunner().invoke(app, ["serve", "status", "--socket", str(location.socket)]).exit_code == 0
    assert stop_service(location) and ServiceClient(location).find() is None


@pytest.mark.slow
def test_it_sleeps_while_idle(service: ServiceLocation) -> None:
    process = psutil.Process(lock_holder(service))
    ServiceClient(service).complete(function("total"))

    def wakes() -> int:
        before = sum(process.num_ctx_switches())
        time.sleep(2.0)
        return sum(process.num_ctx_switches()) - before

    until(lambda: wakes() <= 4)


@pytest.mark.slow
def test_many_requests_do_not_increase_its_memory(
    location: ServiceLocation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From four concurrent clients, some of which cancel; the prompts are few enough to be cached soon."""
    monkeypatch.setenv("GESSO_FALLBACK_MODEL", "")
    tiny_folder(tmp_path / "tiny")
    client_of(location, "--model", str(tmp_path / "tiny")).connect()
    process = psutil.Process(lock_holder(location))

    def ask(number: int) -> None:
        client, prompt = ServiceClient(location, name=f"client-{number % 4}"), number % 40
        connection = CancellableConnection()
        asked = function(f"total_{prompt}")
        asked = replace(asked, text=asked.text + "#" * prompt, seed=number, candidates=1, steps=2)
        if number % 10 == 0:
            threading.Timer(0.005, connection.cancel).start()
        with suppress(Cancelled):
            client.complete(asked, connection=connection, overrides={"causal_draft": number % 3 == 0})

    def resident_mib() -> float:
        return process.memory_info().rss / 2**20

    def quiet_after(numbers: Iterable[int]) -> float:
        """MiB after these requests, once freed memory was returned."""
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(ask, numbers))
        until(lambda: ServiceClient(location).health().pending == 0)
        time.sleep(TRIM_S + 1)
        return resident_mib()

    taken = [quiet_after(range(MANY * part, MANY * (part + 1))) for part in range(3)]
    assert process.num_threads() < 100 and len(process.net_connections("unix")) < 20
    until(lambda: resident_mib() - taken[1] < 32, lambda: f"MiB, every {MANY} requests: {taken}")


def tiny_folder(folder: Path) -> None:
    """The tiny random model with the pocket model's tokenizer."""
    generation = json.loads((POCKET / "generation_config.json").read_text())
    save_model(tiny_model(), tiny_config(), generation, folder, "float32")
    shutil.copy(POCKET / "tokenizer.json", folder)


@pytest.mark.slow
def test_a_retry_model_that_cannot_be_loaded_is_reported(location: ServiceLocation, tmp_path: Path) -> None:
    settings = Settings(model="pocket", retry_model=str(tmp_path / "none"), threads=1)
    client = ServiceClient(location, settings)
    client.connect()
    until(lambda: client.health().message)
    message = client.health().message or ""
    assert message.startswith("Nothing is retried: There is no model folder") and str(tmp_path) in message
    states: list[EngineState] = []
    ServiceClient(location, settings, on_state=states.append).connect()
    assert (states[-1].kind, states[-1].message) == ("ready", message)
    assert message in location.log.read_text()


@pytest.mark.slow
def test_a_service_says_where_it_listens_and_when_it_is_ready(location: ServiceLocation) -> None:
    command = [sys.executable, "-m", "infill", "serve", "--socket", str(location.socket), "--model", "pocket"]
    port = free_port()
    process = subprocess.Popen([*command, "--port", str(port)], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    first, second = process.stderr.readline(), process.stderr.readline()
    assert first == f"gesso: Listening on {location.socket} and http://127.0.0.1:{port}; loading the model pocket.\n"
    assert second.startswith("gesso: The model pocket is ready after ")
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_S) == 130 and "Stopped." in process.stderr.read()


@pytest.mark.slow
def test_a_service_that_is_stopped_while_it_loads_ends_in_order(location: ServiceLocation) -> None:
    command = [sys.executable, "-m", "infill", "serve", "--socket", str(location.socket), "--model", "pocket"]
    for number, code in ((signal.SIGTERM, 0), (signal.SIGINT, 130)):
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None and "Listening" in process.stderr.readline()
        process.send_signal(number)
        _, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == code and "terminate called" not in errors


class Loaded:
    state = EngineState("ready", "tiny")

    def load(self) -> None:
        return


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="that Python collects everything step by step")
def test_garbage_is_collected_before_there_is_as_much_as_all_libraries_have() -> None:
    """Python collects everything only once the new objects are a quarter of those of the last full collection."""
    libraries = [[] for _ in range(1_000_000)]  # type: ignore[var-annotated]
    _load(cast(Any, Loaded()), lambda sentence: None)
    before = gc.get_stats()[2]["collections"]
    new = [[] for _ in range(120_000)]  # type: ignore[var-annotated]
    collections = gc.get_stats()[2]["collections"] - before
    gc.unfreeze()
    assert collections > 0 and len(libraries) > len(new)
