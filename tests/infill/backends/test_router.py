"""The order in which backends are tried, and when they are skipped. No server is involved."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from engine.errors import Cancelled, GessoError, InputError
from infill import settings
from infill.backends.backend import BackendDown, BackendRefused
from infill.backends.router import LONGEST_PAUSE_S, PAUSE_S, BackendRouter, Member
from infill.backends.routes import read_routes
from infill.connection import CancellableConnection
from infill.engine_protocol import EngineRequest
from infill.findings import LintRequest
from infill.request import Hole, InfillRequest
from infill.service.routed import task_of
from tests.waiting import PATIENCE_S, until


class Scripted:
    """A backend that returns or raises the values of `says`, one after the other."""

    def __init__(self, name: str, *says: Any) -> None:
        self.name, self.says, self.asked, self.limits = name, list(says), 0, list[float]()

    def answer(self, limit_s: float, connection: CancellableConnection) -> str:
        self.asked += 1
        self.limits.append(limit_s)
        said = self.says[min(self.asked, len(self.says)) - 1]
        if isinstance(said, Exception):
            raise said
        return said(connection) if callable(said) else said


class Bench:
    def __init__(self, *backends: Scripted, timeout_s: float = 5.0) -> None:
        self.now = 0.0
        self.local = Scripted("here", "good from here")
        members = {one.name: Member(one, timeout_s) for one in backends}  # type: ignore[arg-type]
        self.router = BackendRouter(members, clock=lambda: self.now)

    async def ask(self, *route: str, deadline: float = 100.0) -> str:
        async def ask_local() -> str:
            return self.local.answer(0.0, CancellableConnection())

        def ask_backend(backend: Any, limit_s: float, connection: CancellableConnection) -> str:
            return backend.answer(limit_s, connection)

        return await self.router.answer(
            route, ask_local, ask_backend, lambda answer: answer.startswith("good"), deadline
        )


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))


def test_the_first_good_result_is_returned() -> None:
    async def test() -> None:
        far = Scripted("far", "good from far")
        bench = Bench(far)
        assert await bench.ask("far", "here") == "good from far" and not bench.local.asked
        assert await bench.ask("here", "far") == "good from here" and far.asked == 1
        assert bench.router.counts == {("far", "good"): 1, ("here", "good"): 1}

    run(test)


@pytest.mark.parametrize(
    ("trouble", "how"), [(BackendDown("x"), "late"), (BackendRefused("x"), "failed"), (InputError("x"), "failed")]
)
def test_if_one_is_down_or_refuses_the_next_answers(trouble: Exception, how: str) -> None:
    async def test() -> None:
        bench = Bench(Scripted("far", trouble))
        assert await bench.ask("far", "here") == "good from here"
        assert bench.router.counts["far", how] == 1

    run(test)


def test_a_result_that_fails_the_checks_is_the_last_resort() -> None:
    async def test() -> None:
        far, other = Scripted("far", "poor from far"), Scripted("other", "good from other", BackendDown("x"), "poor")
        bench = Bench(far, other)
        assert await bench.ask("far", "other") == "good from other"
        assert await bench.ask("far", "other") == "poor from far"
        bench.now += PAUSE_S
        assert await bench.ask("far", "other") == "poor from far"
        assert far.asked == other.asked == 3

    run(test)


def test_a_failed_backend_is_skipped_longer_each_time_and_tried_again() -> None:
    async def test() -> None:
        far = Scripted("far", BackendDown("x"))
        bench = Bench(far)
        rest = PAUSE_S
        for failures in range(1, 9):
            assert await bench.ask("far", "here") == "good from here"
            assert far.asked == failures
            bench.now += rest - 0.01
            await bench.ask("far", "here")
            assert far.asked == failures, "it is paused"
            bench.now += 0.02
            rest = min(LONGEST_PAUSE_S, 2 * rest)
        far.says = ["good again"]
        assert await bench.ask("far", "here") == "good again"
        far.says = [BackendDown("x"), BackendDown("x"), "good"]
        far.asked = 0
        await bench.ask("far", "here")
        bench.now += PAUSE_S + 0.01
        await bench.ask("far", "here")
        assert far.asked == 2, "a result ends the consecutive failures"

    run(test)


def test_the_only_backend_is_tried_even_while_paused() -> None:
    async def test() -> None:
        bench = Bench(Scripted("far", BackendDown("it is down"), "good"))
        with pytest.raises(BackendDown, match="it is down"):
            await bench.ask("far")
        assert await bench.ask("far") == "good"

    run(test)


def test_each_but_the_last_has_half_of_the_remaining_time() -> None:
    async def test() -> None:
        one, other = Scripted("one", "poor"), Scripted("other", "poor")
        bench = Bench(one, other)
        await bench.ask("one", "other", deadline=4.0)
        await bench.ask("one", "other", deadline=400.0)
        assert one.limits == [2.0, 5.0] and other.limits == [4.0, 5.0]

    run(test)


def test_the_local_model_is_given_up_if_it_takes_too_long() -> None:
    async def test() -> None:
        bench = Bench(Scripted("far", "good from far"))

        async def never() -> str:
            await asyncio.Event().wait()
            return ""

        answered = await _asked(bench, never, "here", "far", deadline=0.1)
        assert answered == "good from far" and bench.router.counts["here", "late"] == 1

    run(test)


async def _asked(bench: Bench, ask_local: Callable[[], Awaitable[str]], *route: str, deadline: float) -> str:
    def ask_backend(backend: Any, limit_s: float, connection: CancellableConnection) -> str:
        return backend.answer(limit_s, connection)

    return await bench.router.answer(route, ask_local, ask_backend, lambda _: True, deadline)


def test_a_request_that_is_invalid_for_the_local_model_is_invalid() -> None:
    async def test() -> None:
        bench = Bench(Scripted("far", "good"))
        bench.local.says = [InputError("no hole")]
        with pytest.raises(InputError, match="no hole"):
            await bench.ask("here", "far")

    run(test)


def test_cancelling_a_request_cancels_it_at_the_backend() -> None:
    async def test() -> None:
        begun, left = threading.Event(), threading.Event()

        def wait(connection: CancellableConnection) -> str:
            begun.set()
            until(lambda: connection.cancelled)
            left.set()
            raise Cancelled("x")

        bench = Bench(Scripted("far", wait))
        task = asyncio.ensure_future(bench.ask("far", "here"))
        assert await asyncio.to_thread(begun.wait, PATIENCE_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(left.wait, PATIENCE_S) and not bench.local.asked
        closing = asyncio.ensure_future(bench.ask("far"))
        begun.clear()
        assert await asyncio.to_thread(begun.wait, PATIENCE_S)
        bench.router.close()
        with pytest.raises(GessoError):
            await closing

    run(test)


# the tables

GOOD = """
model = "pocket"
[routes]
batch = ["team", "here"]
lint = "here"
block = ["big", "coder"]
[backends.team]
kind = "gesso"
url = "https://team.example:8012"
[backends.big]
kind = "vllm"
url = "http://127.0.0.1:8000/v1"
model = "diffusiongemma"
tokenizer = "26b"
[backends.coder]
kind = "openai"
url = "http://localhost:8080/v1"
model = "coder"
timeout_ms = 300
prompt = "<pre>{prefix}<suf>{suffix}<mid>"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def test_routes_are_read_in_their_order(file: Path) -> None:
    assert read_routes(file).of("inline") == ("here",)
    file.write_text(GOOD)
    routes = read_routes(file)
    assert routes.of("batch") == ("team", "here") and routes.of("lint") == routes.of("edit") == ("here",)
    assert routes.of("block") == ("big", "coder") and routes.backends["coder"].timeout_ms == 300


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ('["team", "here"]', '["tem", "here"]', "routes.batch"),
        ('["team", "here"]', "[]", "routes.batch"),
        ("batch =", "bach =", "no task 'bach'"),
        ('kind = "gesso"', 'kind = "geso"', "kind is .geso.; it must be one of gesso"),
        ('url = "https://team.example:8012"', "", "url is missing"),
        ('tokenizer = "26b"', "", "needs a tokenizer"),
        ('model = "coder"', "", "needs a model"),
        ("timeout_ms = 300", "timeout_ms = 0", "timeout_ms is 0"),
        ("timeout_ms = 300", "timeout_ms = true", "timeout_ms is true"),
        ("timeout_ms = 300", "timeout = 1", "no setting 'timeout'"),
        ("{suffix}", "", "must contain"),
        ("[backends.team]", "[backends.here]", "not here"),
        ("[routes]", "[routes", "is not valid TOML"),
    ],
)
def test_errors_in_the_tables_are_named(file: Path, old: str, new: str, word: str) -> None:
    file.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(InputError, match=word):
        read_routes(file)


def test_only_the_users_own_file_may_name_servers(tmp_path: Path) -> None:
    own = settings.user_file()
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_text(GOOD)
    assert settings.resolve({}, tmp_path, {}).settings.model == "pocket"
    for table in ('[routes]\nbatch = "here"\n', '[backends.x]\nkind = "gesso"\nurl = "https://x"\n'):
        (tmp_path / "gesso.toml").write_text(table)
        with pytest.raises(InputError, match="only your own file"):
            settings.resolve({}, tmp_path, {})


def test_the_task_follows_from_the_request() -> None:
    def task(text: str, start: int, end: int, **more: Any) -> str:
        priority = more.pop("priority", "inline")
        return task_of(EngineRequest(InfillRequest(text, (Hole(start, end),), "python", **more), priority))

    assert task("x = \n", 4, 4) == task("def f():\n    ", 13, 13, lines="one") == "inline"
    assert task("def f():\n    ", 13, 13) == task("x = \n", 4, 4, lines="block") == "block"
    assert task("x = 1\n", 4, 5) == "edit" and task("x = 1\n", 4, 5, priority="batch") == "batch"
    assert task_of(EngineRequest(LintRequest("x"), "batch")) == "lint"
