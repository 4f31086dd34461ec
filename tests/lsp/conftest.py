"""A real server in a process of its own, with the shipped model, and an empty home."""

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
    """The environment of a server: settings and statistics of nobody; the service that it starts is ended."""
    home, run = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("run")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GESSO_", "XDG_"))}
    own = {"HOME": str(home), "XDG_RUNTIME_DIR": str(run), "GESSO_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    yield {**kept, **own}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(run))
        for location in all_locations():
            stop_service(location)


@pytest.fixture
def bare(environment: dict[str, str]) -> Iterator[Client]:
    """A server that has been started and told nothing."""
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
    """One server with the model ready, for all tests that leave it as it was."""
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
    """A document's address that no other test uses; it is closed in the end."""
    address = (tmp_path / f"{request.node.name[:40]}.py").as_uri()
    yield address
    if address in shared.versions:
        shared.notify("textDocument/didClose", {"textDocument": {"uri": address}})
