"""The forward pass and the denoising trajectory compared with those of transformers, with random weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.models.diffusion_gemma.generation_diffusion_gemma import EntropyBoundSamplerConfig

from engine.canvas import Canvas, Slots
from engine.canvas_run import DenoiseRequest, StepCallback
from engine.config import SamplingConfig
from engine.denoiser import Denoiser
from engine.key_values import BatchedCanvasMemory, CanvasMemory, KeyValues, PromptMemory
from engine.models.diffusion_gemma import DiffusionGemma
from engine.prefix_cache import PrefixCache
from tests.engine.tiny import ours, reference

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "sliding and full": {},
    "one expert": {"num_experts": 1, "top_k_experts": 1},
    "many experts": {"num_experts": 16, "top_k_experts": 4},
    "full only": {"layer_types": ["full_attention"] * 3, "num_hidden_layers": 3},
    "sliding, then one full": {
        "layer_types": ["sliding_attention"] * 3 + ["full_attention"],
        "sliding_window": 5,
    },
    "no grouping": {"num_key_value_heads": 4, "num_global_key_value_heads": 4, "global_head_dim": 16},
    "wide window": {"sliding_window": 64},
}


def encode(model: DiffusionGemma, tokens: Tensor, chunks: Sequence[int]) -> KeyValues:
    kv = KeyValues(model.config, tokens.device, torch.float32)
    for chunk in tokens.split(list(chunks)):
        memory = PromptMemory(kv, len(chunk))
        model.encode(chunk[None], memory.positions(), memory.masks(), memory)
        memory.commit()
    return kv


def generate(
    denoiser: Denoiser, prompt: list[int], count: int, sampling: SamplingConfig, on_step: StepCallback | None = None
) -> list[int]:
    """`count` tokens, canvas after canvas: a finished canvas joins the prompt of the next, as in transformers."""
    tokens, width = list(prompt), denoiser.model.config.canvas_length
    for _ in range(count // width):
        tokens += denoiser.run([DenoiseRequest(tokens, Canvas.of(Slots(width)), sampling)], on_step)[0].tokens.tolist()
    return tokens[len(prompt) :]


@pytest.mark.parametrize("name", CONFIGURATIONS)
@pytest.mark.parametrize("conditioned", [False, True])
@torch.inference_mode()
def test_logits_equal_transformers(name: str, conditioned: bool) -> None:
    theirs = reference(**CONFIGURATIONS[name])
    mine = ours(theirs)
    prompts, canvas = torch.randint(120, (3, 21)), torch.randint(120, (3, 12))
    beliefs = torch.randn(3, 12, 120) * 3 if conditioned else None
    expected = theirs(
        input_ids=prompts,
        decoder_input_ids=canvas,
        self_conditioning_logits=beliefs,
        past_key_values=DynamicCache(config=theirs.config.text_config),
    ).logits
    rows = [encode(mine, prompt, (21,)) for prompt in prompts]
    memory = BatchedCanvasMemory(rows, [12] * 3)
    belief = torch.zeros(3, 12, 48) if beliefs is None else mine.embed_mean(beliefs.softmax(-1))
    batched = mine.logits(mine.denoise(canvas, belief, memory.positions(), memory.masks(), memory))
    assert expected.std() > 0.5
    torch.testing.assert_close(batched, expected, atol=1e-4, rtol=0)
    single = CanvasMemory(rows[1], 12)
    alone = mine.logits(mine.denoise(canvas[1:2], belief[1:2], single.positions(), single.masks(), single))
    torch.testing.assert_close(alone, expected[1:2], atol=1e-4, rtol=0)


@torch.inference_mode()
def test_encoding_in_pieces_equals_encoding_at_once() -> None:
    mine = ours(reference())
    prompt = torch.randint(120, (30,))
    whole, pieces = encode(mine, prompt, (30,)), encode(mine, prompt, (1, 12, 17))
    for layer in range(4):
        torch.testing.assert_close(pieces.keys[layer][:, :, :30], whole.keys[layer][:, :, :30], atol=1e-4, rtol=0)


@torch.inference_mode()
def test_rows_of_unequal_length_do_not_see_each_others_padding() -> None:
    mine = ours(reference())
    prompts = [torch.randint(120, (length,)) for length in (3, 25, 9)]
    canvases = [torch.randint(120, (width,)) for width in (12, 5, 9)]
    rows = [encode(mine, prompt, (len(prompt),)) for prompt in prompts]
    memory = BatchedCanvasMemory(rows, [len(canvas) for canvas in canvases])
    padded = torch.zeros(3, 12, dtype=torch.long)
    for row, canvas in enumerate(canvases):
        padded[row, : len(canvas)] = canvas
    together = mine.denoise(padded, torch.zeros(3, 12, 48), memory.positions(), memory.masks(), memory)
    for row, canvas in enumerate(canvases):
        single = CanvasMemory(rows[row], len(canvas))
        alone = mine.denoise(canvas[None], torch.zeros(1, len(canvas), 48), single.positions(), single.masks(), single)
        torch.testing.assert_close(together[row, : len(canvas)], alone[0], atol=1e-5, rtol=0)


class TransformersDraws:
    """Draws from torch's global generator in the order and shapes of transformers' generate (one row)."""

    def __init__(self, vocab: int) -> None:
        self.vocab = vocab

    def noise(self, rows: Sequence[int], present: Tensor) -> Tensor:
        return torch.randint(0, self.vocab, tuple(present.shape))

    def choose(self, rows: Sequence[int], probabilities: Tensor, present: Tensor) -> Tensor:
        return torch.multinomial(probabilities.flatten(0, 1), 1).view(present.shape)


@pytest.mark.parametrize("name", ["sliding and full", "one expert", "sliding, then one full"])
@pytest.mark.parametrize("seed", [1, 2])
def test_trajectory_equals_transformers_through_two_canvases(name: str, seed: int) -> None:
    theirs = reference(seed=seed, feedback=0.01, **CONFIGURATIONS[name])
    mine = ours(theirs)
    prompt = torch.randint(120, (1, 17))
    settings = {
        "max_denoising_steps": 24,
        "t_min": 0.2,
        "t_max": 0.6,
        "confidence_threshold": 0.4,
        "stability_threshold": 1,
    }
    drafts: list[list[int]] = []

    class Streamer:
        def put(self, value: Tensor) -> None: ...

        def put_draft(self, value: Tensor) -> None:
            drafts.append(value[0].tolist())

        def end(self) -> None: ...

    torch.manual_seed(seed)
    expected = (
        theirs.generate(
            prompt,
            max_new_tokens=24,
            sampler_config=EntropyBoundSamplerConfig(entropy_bound=2.0),
            eos_token_id=None,
            streamer=Streamer(),
            **settings,
        )
        .sequences[0, 17:]
        .tolist()
    )
    sampling = SamplingConfig(24, 2.0, 0.2, 0.6, 1, 0.4)
    trajectory: list[list[int]] = []
    denoiser = Denoiser(mine, draws=TransformersDraws(120))
    torch.manual_seed(seed)
    written = generate(
        denoiser, prompt[0].tolist(), 24, sampling, lambda runs: trajectory.append(runs[0].argmax.tolist())
    )
    assert len({tuple(draft) for draft in drafts}) > 4, "the reference must move, or equality proves nothing"
    assert trajectory == drafts
    assert written == expected
    with torch.no_grad():
        mine.self_conditioning.mlp.down_proj.weight.zero_()
    torch.manual_seed(seed)
    without = generate(Denoiser(mine, draws=TransformersDraws(120)), prompt[0].tolist(), 24, sampling)
    assert without != expected, "the self-conditioning must matter, or its equality is not tested"


def test_batched_trajectory_equals_transformers() -> None:
    theirs = reference(seed=5, feedback=0.02)
    mine = ours(theirs)
    prompts = torch.randint(120, (2, 11))
    torch.manual_seed(7)
    expected = theirs.generate(
        prompts,
        max_new_tokens=12,
        sampler_config=EntropyBoundSamplerConfig(entropy_bound=1.0),
        eos_token_id=None,
        max_denoising_steps=9,
        t_min=0.2,
        t_max=0.6,
        confidence_threshold=1e-9,
        stability_threshold=1,
    ).sequences[:, 11:]
    sampling = SamplingConfig(9, 1.0, 0.2, 0.6, 1, 1e-9)
    denoiser = Denoiser(mine, PrefixCache(mine), TransformersDraws(120))
    torch.manual_seed(7)
    first_noise = torch.randint(0, 120, (2, 12))
    requests = [
        DenoiseRequest(prompt.tolist(), Canvas.of(Slots(12, draft=noise.tolist())), sampling)
        for prompt, noise in zip(prompts, first_noise, strict=True)
    ]
    runs = [denoiser.start(request) for request in requests]
    for run in runs:
        run.belief = torch.zeros_like(run.belief)
    torch.manual_seed(7)
    torch.randint(0, 120, (2, 12))
    while any(run.finished is None for run in runs):
        denoiser.step(runs)
    assert torch.equal(torch.stack([run.argmax for run in runs]), expected)
