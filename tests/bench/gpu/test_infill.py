"""Whole infills at small shapes: requests, counts, and the comparison with transformers. No time is asserted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")

from bench.gpu import agreement, step_beside  # noqa: E402
from bench.gpu import infill as infill_gpu  # noqa: E402
from bench.gpu.infill import Requests, Shape, measure  # noqa: E402
from bench.gpu.step_shapes import BUILDS, TINY, random_plain_model  # noqa: E402
from bench.gpu.step_theirs import random_theirs  # noqa: E402
from bench.speed.parity import RANDOM_MODELS, SMALL_VISION, write_random  # noqa: E402
from engine.checkpoints.tensor_views import checkpoint_views  # noqa: E402
from engine.config import ModelConfig  # noqa: E402
from engine.errors import InputError  # noqa: E402
from engine.models.diffusion_gemma import DiffusionGemma  # noqa: E402

CPU, SHAPE = torch.device("cpu"), Shape(20, 6, 3, 2)


def model() -> DiffusionGemma:
    torch.manual_seed(0)
    return random_plain_model(ModelConfig.from_json(TINY), BUILDS["int4"], CPU, torch.float32)


def test_a_first_request_encodes_its_prompt_and_the_next_key_continues() -> None:
    requests = Requests(model(), SHAPE)
    first = requests.first()
    assert (first.encoded_tokens, first.steps, len(first.columns)) == (20, 3, 6)
    assert first.tokens.tolist()[:24] == requests._known and len(first.tokens) == 24 + 6 + 40
    typed = first.tokens[first.columns].tolist()
    second = requests.next(first)
    assert (second.encoded_tokens, second.steps) == (0, 2)
    assert second.tokens.tolist()[23] == typed[0], "the typed token is known now"
    assert requests.first().encoded_tokens == 20


def test_warm_up_does_not_count() -> None:
    times = measure(Requests(model(), SHAPE), repeats=3, warm_up=2)
    assert {name: len(one.whole) for name, one in times.items()} == {"first": 3, "next keystroke": 3}
    assert times["first"].figures()["p50_ms"] > 0


def test_the_dry_run_writes_its_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    infill_gpu.main(["int4"], 1, 2, 1, 1, 2, 1, True, "dry", tmp_path)
    figures = json.loads((tmp_path / "dry.json").read_text())["figures"]
    assert set(figures) == {"int4, first", "int4, next keystroke"}
    assert "the times mean nothing" in (tmp_path / "dry.md").read_text()
    with pytest.raises(InputError, match="int5"):
        infill_gpu.main(["int5"], 1, 2, 1, 1, 2, 1, True, "dry", tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="--tiny"):
        infill_gpu.main(None, 1, 2, 1, 1, 2, 1, False, "dry", tmp_path)


@torch.inference_mode()
def test_both_sides_have_the_same_weights_and_input() -> None:
    theirs = random_theirs(TINY, 8, CPU)
    ours = step_beside.sharing(theirs, ModelConfig.from_json(TINY), CPU)
    state = theirs.state_dict()
    for name, view in checkpoint_views(ours).items():
        assert torch.equal(view, state[name]), name
    assert ours.layers[0].experts.down_proj.data_ptr() == state["model.decoder.layers.0.experts.down_proj"].data_ptr()  # type: ignore[union-attr, operator]
    prompt, canvas = torch.arange(3, 20), torch.arange(30, 38)
    expected = step_beside.their_logits(theirs, prompt, canvas)
    assert step_beside.same_likeliest(step_beside.our_logits(ours, prompt, canvas), expected) == 1.0
    ours.embed_tokens.weight[:100] = 0
    assert step_beside.same_likeliest(step_beside.our_logits(ours, prompt, canvas), expected) < 1.0


def test_a_model_folder_agrees_with_transformers_and_with_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agreement, "choose_dtype", lambda device, name: torch.float32)
    write_random({**RANDOM_MODELS["pocket, one expert"], "canvas_length": 16, "vision_config": SMALL_VISION}, tmp_path)
    same, difference = agreement.with_transformers(tmp_path, CPU)
    assert same == 1.0 and difference < 1e-3
    assert all(tokens and difference < 1e-6 for tokens, difference in agreement.with_cpu(tmp_path, CPU))
