"""The packed model compared with the plain one: same results, closer to float32 in bfloat16."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from engine.autoregressive import decode_greedily
from engine.canvas import Canvas, Known, Slots
from engine.canvas_run import DenoiseRequest
from engine.config import SamplingConfig
from engine.denoiser import Denoiser
from engine.key_values import BatchedCanvasMemory, CanvasMemory, KeyValues, PromptMemory
from engine.models.diffusion_gemma import DiffusionGemma
from engine.models.packed import PackedModel, pack
from engine.ops.norm import RMSNorm, UnitNorm
from engine.prefix_cache import PrefixCache
from engine.scorer import causal_log_probabilities
from tests.engine.models.test_parity import CONFIGURATIONS, encode
from tests.engine.tiny import ours, reference

VOCAB, HIDDEN = 120, 48


def both(dtype: torch.dtype = torch.float32, seed: int = 0, **config: object) -> tuple[DiffusionGemma, DiffusionGemma]:
    """The same weights, plain and packed."""
    plain = ours(reference(seed=seed, feedback=0.05, **config)).to(dtype)
    return plain, pack(copy.deepcopy(plain))


def canvas_logits(model: DiffusionGemma, prompt: Tensor, canvas: Tensor, belief: Tensor) -> Tensor:
    kv = KeyValues(model.config, prompt.device, model.embed_tokens.weight.dtype)
    memory = PromptMemory(kv, len(prompt))
    model.encode(prompt[None], memory.positions(), memory.masks(), memory)
    memory.commit()
    around = CanvasMemory(kv, len(canvas))
    embedded = model.embed_mean(belief)
    return model.logits(model.denoise(canvas[None], embedded, around.positions(), around.masks(), around))


@pytest.mark.parametrize("name", CONFIGURATIONS)
@pytest.mark.parametrize("width", [1, 5, 16, 19])
@torch.inference_mode()
def test_logits_equal_the_plain_model(name: str, width: int) -> None:
    plain, packed = both(**CONFIGURATIONS[name])
    prompt, canvas = torch.randint(VOCAB, (21,)), torch.randint(VOCAB, (width,))
    belief = (torch.randn(1, width, VOCAB) * 3).softmax(-1)
    expected = canvas_logits(plain, prompt, canvas, belief)
    assert isinstance(packed, PackedModel) and expected.std() > 0.5
    torch.testing.assert_close(canvas_logits(packed, prompt, canvas, belief), expected, atol=1e-3, rtol=0)


@torch.inference_mode()
def test_a_batch_equals_the_plain_model() -> None:
    plain, packed = both()
    prompts, canvases = torch.randint(VOCAB, (3, 9)), torch.randint(VOCAB, (3, 7))
    found = []
    for model in (plain, packed):
        memory = BatchedCanvasMemory([encode(model, prompt, (9,)) for prompt in prompts], [7] * 3)
        hidden = model.denoise(canvases, torch.zeros(3, 7, HIDDEN), memory.positions(), memory.masks(), memory)
        found.append(model.logits(hidden))
    torch.testing.assert_close(found[1], found[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("choice", ["argmax", "sample"])
def test_a_trajectory_is_the_same_token_for_token(choice: str) -> None:
    sampling = SamplingConfig(12, 1.0, 0.2, 0.6, 1, 1e-9, token_choice=choice)  # type: ignore[arg-type]
    canvas = Canvas.of(Known([5, 6, 7]), Slots(11), Known([8, 9]))
    trajectories = []
    for model in both(seed=3):
        seen: list[list[int]] = []
        request = DenoiseRequest([1, 2, 3, 4] * 5, canvas, sampling, seed=4, banned=torch.tensor([0]))
        Denoiser(model).run([request], lambda runs, seen=seen: seen.append(runs[0].tokens.tolist()))  # type: ignore[misc]
        trajectories.append(seen)
    assert trajectories[0] == trajectories[1]
    assert len({tuple(step) for step in trajectories[0]}) > 4, "it must move, or equality proves nothing"


def test_drafts_and_scores_are_the_same() -> None:
    """Token by token, beyond the window of the sliding layers; and several continuations at once."""
    drafts, scores = [], []
    for model in both(seed=1):
        cache = PrefixCache(model)
        drafts.append(decode_greedily(model, cache, list(range(3, 23)), 12, lambda tokens: False))
        scores.append(causal_log_probabilities(model, cache, [1, 2, 3], [4], [[5, 6, 7], [8], [9, 10]]))
    assert drafts[0][0] == drafts[1][0] and len(set(drafts[0][0])) > 2
    assert drafts[0][1] == pytest.approx(drafts[1][1], abs=1e-4)
    for plain, packed in zip(*scores, strict=True):
        torch.testing.assert_close(packed, plain, atol=1e-4, rtol=0)


@torch.inference_mode()
def test_bfloat16_is_nearer_to_float32_than_the_plain_model_is() -> None:
    exact, _ = both()
    plain, packed = both(torch.bfloat16)
    errors = []
    for model in (plain, packed):
        torch.manual_seed(0)
        error = 0.0
        for _ in range(6):
            prompt, canvas = torch.randint(VOCAB, (21,)), torch.randint(VOCAB, (20,))
            belief = (torch.randn(1, 20, VOCAB) * 3).softmax(-1)
            right = canvas_logits(exact, prompt, canvas, belief)
            error += float((canvas_logits(model, prompt, canvas, belief) - right).abs().mean())
        errors.append(error / 6)
    assert 0 < errors[1] < errors[0]


def test_weights_are_not_held_twice() -> None:
    plain = ours(reference())
    packed = pack(plain)
    assert pack(packed) is packed
    assert all(isinstance(layer, nn.Identity) for layer in plain.layers)


def test_a_model_on_another_device_stays_as_it_is() -> None:
    model = ours(reference()).to("meta")
    assert pack(model) is model


def test_unit_norm_is_the_norm_without_weight() -> None:
    x = torch.randn(3, 5, 16) * torch.tensor([1e-4, 1.0, 300.0])[:, None, None]
    torch.testing.assert_close(UnitNorm(16, 1e-6)(x), RMSNorm(16, 1e-6, scaled=False)(x), atol=1e-6, rtol=1e-5)
    assert not UnitNorm(16, 1e-6)(torch.zeros(2, 16)).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weight_bytes_count_the_layers(dtype: torch.dtype) -> None:
    plain, packed = both(dtype)
    embedding = plain.embed_tokens.weight.nbytes
    copies = sum(product.packed for product in (packed.head, packed.mean))
    assert plain.weight_bytes > 2 * embedding and packed.weight_bytes == plain.weight_bytes + copies * embedding
