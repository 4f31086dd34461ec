"""The resident service as the engine of a language server: shared, killed in every phase, found again; real
processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from engine.errors import InputError
from infill.findings import LintRequest
from infill.request import Hole, InfillRequest
from infill.service import client as service
from infill.service.location import Place, all_places, holder, place_at
from infill.settings import Settings
from lsp.engine_process import EngineLoading, EngineProcess, EngineState
from tests.lsp.client import PATIENCE_S, Client

CODE = "def add(one, other):\n    total = one + other\n    return \n\n\nprint(add(1, 2))\n"
POCKET = Path(__file__).parents[2] / "infill" / "models" / "pocket"


def request(name: str = "total", **more: Any) -> InfillRequest:
    text = CODE.replace("total", name)
    at = text.index("return ") + len("return ")
    return InfillRequest(text, (Hole(at, at),), language="python", **more)


def long_request(name: str) -> InfillRequest:
    return request(name, lines="block", candidates=16)


class Watched:
    """An engine in the service, and all its states."""

    def __init__(self) -> None:
        self.states: list[EngineState] = []
        self.engine = EngineProcess(self.states.append)

    async def until(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end, self.states[-3:]
            await asyncio.sleep(0.01)

    async def ready(self, **settings: Any) -> None:
        await self.engine.start(Settings(**settings), shared=True)
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
        await one.engine.stop()


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 4 * PATIENCE_S))


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """Of the services of these tests; short enough for a socket's path."""
    with tempfile.TemporaryDirectory(prefix="gesso-test-") as name:
        yield Path(name)


def _end_all(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(folder))
        for place in all_places():
            service.stop(place)


@pytest.fixture(scope="module")
def shared_home(home: Path) -> Iterator[Path]:
    yield home / "shared"
    _end_all(home / "shared")


@pytest.fixture
def place(shared_home: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """The usual place of a user for whom a service runs, or will."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(shared_home))
    monkeypatch.setenv("GESSO_THREADS", "1")
    return place_at()


@pytest.fixture
def own_place(home: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Place]:
    """That of a user for whom none runs yet."""
    folder = home / f"own-{abs(hash(request.node.name)) % 10**8}"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.setenv("GESSO_THREADS", "1")
    yield place_at()
    _end_all(folder)


def kill(place: Place) -> int:
    process = holder(place)
    assert process is not None
    os.kill(process, signal.SIGKILL)
    return process


def pending(place: Place) -> int:
    with suppress(service.ServiceGone):
        return service.Client(place).health().pending
    return 0


def test_two_editors_share_one_service_that_outlives_them(place: Place) -> None:
    async def test() -> None:
        async with watched() as one, watched() as other:
            await asyncio.gather(one.ready(), other.ready())
            assert await one.complete(request()) == await other.complete(request()) != ""
            assert EngineState("loading", "pocket") in one.states
            assert one.engine.state.lints is json.loads((POCKET / "lint.json").read_text())["on_by_default"]
            (finding,) = await one.engine.lint(LintRequest("first = 1\nsecond = frist + 1\nprint(first)\n", "python"))
            assert finding.replacement == "first"

    run(test())
    assert service.find(place) is not None


def test_an_error_of_the_request_arrives_with_its_class(place: Place) -> None:
    async def test() -> None:
        async with watched() as one:
            await one.ready()
            with pytest.raises(InputError, match="lies outside"):
                await one.complete(InfillRequest("x", (Hole(7, 7),)))
            with pytest.raises(InputError, match="lies outside"):
                await one.engine.lint(LintRequest("x", "python", ranges=((0, 7),)))

    run(test())


def test_the_editors_own_settings_go_with_its_requests(place: Place) -> None:
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


def test_cancelling_reaches_the_engine(place: Place) -> None:
    async def test() -> None:
        async with watched() as one:
            await one.ready()
            tasks = [asyncio.ensure_future(one.engine.complete(long_request(f"total{n}"))) for n in range(3)]
            tasks.append(asyncio.ensure_future(one.engine.lint(LintRequest(CODE * 200, "python"))))  # type: ignore
            await one.until(lambda: pending(place) == 4)
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
            await one.until(lambda: pending(place) == 0)
            assert await one.complete(request())

    run(test())


def test_what_was_cancelled_before_it_was_sent_is_never_sent(place: Place) -> None:
    async def test() -> None:
        async with watched() as one:
            await one.ready()
            for number in range(20):
                task = asyncio.ensure_future(one.engine.complete(long_request(f"total{number}")))
                await asyncio.sleep(0)
                task.cancel()
            await one.until(lambda: pending(place) == 0)
            assert await one.complete(request())

    run(test())


@pytest.mark.slow
def test_a_service_that_dies_while_it_loads_is_started_again(own_place: Place) -> None:
    async def test() -> None:
        async with watched() as one:
            await one.engine.start(Settings(), shared=True)
            await one.until(lambda: holder(own_place))
            killed = kill(own_place)
            with pytest.raises(EngineLoading):
                await one.engine.complete(request())
            await one.until(lambda: one.engine.state.kind == "ready")
            assert await one.complete(request()) and holder(own_place) != killed

    run(test())


@pytest.mark.slow
def test_what_it_did_not_answer_before_it_died_is_answered_by_the_next(own_place: Place) -> None:
    async def test() -> None:
        async with watched() as one:
            await one.ready()
            tasks = [asyncio.ensure_future(one.complete(long_request(f"total{n}"))) for n in range(3)]
            await one.until(lambda: pending(own_place) == 3)
            killed = kill(own_place)
            await one.until(lambda: one.engine.state.kind == "loading")
            assert all(await asyncio.gather(*tasks))
            assert one.engine.state.kind == "ready" and holder(own_place) not in (None, killed)

    run(test())


@pytest.mark.slow
def test_a_service_that_is_gone_is_started_by_the_next_request(own_place: Place) -> None:
    async def test() -> None:
        async with watched() as one:
            await one.ready()
            kill(own_place)
            await one.until(lambda: holder(own_place) is None)
            assert await one.complete(request())
            service.stop(own_place)
            findings = await asyncio.wait_for(one.engine.lint(LintRequest("x = 1\n", "python")), PATIENCE_S)
            assert findings == ()
            assert [state.kind for state in one.states].count("failed") == 0

    run(test())


@pytest.mark.slow
def test_editors_with_different_models_have_a_service_each(own_place: Place, tmp_path: Path) -> None:
    other_model = tmp_path / "other"
    other_model.symlink_to(POCKET)

    async def test() -> None:
        async with watched() as one, watched() as other, watched() as third:
            await asyncio.gather(one.ready(), other.ready(model=str(other_model)))
            await third.ready(model=str(other_model))
            assert await one.complete(request()) == await other.complete(request()) == await third.complete(request())
        running = [place for place in all_places() if holder(place)]
        assert {service.Client(place).health().model for place in running} == {"pocket", str(other_model)}
        assert len(running) == 2

    run(test())


@pytest.mark.slow
def test_a_model_that_was_missing_is_found_after_a_restart(
    own_place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GESSO_FALLBACK_MODEL", "")
    model = tmp_path / "later"

    async def test() -> None:
        async with watched() as one:
            await one.engine.start(Settings(model=str(model)), shared=True)
            await one.until(lambda: one.engine.state.kind == "failed")
            assert "later" in (one.engine.state.message or "")
            model.symlink_to(POCKET)
            await one.ready(model=str(model))
            assert await one.complete(request())

    run(test())


@pytest.mark.slow
def test_the_pocket_model_answers_in_place_of_one_that_cannot_be_loaded(own_place: Place, tmp_path: Path) -> None:
    async def test() -> None:
        async with watched() as one:
            await one.ready(model=str(tmp_path / "nowhere"))
            await one.until(lambda: "nowhere" in (one.engine.state.message or ""))
            result = await asyncio.wait_for(one.engine.complete(request()), PATIENCE_S)
            assert result.model == "pocket" and result.completions[0].text

    run(test())


@pytest.mark.slow
def test_twenty_servers_that_start_at_once_share_one_service(
    own_place: Place, environment: dict[str, str], tmp_path: Path
) -> None:
    own = {**environment, "XDG_RUNTIME_DIR": os.environ["XDG_RUNTIME_DIR"]}
    with ExitStack() as servers:
        clients = [Client(own) for _ in range(20)]
        for one in clients:
            servers.callback(one.kill)
            one.initialize(settings={"delayMs": 0, "minConfidence": 0})
        for one in clients:
            one.wait_until_ready(180)
        (place,) = [place for place in all_places() if holder(place)]
        for number, one in enumerate(clients[:3]):
            uri = (tmp_path / f"{number}.py").as_uri()
            one.open(uri, CODE)
            assert one.inline(uri, 2, len("    return "), invoked=True)
        kill(place)
        uri = (tmp_path / "after.py").as_uri()
        clients[7].open(uri, CODE)
        clients[7].request("textDocument/inlineCompletion", _inline(uri))
        clients[7].wait_until_ready()
        assert len([place for place in all_places() if holder(place)]) == 1


def _inline(uri: str) -> dict[str, Any]:
    position = {"line": 2, "character": len("    return ")}
    return {"textDocument": {"uri": uri}, "position": position, "context": {"triggerKind": 1}}
