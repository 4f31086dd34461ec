"""The service seen from the event loop: responses, cancellation, failures and restarts.

Most tests run a scripted service, which is quick; those marked slow run the shipped model.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine.errors import InputError
from infill.engine_protocol import EngineState
from infill.findings import LintRequest
from infill.request import Hole, InfillRequest, InfillResult
from infill.service.client import ServiceClient
from infill.service.exchange import ServiceGone, read_health
from infill.service.location import ServiceLocation, all_locations, location_at, lock_holder
from infill.service.start import COMMAND, stop_service
from infill.settings import Settings
from lsp import engine as lsp_engine
from lsp.engine import AsyncServiceClient, EngineGone, EngineLoading
from tests.infill.service.scripted_service import COMMAND as SCRIPTED
from tests.waiting import PATIENCE_S, until_async

ROOT = Path(__file__).parents[2]
CODE = "def add(one, other):\n    total = one + other\n    return \n\n\nprint(add(1, 2))\n"


def request(text: str) -> InfillRequest:
    return InfillRequest(text, (Hole(0, 0),))


class Watched:
    """An engine and all its states."""

    def __init__(self, command: Sequence[str] = SCRIPTED) -> None:
        self.states: list[EngineState] = []
        self.engine = AsyncServiceClient(self.states.append, command)

    def kinds(self) -> list[str]:
        """Without repetitions."""
        kinds = [state.kind for state in self.states]
        return [kind for kind, before in zip(kinds, ["", *kinds], strict=False) if kind != before]

    async def until(self, condition: Callable[[], object]) -> None:
        await until_async(condition, lambda: self.states[-3:])

    async def until_state(self, kind: str) -> None:
        await self.until(lambda: self.engine.state.kind == kind)

    async def ready(self, **settings: Any) -> None:
        self.engine.start(Settings(**settings))
        await self.until_state("ready")

    async def ask(self, text: str) -> InfillResult:
        return await asyncio.wait_for(self.engine.complete(request(text)), PATIENCE_S)

    async def begin(self, wanted: InfillRequest) -> asyncio.Task[InfillResult]:
        """The request, on its way to the service."""
        task = asyncio.ensure_future(self.engine.complete(wanted))
        await asyncio.sleep(0)
        return task


@asynccontextmanager
async def watched(command: Sequence[str] = SCRIPTED) -> AsyncIterator[Watched]:
    one = Watched(command)
    try:
        yield one
    finally:
        one.engine.stop()


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 5 * PATIENCE_S))


@pytest.fixture(autouse=True)
def location(monkeypatch: pytest.MonkeyPatch) -> Iterator[ServiceLocation]:
    """The default location of a user without a service; short enough for a socket's path."""
    with tempfile.TemporaryDirectory(prefix="gesso-test-") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield location_at()
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        for one in all_locations():
            stop_service(one)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restarts without long delays."""
    monkeypatch.setattr(lsp_engine, "DELAYS_S", (0.01, 0.01))


def pending() -> int:
    return read_health(location_at()).pending


def test_it_loads_with_progress_and_answers() -> None:
    async def test() -> None:
        async with watched() as one:
            assert one.engine.state.kind == "stopped"
            await one.ready(model="pocket")
            assert EngineState("loading", "pocket", 50, 100) in one.states
            assert (await one.ask("hello")).prompt_tokens == len("hello")
        assert one.kinds() == ["loading", "ready", "stopped"]

    run(test())


def test_a_request_while_it_loads_raises_the_progress() -> None:
    async def test() -> None:
        async with watched() as one:
            one.engine.start(Settings(model="endless"))
            await one.until(lambda: one.engine.state.done)
            with pytest.raises(EngineLoading, match="endless is still loading") as raised:
                await one.ask("x")
            assert raised.value.state == EngineState("loading", "endless", 50, 100)

    run(test())


def test_cancelling_reaches_the_model_and_the_next_request_is_answered() -> None:
    async def test() -> None:
        async with watched() as one:
            await one.ready()
            endless = await one.begin(request("endless"))
            await one.until(pending)
            endless.cancel()
            with pytest.raises(asyncio.CancelledError):
                await endless
            await one.until(lambda: not pending())
            assert (await one.ask("x")).steps == 2, "the endless one was begun and cancelled"

    run(test())


def test_findings_and_whether_the_model_is_good_for_them() -> None:
    async def test() -> None:
        async with watched() as one:
            await one.ready(model="no lint")
            assert not one.engine.state.lints
            await one.ready()
            assert one.engine.state.lints
            (finding,) = await one.engine.lint(LintRequest("a = wrnog\n"))
            assert (finding.start, finding.end, finding.replacement) == (4, 9, "wrong")
            with pytest.raises(InputError):
                await one.engine.lint(LintRequest("input"))

    run(test())


def test_reading_ahead_keeps_the_engine_busy() -> None:
    async def test() -> None:
        async with watched() as one:
            await one.ready()
            reading = asyncio.ensure_future(one.engine.read_ahead(request("def add")))
            await asyncio.sleep(0)
            assert one.engine.is_busy
            assert await reading == len("def add") and not one.engine.is_busy

    run(test())


def test_lint_does_not_delay_a_completion_and_can_be_cancelled() -> None:
    async def test() -> None:
        async with watched() as one:
            await one.ready()
            lint = asyncio.ensure_future(one.engine.lint(LintRequest("endless")))
            await one.until(pending)
            assert (await one.ask("x")).prompt_tokens == 1
            assert not lint.done()
            lint.cancel()
            with pytest.raises(asyncio.CancelledError):
                await lint
            assert await asyncio.wait_for(one.engine.lint(LintRequest("fine")), PATIENCE_S) == ()
            await one.until(lambda: not pending())

    run(test())


def test_the_last_of_fifty_requests_that_supersede_each_other_is_answered() -> None:
    async def test() -> None:
        async with watched() as one:
            await one.ready()
            tasks = [await one.begin(request("endless")) for _ in range(50)]
            last = await one.begin(request("last"))
            for task in tasks:
                task.cancel()
            assert (await asyncio.wait_for(last, PATIENCE_S)).prompt_tokens == len("last")
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
            assert not one.engine._pending
            await one.until(lambda: not pending())

    run(test())


def test_an_error_for_users_arrives_with_its_class() -> None:
    async def test() -> None:
        async with watched() as one:
            await one.ready()
            with pytest.raises(InputError, match="The request is no good; ask otherwise."):
                await one.ask("input")
            assert (await one.ask("x")).prompt_tokens == 1

    run(test())


def test_a_killed_service_is_restarted_and_gets_its_requests_again(location: ServiceLocation) -> None:
    async def test() -> None:
        async with watched() as one:
            await one.ready()
            waiting = [await one.begin(request("endless")) for _ in range(3)]
            await one.until(lambda: pending() == 3)
            killed = lock_holder(location)
            assert killed is not None
            os.kill(killed, signal.SIGKILL)
            await one.until_state("loading")
            await one.until_state("ready")
            await one.until(lambda: pending() == 3)
            assert lock_holder(location) != killed and not any(task.done() for task in waiting)
            for task in waiting:
                task.cancel()

    run(test())


def test_consecutive_failures_to_start_end_in_one_sentence_and_the_log(soon: None, location: ServiceLocation) -> None:
    async def test() -> None:
        async with watched() as one:
            one.engine.start(Settings(model="dying"))
            await one.until_state("failed")
            assert "failed to start 3 times in a row" in (one.engine.state.message or "")
            with pytest.raises(EngineGone, match="failed to start 3 times in a row"):
                await one.ask("x")
            assert lock_holder(location) is None and location.log.read_text().count("last words") == 3
            await one.ready(model="pocket")
            assert (await one.ask("x")).steps == 1

    run(test())


def test_the_reason_is_reported_while_the_engine_is_restarted_and_at_the_end(soon: None) -> None:
    reason = "odd.toml is wrong; correct it."
    script = f"import sys; print('gesso: {reason}', file=sys.stderr); sys.exit(3)"

    async def test() -> None:
        async with watched((sys.executable, "-c", script)) as one:
            one.engine.start(Settings())
            await one.until_state("failed")
            message = f"The service did not start: {reason}"
            assert EngineState("loading", one.engine.state.model, message=message) in one.states
            assert (one.engine.state.message or "").endswith(message)

    run(test())


def test_an_unexpected_error_while_it_starts_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(client: ServiceClient) -> None:
        raise RuntimeError("odd")

    monkeypatch.setattr(ServiceClient, "connect", fail)

    async def test() -> None:
        async with watched() as one:
            one.engine.start(Settings())
            await one.until_state("failed")
            assert "cannot be started (RuntimeError: odd)" in (one.engine.state.message or "")

    run(test())


def test_a_request_that_kills_the_service_gets_an_error_and_others_are_answered(soon: None) -> None:
    async def test() -> None:
        async with watched() as one:
            await one.ready()
            for _ in range(3):
                with pytest.raises(ServiceGone):
                    await one.ask("die")
                assert (await one.ask("x")).steps == 1
            assert "failed" not in one.kinds() and "stopped" not in one.kinds()

    run(test())


def test_a_model_that_cannot_be_loaded_fails_with_its_sentence_and_is_not_loaded_again(soon: None) -> None:
    async def test() -> None:
        async with watched() as one:
            one.engine.start(Settings(model="absent"))
            await one.until_state("failed")
            message = "There is no such model; choose another."
            assert one.engine.state == EngineState("failed", "absent", message=message)
            with pytest.raises(EngineGone, match="no such model"):
                await one.ask("x")
            await asyncio.sleep(0.1)
            assert one.kinds() == ["loading", "failed"]

    run(test())


def test_a_command_that_cannot_be_run_fails(soon: None, tmp_path: Path) -> None:
    async def test() -> None:
        async with watched((str(tmp_path / "nowhere"),)) as one:
            one.engine.start(Settings())
            await one.until_state("failed")

    run(test())


def test_a_folder_that_no_socket_can_be_in_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / ("x" * 200)))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("y" * 200)))
    monkeypatch.setattr("infill.service.location.FALLBACK", str(tmp_path / ("z" * 200)))

    async def test() -> None:
        async with watched() as one:
            one.engine.start(Settings())
            assert one.engine.state.kind == "failed" and "too long" in (one.engine.state.message or "")

    run(test())


def test_a_folder_that_others_can_enter_fails(location: ServiceLocation) -> None:
    location.socket.parent.chmod(0o755)

    async def test() -> None:
        async with watched() as one:
            one.engine.start(Settings())
            await one.until_state("failed")
            assert "chmod 700" in (one.engine.state.message or "")

    run(test())
    assert list(location.socket.parent.iterdir()) == []
    location.socket.parent.chmod(0o700)


def test_stopping_cancels_pending_requests_and_reports_it() -> None:
    async def test() -> None:
        async with watched() as one:
            await one.ready()
            waiting = await one.begin(request("endless"))
            await one.until(pending)
            one.engine.stop()
            with pytest.raises(EngineGone, match="stopped"):
                await waiting
            await one.until(lambda: not pending())
            assert one.engine.state.kind == "stopped"
            with pytest.raises(EngineGone, match="start it"):
                await one.ask("x")

    run(test())


def test_stopping_prevents_a_scheduled_restart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(lsp_engine, "DELAYS_S", (PATIENCE_S,))

    async def test() -> None:
        async with watched((str(tmp_path / "nowhere"),)) as one:
            one.engine.start(Settings())
            await one.until(lambda: one.engine._restart)
            restart = one.engine._restart
            one.engine.stop()
            assert restart is not None and restart.cancelled()
            assert one.kinds() == ["loading", "stopped"]

    run(test())


def test_started_several_times_only_the_last_one_reports() -> None:
    async def test() -> None:
        async with watched() as one:
            for seed in range(4):
                one.engine.start(Settings(seed=seed))
            await one.until_state("ready")
            await asyncio.sleep(0.5)
            assert [state.kind for state in one.states].count("ready") == 1
            assert (await one.ask("x")).prompt_tokens == 1

    run(test())


def test_a_large_request_to_a_slow_service_does_not_block_the_loop(location: ServiceLocation) -> None:
    async def test() -> None:
        async with watched() as one:
            await one.ready()
            service = psutil.Process(lock_holder(location))
            service.suspend()
            task = await one.begin(request("x" * 2_000_000))
            await asyncio.sleep(0.1)
            service.resume()
            assert (await asyncio.wait_for(task, PATIENCE_S)).prompt_tokens == 2_000_000

    run(test())


def test_stray_output_of_the_service_goes_to_its_log(location: ServiceLocation) -> None:
    async def test() -> None:
        async with watched() as one:
            await one.ready()
            assert (await one.ask("print")).steps == 1
            assert (await one.ask("x")).steps == 2
            await one.until(lambda: "a stray line" in location.log.read_text())

    run(test())


CLIENT = """
import asyncio, json, sys
from infill.request import Hole, InfillRequest
from infill.settings import Settings
from lsp.engine import AsyncServiceClient

async def main(text, at):
    engine = AsyncServiceClient(lambda state: None)
    engine.start(Settings())
    while engine.state.kind == "loading":
        await asyncio.sleep(0.01)
    result = await engine.complete(InfillRequest(text, (Hole(int(at), int(at)),), "python"))
    heavy = sorted({"torch", "numpy", "transformers"} & {*sys.modules})
    print(json.dumps({"text": result.completions[0].text, "heavy": heavy}))

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.slow
def test_the_client_of_a_model_never_imports_its_libraries() -> None:
    command = [sys.executable, "-c", CLIENT, CODE, str(CODE.index("return ") + len("return "))]
    environment = {**os.environ, "GESSO_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE_S)
    said = json.loads(done.stdout)
    assert said["text"] and said["heavy"] == []


@pytest.mark.slow
def test_nothing_is_imported_from_the_folder_of_the_users_project(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GESSO_FALLBACK_MODEL", "")
    for name in ("infill", "engine", "torch", "logging"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('code of the project')")
    monkeypatch.chdir(tmp_path)

    async def test() -> None:
        async with watched(COMMAND) as one:
            one.engine.start(Settings(model="./no-such-folder"))
            await one.until_state("failed")
            message = f"There is no model folder {tmp_path / 'no-such-folder'}; check the path, or use pocket."
            assert one.engine.state.message == message

    run(test())
