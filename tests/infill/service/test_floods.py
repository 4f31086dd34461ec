"""Attacks over real sockets on a real service with the pocket model: its owner is served, and others need not wait."""

from __future__ import annotations

import json
import select
import socket
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from infill.connection import LOOPBACK
from infill.service.client import ServiceClient
from infill.service.connections import RESERVED, connection_limits
from infill.service.location import ServiceLocation, location_at, lock_holder
from infill.service.start import stop_service
from tests.ports import free_port
from tests.waiting import PATIENCE_S, until

CODE = (Path(__file__).parents[3] / "infill" / "settings.py").read_text()[:8000]
Address = ServiceLocation | int


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def service(port: int) -> Iterator[ServiceLocation]:
    with tempfile.TemporaryDirectory(prefix="gesso-test-") as name:
        location = location_at(Path(name) / "own" / "gesso.sock")
        ServiceClient(location, arguments=("--model", "pocket", "--idle-minutes", "5", "--port", str(port))).connect()
        yield location
        stop_service(location)


def connect(address: Address) -> socket.socket:
    if isinstance(address, int):
        return socket.create_connection((LOOPBACK, address), PATIENCE_S)
    connected = socket.socket(socket.AF_UNIX)
    connected.settimeout(PATIENCE_S)
    connected.connect(str(address.socket))
    return connected


def head(path: str, length: int) -> bytes:
    lines = (f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", f"Content-Length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def send(connected: socket.socket, path: str, body: dict[str, Any]) -> None:
    content = json.dumps(body).encode()
    connected.sendall(head(path, len(content)) + content)


def post(address: Address, path: str, body: dict[str, Any]) -> int:
    """The status."""
    with connect(address) as connected:
        send(connected, path, body)
        return int(connected.recv(64).split(b" ")[1])


def infill(number: int = 0, deadline_ms: float = 60_000) -> dict[str, Any]:
    at = CODE.index("\n", 4000 + 31 * number % 2000)
    hole = {"start": at, "end": at}
    return {"text": CODE, "holes": [hole], "language": "python", "client": f"{number}", "deadline_ms": deadline_ms}


def test_most_descriptors_are_the_owners() -> None:
    limits = connection_limits()
    assert limits.peer < limits.tcp < limits.unix and limits.tcp >= 64
    assert limits.unix + limits.tcp + RESERVED <= 4096


@pytest.mark.slow
def test_connections_that_send_nothing_keep_nobody_out(service: ServiceLocation, port: int) -> None:
    process, silent = psutil.Process(lock_holder(service)), list[socket.socket]()
    try:
        for _ in range(1030):
            silent.append(connect(port))
        assert post(service, "/v1/infill", infill()) == 200
        assert post(port, "/v1/infill", infill()) == 200
        assert process.num_fds() < 600
        before = sum(process.cpu_times()[:2])
        time.sleep(2.0)
        assert sum(process.cpu_times()[:2]) - before < 0.5
        until(lambda: process.num_fds() < 50)  # those that sent no head are closed
    finally:
        for one in silent:
            one.close()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_bodies_that_arrive_byte_by_byte_are_ended(service: ServiceLocation, port: int, method: str) -> None:
    process = psutil.Process(lock_holder(service))
    slow = [connect(port) for _ in range(150)]
    try:
        for one in slow:
            one.sendall(head("/v1/infill" if method == "POST" else "/health", 5000).replace(b"POST", method.encode()))

        def closed() -> bool:
            for one in slow:
                with suppress(OSError):
                    one.sendall(b" ")
            time.sleep(0.5)
            return process.num_fds() < 50

        until(closed)
        assert post(service, "/v1/infill", infill()) == 200
    finally:
        for one in slow:
            one.close()


@pytest.mark.slow
@pytest.mark.parametrize("clients", [8, 64])
def test_every_client_gets_a_result_or_429_in_time(service: ServiceLocation, clients: int) -> None:
    """Nobody is served after the deadline, which is too soon for 64 clients."""
    post(service, "/v1/infill", infill())
    with ThreadPoolExecutor(clients) as threads:
        statuses = set(threads.map(lambda n: post(service, "/v1/infill", infill(n, 500)), range(clients)))
    assert statuses <= {200, 429} and (429 in statuses or clients < 64)
    until(lambda: ServiceClient(service).health().pending == 0)


@pytest.mark.slow
@pytest.mark.parametrize("over_tcp", [False, True])
def test_six_hundred_connections_get_an_answer_each(service: ServiceLocation, port: int, over_tcp: bool) -> None:
    address: Address = port if over_tcp else service
    with ThreadPoolExecutor(600) as threads:
        statuses = set(threads.map(lambda n: post(address, "/v1/infill", infill(n, 2000)), range(600)))
    assert statuses <= {200, 429}
    assert post(service, "/v1/infill", infill()) == 200


@pytest.mark.slow
def test_a_large_lint_request_keeps_its_deadline_and_lets_completions_go_first(service: ServiceLocation) -> None:
    """Without a deadline it would take hours."""
    parts = [file.read_text() for file in sorted((Path(__file__).parents[3] / "infill").rglob("*.py"))]
    text = "".join(parts)[:450_000]
    ranges = [{"start": 0, "end": len(text)}] * 10_000
    body = {"text": text, "language": "python", "ranges": ranges}
    assert post(service, "/v1/lint", body | {"deadline_ms": 3000}) in (200, 429)
    with connect(service) as lint:
        send(lint, "/v1/lint", body)
        until(lambda: ServiceClient(service).health().pending == 1)
        for number in range(5):
            assert post(service, "/v1/infill", infill(number)) == 200
        assert not select.select([lint], [], [], 0)[0], "the completions waited for the end of the lint request"
    until(lambda: ServiceClient(service).health().pending == 0)
