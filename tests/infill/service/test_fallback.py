"""A large model and a small one: which one answers, and when the large one is unloaded for lack of memory."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient

from infill.backends.routes import NONE
from infill.complete.loaded_model import LoadedModel
from infill.engine_protocol import EngineRequest, NotReady, RequestCounts
from infill.service import fallback as service_fallback
from infill.service.app import make_app
from infill.service.build import build_engine
from infill.service.fallback import CHECKS, LOW_BYTES, FallbackEngine, MemoryWatch
from infill.service.guard import Guard, RequestActivity
from infill.service.model_engine import ModelEngine
from infill.settings import Settings
from tests.infill.fakes import request, tiny_completer
from tests.waiting import PATIENCE_S, until

torch.set_num_threads(1)
REQUEST = request("x = §\n")
PLENTY = 100 << 30


class Loads:
    """Replaces `load_model`: tiny models; the large one waits for `let_in`, or fails to load."""

    def __init__(self) -> None:
        self.let_in, self.fails, self.loads = threading.Event(), False, list[str]()

    def __call__(self, settings: Settings, on_progress: Callable[[int, int], None]) -> LoadedModel:
        self.loads.append(settings.model)
        if settings.model == "large":
            on_progress(3, 10)
            assert self.let_in.wait(PATIENCE_S)
            if self.fails:
                raise MemoryError
        return tiny_completer(model=settings.model).model


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Loads:
    loads = Loads()
    monkeypatch.setattr("infill.complete.pipeline.load_model", loads)
    return loads


@pytest.fixture
def engine(loads: Loads) -> Iterator[FallbackEngine]:
    """One that is loading its large model."""
    counts = RequestCounts()
    main = ModelEngine(Settings(model="large"), counts=counts)
    engine = FallbackEngine(main, ModelEngine(Settings(model="small"), counts=counts))
    loading = threading.Thread(target=engine.load)
    loading.start()
    until(lambda: engine.state.fallback_model is not None and engine.state.total > 0)
    yield engine
    loads.let_in.set()
    loading.join()
    engine.close()


def main(engine: FallbackEngine) -> ModelEngine:
    assert isinstance(engine.main, ModelEngine)
    return engine.main


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, PATIENCE_S))


def until_ready(engine: FallbackEngine, loads: Loads) -> None:
    loads.let_in.set()
    until(lambda: engine.state.kind != "loading")


def test_the_small_model_answers_requests_for_any_model_until_the_large_one_is_ready(
    engine: FallbackEngine, loads: Loads
) -> None:
    async def test() -> None:
        state = engine.state
        assert (state.kind, state.model, state.done, state.total, state.fallback_model) == (
            "loading",
            "large",
            3,
            10,
            "small",
        )
        assert (await engine.complete(EngineRequest(REQUEST, any_model=True))).model == "small"
        with pytest.raises(NotReady, match="still loading"):
            await engine.complete(EngineRequest(REQUEST))
        until_ready(engine, loads)
        assert engine.state.fallback_model is None
        for any_model in (True, False):
            assert (await engine.complete(EngineRequest(REQUEST, any_model=any_model))).model == "large"
        assert loads.loads == ["small", "large"]

    run(test())


def test_apis_of_other_programs_accept_any_model(engine: FallbackEngine) -> None:
    api = TestClient(Guard(make_app(engine), RequestActivity()))
    health = api.get("/health")
    assert health.status_code == 503 and health.json()["fallback_model"] == "small"
    answer = api.post("/v1/completions", json={"prompt": "x = ", "suffix": "\n", "max_tokens": 1})
    assert answer.status_code == 200 and answer.json()["model"] == "small"
    assert api.post("/infill", json={"input_prefix": "x = ", "input_suffix": "\n"}).status_code == 200
    body = {"text": "x = \n", "holes": [{"start": 4, "end": 4}]}
    assert api.post("/v1/infill", json=body).status_code == 503
    for stream in (True, False):
        assert api.post("/v1/infill", json=body | {"any_model": True, "stream": stream}).status_code == 200


def test_if_the_large_model_cannot_be_loaded_the_small_one_stays(engine: FallbackEngine, loads: Loads) -> None:
    async def test() -> None:
        loads.fails = True
        until_ready(engine, loads)
        state = engine.state
        assert state.kind == "failed" and "memory ran out" in (state.message or "")
        assert state.fallback_model == "small"
        assert (await engine.complete(EngineRequest(REQUEST, any_model=True))).model == "small"

    run(test())


def test_the_same_model_is_not_loaded_twice(loads: Loads) -> None:
    for settings in (Settings(model="small", fallback_model="small"), Settings(model="small", fallback_model=None)):
        engine = build_engine(settings, None, NONE)
        engine.load()
        assert isinstance(engine, ModelEngine) and engine.state.kind == "ready"
        engine.close()
    assert loads.loads == ["small", "small"]


# memory


def test_low_memory_drops_prompts_then_unloads_the_large_model_which_comes_back(
    engine: FallbackEngine, loads: Loads
) -> None:
    async def test() -> None:
        until_ready(engine, loads)
        await engine.complete(EngineRequest(REQUEST))
        scheduler = main(engine).scheduler
        assert scheduler is not None
        cache = scheduler.decoder.cache
        assert cache.entries
        assert await engine.react_to_memory(PLENTY) == "none"
        assert await engine.react_to_memory(LOW_BYTES - 1) == "forget"
        while cache.entries:
            await asyncio.sleep(0.01)
        assert (await engine.complete(EngineRequest(REQUEST))).model == "large"
        for _ in range(CHECKS - 2):
            assert await engine.react_to_memory(LOW_BYTES - 1) == "forget"
        assert await engine.react_to_memory(LOW_BYTES - 1) == "unload"
        assert engine.state.kind == "loading" and main(engine)._model is None
        assert (await engine.complete(EngineRequest(REQUEST, any_model=True))).model == "small"
        for _ in range(CHECKS - 1):
            assert await engine.react_to_memory(PLENTY) == "none"
        assert await engine.react_to_memory(PLENTY) == "load"
        assert (await engine.complete(EngineRequest(REQUEST))).model == "large"

    run(test())


def test_pending_requests_are_answered_before_the_model_is_unloaded(engine: FallbackEngine, loads: Loads) -> None:
    async def test() -> None:
        until_ready(engine, loads)
        asked = [asyncio.ensure_future(engine.complete(EngineRequest(REQUEST, client=str(n)))) for n in range(4)]
        await asyncio.sleep(0)
        for _ in range(CHECKS):
            await engine.react_to_memory(0)
        assert {one.model for one in await asyncio.gather(*asked)} == {"large"}
        assert main(engine)._model is None

    run(test())


def test_a_short_memory_shortage_changes_nothing() -> None:
    watch = MemoryWatch(weight_bytes=4 * LOW_BYTES)
    for _ in range(10):
        steps = [watch.check(free, True) for free in [LOW_BYTES - 1] * (CHECKS - 1) + [LOW_BYTES]]
        assert steps == ["forget"] * (CHECKS - 1) + ["none"]
    for _ in range(10):
        steps = [watch.check(free, False) for free in [PLENTY] * (CHECKS - 1) + [5 * LOW_BYTES]]
        assert steps == ["none"] * CHECKS, "four with the margin and one to spare are more than five"


def test_the_free_memory_is_watched(engine: FallbackEngine, loads: Loads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_fallback, "WATCH_S", 0.001)

    async def test() -> None:
        until_ready(engine, loads)
        main(engine).free_memory = lambda: 0  # type: ignore[method-assign]
        watcher = asyncio.create_task(engine.maintain())
        while main(engine)._model is not None:
            await asyncio.sleep(0.01)
        main(engine).free_memory = lambda: PLENTY  # type: ignore[method-assign]
        while main(engine)._model is None:
            await asyncio.sleep(0.01)
        watcher.cancel()

    run(test())
