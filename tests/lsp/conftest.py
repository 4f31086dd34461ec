"""Real server processes with the shipped model and an empty home folder."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from infill.service.location import all_locations
from infill.service.start import stop_service
from tests.lsp.client import Client, Gone


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a server, without settings and statistics. Stops the service that the server starts."""
    home, run = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("run")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("GESSO_", "XDG_"))}
    own = {"HOME": str(home), "XDG_RUNTIME_DIR": str(run), "GESSO_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    yield {**inherited, **own}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(run))
        for location in all_locations():
            stop_service(location)


@pytest.fixture
def bare(environment: dict[str, str]) -> Iterator[Client]:
    """A server that was started and received no message yet."""
    client = Client(environment)
    yield client
    client.kill()


@pytest.fixture
def alone(environment: dict[str, str]) -> Iterator[Client]:
    """The same without a service that other tests may have started."""
    with tempfile.TemporaryDirectory(prefix="gesso-test-") as run, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", run)
        client = Client({**environment, "XDG_RUNTIME_DIR": run})
        yield client
        client.kill()
        for location in all_locations():
            stop_service(location)


@pytest.fixture(scope="session")
def shared(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """One server with a ready model, shared by the tests that do not change its state."""
    client = Client(environment)
    client.initialize(settings={"delayMs": 0, "minConfidence": 0, "eagerness": "eager"})
    client.wait_until_ready()
    yield client
    try:
        client.close()
    except (Gone, TimeoutError):
        client.kill()


@pytest.fixture
def uri(shared: Client, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URI of a document for this test alone; it is closed at the end."""
    address = (tmp_path / f"{request.node.name[:40]}.py").as_uri()
    yield address
    if address in shared.versions:
        shared.notify("textDocument/didClose", {"textDocument": {"uri": address}})
