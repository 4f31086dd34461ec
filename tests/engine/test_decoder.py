"""A decoder after memory ran out, and the choice of its number of threads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from engine import threads
from engine.decoder import Decoder
from engine.models.packed_qwen2 import PackedQwen2
from engine.threads import DecoderSpeed, settle_decoder_threads
from tests.engine.tiny_qwen2 import packed, reference


@pytest.fixture(scope="module")
def model() -> PackedQwen2:
    return packed(reference())


@pytest.fixture(autouse=True)
def same_number_of_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def decoder(model: PackedQwen2) -> Decoder:
    decoder = Decoder(model)
    decoder.cache.acquire([1, 2, 3]).release()
    return decoder


def test_work_that_runs_out_of_memory_is_repeated_once_without_unused_prompts(decoder: Decoder) -> None:
    seen: list[int] = []

    def work() -> str:
        seen.append(len(decoder.cache.entries))
        if len(seen) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return "done"

    assert decoder.retry_without_cache(work) == "done"
    assert seen == [1, 0]


def test_work_that_runs_out_of_memory_twice_fails(decoder: Decoder) -> None:
    calls: list[None] = []

    def work() -> None:
        calls.append(None)
        raise MemoryError

    with pytest.raises(MemoryError):
        decoder.retry_without_cache(work)
    assert len(calls) == 2


def test_other_errors_are_raised_at_once(decoder: Decoder) -> None:
    calls: list[None] = []

    def work() -> None:
        calls.append(None)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        decoder.retry_without_cache(work)
    assert len(calls) == 1 and len(decoder.cache.entries) == 1


def times(monkeypatch: pytest.MonkeyPatch, per_threads: dict[int, tuple[float, float]]) -> None:
    """Seconds to read the prompt and to decode a token, by the number of threads."""

    def seconds(model: PackedQwen2, length: int) -> float:
        prompt_s, token_s = per_threads[torch.get_num_threads()]
        return token_s if length == 1 else prompt_s

    monkeypatch.setattr(threads, "threads_are_given", lambda: False)
    monkeypatch.setattr(threads, "_decoder_seconds", seconds)


@pytest.mark.parametrize(
    ("two", "four", "chosen"),
    [((0.4, 0.04), (0.2, 0.02), 4), ((0.4, 0.04), (0.39, 0.04), 2), ((0.8, 0.1), (0.8, 0.1), 1)],
)
def test_more_threads_are_used_if_they_are_worth_it(
    model: PackedQwen2,
    monkeypatch: pytest.MonkeyPatch,
    two: tuple[float, float],
    four: tuple[float, float],
    chosen: int,
) -> None:
    torch.set_num_threads(4)
    measured = {1: (0.8, 0.08), 2: two, 4: four}
    times(monkeypatch, measured)
    speed = settle_decoder_threads(model)
    assert torch.get_num_threads() == chosen
    assert speed == DecoderSpeed(threads.DECODER_PROMPT / measured[chosen][0], measured[chosen][1], chosen)


def test_a_number_of_threads_that_the_user_set_is_kept(model: PackedQwen2, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(3)
    times(monkeypatch, {3: (0.5, 0.05)})
    monkeypatch.setattr(threads, "threads_are_given", lambda: True)
    assert settle_decoder_threads(model) == DecoderSpeed(threads.DECODER_PROMPT / 0.5, 0.05, 3)
    assert torch.get_num_threads() == 3


def test_the_speed_is_measured(model: PackedQwen2) -> None:
    speed = settle_decoder_threads(model)
    assert 0 < speed.token_s < 1 and speed.prompt > 10
    assert torch.get_num_threads() == 1
