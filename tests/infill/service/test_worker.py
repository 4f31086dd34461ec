"""The process that hosts a model: the order of its answers, cancelling, errors, and when it ends."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from engine.errors import GessoError, InputError, ModelError, Stop, leave_if
from infill.findings import Finding, LintRequest
from infill.request import InfillRequest, InfillResult
from infill.service.worker import Worker
from infill.service.worker_messages import Answer, Ask, Cancel, Loading, Ready, Start
from infill.settings import Settings

ROOT = Path(__file__).parents[3]
SCRIPTED = Path(__file__).parent / "scripted_worker.py"
PATIENCE_S = 30.0
STEPS = 2


FINDING = Finding(0, 1, "wrong-name", "`a` looks wrong.", "b", 1.0)


def request(text: str) -> InfillRequest:
    return InfillRequest(text, ())


def receive(pipe: Connection) -> Any:
    assert pipe.poll(PATIENCE_S), "nothing was said"
    return pipe.recv()


class Gated:
    """A completer that takes one of STEPS steps whenever `gate` is opened, and keeps the texts of its requests."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.gate = threading.Semaphore(0)
        self.has_begun = threading.Semaphore(0)
        self.error: Exception | None = None
        self.cleared = 0
        self.denoiser = SimpleNamespace(cache=SimpleNamespace(clear=self._clear))

    def _clear(self) -> None:
        self.cleared += 1

    def complete(self, request: InfillRequest, stop: Stop) -> InfillResult:
        self.begun.append(request.text)
        self.has_begun.release()
        if self.error is not None:
            raise self.error
        for _ in range(STEPS):
            assert self.gate.acquire(timeout=PATIENCE_S)
            leave_if(stop)
        self.ended.append(request.text)
        return InfillResult((), STEPS, 0, 0, 0, 0, {}, request.text, 0)


class GatedLinter:
    """Takes steps as its completer does, and keeps the same notes."""

    unasked = True

    def __init__(self, completer: Gated) -> None:
        self.completer = completer

    def lint(self, request: LintRequest, stop: Stop) -> list[Finding]:
        self.completer.complete(InfillRequest(request.text, ()), stop)
        return [FINDING]


@pytest.fixture(autouse=True)
def linter(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Stands in the place of `infill.lint.linter`."""
    module = ModuleType("infill.lint.linter")
    module.Linter = GatedLinter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "infill.lint.linter", module)
    return module


class Hosted:
    """A `Worker` on threads of this process; `number`s are handed out by the tests."""

    def __init__(self) -> None:
        self.completer = Gated()
        inbox, self.to_worker = Pipe(duplex=False)
        self.from_worker, outbox = Pipe(duplex=False)
        self.worker = Worker(inbox, outbox)
        self.threads = [
            threading.Thread(target=self.worker.listen, daemon=True),
            threading.Thread(target=self.worker.serve, args=(self.completer,), daemon=True),
        ]
        for thread in self.threads:
            thread.start()

    def begin(self, number: int, text: str, lint: bool = False) -> None:
        """Asks, and waits until it runs."""
        self.to_worker.send(Ask(number, LintRequest(text) if lint else request(text)))
        assert self.completer.has_begun.acquire(timeout=PATIENCE_S)

    def tell(self, *messages: Ask | Cancel) -> None:
        """Sends while a request runs, and waits until the worker has taken all."""
        for message in (*messages, Ask(-1, LintRequest("last"))):
            self.to_worker.send(message)
        with self.worker.news:
            assert self.worker.news.wait_for(lambda: -1 in self.worker.waiting_lints, PATIENCE_S)
            del self.worker.waiting_lints[-1]

    def steps(self, count: int) -> None:
        self.completer.gate.release(count)

    def answer(self) -> Answer:
        answer = receive(self.from_worker)
        assert isinstance(answer, Answer)
        return answer


@pytest.fixture
def hosted() -> Iterator[Hosted]:
    one = Hosted()
    yield one
    one.steps(1000)
    one.to_worker.close()
    for thread in one.threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive(), "the worker goes on though its pipe is closed"


def test_the_newest_request_goes_first(hosted: Hosted) -> None:
    hosted.begin(1, "first")
    hosted.tell(*(Ask(number, request(f"{number}")) for number in (2, 3, 4)))
    hosted.steps(8)
    assert [hosted.answer().number for _ in range(4)] == [1, 4, 3, 2]


def test_what_is_cancelled_while_it_waits_is_never_begun(hosted: Hosted) -> None:
    hosted.begin(1, "first")
    hosted.tell(Ask(2, request("second")), Ask(3, request("third")), Cancel(3))
    hosted.steps(8)
    assert [hosted.answer().number for _ in range(2)] == [1, 2]
    assert hosted.completer.begun == ["first", "second"]


def test_what_is_cancelled_while_it_runs_is_left_in_the_middle_and_not_answered(hosted: Hosted) -> None:
    hosted.begin(1, "first")
    hosted.tell(Cancel(1), Ask(2, request("second")))
    hosted.steps(1)
    assert hosted.completer.has_begun.acquire(timeout=PATIENCE_S)
    hosted.steps(STEPS)
    assert hosted.answer().number == 2
    assert hosted.completer.ended == ["second"], "not only the answer was dropped"


def test_cancelling_what_is_done_or_unknown_disturbs_nobody(hosted: Hosted) -> None:
    hosted.begin(1, "first")
    hosted.steps(STEPS)
    assert hosted.answer().number == 1
    hosted.begin(2, "second")
    hosted.tell(Cancel(1), Cancel(99))
    hosted.steps(STEPS)
    answer = hosted.answer()
    assert answer.number == 2 and isinstance(answer.result, InfillResult) and answer.result.model == "second"


def test_completions_go_before_lint(hosted: Hosted) -> None:
    hosted.begin(1, "first")
    hosted.tell(Ask(2, LintRequest("lint")), Ask(3, request("third")), Ask(4, LintRequest("newer lint")))
    hosted.steps(8)
    answers = [hosted.answer() for _ in range(4)]
    assert [answer.number for answer in answers] == [1, 3, 4, 2]
    assert answers[3].result == (FINDING,) and isinstance(answers[1].result, InfillResult)


def test_lint_makes_way_for_a_completion_and_is_begun_anew(hosted: Hosted) -> None:
    hosted.begin(1, "lint", lint=True)
    hosted.tell(Ask(2, request("second")))
    hosted.steps(1)
    assert hosted.completer.has_begun.acquire(timeout=PATIENCE_S)
    assert hosted.completer.ended == [], "it was left in the middle"
    hosted.steps(2 * STEPS)
    assert [hosted.answer().number for _ in range(2)] == [2, 1]
    assert hosted.completer.begun == ["lint", "second", "lint"]


def test_lint_that_was_cancelled_is_not_begun_anew(hosted: Hosted) -> None:
    hosted.begin(1, "lint", lint=True)
    hosted.tell(Ask(2, LintRequest("waits")), Ask(3, request("third")), Cancel(1), Cancel(2))
    hosted.steps(1 + STEPS)
    assert hosted.answer().number == 3
    hosted.begin(4, "last", lint=True)
    hosted.steps(STEPS)
    assert hosted.answer().number == 4
    assert hosted.completer.begun == ["lint", "third", "last"]


def test_lint_is_left_in_the_middle_when_it_is_cancelled(hosted: Hosted) -> None:
    hosted.begin(1, "lint", lint=True)
    hosted.tell(Cancel(1), Ask(2, LintRequest("second")))
    hosted.steps(1 + STEPS)
    assert hosted.answer().number == 2
    assert hosted.completer.ended == ["second"]


@pytest.mark.parametrize("lints", [True, False, None])
def test_with_the_model_it_is_told_whether_it_is_calibrated_for_lint(
    linter: ModuleType, monkeypatch: pytest.MonkeyPatch, lints: bool | None
) -> None:
    def broken(_: object) -> GatedLinter:
        raise ModelError("The bars cannot be read; fetch them again.")

    monkeypatch.setattr(GatedLinter, "unasked", lints)
    if lints is None:
        linter.Linter = broken  # type: ignore[attr-defined]
    completion = ModuleType("infill.complete.completion")
    completion.Completer = lambda model, settings: Gated()  # type: ignore[attr-defined]
    loaded_model = ModuleType("infill.complete.loaded_model")
    loaded_model.LoadedModel = SimpleNamespace(load=lambda settings, report: None)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "infill.complete.completion", completion)
    monkeypatch.setitem(sys.modules, "infill.complete.loaded_model", loaded_model)
    inbox, _ = Pipe(duplex=False)
    said, outbox = Pipe(duplex=False)
    assert Worker(inbox, outbox).load(Settings()) is not None
    assert receive(said) == Loading(0, 0)
    assert receive(said) == Ready(None, bool(lints))


def test_an_error_for_users_comes_back_as_it_is(hosted: Hosted) -> None:
    hosted.completer.error = InputError("The request is no good; ask otherwise.")
    hosted.begin(1, "first")
    error = hosted.answer().error
    assert type(error) is InputError and str(error) == "The request is no good; ask otherwise."


def test_any_other_error_is_named_and_logged_and_the_next_request_is_answered(
    hosted: Hosted, caplog: pytest.LogCaptureFixture
) -> None:
    hosted.completer.error = KeyError("secret")
    hosted.begin(1, "first")
    error = hosted.answer().error
    assert type(error) is GessoError and "KeyError" in str(error)
    assert "secret" not in str(error), "it might quote the user's code"
    assert "Traceback" in caplog.text and "secret" in caplog.text
    hosted.completer.error = None
    hosted.begin(2, "second")
    hosted.steps(STEPS)
    assert hosted.answer().error is None


def test_when_the_memory_runs_out_the_cache_is_emptied(hosted: Hosted, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    hosted.completer.error = type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory")
    hosted.begin(1, "first")
    assert "memory ran out; close other programs" in str(hosted.answer().error)
    assert hosted.completer.cleared == 1


class Process:
    """A worker process and our ends of its pipes."""

    def __init__(self, *command: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""}
        self.process = subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self.inbox = Connection(os.dup(self.process.stdin.fileno()), readable=False)
        self.outbox = Connection(os.dup(self.process.stdout.fileno()), writable=False)
        self.process.stdin.close()
        self.process.stdout.close()

    def load(self, model: str) -> list[Any]:
        """All that is said until the model is ready."""
        self.inbox.send(Start(Settings(model=model)))
        said = [receive(self.outbox)]
        while not isinstance(said[-1], Ready):
            said.append(receive(self.outbox))
        return said

    def ask(self, number: int, text: str) -> Answer:
        self.inbox.send(Ask(number, request(text)))
        answer = receive(self.outbox)
        assert isinstance(answer, Answer) and answer.number == number
        return answer

    def errors(self) -> str:
        """Ends it; all that it said on standard error."""
        self.inbox.close()
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()


@pytest.fixture
def scripted() -> Iterator[Process]:
    one = Process(str(SCRIPTED))
    yield one
    one.process.kill()
    one.process.wait()


def test_a_load_is_reported_from_before_its_start_to_its_end(scripted: Process) -> None:
    said = scripted.load("pocket")
    assert said[0] == Loading(0, 0) and said[-2:] == [Loading(100, 100), Ready(None, lints=True)]


def test_nothing_slow_is_imported_before_the_first_report() -> None:
    code = (
        "import sys, infill.service.worker; print({'torch', 'numpy', 'transformers', 'safetensors'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.stdout.strip() == "set()", done.stderr


def test_stray_prints_go_to_standard_error(scripted: Process) -> None:
    scripted.load("pocket")
    assert scripted.ask(1, "print").error is None
    assert scripted.ask(2, "x").error is None
    errors = scripted.errors()
    for stray in ("loading, says a library", "a stray line", "stray bytes", "and a child of ours"):
        assert stray in errors


def test_a_fault_is_answered_and_the_process_goes_on(scripted: Process) -> None:
    scripted.load("pocket")
    assert type(scripted.ask(1, "input").error) is InputError
    assert "KeyError" in str(scripted.ask(2, "fault").error)
    assert scripted.ask(3, "x").result is not None
    errors = scripted.errors()
    assert "Traceback" in errors and "KeyError" in errors


def test_a_model_that_cannot_be_loaded_is_told_and_the_process_ends(scripted: Process) -> None:
    assert scripted.load("absent")[-1] == Ready("There is no such model; choose another.")
    assert scripted.process.wait(PATIENCE_S) == 0


@pytest.mark.parametrize("moment", ["before the start", "in a load", "in a request"])
def test_it_ends_when_its_input_closes(scripted: Process, moment: str) -> None:
    if moment == "in a load":
        scripted.inbox.send(Start(Settings(model="endless")))
        while receive(scripted.outbox) != Loading(50, 100):
            pass
    elif moment == "in a request":
        scripted.load("pocket")
        scripted.inbox.send(Ask(1, request("endless")))
    scripted.inbox.close()
    assert scripted.process.wait(PATIENCE_S) == 0


def test_the_interrupt_of_a_terminal_is_left_to_the_one_who_started_it(scripted: Process) -> None:
    scripted.load("pocket")
    scripted.process.send_signal(signal.SIGINT)
    assert scripted.ask(1, "x").result is not None
