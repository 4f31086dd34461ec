"""One model in memory: errors become sentences that quote no code, and broken lint data does not stop completions."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from engine.errors import Cancelled, GessoError, ModelError, Stop
from infill.complete.completion import Completer
from infill.complete.loaded_model import LoadedModel
from infill.engine_protocol import EngineRequest
from infill.request import InfillRequest
from infill.service.model_engine import ModelEngine
from infill.settings import Settings
from tests.infill.fakes import request, tiny_completer
from tests.waiting import PATIENCE_S


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelEngine]:
    """Not loaded yet; its model is tiny."""
    monkeypatch.setattr("infill.complete.pipeline.load_model", lambda settings, on_progress: tiny_completer().model)
    engine = ModelEngine(Settings())
    yield engine
    engine.close()


def test_an_unexpected_error_is_named_and_the_next_request_is_answered(
    engine: ModelEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("secret")

    engine.load()
    with monkeypatch.context() as patch, pytest.raises(GessoError, match="KeyError.*please report") as raised:
        patch.setattr(Completer, "complete", fail)
        asyncio.run(engine.complete(EngineRequest(request("x = §\n"))))
    assert "secret" not in str(raised.value), "it might quote the user's code"
    assert "KeyError at " in caplog.text and "secret" not in caplog.text
    assert asyncio.run(engine.complete(EngineRequest(request("x = §\n")))).completions
    assert engine.counts.outcomes["inline", "failed"] == 1


def test_without_usable_lint_data_the_model_still_completes(
    engine: ModelEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise ModelError("The file lint_names.json cannot be read; install Gesso again.")

    caplog.set_level(logging.ERROR)
    monkeypatch.setattr("infill.lint.linter._known_names", broken)
    engine.load()
    assert engine.state.kind == "ready" and not engine.state.can_lint and "lint_names.json" in caplog.text


def test_a_model_that_cannot_be_loaded_fails_with_its_sentence(
    engine: ModelEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> LoadedModel:
        raise ModelError("There is no such model; choose another.")

    monkeypatch.setattr("infill.complete.pipeline.load_model", fail)
    engine.load()
    assert (engine.state.kind, engine.state.message) == ("failed", "There is no such model; choose another.")


class Panic(BaseException):
    """As `pyo3_runtime.PanicException`, not an Exception."""


def test_a_panic_while_loading_is_a_failure(engine: ModelEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def panic(*_: object) -> LoadedModel:
        raise Panic("index out of bounds")

    monkeypatch.setattr("infill.complete.pipeline.load_model", panic)
    engine.load()
    assert engine.state.kind == "failed" and "could not be loaded" in (engine.state.message or "")


def test_loading_without_progress_is_a_failure(engine: ModelEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def hang(settings: object, on_progress: Callable[[int, int], None]) -> LoadedModel:
        on_progress(1, 10)
        released.wait()
        on_progress(2, 10)
        raise ModelError("It ended.")

    monkeypatch.setattr("infill.complete.pipeline.load_model", hang)
    monkeypatch.setattr("infill.service.model_engine.STALL_S", 0.1)
    try:
        engine.load()
        assert engine.state.kind == "failed" and "made no progress" in (engine.state.message or "")
    finally:
        released.set()


def test_a_newer_reading_ahead_of_a_client_replaces_its_older_one(
    engine: ModelEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = threading.Event()

    def read_ahead(completer: Completer, infill_request: InfillRequest, stop: Stop) -> int:
        begun.set()
        while infill_request.text == "endless":
            time.sleep(0.001)
            if stop():
                raise Cancelled
        return 7

    async def play() -> None:
        older = EngineRequest(request("endless§"), "lint", "one")
        running = asyncio.create_task(engine.read_ahead(older))
        await asyncio.to_thread(begun.wait)
        other = asyncio.create_task(engine.read_ahead(EngineRequest(request("x§"), "lint", "another")))
        await asyncio.sleep(0.01)
        assert not older.cancelled.is_set() and not other.done()
        assert await engine.read_ahead(EngineRequest(request("x§"), "lint", "one")) == 7
        assert (await running, await other) == (0, 7)
        assert not engine._reading and engine.counts.encoded_tokens == 14

    monkeypatch.setattr(Completer, "read_ahead", read_ahead)
    monkeypatch.setattr("engine.scheduling.scheduler.SLICE_S", PATIENCE_S)  # the other client waits for its turn
    engine.load()
    asyncio.run(asyncio.wait_for(play(), PATIENCE_S))


def test_reading_ahead_ends_at_its_limit(engine: ModelEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_ahead(completer: Completer, infill_request: InfillRequest, stop: Stop) -> int:
        while not stop():
            time.sleep(0.001)
        raise Cancelled

    monkeypatch.setattr(Completer, "read_ahead", read_ahead)
    monkeypatch.setattr("infill.service.model_engine.READ_AHEAD_LIMIT_S", 0.2)
    engine.load()
    assert asyncio.run(asyncio.wait_for(engine.read_ahead(EngineRequest(request("x§"))), PATIENCE_S)) == 0
