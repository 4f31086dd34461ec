"""A second model of the service: a tiny diffusion model whose canvases are refused, and a tiny random Qwen2."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from typing import Any

import pytest
from starlette.testclient import TestClient

from engine.errors import Cancelled, ModelError
from infill.backends.routes import NONE
from infill.complete import judging
from infill.complete.pipeline import AnyModel
from infill.engine_protocol import EngineRequest
from infill.request import Candidate, InfillRequest, InfillResult, OnStep, StepView
from infill.service import retry
from infill.service.app import make_app
from infill.service.build import build_engine
from infill.service.fallback import LOW_BYTES
from infill.service.guard import Guard, RequestActivity
from infill.service.metrics import metrics
from infill.service.model_engine import ModelEngine
from infill.service.retry import RetryEngine
from infill.settings import Settings
from tests.infill.fakes import request, tiny_completer
from tests.infill.tiny_coder import coder
from tests.waiting import PATIENCE_S

REQUEST = request("x = §\n")
SETTINGS = Settings(model="canvas", retry_model="coder", fallback_model=None, copy_drafts=False, causal_draft=False)
Verdict = dict[str, Any]
SHOWN: Verdict = {"shown": True, "reason": None, "refused": False}
REFUSED: Verdict = {"shown": False, "reason": "the code would no longer parse", "refused": True}
UNSURE: Verdict = {"shown": False, "reason": "the confidence 0.10 is below the threshold 0.50", "refused": False}


class Models:
    """Replaces the loading of models and the verdicts on their texts."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.verdicts = {"canvas": REFUSED, "coder": SHOWN}
        self.error: Exception | None = None

    def load(self, settings: Settings, on_progress: Callable[[int, int], None]) -> AnyModel:
        self.loaded.append(settings.model)
        if settings.model == "coder":
            if self.error is not None:
                raise self.error
            return replace(coder().model, name="coder")
        return tiny_completer(model=settings.model).model

    def judge(self, name: str) -> Callable[..., Candidate]:
        return lambda *arguments: replace(judging.judge(*arguments), **self.verdicts[name])


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> Models:
    models = Models()
    monkeypatch.setattr("infill.complete.pipeline.load_model", models.load)
    monkeypatch.setattr("infill.complete.completion.judge", models.judge("canvas"))
    monkeypatch.setattr("infill.complete.causal_completion.judge", models.judge("coder"))
    return models


@pytest.fixture
def engine(models: Models) -> Iterator[RetryEngine]:
    """Both models are loaded."""
    engine = built()
    yield engine
    engine.close()


def built(settings: Settings = SETTINGS) -> RetryEngine:
    engine = build_engine(settings, None, NONE)
    assert isinstance(engine, RetryEngine)
    engine.load()
    return engine


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, PATIENCE_S))


def complete(engine: RetryEngine, infill_request: InfillRequest = REQUEST) -> InfillResult:
    return asyncio.run(asyncio.wait_for(engine.complete(EngineRequest(infill_request)), PATIENCE_S))


def test_a_refused_canvas_is_answered_by_the_code_model_and_counted(engine: RetryEngine, models: Models) -> None:
    found = complete(engine)
    assert found.model == "coder" and found.completions[0].shown
    assert engine.counts.retries == {"good": 1}
    assert (engine.counts.outcomes["inline", "quiet"], engine.counts.outcomes["inline", "shown"]) == (1, 1)
    assert 'gesso_retries_total{outcome="good"} 1' in metrics(engine, 1.0)
    assert models.loaded == ["canvas", "coder"]


@pytest.mark.parametrize("verdict", [SHOWN, UNSURE])
def test_a_canvas_that_no_check_of_its_text_refuses_is_not_retried(
    verdict: Verdict, engine: RetryEngine, models: Models
) -> None:
    models.verdicts["canvas"] = verdict
    assert complete(engine).model == "canvas" and not engine.counts.retries


def test_if_the_code_models_text_is_refused_too_the_first_answer_stays(engine: RetryEngine, models: Models) -> None:
    models.verdicts["coder"] = UNSURE
    assert complete(engine).model == "canvas" and engine.counts.retries == {"poor": 1}


def test_the_api_streams_the_steps_of_both_models_and_answers_with_the_same_fields(
    engine: RetryEngine, models: Models
) -> None:
    api = TestClient(Guard(make_app(engine), RequestActivity()))
    body = {"text": "x = \n", "holes": [{"start": 4, "end": 4}]}
    answer = api.post("/v1/infill", json=body).json()
    assert answer["model"] == "coder" and answer["completions"][0]["shown"]
    stream = api.post("/v1/infill", json=body | {"stream": True}).text
    events = [part.split("\n") for part in stream.strip().split("\n\n")]
    names, values = [one[0] for one in events], [json.loads(one[1].removeprefix("data: ")) for one in events]
    assert names == ["event: step"] * (len(names) - 1) + ["event: result"]
    text = values[-1]["completions"][0]["text"]
    assert values[-1]["model"] == "coder" and values[-2]["pieces"][1]["text"] == text
    assert {piece["state"] for piece in values[0]["pieces"]} >= {"noise"}
    models.verdicts["canvas"] = SHOWN
    plain = api.post("/v1/infill", json=body).json()
    assert plain["model"] == "canvas" and plain.keys() == answer.keys()
    assert plain["completions"][0].keys() == answer["completions"][0].keys()


def test_a_code_model_that_cannot_be_loaded_is_reported_and_nothing_is_retried(models: Models) -> None:
    models.error = ModelError("The model needs 1.0 GiB on cpu, but only 0.1 GiB are free; close other programs.")
    engine = built()
    assert engine.state.kind == "ready"
    assert engine.state.message == f"Nothing is retried: {models.error}"
    assert complete(engine).model == "canvas" and not engine.counts.retries
    engine.close()


def test_a_code_model_that_leaves_the_gpu_too_little_memory_is_unloaded(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = {"coder": LOW_BYTES - 1}
    monkeypatch.setattr(ModelEngine, "free_memory", lambda self: free.get(self.settings.model))
    engine = built()
    assert "too little memory for coder" in (engine.state.message or "")
    assert complete(engine).model == "canvas"
    engine.close()
    free["coder"] = LOW_BYTES
    engine = built()
    assert engine.state.message is None and complete(engine).model == "coder"
    engine.close()


def test_no_model_is_loaded_twice(models: Models) -> None:
    engine = built(replace(SETTINGS, fallback_model="coder"))
    assert models.loaded == ["coder", "canvas"] and engine.shared
    assert complete(engine).model == "coder"
    assert engine.pending == 0
    engine.close()
    same = build_engine(replace(SETTINGS, retry_model="canvas"), None, NONE)
    assert isinstance(same, ModelEngine)


class Slow:
    """Replaces the `complete` of the code model's engine: waits until it is cancelled."""

    def __init__(self, engine: RetryEngine) -> None:
        self.requests: list[EngineRequest[InfillRequest]] = []
        self.started, self.was_cancelled = asyncio.Event(), False
        engine.second.complete = self.complete  # type: ignore[method-assign]

    async def complete(self, request: EngineRequest[InfillRequest], on_step: OnStep | None = None) -> InfillResult:
        self.requests.append(request)
        self.started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise
        raise AssertionError("nothing cancelled the retry")


def test_a_late_code_model_is_stopped_at_the_deadline(engine: RetryEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "infill_limit_s", lambda request: 0.1)  # with a deadline that is far away
    monkeypatch.setattr(retry, "GRACE_S", 0.01)

    async def test() -> None:
        slow = Slow(engine)
        found = await engine.complete(EngineRequest(replace(REQUEST, deadline_ms=60_000.0)))
        assert found.model == "canvas" and slow.was_cancelled
        left_ms = slow.requests[0].request.deadline_ms
        assert left_ms is not None and left_ms < 60_000
        assert engine.counts.retries == {"late": 1}

    run(test())


def test_cancelling_the_request_stops_the_code_model(engine: RetryEngine) -> None:
    async def test() -> None:
        slow = Slow(engine)
        task = asyncio.ensure_future(engine.complete(EngineRequest(REQUEST)))
        await slow.started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert slow.was_cancelled and engine.counts.retries == {"cancelled": 1}

    run(test())


def test_a_cancelled_request_is_not_answered(engine: RetryEngine) -> None:
    async def test() -> None:
        engine_request = EngineRequest(REQUEST)

        def on_step(view: StepView) -> None:
            if all(piece.state != "noise" for piece in view.pieces) and view.max_steps > 3:
                engine_request.cancelled.set()  # a step of the code model: the canvas has three

        with pytest.raises(Cancelled):
            await engine.complete(engine_request, on_step)
        assert engine.counts.retries == {"cancelled": 1}

    run(test())


def test_an_error_of_the_code_model_leaves_the_first_answer(engine: RetryEngine) -> None:
    async def fail(*_: object) -> InfillResult:
        raise ModelError("The model produced NaN; check its weights.")

    engine.second.complete = fail  # type: ignore[method-assign]
    assert complete(engine).model == "canvas" and engine.counts.retries == {"failed": 1}
