"""The language server's client with real services: shared, killed in every phase, restarted."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from engine.errors import InputError
from infill.engine_protocol import EngineState
from infill.findings import LintRequest
from infill.request import Hole, InfillRequest
from infill.service.client import ServiceClient
from infill.service.location import ServiceLocation, all_locations, location_at, lock_holder
from infill.service.start import stop_service
from infill.settings import Settings
from lsp.engine import AsyncServiceClient, EngineLoading
from tests.lsp.client import Client
from tests.waiting import PATIENCE_S, until_async

CODE = "def add(one, other):\n    total = one + other\n    return \n\n\nprint(add(1, 2))\n"
POCKET = Path(__file__).parents[2] / "infill" / "models" / "pocket"
SLIP = "class A:\n    def a(self):\n        return 1\n\n    def b(self):\n        return a() + self.a()\n"


def request(name: str = "total", **more: Any) -> InfillRequest:
    text = CODE.replace("total", name)
    at = text.index("return ") + len("return ")
    return InfillRequest(text, (Hole(at, at),), language="python", **more)


def long_request(name: str) -> InfillRequest:
    return request(name, lines="block", candidates=16)


class Watched:
    """A client and all its states."""

    def __init__(self) -> None:
        self.states: list[EngineState] = []
        self.engine = AsyncServiceClient(self.states.append)

    async def until(self, condition: Callable[[], object]) -> None:
        await until_async(condition, lambda: self.states[-3:])

    async def ready(self, **settings: Any) -> None:
        self.engine.start(Settings(**settings))
        await self.until(lambda: self.engine.state.kind == "ready")

    async def complete(self, asked: InfillRequest) -> str:
        result = await asyncio.wait_for(self.engine.complete(asked), PATIENCE_S)
        return result.completions[0].text


@asynccontextmanager
async def watched() -> AsyncIterator[Watched]:
    one = Watched()
    try:
        yield one
    finally:
        one.engine.stop()


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 4 * PATIENCE_S))


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """For the sockets of these tests; short enough for a socket's path."""
    with tempfile.TemporaryDirectory(prefix="gesso-test-") as name:
        yield Path(name)


def _end_all(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(folder))
        for location in all_locations():
            stop_service(location)


@pytest.fixture(scope="module")
def shared_home(home: Path) -> Iterator[Path]:
    yield home / "shared"
    _end_all(home / "shared")


@pytest.fixture
def location(shared_home: Path, monkeypatch: pytest.MonkeyPatch) -> ServiceLocation:
    """The default location of a user whose service is shared by several tests."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(shared_home))
    monkeypatch.setenv("GESSO_THREADS", "1")
    return location_at()


@pytest.fixture
def own_location(
    home: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[ServiceLocation]:
    """The default location of a user without a service."""
    folder = home / f"own-{abs(hash(request.node.name)) % 10**8}"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.setenv("GESSO_THREADS", "1")
    yield location_at()
    _end_all(folder)


def kill(location: ServiceLocation) -> int:
    process = lock_holder(location)
    assert process is not None
    os.kill(process, signal.SIGKILL)
    return process


def pending(location: ServiceLocation) -> int:
    health = ServiceClient(location).find()
    return health.pending if health is not None else 0


def test_two_editors_share_one_service_that_outlives_them(location: ServiceLocation) -> None:
    async def test() -> None:
        async with watched() as one, watched() as other:
            await asyncio.gather(one.ready(), other.ready())
            assert await one.complete(request()) == await other.complete(request()) != ""
            assert EngineState("loading", "pocket") in one.states
            assert not one.engine.state.lints
            (finding,) = await one.engine.lint(LintRequest(SLIP, "python"))
            assert finding.replacement == "self.a"

    run(test())
    assert ServiceClient(location).find() is not None


def test_an_error_of_a_request_arrives_with_its_class(location: ServiceLocation) -> None:
    async def test() -> None:
        async with watched() as one:
            await one.ready()
            with pytest.raises(InputError, match="lies outside"):
                await one.complete(InfillRequest("x", (Hole(7, 7),)))
            with pytest.raises(InputError, match="lies outside"):
                await one.engine.lint(LintRequest("x", "python", ranges=((0, 7),)))

    run(test())


def test_requests_carry_the_settings_of_their_editor(location: ServiceLocation) -> None:
    async def test() -> None:
        async with watched() as one:
            for least, shown in ((0.0, True), (1.0, False)):
                await one.ready(min_confidence=least)
                (completion,) = (await one.engine.complete(request())).completions
                assert completion.shown is shown
            await one.ready(causal_draft=False, copy_drafts=False)
            (completion,) = (await one.engine.complete(request())).completions
            assert {candidate.source for candidate in completion.candidates} == {"model"}

    run(test())


def test_cancelling_reaches_the_engine(location: ServiceLocation) -> None:
    async def test() -> None:
        async with watched() as one:
            await one.ready()
            tasks = [asyncio.ensure_future(one.engine.complete(long_request(f"total{n}"))) for n in range(3)]
            tasks.append(asyncio.ensure_future(one.engine.lint(LintRequest(CODE * 200, "python"))))  # type: ignore
            await one.until(lambda: pending(location) == 4)
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
            await one.until(lambda: pending(location) == 0)
            assert await one.complete(request())

    run(test())


def test_a_request_cancelled_before_it_was_sent_is_never_sent(location: ServiceLocation) -> None:
    async def test() -> None:
        async with watched() as one:
            await one.ready()
            for number in range(20):
                task = asyncio.ensure_future(one.engine.complete(long_request(f"total{number}")))
                await asyncio.sleep(0)
                task.cancel()
            await one.until(lambda: pending(location) == 0)
            assert await one.complete(request())

    run(test())


@pytest.mark.slow
def test_a_service_that_dies_while_loading_is_restarted(own_location: ServiceLocation) -> None:
    async def test() -> None:
        async with watched() as one:
            one.engine.start(Settings())
            await one.until(lambda: lock_holder(own_location))
            killed = kill(own_location)
            with pytest.raises(EngineLoading):
                await one.engine.complete(request())
            await one.until(lambda: one.engine.state.kind == "ready")
            assert await one.complete(request()) and lock_holder(own_location) != killed

    run(test())


@pytest.mark.slow
def test_pending_requests_of_a_dead_service_are_answered_by_the_next_one(own_location: ServiceLocation) -> None:
    async def test() -> None:
        async with watched() as one:
            await one.ready()
            tasks = [asyncio.ensure_future(one.complete(long_request(f"total{n}"))) for n in range(3)]
            await one.until(lambda: pending(own_location) == 3)
            killed = kill(own_location)
            await one.until(lambda: one.engine.state.kind == "loading")
            assert all(await asyncio.gather(*tasks))
            assert one.engine.state.kind == "ready" and lock_holder(own_location) not in (None, killed)

    run(test())


@pytest.mark.slow
def test_the_next_request_restarts_a_stopped_service(own_location: ServiceLocation) -> None:
    async def test() -> None:
        async with watched() as one:
            await one.ready()
            kill(own_location)
            await one.until(lambda: lock_holder(own_location) is None)
            assert await one.complete(request())
            stop_service(own_location)
            findings = await asyncio.wait_for(one.engine.lint(LintRequest("x = 1\n", "python")), PATIENCE_S)
            assert findings == ()
            assert [state.kind for state in one.states].count("failed") == 0

    run(test())


@pytest.mark.slow
def test_editors_with_different_models_use_different_services(own_location: ServiceLocation, tmp_path: Path) -> None:
    other_model = tmp_path / "other"
    other_model.symlink_to(POCKET)

    async def test() -> None:
        async with watched() as one, watched() as other, watched() as third:
            await asyncio.gather(one.ready(), other.ready(model=str(other_model)))
            await third.ready(model=str(other_model))
            assert await one.complete(request()) == await other.complete(request()) == await third.complete(request())
        running = [location for location in all_locations() if lock_holder(location)]
        assert {ServiceClient(location).health().model for location in running} == {"pocket", str(other_model)}
        assert len(running) == 2

    run(test())


@pytest.mark.slow
def test_a_model_that_was_missing_is_found_after_a_restart(
    own_location: ServiceLocation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GESSO_FALLBACK_MODEL", "")
    model = tmp_path / "later"

    async def test() -> None:
        async with watched() as one:
            one.engine.start(Settings(model=str(model)))
            await one.until(lambda: one.engine.state.kind == "failed")
            assert "later" in (one.engine.state.message or "")
            model.symlink_to(POCKET)
            await one.ready(model=str(model))
            assert await one.complete(request())

    run(test())


@pytest.mark.slow
def test_the_pocket_model_answers_for_one_that_cannot_be_loaded(own_location: ServiceLocation, tmp_path: Path) -> None:
    async def test() -> None:
        async with watched() as one:
            await one.ready(model=str(tmp_path / "nowhere"))
            await one.until(lambda: "nowhere" in (one.engine.state.message or ""))
            result = await asyncio.wait_for(one.engine.complete(request()), PATIENCE_S)
            assert result.model == "pocket" and result.completions[0].text

    run(test())


@pytest.mark.slow
def test_twenty_servers_that_start_at_once_share_one_service(
    own_location: ServiceLocation, environment: dict[str, str], tmp_path: Path
) -> None:
    own = {**environment, "XDG_RUNTIME_DIR": os.environ["XDG_RUNTIME_DIR"]}
    with ExitStack() as servers:
        clients = [Client(own) for _ in range(20)]
        for one in clients:
            servers.callback(one.kill)
            one.initialize(settings={"delayMs": 0, "minConfidence": 0})
        for one in clients:
            one.wait_until_ready()
        (location,) = [one for one in all_locations() if lock_holder(one)]
        for number, one in enumerate(clients[:3]):
            uri = (tmp_path / f"{number}.py").as_uri()
            one.open(uri, CODE)
            assert one.inline(uri, 2, len("    return "), invoked=True)
        kill(location)
        uri = (tmp_path / "after.py").as_uri()
        clients[7].open(uri, CODE)
        clients[7].request("textDocument/inlineCompletion", _inline(uri))
        clients[7].wait_until_ready()
        assert len([one for one in all_locations() if lock_holder(one)]) == 1


def _inline(uri: str) -> dict[str, Any]:
    position = {"line": 2, "character": len("    return ")}
    return {"textDocument": {"uri": uri}, "position": position, "context": {"triggerKind": 1}}
