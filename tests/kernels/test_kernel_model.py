"""The whole fused model compared with the plain one, and products with quantized weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from engine import device_setup, self_check
from engine.config import ModelConfig
from engine.kernels.linear import best_splits, best_tiling, quantized_linear
from engine.kernels.mixture import Tiling, tokens_a_block
from engine.kernels.tiles import in_quarters
from engine.key_values import BatchedCanvasMemory, CanvasMemory, KeyValues, PromptMemory
from engine.models import fused
from engine.models.diffusion_gemma import DiffusionGemma
from engine.models.fused import FusedModel, fuse
from engine.models.quantized import QuantizedModel
from engine.quantized import FORMATS, Format, QuantizedWeight, pack_bytes, quantize_weight
from tests.kernels.test_kernel_mixture import multiplied

WIDER = {"hidden_size": 64, "intermediate_size": 32, "moe_intermediate_size": 32}  # which int4 can group
CONFIG: dict[str, Any] = {
    "model_type": "diffusion_gemma",
    "canvas_length": 8,
    "text_config": {
        "vocab_size": 150,
        "hidden_size": 48,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "global_head_dim": 32,
        "num_global_key_value_heads": 1,
        "sliding_window": 6,
        "layer_types": ["sliding_attention", "full_attention"],
        "num_experts": 4,
        "top_k_experts": 2,
        "moe_intermediate_size": 24,
    },
}


def random_model(config: Mapping[str, Any] = CONFIG) -> DiffusionGemma:
    torch.manual_seed(0)
    model = DiffusionGemma(ModelConfig.from_json(config)).requires_grad_(False)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.uniform_(0.5, 1.5)
        else:
            parameter.normal_(0, parameter.shape[-1] ** -0.5)
    for layer in model.layers:
        layer.encoder_scalar.fill_(0.9)  # type: ignore[operator, union-attr]
        layer.decoder_scalar.fill_(0.7)  # type: ignore[operator, union-attr]
    return model


def both_passes(model: DiffusionGemma, prompts: list[list[int]], widths: list[int]) -> Tensor:
    """Hidden states of a batch of canvases after prompts that the same model has encoded."""
    rows = []
    for prompt in prompts:
        kv = KeyValues(model.config, torch.device("cpu"), torch.float32)
        memory = PromptMemory(kv, len(prompt))
        model.encode(torch.tensor([prompt]), memory.positions(), memory.masks(), memory)
        memory.commit()
        rows.append(kv)
    single = len(rows) == 1
    canvas = CanvasMemory(rows[0], widths[0]) if single else BatchedCanvasMemory(rows, widths)
    torch.manual_seed(4)
    tokens = torch.randint(0, 150, (len(rows), max(widths)))
    belief = torch.randn(*tokens.shape, model.config.hidden_size)
    return model.denoise(tokens, belief, canvas.positions(), canvas.masks(), canvas)


@torch.inference_mode()
@pytest.mark.parametrize(("prompts", "widths"), [([range(3, 14)], [7]), ([[5], range(20, 28)], [3, 5])])
def test_both_passes_are_those_of_the_plain_model(prompts: list[list[int]], widths: list[int]) -> None:
    prompts = [list(prompt) for prompt in prompts]
    wanted = both_passes(random_model(), prompts, widths)
    found = both_passes(fuse(random_model()), prompts, widths)
    for row, width in enumerate(widths):
        torch.testing.assert_close(found[row, :width], wanted[row, :width], atol=2e-4, rtol=2e-4)


@torch.inference_mode()
def test_keys_alone_are_those_of_a_whole_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    model, mixtures = fuse(random_model()), list[int]()
    by_slot = fused.by_slot
    monkeypatch.setattr(fused, "by_slot", lambda *arguments: mixtures.append(1) or by_slot(*arguments))
    found = []
    for keys_only in (False, True):
        kv = KeyValues(model.config, torch.device("cpu"), torch.float32)
        memory = PromptMemory(kv, 9)
        model.encode(torch.arange(3, 12)[None], memory.positions(), memory.masks(), memory, keys_only)
        found.append(torch.cat([part[:, :, :9].flatten() for part in (*kv.keys, *kv.values)]))
    assert torch.equal(*found) and len(mixtures) == 2 + 1


@torch.inference_mode()
def test_a_model_without_a_mixture_is_one_of_one_expert() -> None:
    config = {**CONFIG, "text_config": {**CONFIG["text_config"], "num_experts": 1, "top_k_experts": 1}}
    prompts, widths = [list(range(3, 14))], [7]
    wanted = both_passes(random_model(config), prompts, widths)
    torch.testing.assert_close(both_passes(fuse(random_model(config)), prompts, widths), wanted, atol=2e-4, rtol=2e-4)


@torch.inference_mode()
def test_a_quantized_model_is_the_plain_one_with_dequantized_weights() -> None:
    plain = random_model()
    for layer in plain.layers:
        for weights in (layer.experts.gate_up_proj, layer.experts.down_proj):  # type: ignore[union-attr]
            weights.copy_(quantize_weight(weights, "fp8").dequantize())  # type: ignore[arg-type, operator]
    wanted = both_passes(plain, [[3, 4, 5]], [5])
    found = both_passes(fuse(random_model(), experts="fp8"), [[3, 4, 5]], [5])
    torch.testing.assert_close(found, wanted, atol=5e-4, rtol=5e-4)


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["fp8", "int4"])
def test_a_model_in_few_bits_is_fused_as_it_is(kind: Format) -> None:
    torch.manual_seed(1)
    config = {**CONFIG, "text_config": {**CONFIG["text_config"], **WIDER}}
    plain = QuantizedModel(random_model(config), lambda name, weight: quantize_weight(weight, kind))  # type: ignore[arg-type]
    fused = fuse(plain)
    assert fused.fused_layers[1].down is plain.layers[1].mlp.down_proj.quantized  # type: ignore[union-attr]
    assert 0.9 * plain.weight_bytes < fused.weight_bytes <= plain.weight_bytes  # norms and routers do not count
    prompts = [[3, 4, 5]]
    found, wanted = both_passes(fused, prompts, [5]), both_passes(plain, prompts, [5])
    assert (found - wanted).norm() < 1e-2 * wanted.norm()  # kernels dequantize packed formats to bfloat16


@torch.inference_mode()
def test_a_model_whose_kernels_fail_or_err_is_not_taken(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(self_check, "COMPARED", 4)
    monkeypatch.setattr(self_check, "WIDEST", 6)
    plain = random_model()
    assert isinstance(device_setup.fused_or_plain(plain), FusedModel)
    monkeypatch.setattr("engine.models.fused.add_normed", lambda x, product, *rest: (x, [x, x, x]))
    assert device_setup.fused_or_plain(plain) is plain and "its results are wrong" in caplog.text

    def out_of_resources(*arguments: object) -> None:
        raise RuntimeError("out of resource: shared memory")

    monkeypatch.setattr("engine.models.fused.by_slot", out_of_resources)
    assert device_setup.fused_or_plain(plain) is plain and "shared memory" in caplog.text


@torch.inference_mode()
def test_the_stats_of_few_rows_equal_those_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    model = fuse(random_model())
    hidden, temperature = torch.randn(5, 48), torch.full((5,), 0.5)
    inside = model.logit_stats(hidden, temperature, 4)
    monkeypatch.setattr("engine.models.fused.FUSED_HEAD_ROWS", 0)
    outside = model.logit_stats(hidden, temperature, 4)
    assert torch.equal(inside.top_tokens, outside.top_tokens)
    torch.testing.assert_close(inside.entropy, outside.entropy, atol=1e-4, rtol=1e-4)
    logits = model.logits(hidden) / 0.5
    few = model.embed_few(inside.top_tokens, inside.top_probabilities)
    full = model.embed_mean(torch.zeros(5, 150).scatter(1, inside.top_tokens.long(), inside.top_probabilities))
    torch.testing.assert_close(few, full, atol=1e-4, rtol=1e-4)
    assert torch.equal(inside.argmax, logits.argmax(-1))


@pytest.mark.parametrize("tiling", [None, Tiling(tokens=16, rows=32, columns=8)])
@pytest.mark.parametrize("kind", FORMATS)
def test_a_product_with_a_quantized_weight(kind: Format, tiling: Tiling | None) -> None:
    torch.manual_seed(3)
    weight, x = torch.randn(70, 96), torch.randn(2, 9, 96)
    quantized = quantize_weight(weight.half() if kind == "plain" else weight, kind)
    found = quantized_linear(x, quantized, tiling)
    torch.testing.assert_close(found, x @ multiplied(quantized, x.dtype).T, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("splits", [2, 3])
@pytest.mark.parametrize("kind", FORMATS)
def test_the_parts_of_a_product_add_up_to_it(kind: Format, splits: int) -> None:
    torch.manual_seed(3)
    weight, x = torch.randn(70, 160), torch.randn(2, 9, 160)
    quantized = quantize_weight(weight.half() if kind == "plain" else weight, kind)
    found = quantized_linear(x, quantized, Tiling(tokens=16, rows=32, columns=8), splits)
    assert found.shape == (splits, 2, 9, 70) and all(part.abs().max() > 0.1 for part in found)
    torch.testing.assert_close(found.sum(dim=0), x @ multiplied(quantized, x.dtype).T, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_a_model_whose_products_are_split_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    config = {**CONFIG, "text_config": {**CONFIG["text_config"], **WIDER}}
    wanted = both_passes(fuse(random_model(config), dense="fp8"), [[3, 4, 5]], [5])
    monkeypatch.setattr("engine.kernels.linear.best_splits", lambda *_: 2)
    monkeypatch.setattr("engine.kernels.linear.FEW", Tiling(tokens=16, columns=16))
    found = both_passes(fuse(random_model(config), dense="fp8"), [[3, 4, 5]], [5])
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_products_are_split_until_there_are_programs_for_the_whole_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.kernels.tiles.multiprocessors", lambda device: 132)
    down = quantize_weight(torch.randn(2816, 2112), "fp8")

    def splits(tokens: int) -> int:
        return best_splits(torch.device("cpu"), down, tokens, best_tiling(down, tokens))

    assert [splits(tokens) for tokens in (1, 32, 128, 256, 1024)] == [4, 2, 2, 1, 1]


@pytest.mark.parametrize(("group", "dtype"), [(32, torch.float16), (64, torch.bfloat16), (128, torch.float16)])
def test_every_code_of_int4_with_scales_of_any_size(group: int, dtype: torch.dtype) -> None:
    torch.manual_seed(4)
    codes = torch.stack([torch.randperm(256)[:128] for _ in range(6)]).to(torch.uint8)
    scales = (torch.randn(6, 256 // group) * 10.0 ** torch.randint(-4, 4, (6, 256 // group))).to(dtype)
    quantized = QuantizedWeight("int4", codes, None, scales, group)
    found = quantized_linear(torch.eye(256), quantized)
    assert torch.equal(found.T, quantized.dequantize(torch.bfloat16).float()), "each product is a weight"


def test_every_product_of_nvfp4_is_exact() -> None:
    scales = torch.arange(126, dtype=torch.uint8).view(torch.float8_e4m3fn)[:, None]
    codes = pack_bytes(torch.arange(16).to(torch.uint8)).repeat(126, 1)
    quantized = QuantizedWeight("nvfp4", codes, None, scales, 16)
    assert torch.equal(quantized_linear(torch.eye(16), quantized).T, quantized.dequantize())


def test_an_input_in_quarters_is_in_the_order_words_are_read() -> None:
    column = torch.arange(16)
    found = in_quarters(column[None])[0].tolist()
    assert found == [0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15]
    assert [found.index(one) for one in range(16)] == (column % 4 * 4 + column // 8 * 2 + column // 4 % 2).tolist()


def test_blocks_grow_with_what_an_expert_gets() -> None:
    assert [tokens_a_block(slots, 128) for slots in (8, 2048, 2049, 100_000)] == [16, 16, 32, 64]
