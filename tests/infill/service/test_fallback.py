"""A large model and a small one: who answers when, and what becomes of the large one as the memory grows short."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient

from infill.complete.loaded_model import LoadedModel
from infill.service import fallback as service_ladder
from infill.service.app import make_app
from infill.service.engine import Asked, NotReady
from infill.service.fallback import LOW, TIMES, LadderEngine, Squeeze
from infill.service.guard import Activity, Guard
from infill.settings import Settings
from tests.infill.fakes import request, tiny_completer

torch.set_num_threads(1)
ASKED = request("x = §\n")
PLENTY = 100 << 30


class Loads:
    """Stands where `LoadedModel.load` does: tiny models; the large one waits until it is let in, or cannot load."""

    def __init__(self) -> None:
        self.let_in, self.fails, self.loads = threading.Event(), False, list[str]()

    def __call__(self, settings: Settings, on_progress: Callable[[int, int], None]) -> LoadedModel:
        self.loads.append(settings.model)
        if settings.model == "large":
            on_progress(3, 10)
            assert self.let_in.wait(20)
            if self.fails:
                raise MemoryError
        return tiny_completer(model=settings.model).model


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Loads:
    loads = Loads()
    monkeypatch.setattr(LoadedModel, "load", loads)
    return loads


@pytest.fixture
def engine(loads: Loads) -> Iterator[LadderEngine]:
    """One that loads its large model."""
    engine = LadderEngine(Settings(model="large", meanwhile="small"))
    loading = threading.Thread(target=engine.load)
    loading.start()
    while engine.told_state.meanwhile is None or engine.state.total == 0:
        pass
    yield engine
    loads.let_in.set()
    loading.join()
    engine.close()


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 30))


def until_ready(engine: LadderEngine, loads: Loads) -> None:
    loads.let_in.set()
    while engine.state.kind == "loading":
        pass


def test_the_small_one_answers_those_who_take_any_until_the_large_one_is_there(
    engine: LadderEngine, loads: Loads
) -> None:
    async def test() -> None:
        told = engine.told_state
        assert (told.kind, told.model, told.done, told.total, told.meanwhile) == ("loading", "large", 3, 10, "small")
        assert (await engine.complete(Asked(ASKED, any_model=True))).model == "small"
        with pytest.raises(NotReady, match="still loading"):
            await engine.complete(Asked(ASKED))
        until_ready(engine, loads)
        assert engine.told_state.meanwhile is None
        for any_model in (True, False):
            assert (await engine.complete(Asked(ASKED, any_model=any_model))).model == "large"
        assert loads.loads == ["small", "large"]

    run(test())


def test_apis_of_other_programs_take_any_model(engine: LadderEngine) -> None:
    api = TestClient(Guard(make_app(engine), Activity()))
    health = api.get("/health")
    assert health.status_code == 503 and health.json()["meanwhile"] == "small"
    answer = api.post("/v1/completions", json={"prompt": "x = ", "suffix": "\n", "max_tokens": 1})
    assert answer.status_code == 200 and answer.json()["model"] == "small"
    assert api.post("/infill", json={"input_prefix": "x = ", "input_suffix": "\n"}).status_code == 200
    body = {"text": "x = \n", "holes": [{"start": 4, "end": 4}]}
    assert api.post("/v1/infill", json=body).status_code == 503
    for stream in (True, False):
        assert api.post("/v1/infill", json=body | {"any_model": True, "stream": stream}).status_code == 200


def test_where_the_large_one_cannot_be_loaded_the_small_one_stays(engine: LadderEngine, loads: Loads) -> None:
    async def test() -> None:
        loads.fails = True
        until_ready(engine, loads)
        told = engine.told_state
        assert told.kind == "failed" and "memory ran out" in (told.message or "") and told.meanwhile == "small"
        assert (await engine.complete(Asked(ASKED, any_model=True))).model == "small"

    run(test())


def test_the_same_model_is_not_loaded_twice(loads: Loads) -> None:
    for settings in (Settings(model="small", meanwhile="small"), Settings(model="small", meanwhile=None)):
        engine = LadderEngine(settings)
        engine.load()
        assert engine.below is None and engine.state.kind == "ready"
        engine.close()
    assert loads.loads == ["small", "small"]


# memory


def test_the_large_one_gives_way_in_steps_and_comes_back(engine: LadderEngine, loads: Loads) -> None:
    async def test() -> None:
        until_ready(engine, loads)
        await engine.complete(Asked(ASKED))
        assert engine.scheduler is not None
        cache = engine.scheduler.denoiser.cache
        assert cache.entries
        assert await engine.look_at_memory(PLENTY) == "stay"
        assert await engine.look_at_memory(LOW - 1) == "shrink"
        while cache.entries:
            await asyncio.sleep(0.01)
        assert (await engine.complete(Asked(ASKED))).model == "large"
        for _ in range(TIMES - 2):
            assert await engine.look_at_memory(LOW - 1) == "shrink"
        assert await engine.look_at_memory(LOW - 1) == "move out"
        assert engine.told_state.kind == "loading" and engine._model is None
        assert (await engine.complete(Asked(ASKED, any_model=True))).model == "small"
        for _ in range(TIMES - 1):
            assert await engine.look_at_memory(PLENTY) == "stay"
        assert await engine.look_at_memory(PLENTY) == "come back"
        assert (await engine.complete(Asked(ASKED))).model == "large"

    run(test())


def test_what_is_under_way_is_answered_before_the_model_goes(engine: LadderEngine, loads: Loads) -> None:
    async def test() -> None:
        until_ready(engine, loads)
        asked = [asyncio.ensure_future(engine.complete(Asked(ASKED, client=str(n)))) for n in range(4)]
        await asyncio.sleep(0)
        for _ in range(TIMES):
            await engine.look_at_memory(0)
        assert {one.model for one in await asyncio.gather(*asked)} == {"large"}
        assert engine._model is None

    run(test())


def test_a_short_squeeze_moves_nothing() -> None:
    squeeze = Squeeze(need=4 * LOW)
    for _ in range(10):
        steps = [squeeze.look(free, True) for free in [LOW - 1] * (TIMES - 1) + [LOW]]
        assert steps == ["shrink"] * (TIMES - 1) + ["stay"]
    for _ in range(10):
        steps = [squeeze.look(free, False) for free in [PLENTY] * (TIMES - 1) + [5 * LOW]]
        assert steps == ["stay"] * TIMES, "five times is too little for a model that took four and must leave one"


def test_the_memory_is_looked_at_from_time_to_time(
    engine: LadderEngine, loads: Loads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_ladder, "WATCH_S", 0.001)

    async def test() -> None:
        until_ready(engine, loads)
        engine.free_memory = lambda: 0
        watcher = asyncio.create_task(engine.watch_memory())
        while engine._model is not None:
            await asyncio.sleep(0.01)
        engine.free_memory = lambda: PLENTY
        while engine._model is None:
            await asyncio.sleep(0.01)
        watcher.cancel()

    run(test())
