"""The number of threads is the fastest one for a model whose step times are simulated."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from engine import threads
from engine.errors import NotFiniteError
from engine.models.diffusion_gemma import DiffusionGemma
from engine.threads import settle_threads
from tests.engine.tiny import ours, reference


@pytest.fixture(scope="module")
def model() -> DiffusionGemma:
    return ours(reference())


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch, model: DiffusionGemma) -> Callable[[int, dict[int, float]], list[int]]:
    """The numbers of threads that were set, of at most `most`, if a step takes these times (ms)."""
    for name in ("GESSO_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)

    def settle(most: int, taken: dict[int, float]) -> list[int]:
        counts = [most]
        monkeypatch.setattr(torch, "set_num_threads", counts.append)
        monkeypatch.setattr(torch, "get_num_threads", lambda: counts[-1])
        ends, now = [False], [0.0]

        def clock() -> float:
            """Called before and after each step."""
            now[0] += taken[counts[-1]] if ends[0] else 0.0
            ends[0] = not ends[0]
            return now[0]

        monkeypatch.setattr(threads.time, "perf_counter", clock)
        monkeypatch.setattr(threads.Denoiser, "run", lambda *_: None)
        assert settle_threads(model) == counts[-1]
        return counts[1:]

    return settle


def test_threads_that_bring_nothing_are_not_taken(settled: Callable[..., list[int]]) -> None:
    assert settled(8, {1: 15.0, 2: 38.0}) == [1, 2, 1]
    assert settled(8, {1: 15.0, 2: 12.5}) == [1, 2, 1]


def test_as_many_as_bring_something(settled: Callable[..., list[int]]) -> None:
    assert settled(6, {1: 16.0, 2: 9.0, 4: 6.0, 6: 5.9}) == [1, 2, 4, 6, 4]
    assert settled(6, {1: 16.0, 2: 9.0, 4: 6.0, 6: 4.0}) == [1, 2, 4, 6, 6]
    assert settled(2, {1: 16.0, 2: 9.0}) == [1, 2, 2]


def test_nothing_is_measured_where_there_is_no_choice(
    settled: Callable[..., list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settled(1, {}) == []
    monkeypatch.setenv("GESSO_THREADS", "4")
    assert settled(4, {}) == []
    monkeypatch.delenv("GESSO_THREADS")
    monkeypatch.setattr(threads, "LARGE_BYTES", 1000)
    assert settled(4, {}) == []


def test_a_model_that_can_make_no_step_is_loaded_all_the_same(
    settled: Callable[..., list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> float:
        raise NotFiniteError

    monkeypatch.setattr(threads, "_seconds", fails)
    assert settled(4, {}) == [1]


def test_it_is_measured_on_the_model_itself(model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GESSO_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    steps = list[int]()
    denoise = model.denoise

    def counted(*given: object) -> object:
        steps.append(torch.get_num_threads())
        return denoise(*given)  # type: ignore

    monkeypatch.setattr(model, "denoise", counted)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert settle_threads(model) == torch.get_num_threads() in (1, 2)
    finally:
        torch.set_num_threads(before)
    assert steps[:5] == [1] * 4 + [2] and set(steps[5:]) == {2}
