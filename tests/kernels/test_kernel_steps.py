"""Whole steps with kernels, over fixed tensors, compared with the plain denoiser and the plain model."""

from __future__ import annotations

from typing import cast

import pytest
import torch

from engine.canvas import Canvas, Known, Slots
from engine.canvas_run import DenoiseRequest
from engine.config import SamplingConfig
from engine.denoiser import Denoiser
from engine.errors import NotFiniteError
from engine.graphs import fixed_step, recorded_steps
from engine.graphs.recorded_steps import RecordedSteps
from engine.models.diffusion_gemma import DiffusionGemma
from engine.models.fused import fuse
from tests.kernels.test_kernel_model import random_model

SAMPLING = SamplingConfig(max_steps=2, confidence_threshold=-1.0, token_choice="argmax", entropy_bound=6.0)


@pytest.fixture(autouse=True)
def small_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter takes a millisecond for what a GPU does in a nanosecond."""
    for name, value in (("WIDTHS", (8,)), ("MIN_HOLES", 4), ("MIN_PROMPT", 24)):
        monkeypatch.setattr(recorded_steps, name, value)


def without_feedback() -> DiffusionGemma:
    """Beliefs of few tokens and of all differ by design, so feedback is off here."""
    model = random_model()
    model.self_conditioning.mlp.down_proj.weight.zero_()
    return model


@pytest.mark.parametrize("bias", ["row", "hole"])
def test_a_batch_is_filled_as_by_the_plain_model(bias: str) -> None:
    banned = torch.arange(60)
    allowed = {2: [77, 78]} if bias == "hole" else None
    canvas = Canvas.of(Known([5, 6]), Slots(4), Known([7]), allowed=allowed)
    requests = [
        DenoiseRequest(range(3, 20), canvas, SAMPLING, 1, banned),
        DenoiseRequest([9], Canvas.of(Slots(3)), SAMPLING, 2, banned),
    ]
    wanted = Denoiser(without_feedback()).run(requests)
    model = fuse(without_feedback())
    denoiser = Denoiser(model)
    assert denoiser.recorded is None  # because this is not a GPU
    denoiser.recorded = RecordedSteps(cast(DiffusionGemma, model), denoiser.own_draws, None)
    for mine, theirs in zip(denoiser.run(requests), wanted, strict=True):
        assert torch.equal(mine.tokens, theirs.tokens) and mine.steps == theirs.steps == 2
        torch.testing.assert_close(mine.log_probabilities, theirs.log_probabilities, atol=2e-3, rtol=2e-3)
        torch.testing.assert_close(mine.entropy, theirs.entropy, atol=2e-3, rtol=2e-3)


def test_keys_and_values_are_written_where_they_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[int] = []
    monkeypatch.setattr(fixed_step, "put", lambda buffer, new: copied.append(new.numel()) or buffer.copy_(new))
    model = fuse(without_feedback())
    denoiser = Denoiser(model)
    denoiser.recorded = RecordedSteps(model, denoiser.own_draws, None)
    request = DenoiseRequest(range(3, 20), Canvas.of(Known([5, 6]), Slots(4)), SAMPLING)
    wanted = Denoiser(without_feedback()).run([request])[0]
    assert torch.equal(denoiser.run([request])[0].tokens, wanted.tokens) and copied == []


def test_samples_depend_on_the_seed_alone() -> None:
    sampling = SamplingConfig(max_steps=1, confidence_threshold=-1.0, entropy_bound=1e3)
    model = fuse(without_feedback())

    def filled(seed: int, others: int) -> list[int]:
        denoiser = Denoiser(model)
        denoiser.recorded = RecordedSteps(model, denoiser.own_draws, None)
        canvases = [DenoiseRequest([3, 4], Canvas.of(Slots(4)), sampling, number) for number in (seed, *range(others))]
        run = [denoiser.start(request) for request in canvases]
        denoiser.step(run)
        return run[0].tokens.tolist()

    assert filled(5, 0) == filled(5, 1) != filled(6, 0)


def test_not_a_number_is_seen_by_the_kernels() -> None:
    model = fuse(without_feedback())
    model.embed_tokens.weight[149] = torch.nan  # one token's logit; no hole holds it
    denoiser = Denoiser(model)
    denoiser.recorded = RecordedSteps(model, denoiser.own_draws, None)
    with pytest.raises(NotFiniteError):
        denoiser.run([DenoiseRequest([3, 4], Canvas.of(Slots(6)), SAMPLING)])
