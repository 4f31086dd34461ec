"""`/v1/edit`, in this process, with a tiny model that writes a given answer behind the scheduler."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from starlette.testclient import TestClient

from engine.scheduling.scheduler import Scheduler
from infill.api.values import edit_result_from_json, request_to_json
from infill.backends.router import BackendRouter
from infill.backends.routes import Routes
from infill.edit.rewriter import Rewriter
from infill.edit_request import EditRequest
from infill.engine_protocol import EngineRequest, EngineState, NotReady
from infill.service.app import make_app
from infill.service.fallback import FallbackEngine
from infill.service.guard import Guard, RequestActivity
from infill.service.model_engine import ModelEngine
from infill.service.retry import RetryEngine
from infill.service.routed import RoutedEngine
from infill.settings import Settings
from tests.infill.api.test_api import ReadyEngine, events
from tests.infill.edit.scripted_rewriter import ScriptedRewriter, edit_request

REQUEST = edit_request("def f(x):\n«    return x»\n", "double it", path="a.py")


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelEngine]:
    """Its model writes `return 2 * x`."""
    scripted = ScriptedRewriter("return 2 * x\n```")
    make_task = Rewriter._task

    def task(rewriter: Rewriter, *arguments: Any) -> Any:
        found = make_task(rewriter, *arguments)
        scripted.scripted.start = len(found.edit.tokens)
        return found

    monkeypatch.setattr(Rewriter, "_task", task)
    engine = ModelEngine(Settings(model="tiny"))
    engine._model = scripted.model
    engine.scheduler = Scheduler(scripted.decoder)
    engine.state = EngineState("ready", "tiny")
    yield engine
    engine.close()


@pytest.fixture
def api(engine: ModelEngine) -> TestClient:
    return TestClient(Guard(make_app(engine), RequestActivity()))


def test_an_edit_returns_the_whole_result(engine: ModelEngine, api: TestClient) -> None:
    response = api.post("/v1/edit", json=request_to_json(REQUEST))
    assert response.status_code == 200
    result = edit_result_from_json(response.json())
    assert (result.text, result.shown, result.start, result.end) == ("    return 2 * x", True, 10, 22)
    assert engine.counts.outcomes["inline", "shown"] == 1


def test_a_stream_ends_with_the_same_result(api: TestClient) -> None:
    whole = api.post("/v1/edit", json=request_to_json(REQUEST)).json()
    streamed = events(api.post("/v1/edit", json=request_to_json(REQUEST) | {"stream": True}).text)
    assert len(streamed) > 1 and {name for name, _ in streamed[:-1]} == {"step"}
    assert streamed[-1][0] == "result" and streamed[-1][1]["text"] == whole["text"]
    assert "".join(piece["text"] for piece in streamed[-2][1]["pieces"]).startswith("def f(x):\n    return 2")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"instruction": None}, "body.instruction is null"),
        ({"instruction": " "}, "The instruction is empty"),
        ({"end": 1000}, "lies outside the text"),
        ({"start": -1}, "body.start is -1"),
        ({"candidates": 0}, "body.candidates is 0"),
    ],
)
def test_an_unusable_request_is_refused(api: TestClient, change: dict[str, Any], message: str) -> None:
    response = api.post("/v1/edit", json=request_to_json(REQUEST) | change)
    assert response.status_code == 400 and message in response.json()["error"]["message"]


def test_a_model_without_instructions_names_those_that_can(engine: ModelEngine) -> None:
    other = ReadyEngine()
    try:
        client = TestClient(Guard(make_app(other), RequestActivity()))
        response = client.post("/v1/edit", json=request_to_json(REQUEST))
        assert response.status_code == 400 and "use coder" in response.json()["error"]["message"]
        (name, value), *_ = events(client.post("/v1/edit", json=request_to_json(REQUEST) | {"stream": True}).text)
        assert name == "error" and "use coder" in value["error"]["message"]
    finally:
        other.close()


def test_the_model_of_the_service_answers_whatever_the_routes_and_other_models(engine: ModelEngine) -> None:
    other = ModelEngine(Settings(model="other"))
    routes = Routes({"edit": ("elsewhere",), "inline": ("elsewhere",)}, {})
    for wrapped in (
        RetryEngine(engine, other),
        FallbackEngine(engine, other),
        RoutedEngine(engine, routes, BackendRouter({})),
    ):
        wrapped.check(EngineRequest(REQUEST))
        assert asyncio.run(wrapped.edit(EngineRequest(REQUEST))).text == "    return 2 * x"
    with pytest.raises(NotReady):
        asyncio.run(FallbackEngine(other, engine).edit(EngineRequest(REQUEST, any_model=True)))


def test_a_request_keeps_its_deadline(engine: ModelEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    deadlines: list[float | None] = []
    rewrite = Rewriter.rewrite

    def recording(rewriter: Rewriter, request: EditRequest, *rest: Any) -> Any:
        deadlines.append(request.deadline_ms)
        return rewrite(rewriter, request, *rest)

    monkeypatch.setattr(Rewriter, "rewrite", recording)
    for given, most in ((5_000.0, 5_000.0), (None, 120_000.0)):
        asyncio.run(engine.edit(EngineRequest(replace(REQUEST, deadline_ms=given))))
        assert most - 2_000 < (deadlines.pop() or 0.0) <= most
