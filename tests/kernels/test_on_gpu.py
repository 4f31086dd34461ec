"""On a GPU: the fused model is used, steps are recorded, and results equal those of unrecorded steps; a code model in
bfloat16 and in int4 agrees with the CPU.

Skipped elsewhere. The model is small but has the head sizes of the 26B; everything is in bfloat16.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("triton")

from engine.canvas import Canvas, Known, Slots  # noqa: E402
from engine.canvas_run import DenoiseRequest  # noqa: E402
from engine.checkpoints import qwen2 as code_models  # noqa: E402
from engine.checkpoints.checkpoint import load_model  # noqa: E402
from engine.checkpoints.export import save_model  # noqa: E402
from engine.checkpoints.quantizing import KINDS, Kind, quantize_folder  # noqa: E402
from engine.config import ModelConfig, SamplingConfig  # noqa: E402
from engine.denoiser import Denoiser  # noqa: E402
from engine.device_setup import prepare_for_device  # noqa: E402
from engine.errors import NotFiniteError  # noqa: E402
from engine.graphs.recorded_steps import RecordedSteps  # noqa: E402
from engine.kernels import enabled  # noqa: E402
from engine.kernels.linear import linear  # noqa: E402
from engine.models.diffusion_gemma import DiffusionGemma  # noqa: E402
from engine.models.fused import FusedModel  # noqa: E402
from engine.models.qwen2 import Qwen2  # noqa: E402
from tests.engine.models.test_qwen2 import encode  # noqa: E402
from tests.engine.tiny_qwen2 import in_memory, reference  # noqa: E402

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
CUDA = torch.device("cuda", 0)
CONFIG: dict[str, Any] = {
    "model_type": "diffusion_gemma",
    "canvas_length": 256,
    "text_config": {
        "vocab_size": 3000,
        "hidden_size": 256,
        "intermediate_size": 192,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 256,
        "global_head_dim": 512,
        "num_global_key_value_heads": 1,
        "sliding_window": 64,
        "num_experts": 16,
        "top_k_experts": 4,
        "moe_intermediate_size": 128,
    },
}
SAMPLING = SamplingConfig(max_steps=6, confidence_threshold=-1.0)
BANNED = torch.arange(5, 400)
REQUESTS = [
    DenoiseRequest(range(3, 303), Canvas.of(Known(range(9)), Slots(40), Known(range(20))), SAMPLING, 1, BANNED),
    DenoiseRequest(range(7, 20), Canvas.of(Slots(200)), SAMPLING, 2),
    DenoiseRequest([4], Canvas.of(Slots(3, [8]), Known([5]), allowed={1: [7, 9]}), replace(SAMPLING, max_steps=3), 3),
]


def plain_model() -> DiffusionGemma:
    torch.manual_seed(0)
    model = DiffusionGemma(ModelConfig.from_json(CONFIG)).requires_grad_(False)
    for parameter in model.parameters():
        parameter.uniform_(0.5, 1.5) if parameter.dim() == 1 else parameter.normal_(0, parameter.shape[-1] ** -0.5)
    return model.eval()


@pytest.fixture(scope="module")
def model() -> DiffusionGemma:
    return prepare_for_device(plain_model().to(CUDA, torch.bfloat16))


def test_kernels_work_here(model: DiffusionGemma) -> None:
    assert enabled(CUDA) and isinstance(model, FusedModel)


@pytest.mark.parametrize("batch", [[0], [1], [2], [0, 1, 2], [0, 0]], ids=str)
def test_recorded_steps_answer_as_steps_that_are_not(model: DiffusionGemma, batch: list[int]) -> None:
    requests = [REQUESTS[index] for index in batch]
    recorded, unrecorded = Denoiser(model), Denoiser(model)
    unrecorded.recorded = RecordedSteps(model, unrecorded.own_draws, None)
    assert recorded.recorded is not None
    for turn in range(2):
        found, wanted = recorded.run(requests), unrecorded.run(requests)
        for mine, theirs in zip(found, wanted, strict=True):
            assert torch.equal(mine.tokens, theirs.tokens) and mine.steps == theirs.steps, f"turn {turn}"
            torch.testing.assert_close(mine.entropy, theirs.entropy)
    assert recorded.recorded.are_recorded


def test_one_recording_serves_prompts_of_many_lengths(model: DiffusionGemma) -> None:
    recorded, unrecorded = Denoiser(model), Denoiser(model)
    unrecorded.recorded = RecordedSteps(model, unrecorded.own_draws, None)
    for length in (300, 2, 63, 64, 65, 200):
        request = replace(REQUESTS[0], prompt=range(3, 3 + length))
        assert torch.equal(recorded.run([request])[0].tokens, unrecorded.run([request])[0].tokens)
    assert recorded.recorded is not None and len(recorded.recorded._slots) == 1


def test_a_first_step_is_that_of_the_plain_model(model: DiffusionGemma) -> None:
    plain = Denoiser(plain_model().to(CUDA, torch.float32))
    request = replace(REQUESTS[0], sampling=replace(SAMPLING, max_steps=1, token_choice="argmax"))
    mine, theirs = Denoiser(model).run([request])[0], plain.run([request])[0]
    assert (mine.entropy - theirs.entropy).abs().mean() < 0.1
    assert (mine.tokens == theirs.tokens).float().mean() > 0.7


@pytest.mark.parametrize("kind", KINDS)
def test_a_quantized_folder_stays_in_few_bits(kind: Kind, tmp_path: Path) -> None:
    plain = plain_model()
    save_model(plain, CONFIG, {}, tmp_path / "plain", "bfloat16")
    quantize_folder(tmp_path / "plain", tmp_path / "few", kind)
    fused = load_model(tmp_path / "few", CUDA, torch.bfloat16)
    assert isinstance(fused, FusedModel) and fused.fused_layers[0].experts_down.format == kind
    computed = load_model(tmp_path / "few", torch.device("cpu"), torch.float32)
    request = replace(REQUESTS[0], sampling=replace(SAMPLING, max_steps=1, token_choice="argmax"))
    mine, theirs = (Denoiser(one).run([request])[0] for one in (fused, computed))
    assert (mine.entropy - theirs.entropy).abs().mean() < 0.15


def test_keys_in_fp8_change_little(model: DiffusionGemma) -> None:
    small = prepare_for_device(plain_model().to(CUDA, torch.bfloat16), fp8_keys=True)
    request = replace(REQUESTS[0], sampling=replace(SAMPLING, max_steps=1, token_choice="argmax"))
    denoiser = Denoiser(small)
    mine, theirs = denoiser.run([request])[0], Denoiser(model).run([request])[0]
    assert denoiser.cache.entries[0].kv.dtype == torch.float8_e4m3fn
    assert (mine.entropy - theirs.entropy).abs().mean() < 0.2


def test_not_a_number_is_an_error() -> None:
    broken = plain_model()
    broken.embed_tokens.weight[2999] = torch.nan
    with pytest.raises(NotFiniteError):
        Denoiser(prepare_for_device(broken.to(CUDA, torch.bfloat16))).run([REQUESTS[0]])


def test_memory_that_runs_out_is_an_error_and_the_next_request_is_answered(model: DiffusionGemma) -> None:
    denoiser = Denoiser(model)
    wanted = denoiser.run([REQUESTS[0]])[0].tokens
    held = []
    try:
        with pytest.raises(torch.OutOfMemoryError):
            while True:
                held.append(torch.empty(2**30, dtype=torch.uint8, device=CUDA))
        denoiser.run([REQUESTS[1]])
    except torch.OutOfMemoryError:
        pass
    held.clear()
    torch.cuda.empty_cache()
    assert torch.equal(denoiser.run([REQUESTS[0]])[0].tokens, wanted)


@pytest.mark.parametrize("int4", [False, True], ids=["bfloat16", "int4"])
@torch.inference_mode()
def test_a_code_model_agrees_with_the_cpu(int4: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = in_memory(reference(hidden_size=512, intermediate_size=1024, vocab_size=3000))
    in_bfloat16 = code_models.weight_bytes(weights.config, torch.bfloat16)
    free = in_bfloat16 + code_models.CUDA_RESERVE_BYTES - (1 if int4 else 0)
    monkeypatch.setattr(code_models, "available_memory", lambda device: free)
    model = code_models.load_qwen2(weights, CUDA, torch.bfloat16)
    computed = code_models.plain_qwen2(weights, torch.device("cpu"), torch.float32, layers="int4" if int4 else "plain")
    assert isinstance(model, Qwen2) and bool(model.quantized_layers()) == int4
    assert all(layer.product is linear for layer in model.quantized_layers())
    tokens = torch.randint(3000, (300,))
    found, wanted = encode(model, tokens.to(CUDA), (220, 1, 70, 9)).cpu(), encode(computed, tokens, (300,))
    assert (found - wanted).norm() < 0.05 * wanted.norm()
    assert (found.argmax(-1) == wanted.argmax(-1)).float().mean() > 0.9
