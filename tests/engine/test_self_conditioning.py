"""What a step passes to the next one: the mean embedding over all tokens, or over the likeliest."""

from __future__ import annotations

import pytest
import torch

from engine.canvas import Canvas, Known, Slots
from engine.canvas_run import DenoiseRequest
from engine.checkpoints.config_files import read_config
from engine.config import ModelConfig, SamplingConfig
from engine.denoiser import Denoiser
from engine.graphs.recorded_steps import RecordedSteps
from engine.graphs.step_stats import TOP, all_stats, top_stats
from engine.released import TRUE_26B
from infill.model_store import POCKET_FOLDER
from tests.engine.scripted import Recorder
from tests.engine.tiny import ours, reference

REQUEST = DenoiseRequest(
    [3, 4], Canvas.of(Known([5]), Slots(4), Known([6])), SamplingConfig(2, confidence_threshold=-1)
)


@pytest.mark.parametrize("recorded", [False, True])
@torch.inference_mode()
def test_all_tokens_count_unless_the_likeliest_are_chosen(recorded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = ours(reference(feedback=0.05))
    beliefs = {}
    for kind, stats in (("all", all_stats), ("likeliest", top_stats)):
        with monkeypatch.context() as patch:
            recorder, denoiser = Recorder(model, patch), Denoiser(model, self_conditioning=kind)  # type: ignore[arg-type]
            if recorded:
                denoiser.recorded = RecordedSteps(model, denoiser.own_draws, None, stats)
            run = denoiser.start(REQUEST)
            denoiser.step([run])
            assert run.logits is not None
            temperature = 0.4 + 0.4  # of the first step
            probabilities = torch.softmax(run.logits / temperature, dim=-1)
            denoiser.step([run])
            beliefs[kind] = recorder.beliefs[1][0, 1:5]
            denoiser.close(run)
        if kind == "likeliest":
            least = probabilities.topk(TOP, dim=-1).values[:, -1:]
            probabilities = probabilities * (probabilities >= least)
        torch.testing.assert_close(beliefs[kind], model.embed_mean(probabilities), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(beliefs["all"], beliefs["likeliest"], atol=1e-4)


def test_only_models_trained_so_get_pinned_tokens_in_their_first_step() -> None:
    assert not ModelConfig.from_json(TRUE_26B).believes_pins_at_once
    calibrated = {**TRUE_26B, "gesso": {"confidence": {"intercept": 1.0}}}
    assert not ModelConfig.from_json(calibrated).believes_pins_at_once
    assert read_config(POCKET_FOLDER).believes_pins_at_once
