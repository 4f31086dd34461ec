"""The service as a process with the shipped model: started, found, stopped, killed, asked by many."""

from __future__ import annotations

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
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from engine.checkpoints.export import save_model
from engine.errors import Cancelled, InputError, UsageError
from infill.api.values import request_to_json
from infill.cli.main import app
from infill.request import InfillRequest, StepView
from infill.service import client
from infill.service.client import Client, Line, ServiceGone
from infill.service.location import LONGEST, NotPrivate, Place, bind, holder, make_private, place_at, take
from infill.service.memory import TRIM_S
from infill.service.process import Network
from tests.infill.fakes import POCKET, load_completer, request, tiny_config, tiny_model

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
def service(folder: Path) -> Iterator[Place]:
    """One that is ready, for tests that leave it as it is; in float32, so that no rounding tips what is almost even."""
    place = place_at(folder / "shared" / "gesso.sock")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GESSO_DTYPE", "float32")
        client.start(place, OPTIONS).wait_until_ready()
    yield place
    client.stop(place)


@pytest.fixture
def place(folder: Path, request: pytest.FixtureRequest) -> Iterator[Place]:
    """One of its own, where nothing runs yet."""
    place = place_at(folder / f"own-{abs(hash(request.node.name)) % 10**8}" / "gesso.sock")
    yield place
    client.stop(place)


def function(name: str) -> InfillRequest:
    source = f"def add_{name}({name}, other):\n    total = {name} + other\n    return §\n\n\nprint(add_{name}(1, 2))\n"
    return request(source, candidates=2, caution=0.0)


def until(fact: Callable[[], object], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


# places


def test_the_files_of_a_service_stand_beside_its_socket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    usual = place_at()
    assert usual.socket == Path("/run/user/7/gesso/gesso.sock") and usual.log.name == "gesso.log"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert str(os.getuid()) in place_at().socket.parent.name
    with pytest.raises(InputError, match="too long"):
        place_at(tmp_path / ("x" * LONGEST))


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


def test_a_lock_has_one_holder_and_is_free_when_it_is_gone(folder: Path) -> None:
    place = place_at(folder / "lock.sock")
    held = take(place.lock)
    assert held is not None and take(place.lock) is None
    os.close(held)
    assert holder(place) is None
    again = take(place.lock)
    assert again is not None
    os.close(again)


def test_a_socket_that_a_dead_service_left_is_replaced(folder: Path) -> None:
    place = place_at(folder / "left.sock")
    bind(place).close()
    assert client.find(place) is None
    with bind(place):
        assert stat.S_IMODE(place.socket.stat().st_mode) == 0o600


def test_beyond_loopback_a_token_and_a_certificate_are_needed(tmp_path: Path) -> None:
    Network(8012).check()
    certificate = tmp_path / "certificate.pem"
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


# a life


def test_only_its_user_can_reach_it(service: Place) -> None:
    assert stat.S_IMODE(service.socket.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in service.socket.parent.iterdir()} == {0o600}


def test_the_answer_is_that_of_a_completer_in_this_process(service: Place) -> None:
    completer = load_completer(dtype="float32", threads=1)
    for name in NAMES[:3]:
        mine = completer.complete(function(name), stop=lambda: False)
        answer = Client(service).complete(function(name))
        assert answer.completions[0].text == mine.completions[0].text
        assert answer.completions[0].hole == mine.completions[0].hole
        assert [one.text for one in answer.completions[0].candidates] == [
            one.text for one in mine.completions[0].candidates
        ]


def test_the_canvas_is_streamed_as_it_settles(service: Place) -> None:
    views: list[StepView] = []
    result = Client(service).complete(function("total"), views.append)
    assert [view.step for view in views][:2] == [1, 2] and len(views) >= result.steps
    last = "".join(piece.text for piece in views[-1].pieces if piece.state == "settled")
    assert result.completions[0].text and views[0].pieces[0].state == "known"
    assert last == "" or any(one.text.strip() in last for one in result.completions[0].candidates)


def test_a_request_that_cannot_be_used_is_an_error_of_the_input(service: Place) -> None:
    with pytest.raises(InputError, match="lies outside"):
        Client(service).complete(InfillRequest("x", function("total").holes))


def test_a_client_that_hangs_up_frees_the_engine(service: Place) -> None:
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(service.socket))
        wanted = request_to_json(function("total")) | {"lines": "block", "candidates": 32, "priority": "batch"}
        body = json.dumps(wanted).encode()
        head = b"POST /v1/infill HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        raw.sendall(head % len(body) + body)
        until(lambda: Client(service).health().pending == 1)
    until(lambda: Client(service).health().pending == 0)
    assert 'priority="batch",outcome="cancelled"} 1' in Client(service).metrics()


def test_status_logs_and_a_second_start_speak_of_the_one_that_runs(service: Place) -> None:
    at = ["--socket", str(service.socket)]
    said = CliRunner().invoke(app, ["serve", "status", *at])
    assert said.exit_code == 0 and "ready" in said.stdout and str(holder(service)) in said.stdout
    assert "model pocket: ready" in CliRunner().invoke(app, ["serve", "logs", *at]).stdout
    again = CliRunner().invoke(app, ["serve", *at])
    assert again.exit_code == 0 and "runs already" in again.stderr


def test_code_is_not_in_the_log(service: Place) -> None:
    Client(service).complete(request("secret_of_mine = §\n"))
    assert "secret" not in service.log.read_text()


def test_without_a_service_status_says_so(place: Place) -> None:
    said = CliRunner().invoke(app, ["serve", "status", "--socket", str(place.socket)])
    assert said.exit_code == 1 and "No service" in said.stderr
    assert "No service" in CliRunner().invoke(app, ["serve", "stop", "--socket", str(place.socket)]).stderr


@pytest.mark.slow
def test_twenty_clients_that_start_it_at_once_get_the_same_service(place: Place) -> None:
    with ThreadPoolExecutor(20) as threads:
        clients = list(threads.map(lambda _: client.start(place, OPTIONS), range(20)))
    assert len({one.health().pid for one in clients}) == 1
    assert {one.health().pid for one in clients} == {holder(place)}


@pytest.mark.slow
def test_of_twenty_services_started_at_once_one_stays(place: Place) -> None:
    command = [sys.executable, "-m", "infill", "serve", "--socket", str(place.socket), *OPTIONS]
    quiet = {"cwd": ROOT, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    processes = [subprocess.Popen(command, **quiet) for _ in range(20)]
    until(lambda: sum(process.poll() is not None for process in processes) == 19, 120)
    until(lambda: client.find(place))
    (left,) = [process for process in processes if process.poll() is None]
    assert holder(place) == left.pid == Client(place).health().pid
    assert {process.returncode for process in processes if process is not left} == {0}
    assert client.stop(place) and left.wait(10) == 0


@pytest.mark.slow
def test_a_service_that_is_killed_is_replaced_whatever_it_was_doing(place: Place) -> None:
    client.start(place, OPTIONS)
    os.kill(holder(place) or 0, signal.SIGKILL)  # while it loads
    assert client.complete(place, function("total"), arguments=OPTIONS).completions[0].candidates
    first = holder(place)
    killer = threading.Timer(0.05, lambda: os.kill(first or 0, signal.SIGKILL))
    killer.start()  # while it answers, or has answered
    for name in NAMES:
        assert client.complete(place, function(name), arguments=OPTIONS).completions[0].candidates
    killer.join()
    assert holder(place) not in (None, first)
    second = holder(place)
    os.kill(second or 0, signal.SIGKILL)  # while it is idle
    until(lambda: holder(place) is None)
    with pytest.raises(ServiceGone):
        Client(place).health()
    assert client.complete(place, function("total"), arguments=OPTIONS).completions[0].candidates


@pytest.mark.slow
def test_a_service_that_is_idle_ends_and_leaves_no_socket(place: Place) -> None:
    client.start(place, ("--idle-minutes", "0.02"))
    until(lambda: holder(place) is None)
    assert not place.socket.exists() and "idle" in place.log.read_text()


@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_is_told(place: Place) -> None:
    with pytest.raises(client.ServiceRefused, match="no-such-folder"):
        client.start(place, (*OPTIONS, "--model", "./no-such-folder")).wait_until_ready()


@pytest.mark.slow
def test_fifty_clients_at_once_are_all_answered_as_one_alone_would_be(service: Place) -> None:
    requests = [function(f"{name}_{number}") for name in NAMES for number in range(7)][6:]
    with ThreadPoolExecutor(50) as threads:
        answers = list(
            threads.map(lambda one: Client(service, f"client-{one[0]}").complete(one[1]), enumerate(requests))
        )
    alone = [Client(service).complete(one) for one in requests]
    assert [one.completions[0].text for one in answers] == [one.completions[0].text for one in alone]
    assert len(answers) == 50
    assert Client(service).health().pending == 0


@pytest.mark.slow
def test_clients_that_never_read_do_not_keep_others_waiting(service: Place) -> None:
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
        assert Client(service).complete(function("total")).completions[0].candidates
    finally:
        for raw in deaf:
            raw.close()
    assert Client(service).health().status == "ok"


@pytest.mark.slow
def test_a_full_disk_does_not_keep_it_from_answering(place: Place) -> None:
    """No byte can be written to any file: not the lock's holder, not the log."""
    full = ["bash", "-c", 'ulimit -f 0; exec "$@"', "-", *client.COMMAND]
    own = client.start(place, OPTIONS, full)
    own.wait_until_ready()
    assert place.log.stat().st_size == place.lock.stat().st_size == 0
    assert own.complete(function("total")).completions[0].candidates
    assert client.start(place, OPTIONS).health().pid == own.health().pid
    assert CliRunner().invoke(app, ["serve", "status", "--socket", str(place.socket)]).exit_code == 0
    assert client.stop(place) and client.find(place) is None


@pytest.mark.slow
def test_it_sleeps_while_nobody_asks(service: Place) -> None:
    process = psutil.Process(holder(service))
    Client(service).complete(function("total"))
    time.sleep(1.0)
    before = process.num_ctx_switches()
    time.sleep(2.0)
    after = process.num_ctx_switches()
    assert sum(after) - sum(before) <= 4, "it wakes up by itself"


@pytest.mark.slow
def test_after_many_requests_it_needs_no_more_memory(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of four clients at once, some of which hang up; few enough prompts for all to be kept soon."""
    monkeypatch.setenv("GESSO_MEANWHILE", "")
    tiny_folder(tmp_path / "tiny")
    client.start(place, ("--model", str(tmp_path / "tiny"), *OPTIONS)).wait_until_ready()
    process = psutil.Process(holder(place))

    def ask(number: int) -> None:
        one, line, prompt = Client(place, f"client-{number % 4}"), Line(), number % 40
        asked = function(f"total_{prompt}")
        asked = replace(asked, text=asked.text + "#" * prompt, seed=number, candidates=1, steps=2)
        if number % 10 == 0:
            threading.Timer(0.005, line.hang_up).start()
        with suppress(Cancelled):
            one.complete(asked, line=line, settings={"causal_draft": number % 3 == 0})

    def quiet_after(numbers: Iterable[int]) -> float:
        """MiB once these were asked and what is free was given back."""
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(ask, numbers))
        until(lambda: Client(place).health().pending == 0)
        time.sleep(TRIM_S + 1)
        return process.memory_info().rss / 2**20

    taken = [quiet_after(range(MANY * part, MANY * (part + 1))) for part in range(3)]
    assert process.num_threads() < 100 and len(process.net_connections("unix")) < 20
    assert taken[2] - taken[1] < 32, f"MiB, every {MANY} requests: {taken}"


def tiny_folder(folder: Path) -> None:
    """The tiny random model with the pocket model's tokenizer."""
    generation = json.loads((POCKET / "generation_config.json").read_text())
    save_model(tiny_model(), tiny_config(), generation, folder, "float32")
    shutil.copy(POCKET / "tokenizer.json", folder)
