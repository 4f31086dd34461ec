"""One model in memory: errors become sentences that quote no code, and broken lint data does not stop completions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest

from engine.errors import GessoError, ModelError
from infill.complete.completion import Completer
from infill.complete.loaded_model import LoadedModel
from infill.engine_protocol import EngineRequest
from infill.lint.thresholds import Thresholds
from infill.service.model_engine import ModelEngine
from infill.settings import Settings
from tests.infill.fakes import request, tiny_completer


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
    def broken(folder: object) -> Thresholds:
        raise ModelError("The file lint.json cannot be read; fetch it again.")

    caplog.set_level(logging.ERROR)
    monkeypatch.setattr(Thresholds, "read", broken)
    engine.load()
    assert engine.state.kind == "ready" and not engine.state.can_lint and "lint.json" in caplog.text


def test_a_model_that_cannot_be_loaded_fails_with_its_sentence(
    engine: ModelEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> LoadedModel:
        raise ModelError("There is no such model; choose another.")

    monkeypatch.setattr("infill.complete.pipeline.load_model", fail)
    engine.load()
    assert (engine.state.kind, engine.state.message) == ("failed", "There is no such model; choose another.")
