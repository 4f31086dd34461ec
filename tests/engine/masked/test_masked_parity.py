"""The masked denoiser computes what the published generation code computes: logits, and whole trajectories."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from engine.canvas import Canvas, Known, Slots
from engine.canvas_run import CanvasRun, DenoiseRequest
from engine.masked.config import MaskedSampling
from tests.engine.masked import reference
from tests.engine.masked.reference import draws, fill, predictions, tiny_masked, tiny_reference

BEFORE, AFTER = [3, 14, 15, 92, 65, 35], [89, 79, 32, 38]
DRAWN = [
    {"temperature": 0.0, "top_p": None},
    {"temperature": 0.9, "top_p": 0.9},
    {"temperature": 1.3, "top_p": None, "top_k": 5},
]
GREEDY = MaskedSampling(max_steps=8, temperature=0.0, top_p=None)


def request(hole: int, sampling: MaskedSampling, most: int | None = None) -> DenoiseRequest:
    """The known tokens in front are partly prompt and partly canvas."""
    canvas = Canvas.of(Known(BEFORE[2:]), Slots(hole), Known(AFTER))
    growth = () if most is None else ((hole, most),)
    return DenoiseRequest(BEFORE[:2], canvas, sampling, growth=growth)


def trajectory(denoiser: reference.MaskedDenoiser, asked: DenoiseRequest) -> list[list[int]]:
    found: list[list[int]] = []

    def on_step(runs: Sequence[CanvasRun]) -> None:
        content = runs[0].canvas[runs[0].columns].tolist()
        found.append(content)

    denoiser.run([asked], on_step)
    return found


@pytest.mark.parametrize("shifted", [True, False])
@pytest.mark.parametrize("cached", [True, False])
def test_logits_are_those_of_transformers_with_full_attention(shifted: bool, cached: bool) -> None:
    model = tiny_reference()
    denoiser = tiny_masked(model, cached=cached, shifted=shifted)
    run = denoiser.start(request(5, GREEDY))
    denoiser.step([run])
    tokens = [*BEFORE, *[reference.MASK] * 5, *AFTER]
    expected = predictions(model, tokens, shifted)[len(BEFORE) : len(BEFORE) + 5]
    kept = [
        token for token in range(reference.VOCAB) if token not in (reference.MASK, reference.EXPAND, reference.DELETE)
    ]
    assert run.logits is not None
    torch.testing.assert_close(run.logits[:, kept], expected[:, kept], atol=1e-4, rtol=0)


@pytest.mark.parametrize("order", ["origin", "maskgit_plus", "topk_margin", "entropy"])
@pytest.mark.parametrize("tokens_per_step", [None, 1, 3])
@pytest.mark.parametrize("drawn", DRAWN)
def test_a_trajectory_is_that_of_the_published_code(
    order: str, tokens_per_step: int | None, drawn: dict[str, float]
) -> None:
    sampling = MaskedSampling(order=order, max_steps=12, tokens_per_step=tokens_per_step, **drawn)  # type: ignore[arg-type]
    model = tiny_reference()
    expected = fill(model, BEFORE, 7, AFTER, sampling, draws())
    assert len(expected) > 1
    assert trajectory(tiny_masked(model, draws=draws()), request(7, sampling)) == expected


@pytest.mark.parametrize("hole", [1, 4, 9, 16])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("delete_rest", [True, False])
def test_lengths_change_as_in_the_published_code(hole: int, seed: int, delete_rest: bool) -> None:
    sampling = MaskedSampling(max_steps=40, temperature=1.2, top_p=None, delete_rest=delete_rest)
    model = eager_to_change(seed)
    expected = fill(model, BEFORE, hole, AFTER, sampling, draws(seed), most=16)
    denoiser = tiny_masked(model, draws=draws(seed))
    asked = request(hole, sampling, most=16)
    assert trajectory(denoiser, asked) == expected


def test_the_models_of_the_test_above_grow_and_shrink() -> None:
    sampling = MaskedSampling(max_steps=40, temperature=1.2, top_p=None)
    histories = [fill(eager_to_change(seed), BEFORE, 4, AFTER, sampling, draws(seed), most=16) for seed in range(4)]
    steps = [len(b) - len(a) for history in histories for a, b in zip(history, history[1:], strict=False)]
    assert max(steps) == 1 and min(steps) < 0


def eager_to_change(seed: int) -> reference.Qwen2ForCausalLM:
    """A model that often expands and deletes."""
    model = reference.reference(seed + 100, vocab_size=reference.VOCAB, tie_word_embeddings=False)
    with torch.no_grad():
        model.lm_head.weight[reference.EXPAND] *= 6
        model.lm_head.weight[reference.DELETE] = -model.lm_head.weight[reference.EXPAND]
    return model
