"""The engine's process seen from the event loop: answers, cancelling, deaths and restarts.

Most tests run a scripted worker, which is quick; those marked slow run the shipped model.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine.errors import InputError
from infill.findings import LintRequest
from infill.request import Hole, InfillRequest, InfillResult
from infill.settings import Settings
from lsp import engine_process
from lsp.engine_process import COMMAND, Engine, EngineGone, EngineLoading, EngineProcess, EngineState

ROOT = Path(__file__).parents[2]
SCRIPTED = (sys.executable, str(ROOT / "tests" / "infill" / "service" / "scripted_worker.py"))
PATIENCE_S = 60.0
CODE = "def add(one, other):\n    total = one + other\n    return \n\n\nprint(add(1, 2))\n"


def request(text: str, **more: Any) -> InfillRequest:
    return InfillRequest(text, (), **more)


def code_request(seed: int = 0) -> InfillRequest:
    at = CODE.index("return ") + len("return ")
    return InfillRequest(CODE, (Hole(at, at),), language="python", seed=seed)


class Watched:
    """An engine and all its states."""

    def __init__(self, command: tuple[str, ...] = SCRIPTED) -> None:
        self.states: list[EngineState] = []
        self.process = EngineProcess(self.states.append, command)
        self.engine: Engine = self.process

    def kinds(self) -> list[str]:
        """Without repetitions."""
        kinds = [state.kind for state in self.states]
        return [kind for kind, before in zip(kinds, ["", *kinds], strict=False) if kind != before]

    async def until(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end, self.states[-3:]
            await asyncio.sleep(0.005)

    async def until_state(self, kind: str) -> None:
        await self.until(lambda: self.engine.state.kind == kind)

    async def ready(self, **settings: Any) -> None:
        await self.engine.start(Settings(**settings))
        await self.until_state("ready")

    async def ask(self, text: str) -> InfillResult:
        return await asyncio.wait_for(self.engine.complete(request(text)), PATIENCE_S)

    async def begin(self, asked: InfillRequest) -> asyncio.Task[InfillResult]:
        """The request, on its way to the worker."""
        task = asyncio.ensure_future(self.engine.complete(asked))
        await asyncio.sleep(0)
        return task


@asynccontextmanager
async def watched(command: tuple[str, ...] = SCRIPTED) -> AsyncIterator[Watched]:
    one = Watched(command)
    try:
        yield one
    finally:
        await one.engine.stop()


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 5 * PATIENCE_S))


def workers() -> list[psutil.Process]:
    """The worker processes of this process that live."""
    found = []
    for child in psutil.Process().children():
        try:
            if "worker" in " ".join(child.cmdline()):
                found.append(child)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            pass
    return found


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restarts without long delays."""
    monkeypatch.setattr(engine_process, "DELAYS_S", (0.01, 0.01))


def test_it_loads_with_reports_and_answers() -> None:
    async def test() -> None:
        async with watched() as one:
            assert one.engine.state.kind == "stopped"
            await one.ready(model="pocket")
            assert EngineState("loading", "pocket", 50, 100) in one.states
            assert (await one.ask("hello")).prompt_tokens == len("hello")
        assert one.kinds() == ["loading", "ready", "stopped"]

    run(test())


def test_asked_while_it_loads_it_says_how_far_it_is() -> None:
    async def test() -> None:
        async with watched() as one:
            await one.engine.start(Settings(model="endless"))
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
            await asyncio.sleep(0.1)
            endless.cancel()
            with pytest.raises(asyncio.CancelledError):
                await endless
            assert (await one.ask("x")).steps == 2, "the endless one was begun, and was left"

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


def test_a_completion_overtakes_lint_which_can_be_cancelled() -> None:
    async def test() -> None:
        async with watched() as one:
            await one.ready()
            lint = asyncio.ensure_future(one.engine.lint(LintRequest("endless")))
            await asyncio.sleep(0.1)
            assert (await one.ask("x")).steps == 1
            assert not lint.done()
            lint.cancel()
            with pytest.raises(asyncio.CancelledError):
                await lint
            assert await asyncio.wait_for(one.engine.lint(LintRequest("fine")), PATIENCE_S) == ()

    run(test())


def test_of_fifty_requests_that_supersede_each_other_the_last_is_answered() -> None:
    async def test() -> None:
        async with watched() as one:
            await one.ready()
            blocker = await one.begin(request("endless"))
            tasks = [await one.begin(request("endless")) for _ in range(49)]
            last = await one.begin(request("last"))
            for task in (*tasks, blocker):
                task.cancel()
            assert (await asyncio.wait_for(last, PATIENCE_S)).prompt_tokens == len("last")
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
            assert not one.process._pending

    run(test())


def test_an_error_for_users_arrives_with_its_class() -> None:
    async def test() -> None:
        async with watched() as one:
            await one.ready()
            with pytest.raises(InputError, match="The request is no good; ask otherwise."):
                await one.ask("input")
            assert (await one.ask("x")).steps == 2

    run(test())


def test_a_killed_engine_is_told_and_started_again(soon: None) -> None:
    async def test() -> None:
        async with watched() as one:
            await one.ready()
            waiting = [await one.begin(request("endless")) for _ in range(3)]
            (worker,) = workers()
            worker.send_signal(signal.SIGKILL)
            for task in waiting:
                with pytest.raises(EngineGone, match="died before it answered"):
                    await asyncio.wait_for(task, PATIENCE_S)
            assert one.engine.state.kind == "loading"
            await one.until_state("ready")
            assert (await one.ask("x")).steps == 1
            assert workers() != [worker] and len(workers()) == 1

    run(test())


def test_deaths_in_a_row_end_in_one_sentence_and_the_log(soon: None, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with watched() as one:
            await one.engine.start(Settings(model="dying"))
            await one.until_state("failed")
            assert "died 3 times in a row" in (one.engine.state.message or "")
            with pytest.raises(EngineGone, match="died 3 times in a row"):
                await one.ask("x")
            assert not workers()
            await one.ready(model="pocket")
            assert (await one.ask("x")).steps == 1

    run(test())
    assert caplog.text.count("engine: last words") == 3


def test_an_answer_ends_a_row_of_deaths(soon: None) -> None:
    async def test() -> None:
        async with watched() as one:
            await one.ready()
            for _ in range(3):
                await one.ask("x")
                with pytest.raises(EngineGone):
                    await one.ask("die")
                await one.until_state("ready")

    run(test())


def test_a_model_that_cannot_be_loaded_fails_with_its_sentence_and_is_not_tried_again(soon: None) -> None:
    async def test() -> None:
        async with watched() as one:
            await one.engine.start(Settings(model="absent"))
            await one.until_state("failed")
            assert one.engine.state == EngineState(
                "failed", "absent", message="There is no such model; choose another."
            )
            await one.until(lambda: not workers())
            await asyncio.sleep(0.1)
            assert one.kinds() == ["loading", "failed"]

    run(test())


def test_a_command_that_cannot_be_run_fails(soon: None, tmp_path: Path) -> None:
    async def test() -> None:
        async with watched((str(tmp_path / "nowhere"),)) as one:
            await one.engine.start(Settings())
            await one.until_state("failed")

    run(test())


def test_stopping_ends_the_process_and_whoever_waits_is_told() -> None:
    async def test() -> None:
        async with watched() as one:
            await one.ready()
            waiting = await one.begin(request("endless"))
            await one.engine.stop()
            with pytest.raises(EngineGone, match="stopped"):
                await waiting
            assert not workers() and one.engine.state.kind == "stopped"
            with pytest.raises(EngineGone, match="start it"):
                await one.ask("x")

    run(test())


def test_a_process_that_does_not_listen_is_killed() -> None:
    async def test() -> None:
        async with watched() as one:
            await one.ready()
            workers()[0].suspend()
            await one.engine.stop()
            assert not workers()

    run(test())


def test_stopping_ends_a_restart_that_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_process, "DELAYS_S", (0.05,))

    async def test() -> None:
        async with watched() as one:
            await one.ready()
            workers()[0].kill()
            await one.until_state("loading")
            await one.engine.stop()
            await asyncio.sleep(0.2)
            assert one.kinds() == ["loading", "ready", "loading", "stopped"] and not workers()

    run(test())


def test_started_several_times_at_once_one_process_is_left() -> None:
    async def test() -> None:
        async with watched() as one:
            await asyncio.gather(*(one.engine.start(Settings(seed=seed)) for seed in range(4)))
            await one.until_state("ready")
            await one.until(lambda: len(workers()) == 1)
            assert (await one.ask("x")).steps == 1

    run(test())


def test_a_request_that_does_not_fit_into_the_pipe_does_not_hold_the_loop() -> None:
    async def test() -> None:
        async with watched() as one:
            await one.ready()
            (worker,) = workers()
            worker.suspend()
            task = await one.begin(request("x" * 10_000_000))
            await asyncio.sleep(0.1)
            worker.resume()
            assert (await asyncio.wait_for(task, PATIENCE_S)).prompt_tokens == 10_000_000

    run(test())


def test_stray_prints_of_the_worker_go_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with watched() as one:
            await one.ready()
            assert (await one.ask("print")).steps == 1
            assert (await one.ask("x")).steps == 2
            await one.until(lambda: "engine: a stray line" in caplog.text)

    caplog.set_level(logging.WARNING)
    run(test())


PARENT = """
import asyncio, json, sys
from pathlib import Path
from infill.request import Hole, InfillRequest
from infill.settings import Settings
from lsp.engine_process import EngineProcess

async def main(model, text, at, *command):
    engine = EngineProcess(lambda state: None, command) if command else EngineProcess(lambda state: None)
    await engine.start(Settings(model=model))
    while engine.state.done < 50:
        await asyncio.sleep(0.01)
    result = None
    if text:
        while engine.state.kind == "loading":
            await asyncio.sleep(0.01)
        result = await engine.complete(InfillRequest(text, (Hole(int(at), int(at)),), "python"))
    said = {
        "worker": engine._host._process.pid,
        "heavy": sorted({"torch", "numpy", "transformers"} & {*sys.modules}),
        "text": result and result.completions[0].text,
    }
    print(json.dumps(said), flush=True)
    await asyncio.sleep(600)

asyncio.run(main(*sys.argv[1:]))
"""


def ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def orphan(*arguments: str) -> dict[str, Any]:
    """What a process that runs an engine says, after it was killed and its worker ended, too."""
    command = [sys.executable, "-c", PARENT, *arguments]
    environment = {**os.environ, "GESSO_THREADS": "1"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        said: dict[str, Any] = json.loads(parent.stdout.readline())
        assert not ended(said["worker"])
        parent.kill()
    end = time.monotonic() + PATIENCE_S
    while not ended(said["worker"]):
        assert time.monotonic() < end, "the worker lives on without its parent"
        time.sleep(0.01)
    return said


def test_the_death_of_the_parent_ends_the_worker_in_the_middle_of_a_load() -> None:
    orphan("endless", "", "0", *SCRIPTED)


@pytest.mark.slow
def test_the_one_who_asks_the_model_never_imports_its_libraries() -> None:
    said = orphan("pocket", CODE, str(CODE.index("return ") + len("return ")))
    assert said["text"] and said["heavy"] == []


@pytest.mark.slow
def test_the_shipped_model_survives_cancelling_and_killing(soon: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GESSO_THREADS", "1")

    async def test() -> None:
        async with watched(COMMAND) as one:
            await one.ready()
            first = await one.engine.complete(code_request())
            assert first.completions[0].text
            superseded = []
            for seed in range(49):
                superseded.append(await one.begin(code_request(seed)))
                await asyncio.sleep(0.005)
                superseded[-1].cancel()
            again = await asyncio.wait_for(one.engine.complete(code_request()), PATIENCE_S)
            assert again.completions[0].text == first.completions[0].text
            assert all(task.cancelled() for task in superseded)
            waiting = await one.begin(code_request())
            workers()[0].kill()
            with pytest.raises(EngineGone):
                await waiting
            await one.until_state("ready")
            assert (await one.engine.complete(code_request())).completions[0].text == first.completions[0].text

    run(test())


@pytest.mark.slow
def test_nothing_is_imported_from_the_folder_of_the_users_project(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("infill", "engine", "torch", "logging"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('code of the project')")
    monkeypatch.chdir(tmp_path)

    async def test() -> None:
        async with watched(COMMAND) as one:
            await one.engine.start(Settings(model="./no-such-folder"))
            await one.until_state("failed")
            assert (
                one.engine.state.message == "There is no model folder ./no-such-folder; check the path, or use pocket."
            )

    run(test())
