"""The memory that an idle service returns, and how much libraries may keep."""

from __future__ import annotations

import asyncio
import gc
import os
import weakref

import pytest

from infill.service import memory as service_memory
from infill.service.memory import FORGET_S, KERNELS, Housekeeping, limit_memory, trim
from tests.virtual_time import run


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Trims and what was forgotten, in order."""
    done: list[str] = []
    monkeypatch.setattr(service_memory, "trim", lambda: done.append("trim"))
    return done


def test_when_idle_it_trims_and_later_forgets_and_then_sleeps(done: list[str]) -> None:
    async def quiet() -> None:
        keeping = Housekeeping(lambda: done.append("forget"))
        keeping.request_started()
        keeping.request_ended(0)
        await asyncio.sleep(10 * FORGET_S)

    run(quiet(), 20 * FORGET_S)
    assert done == ["trim", "forget", "trim"]


def test_while_a_request_runs_it_does_nothing(done: list[str]) -> None:
    async def busy() -> None:
        keeping = Housekeeping(lambda: done.append("forget"))
        keeping.request_ended(0)
        keeping.request_started()
        await asyncio.sleep(10 * FORGET_S)
        keeping.request_ended(1)
        await asyncio.sleep(10 * FORGET_S)

    run(busy(), 30 * FORGET_S)
    assert done == []


def test_without_idle_time_it_trims_from_time_to_time(done: list[str]) -> None:
    now = [0.0]

    async def busy() -> None:
        keeping = Housekeeping(lambda: done.append("forget"), lambda: now[0])
        for _ in range(10):
            now[0] += 0.4 * service_memory.BUSY_TRIM_S
            keeping.request_ended(3)
        await asyncio.sleep(10 * FORGET_S)

    run(busy(), 20 * FORGET_S)
    assert done == ["trim"] * 3


def test_requests_one_after_the_other_without_a_pause_do_not_keep_it_from_trimming(done: list[str]) -> None:
    now = [0.0]

    async def busy() -> None:
        keeping = Housekeeping(lambda: done.append("forget"), lambda: now[0])
        for _ in range(10):
            now[0] += 0.4 * service_memory.BUSY_TRIM_S
            keeping.request_started()
            keeping.request_ended(0)
        keeping.request_started()
        await asyncio.sleep(0.1)

    asyncio.run(busy())
    assert done == ["trim"] * 3


class Node:
    def __init__(self) -> None:
        self.itself = self


def test_trimming_frees_cycles() -> None:
    freed = weakref.ref(Node())
    gc.disable()
    try:
        trim()
    finally:
        gc.enable()
    assert freed() is None


def test_library_caches_are_limited_unless_the_user_set_them(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
    monkeypatch.setenv("MALLOC_ARENA_MAX", "8")  # this process stays as it is
    monkeypatch.setenv(name, "5")
    limit_memory()
    assert os.environ[name] == "5"
    monkeypatch.delenv(name)
    limit_memory()
    assert os.environ[name] == KERNELS
    trim()
