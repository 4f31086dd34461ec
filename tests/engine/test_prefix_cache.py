"""What the prompt cache encodes, what it keeps, and that what it keeps is correct."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from engine import prefix_cache
from engine.canvas import Canvas, Slots
from engine.canvas_run import DenoiseRequest
from engine.config import SamplingConfig
from engine.denoiser import Denoiser
from engine.errors import Cancelled, InputError
from engine.key_values import KeyValues
from engine.models.diffusion_gemma import DiffusionGemma
from engine.prefix_cache import PrefixCache
from tests.engine.tiny import count_passes, ours, reference

PROMPT = [7 * n % 113 for n in range(40)]


@pytest.fixture(scope="module")
def model() -> DiffusionGemma:
    return ours(reference())


@pytest.fixture
def cache(model: DiffusionGemma) -> PrefixCache:
    return PrefixCache(model)


def read(cache: PrefixCache, tokens: Sequence[int]) -> int:
    """How many tokens the cache reports as encoded for `tokens`, leased and released."""
    lease = cache.acquire(tokens)
    lease.release()
    return lease.encoded


def assert_holds(cache: PrefixCache, kv: KeyValues, tokens: Sequence[int]) -> None:
    """The keys and values equal those of `tokens` encoded without a cache."""
    fresh = PrefixCache(cache.model).acquire(tokens).kv
    assert kv.length == fresh.length == len(tokens)
    for mine, expected in zip((*kv.keys, *kv.values), (*fresh.keys, *fresh.values), strict=True):
        length = len(tokens)
        torch.testing.assert_close(mine[:, :, :length], expected[:, :, :length], atol=1e-4, rtol=0)


def test_a_shared_prefix_is_read_once(
    model: DiffusionGemma, cache: PrefixCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = count_passes(model, monkeypatch)
    assert read(cache, PROMPT[:30]) == 30
    assert read(cache, PROMPT[:30]) == 0
    assert read(cache, PROMPT[:33]) == 3
    assert read(cache, PROMPT) == 7
    assert lengths == [30, 3, 7]
    assert cache.encoded_tokens == 40
    assert len(cache.entries) == 1


def test_a_result_counts_the_tokens_encoded_for_it(model: DiffusionGemma) -> None:
    denoiser = Denoiser(model)
    sampling = SamplingConfig(2)

    def ask(tokens: Sequence[int]) -> tuple[int, int]:
        result = denoiser.run([DenoiseRequest(tokens, Canvas.of(Slots(6)), sampling)])[0]
        return result.encoded_tokens, result.prompt_tokens

    assert ask(PROMPT[:30]) == (30, 30)
    assert ask(PROMPT[:35]) == (5, 35)
    assert ask([*PROMPT[:30], 1, 2]) == (2, 32)
    assert denoiser.cache.encoded_tokens == 37


def test_kept_and_new_keys_are_those_of_a_fresh_encode(cache: PrefixCache) -> None:
    for tokens in (
        PROMPT[:10],
        PROMPT[:25],
        [*PROMPT[:20], 3, 4, 5],
        PROMPT[:18],
        [*PROMPT[:4], 9, 9],
        PROMPT,
    ):
        with cache.encoded(tokens) as lease:
            assert lease.prompt.tokens.tolist() == list(tokens)
            assert_holds(cache, lease.kv, tokens)


def test_long_prompts_are_read_in_chunks(
    model: DiffusionGemma, cache: PrefixCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefix_cache, "ENCODE_CHUNK", 16)
    lengths = count_passes(model, monkeypatch)
    lease = cache.acquire(PROMPT)
    assert lengths == [16, 16, 8]
    assert_holds(cache, lease.kv, PROMPT)


def test_deleting_cuts_the_entry_back(cache: PrefixCache) -> None:
    read(cache, PROMPT)
    assert read(cache, PROMPT[:36]) == 0
    assert len(cache.entries) == 1 and cache.entries[0].kv.length == 36
    assert read(cache, [*PROMPT[:34], 1, 2, 3]) == 3
    assert len(cache.entries) == 1
    assert_holds(cache, cache.entries[0].kv, [*PROMPT[:34], 1, 2, 3])


def test_a_prompt_that_shares_little_leaves_the_entry_alone(cache: PrefixCache) -> None:
    read(cache, PROMPT)
    assert read(cache, [*PROMPT[:8], 1, 2]) == 2
    assert len(cache.entries) == 2
    assert read(cache, PROMPT) == 0
    assert read(cache, [*PROMPT[:8], 1, 2]) == 0


def test_two_long_prompts_with_nearly_the_same_beginning_are_both_kept(cache: PrefixCache) -> None:
    one, other = [*PROMPT * 5, *[1] * 15], [*PROMPT * 5, *[2] * 15]
    assert (read(cache, one), read(cache, other)) == (215, 15)
    assert (read(cache, one), read(cache, other)) == (0, 0)


@pytest.mark.parametrize("wanted", [[*PROMPT[:35], 1, 2], PROMPT[:30], [*PROMPT, 5, 6]])
def test_an_entry_in_use_is_not_changed(cache: PrefixCache, wanted: list[int]) -> None:
    held = cache.acquire(PROMPT)
    other = cache.acquire(wanted)
    assert other.encoded == sum(a != b for a, b in zip(wanted, PROMPT, strict=False)) + max(0, len(wanted) - 40)
    assert other.kv is not held.kv
    assert held.prompt.tokens.tolist() == PROMPT
    assert_holds(cache, held.kv, PROMPT)
    assert_holds(cache, other.kv, wanted)


def test_two_leases_share_one_entry(cache: PrefixCache) -> None:
    first, second = cache.acquire(PROMPT), cache.acquire(PROMPT)
    assert second.kv is first.kv and second.encoded == 0
    first.release()
    third = cache.acquire([*PROMPT, 4])
    assert third.kv is not second.kv, "the second lease still holds the entry"
    second.release()
    assert cache.acquire([*PROMPT, 5]).kv is first.kv, "now it is free to grow"


def entry_bytes(cache: PrefixCache) -> int:
    read(cache, PROMPT)
    size = cache.entries[0].kv.bytes
    cache.clear()
    cache.encoded_tokens = 0
    return size


def prompts_apart(count: int) -> list[list[int]]:
    return [[start, *PROMPT[1:]] for start in range(100, 100 + count)]


def test_the_least_recently_used_goes_when_the_bytes_run_out(
    cache: PrefixCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.limit_bytes = 2 * entry_bytes(cache)
    clock = iter(range(1000))
    monkeypatch.setattr(prefix_cache.time, "monotonic", lambda: float(next(clock)))
    first, second, third = prompts_apart(3)
    assert [read(cache, tokens) for tokens in (first, second, first)] == [40, 40, 0]
    assert read(cache, third) == 40
    assert len(cache.entries) == 2
    assert sum(entry.kv.bytes for entry in cache.entries) <= cache.limit_bytes
    assert read(cache, first) == 0, "used after the second, so it stayed"
    assert read(cache, second) == 40


def test_what_a_caller_wrote_behind_a_prompt_counts_once_it_is_released(cache: PrefixCache) -> None:
    prompts = prompts_apart(3)
    cache.limit_bytes = 4 * entry_bytes(cache)
    for prompt in prompts:
        read(cache, prompt)
    with cache.encoded(prompts[0]) as lease:
        lease.kv.reserve(3 * len(prompts[0]))
    assert sum(entry.kv.bytes for entry in cache.entries) <= cache.limit_bytes
    assert read(cache, prompts[0]) == 0, "the one used last stays"


def test_what_is_in_use_never_goes(cache: PrefixCache) -> None:
    cache.limit_bytes = entry_bytes(cache) // 2
    first, second, third = (cache.acquire(tokens) for tokens in prompts_apart(3))
    assert len(cache.entries) == 3
    second.release()
    cache.acquire([110, *PROMPT[1:]])
    assert [entry.tokens[0] for entry in cache.entries] == [100, 102, 110]
    cache.clear()
    assert len(cache.entries) == 3
    for lease, tokens in zip((first, third), prompts_apart(3)[::2], strict=True):
        assert_holds(cache, lease.kv, tokens)


def test_interrupted_reading_keeps_what_was_read(cache: PrefixCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefix_cache, "ENCODE_CHUNK", 16)
    answers = iter([False, True])
    with pytest.raises(Cancelled):
        cache.acquire(PROMPT, stop=lambda: next(answers))
    (entry,) = cache.entries
    assert entry.tokens.tolist() == PROMPT[:16] and entry.users == 0
    assert_holds(cache, entry.kv, PROMPT[:16])
    lease = cache.acquire(PROMPT)
    assert lease.encoded == 24 and lease.prompt is entry
    assert_holds(cache, lease.kv, PROMPT)


def test_reading_goes_in_smaller_steps_where_somebody_may_stop_it(
    cache: PrefixCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefix_cache, "STOPPABLE_CHUNK", 16)
    asked = []
    cache.acquire(PROMPT, stop=lambda: bool(asked.append(len(cache.entries[0].tokens))))
    assert asked == [0, 16, 32]
    assert_holds(cache, cache.entries[0].kv, PROMPT)


def test_reading_that_never_began_leaves_nothing(cache: PrefixCache) -> None:
    with pytest.raises(Cancelled):
        cache.acquire(PROMPT, stop=lambda: True)
    assert cache.entries == []


def test_a_failure_while_reading_leaves_the_entry_right(
    model: DiffusionGemma, cache: PrefixCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    read(cache, PROMPT[:30])
    encode: Callable[..., Tensor] = model.encode

    def failing(*arguments: Any) -> Tensor:
        encode(*arguments)
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(model, "encode", failing)
        with pytest.raises(MemoryError):
            cache.acquire(PROMPT)
    (entry,) = cache.entries
    assert entry.users == 0
    assert_holds(cache, entry.kv, PROMPT[:30])
    assert read(cache, PROMPT) == 10


def test_where_the_memory_runs_out_less_is_read_at_once_and_idle_prompts_go(
    model: DiffusionGemma, cache: PrefixCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    idle, tokens = prompts_apart(1)[0], [n % 113 for n in range(200)]
    read(cache, idle)
    encode, tried = model.encode, list[int]()

    def short_of_memory(tokens: Tensor, *rest: Any) -> Tensor:
        tried.append(tokens.shape[1])
        if tokens.shape[1] > 60:
            raise torch.OutOfMemoryError
        return encode(tokens, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(model, "encode", short_of_memory)
        lease = cache.acquire(tokens)
    assert tried == [200, 100, 50, 50, 50, 50] and lease.encoded == 200
    assert [entry.tokens.tolist() for entry in cache.entries] == [tokens]
    assert_holds(cache, lease.kv, tokens)


def test_buffers_that_could_not_all_grow_grow_later(
    model: DiffusionGemma, cache: PrefixCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    read(cache, PROMPT[:20])
    grow, grown = KeyValues._grown, list[int]()

    def short_of_memory(kv: KeyValues, layer: int, *rest: Any) -> Tensor:
        grown.append(layer)
        if len(grown) == 4:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 64 bytes.")
        return grow(kv, layer, *rest)

    monkeypatch.setattr(KeyValues, "_grown", short_of_memory)
    lease = cache.acquire(PROMPT)
    assert grown[:4] == [0, 0, 1, 1] and len(grown) > 8
    assert_holds(cache, lease.kv, PROMPT)


def test_a_prompt_that_is_kept_is_taken_rather_than_a_longer_one_cut(cache: PrefixCache) -> None:
    """If two prompts of one request recur, the shared part is copied once."""
    for _ in range(3):
        read(cache, PROMPT[:20])
        read(cache, [*PROMPT[:20], *PROMPT])
        assert len(cache.entries) == 2 if cache.encoded_tokens > 60 else len(cache.entries) <= 2
    assert cache.encoded_tokens == 60


@pytest.mark.parametrize("length", [0, 513])
def test_a_prompt_that_is_empty_or_too_long_is_refused(cache: PrefixCache, length: int) -> None:
    with pytest.raises(InputError, match=f"{length} tokens, but the model takes 1 to 512"):
        cache.acquire([1] * length)
    assert cache.entries == []


def test_no_lease_stays_behind_a_run(model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser = Denoiser(model)
    good = DenoiseRequest(PROMPT, Canvas.of(Slots(4)), SamplingConfig(2))
    denoiser.run([good, good])
    with pytest.raises(InputError):
        denoiser.run([good, DenoiseRequest([], Canvas.of(Slots(4)))])
    with pytest.raises(IndexError):
        denoiser.run([good, DenoiseRequest(PROMPT, Canvas.of(Slots(4)), banned=torch.tensor([120]))])
    with pytest.raises(ZeroDivisionError):
        denoiser.run([good], lambda runs: bool(1 / 0))
    with monkeypatch.context() as patch:
        patch.setattr(denoiser.own_draws, "noise", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            denoiser.run([good])
    assert [entry.users for entry in denoiser.cache.entries] == [0]


def test_a_prompt_is_read_in_larger_parts_on_a_gpu() -> None:
    sizes = [prefix_cache.stoppable_chunk(torch.device(name)) for name in ("cpu", "cuda", "mps")]
    assert sizes == [prefix_cache.STOPPABLE_CHUNK, prefix_cache.ENCODE_CHUNK, prefix_cache.ENCODE_CHUNK]
