"""The four meanings of a pinned token, one test each, which fails if that meaning is dropped."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from engine.canvas import Canvas, Known, Slots
from engine.canvas_run import CanvasRun, DenoiseRequest
from engine.config import SamplingConfig
from engine.denoiser import Denoiser
from engine.graphs.recorded_steps import RecordedSteps
from engine.models.diffusion_gemma import DiffusionGemma
from tests.engine.scripted import Recorder, script, two_way
from tests.engine.tiny import ours, reference

VOCAB = 120
PROMPT = list(range(30, 47))
CANVAS = Canvas.of(Known([5, 6, 7]), Slots(4), Known([8, 9]), Slots(3), Known([10]))
PINS = [0, 1, 2, 7, 8, 12]
HOLES = [3, 4, 5, 6, 9, 10, 11]
KNOWN = [5, 6, 7, 8, 9, 10]
RESTLESS = SamplingConfig(6, 0.5, 0.4, 0.8, 1, 1e-9)


@pytest.fixture(scope="module")
def model() -> DiffusionGemma:
    model = ours(reference(feedback=0.05))
    model.embed_tokens.weight[0] = model.embed_tokens.weight[1]  # not zero, which is the token of padding
    return model


def neighbour() -> DenoiseRequest:
    """Another row of the batch, wider and with a longer prompt."""
    return DenoiseRequest(list(range(50, 80)), Canvas.of(Slots(9), Known([11] * 6)), RESTLESS, seed=9)


@pytest.mark.parametrize("batched", [False, True])
def test_the_canvas_shows_the_known_token_at_every_step(
    model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch, batched: bool
) -> None:
    recorder = Recorder(model, monkeypatch)
    Denoiser(model).run([DenoiseRequest(PROMPT, CANVAS, RESTLESS), *[neighbour()] * batched])
    assert len(recorder.tokens) == 6
    assert len({tuple(tokens[0, HOLES].tolist()) for tokens in recorder.tokens}) > 3, "the holes must move"
    for tokens in recorder.tokens:
        assert tokens[0, PINS].tolist() == KNOWN
        assert not batched or tokens[1, 9:].tolist() == [11] * 6


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("at_once", [False, True])
def test_its_self_conditioning_is_its_own_embedding(
    model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch, batched: bool, recorded: bool, at_once: bool
) -> None:
    """From the second step on, as in the release, whose first step has no self-conditioning; models that were trained
    with it from the first step on get it there."""
    monkeypatch.setattr(model, "config", replace(model.config, believes_pins_at_once=at_once))
    recorder, denoiser = Recorder(model, monkeypatch), Denoiser(model)
    if recorded:
        denoiser.recorded = RecordedSteps(model, denoiser.own_draws, None)
    denoiser.run([DenoiseRequest(PROMPT, CANVAS, RESTLESS), *[neighbour()] * batched])
    own = model.embed_tokens.weight[KNOWN] * 48**0.5
    first, *later = recorder.beliefs
    assert not first[0, HOLES].any(), "nothing is believed of the holes yet"
    assert first.any() == at_once and len(later) == 5
    for belief in [first, *later] if at_once else later:
        torch.testing.assert_close(belief[0, PINS], own, atol=0, rtol=1e-6)
    for belief in later:
        assert belief[0, HOLES].abs().sum(-1).all(), "the holes are believed to be what the last step said"


def test_a_canvas_with_a_draft_starts_with_the_embeddings_of_all_it_knows(
    model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(model, monkeypatch)
    canvas = Canvas.of(Known([5]), Slots(2, [12]), Known([8]))
    Denoiser(model).run([DenoiseRequest(PROMPT, canvas, RESTLESS)])
    own = model.embed_tokens.weight[[5, 12, 8]] * 48**0.5
    torch.testing.assert_close(recorder.beliefs[0][0, [0, 1, 3]], own, atol=0, rtol=1e-6)


def entropies(at_pins: float, at_holes: float, width: int, pins: list[int]) -> Tensor:
    """Logits of a canvas whose pinned columns have one entropy and whose holes another."""
    table = two_way(VOCAB, 20, 21, at_holes).repeat(width, 1)
    table[pins] = two_way(VOCAB, 40, 41, at_pins)
    return table


def test_it_takes_no_part_in_the_entropy_bound_and_is_certain_for_the_stop_rule(
    model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = SamplingConfig(9, 1.0, 1.0, 1.0, 1, 0.1)

    def run(says: Tensor, flicker: Tensor | None = None) -> tuple[CanvasRun, list[int]]:
        accepted: list[int] = []
        seen: list[CanvasRun] = []

        def watch(runs: list[CanvasRun]) -> None:
            accepted.append(int(runs[0].accepted.sum()))
            seen[:] = runs

        script(model, monkeypatch, lambda step: says if flicker is None or step % 2 else flicker)
        Denoiser(model).run([DenoiseRequest(PROMPT, CANVAS, plain)], watch)  # type: ignore[arg-type]
        return seen[0], accepted

    unsure_holes = entropies(0.25, 0.3, 13, PINS)
    _, accepted = run(unsure_holes)
    assert accepted == [4] * 9, "four holes of 0.3 nats fit a bound of 1.0; six pins of 0.25 would use it up"

    stopped, _ = run(entropies(0.69, 0.05, 13, PINS))
    assert (stopped.finished, stopped.steps) == ("stable", 2), "unsure pins must not keep it going"

    width, holes = len(stopped.canvas), len(stopped.columns)
    within, beyond = (share * 0.1 * width / holes for share in (0.98, 1.02))
    certain_pins, _ = run(entropies(0.69, within, 13, PINS))
    assert (certain_pins.finished, certain_pins.steps) == ("stable", 2), "the mean of the whole canvas counts"
    unsure_holes_again, _ = run(entropies(0.001, beyond, 13, PINS))
    assert unsure_holes_again.finished == "steps"

    flickering = entropies(0.001, 0.05, 13, PINS)
    flickering[PINS] = two_way(VOCAB, 41, 40, 0.001)
    stopped, _ = run(entropies(0.001, 0.05, 13, PINS), flickering)
    assert (stopped.finished, stopped.steps) == ("stable", 2), "pins that would change must not count as unrest"


@pytest.mark.parametrize("finish", ["steps", "stable", "cancelled"])
def test_it_is_in_the_output_whatever_the_model_says(
    model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch, finish: str
) -> None:
    sampling = SamplingConfig(3, 1.0, 1.0, 1.0, 1, 0.5 if finish == "stable" else 1e-9)
    script(model, monkeypatch, lambda step: entropies(0.001, 0.001, 13, PINS))
    result = Denoiser(model).run([DenoiseRequest(PROMPT, CANVAS, sampling)], lambda runs: finish != "cancelled")[0]
    assert result.finish == finish
    assert result.tokens[PINS].tolist() == KNOWN
    assert result.tokens[HOLES].tolist() == [20] * 7
    assert result.columns.tolist() == HOLES
