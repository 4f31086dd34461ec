"""The account of memory holds for what steps allocate, and the engine keeps to it."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from engine.canvas import Canvas, Known, Slots
from engine.canvas_loop import STEPS_TO_GROW
from engine.canvas_run import CanvasRun, DenoiseRequest
from engine.config import ModelConfig, SamplingConfig
from engine.denoiser import Denoiser
from engine.graphs.fixed_step import FixedStep, KeyValueBuffers
from engine.graphs.recorded_steps import RecordedSteps, bucket_for
from engine.graphs.step_stats import exact_stats
from engine.key_values import KeyValues
from engine.memory_use import CONTEXT, StepSizes, key_bytes, reserved_bytes, step_bytes
from engine.models.diffusion_gemma import DiffusionGemma
from engine.prefix_cache import PrefixCache
from engine.released import TRUE_26B
from tests.engine.tiny import ours, reference

GIB, CPU = 2**30, torch.device("cpu")
STEPS = SamplingConfig(max_steps=5, confidence_threshold=-1.0)
REQUESTS = [
    DenoiseRequest(
        range(3, 3 + 5 * n), Canvas.of(Known([5]), Slots(3 * n), Known([7])), STEPS, n + 7, torch.tensor([9])
    )
    for n in range(1, 7)
]


@pytest.fixture(scope="module")
def model() -> DiffusionGemma:
    return ours(reference(vocab_size=4000, feedback=0.05))


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of tensors that operations make, while they exist."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = {x.untyped_storage().data_ptr() for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        result = func(*args, **(kwargs or {}))
        for made in tree_leaves(result):
            if isinstance(made, Tensor) and made.untyped_storage().data_ptr() not in given:
                size = made.untyped_storage().nbytes()
                self.now += size
                weakref.finalize(made.untyped_storage(), self._free, size)
        self.peak = max(self.peak, self.now)
        return result

    def _free(self, size: int) -> None:
        self.now -= size


@pytest.mark.parametrize("batch", [1, 4])
def test_a_plain_step_stays_within_the_account(model: DiffusionGemma, batch: int) -> None:
    denoiser = Denoiser(model)
    runs = [denoiser.start(one) for one in REQUESTS[-batch:]]
    denoiser.step(runs)  # after it the logits of the last step are kept too
    with PeakMemory() as memory:
        denoiser.step(runs)
    sizes = StepSizes(batch, 20, 18, 30)
    assert memory.peak <= step_bytes(model.config, sizes, 4, 4, recorded=False) < 2 * memory.peak


def test_a_recorded_step_keeps_what_the_account_says(model: DiffusionGemma) -> None:
    denoiser = Denoiser(model)
    bucket = bucket_for([denoiser.start(one) for one in REQUESTS[:3]])
    keys = KeyValueBuffers(model.config, bucket, CPU, torch.float32)
    step = FixedStep(model, bucket, keys, exact_stats)
    tensors = [*keys.storage, *(x for x in vars(step).values() if isinstance(x, Tensor))]
    assert step.bias is not None
    written = 2 * bucket.batch * bucket.holes * model.config.vocab_size * 4  # logits and probabilities
    held = written + sum(x.nbytes for x in (*tensors, step.bias.values))
    sizes = StepSizes(bucket.batch, bucket.width, bucket.holes, bucket.prompt, bucket.bias)
    assert held <= step_bytes(model.config, sizes, 4, 4, recorded=True) < 2 * held


def test_keys_are_counted_as_they_are_stored(model: DiffusionGemma) -> None:
    kv = KeyValues(model.config, CPU, torch.float32)
    kv.reserve(30)
    assert kv.bytes == key_bytes(model.config, 30, 4)


@pytest.mark.parametrize(("weights", "most"), [(17.8e9, 20 * GIB), (16.1e9, 18 * GIB)], ids=["nvfp4", "int4"])
def test_few_bits_and_8k_of_context_fit_a_card_of_24_gb(weights: float, most: int) -> None:
    config = ModelConfig.from_json(TRUE_26B)
    assert weights + reserved_bytes(config, 2, 2, recorded=True) + GIB // 2 < most < 22 * GIB
    assert key_bytes(config, 1, 2) == 225_280


def test_the_prompt_cache_takes_no_more_than_is_free(model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.prefix_cache.LEAST_LIMIT", 0)
    monkeypatch.setattr("engine.prefix_cache.LIMIT_SHARE", 1.0)
    for free, limit in ((1 << 40, model.weight_bytes), (0, key_bytes(model.config, min(CONTEXT, 512), 4))):
        monkeypatch.setattr("engine.prefix_cache.available_memory", lambda device, free=free: free)
        assert PrefixCache(model).limit_bytes == limit


def counted(denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch, fits: int = 99) -> list[int]:
    """The number of canvases of each step from now on; memory runs out if there are more than `fits`."""
    found: list[int] = []
    step = denoiser._step if denoiser.recorded is None else denoiser.recorded.step

    def counting(runs: list[CanvasRun]) -> None:
        if len(runs) > fits:
            raise MemoryError
        found.append(len(runs))
        step(runs)

    monkeypatch.setattr(denoiser if denoiser.recorded is None else denoiser.recorded, step.__name__, counting)
    return found


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("why", ["account", "memory"])
def test_a_batch_that_does_not_fit_is_stepped_in_parts(
    model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch, recorded: bool, why: str
) -> None:
    expected = [Denoiser(model).run([one])[0] for one in REQUESTS]
    denoiser = Denoiser(model)
    if recorded:
        denoiser.recorded = RecordedSteps(model, denoiser.own_draws, None, exact_stats)
    steps = counted(denoiser, monkeypatch, fits=99 if why == "account" else 2)
    if why == "account":
        runs = [denoiser.start(one) for one in REQUESTS[-2:]]
        denoiser.step_limit = denoiser._bytes_of(runs)
        for run in runs:
            denoiser.close(run)
    results = denoiser.run(REQUESTS)
    assert max(steps) <= 3 and sum(steps) == STEPS.max_steps * len(REQUESTS)
    for found, wanted in zip(results, expected, strict=True):
        assert torch.equal(found.tokens, wanted.tokens) and found.steps == wanted.steps


def test_one_canvas_that_does_not_fit_is_an_error_and_batches_grow_again(
    model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch
) -> None:
    denoiser = Denoiser(model)
    counted(denoiser, monkeypatch, fits=0)
    with pytest.raises(MemoryError):
        denoiser.run(REQUESTS[:2])
    assert not any(entry.users for entry in denoiser.cache.entries)
    denoiser = Denoiser(model)
    steps = counted(denoiser, monkeypatch, fits=2)
    many = replace(STEPS, max_steps=STEPS_TO_GROW)
    denoiser.run([replace(one, sampling=many) for one in REQUESTS[:4]])
    assert set(steps) == {2} and denoiser._most_together == 4
