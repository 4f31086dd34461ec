"""Synthetic checkpoints in published layouts: once loaded, they compute what their numbers say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from engine.checkpoints import quantized_loading as loading
from engine.checkpoints.checkpoint import load_model
from engine.checkpoints.tensor_views import checkpoint_views
from engine.checkpoints.verification import verify
from engine.config import ModelConfig
from engine.errors import ModelError
from engine.key_values import CanvasMemory, KeyValues
from engine.models.diffusion_gemma import DiffusionGemma
from engine.models.packed import PackedModel, pack
from engine.models.quantized import QuantizedLinear, QuantizedModel
from engine.quantized import QuantizedWeight, quantize_weight, unpack_bytes

CPU = torch.device("cpu")
CONFIG: dict[str, Any] = {
    "model_type": "diffusion_gemma",
    "text_config": {
        "vocab_size": 60,
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "global_head_dim": 32,
        "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention"],
        "num_experts": 2,
        "top_k_experts": 1,
        "moe_intermediate_size": 32,
    },
}


def modelopt(base: str, weight: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    made = quantize_weight(weight, "nvfp4")
    assert made.row_scales is not None and made.group_scales is not None
    parts = {"weight": made.numbers, "weight_scale": made.group_scales, "weight_scale_2": made.row_scales[0]}
    parts["input_scale"] = torch.tensor(0.1)
    return _named(base, parts), made.dequantize()


def nvfp4_packed(base: str, weight: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    made = quantize_weight(weight, "nvfp4")
    assert made.row_scales is not None and made.group_scales is not None
    parts = {"weight_packed": made.numbers, "weight_scale": made.group_scales}
    parts["weight_global_scale"] = 1 / made.row_scales[:1]
    return _named(base, parts), made.dequantize()


def fp8_by_row(base: str, weight: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    made = quantize_weight(weight, "fp8")
    assert made.row_scales is not None
    scales = made.row_scales[:, None].bfloat16()
    return _named(base, {"weight": made.numbers, "weight_scale": scales}), made.numbers.float() * scales.float()


def fp8_by_tensor(base: str, weight: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    numbers, scale = weight.to(torch.float8_e4m3fn), torch.tensor([0.5])
    return _named(base, {"weight": numbers, "weight_scale": scale}), numbers.float() * scale


def int4_packed(base: str, weight: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    made = quantize_weight(weight, "int4")
    assert made.group_scales is not None
    codes = unpack_bytes(made.numbers).to(torch.int64).unflatten(-1, (-1, 8))
    words = (codes << torch.arange(0, 32, 4)).sum(-1)
    words = torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)
    parts = {"weight_packed": words, "weight_scale": made.group_scales, "weight_shape": torch.tensor(weight.shape)}
    return _named(base, parts), made.dequantize()


LAYOUTS = {
    "modelopt": (modelopt, "modelopt", ("experts",)),
    "nvfp4-pack-quantized": (nvfp4_packed, "compressed-tensors", ("experts", "mlp")),
    "float-quantized": (fp8_by_row, "compressed-tensors", ("experts", "mlp", "self_attn")),
    "float-quantized, one scale": (fp8_by_tensor, "compressed-tensors", ("experts",)),
    "pack-quantized": (int4_packed, "compressed-tensors", ("experts", "self_attn")),
}


def _named(base: str, parts: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{base}.{name}": part.contiguous() for name, part in parts.items()}


def write(folder: Path, layout: str) -> DiffusionGemma:
    """Writes a random model in this layout; returns the plain model with the stored numbers."""
    how, method, kinds = LAYOUTS[layout]
    torch.manual_seed(0)
    model = DiffusionGemma(ModelConfig.from_json(CONFIG)).requires_grad_(False)
    for parameter in model.parameters():
        parameter.uniform_(0.5, 1.5) if parameter.dim() == 1 else parameter.normal_(0, parameter.shape[-1] ** -0.5)
    tensors: dict[str, Tensor] = {}
    for name, view in checkpoint_views(model).items():
        if ".experts." in name:
            count, kind = len(view), name.rsplit(".", 1)[1]
            parts = view.chunk(2, dim=1) if kind == "gate_up_proj" else (view,)
            for part, own in zip(parts, ("gate", "up") if len(parts) == 2 else ("down",), strict=True):
                for expert in range(count):
                    base = name.removesuffix(kind) + f"{expert}.{own}_proj"
                    stored, values = how(base, part[expert].clone())
                    tensors |= stored
                    part[expert].copy_(values)
        elif name.endswith("_proj.weight") and "layers." in name and any(f".{kind}." in name for kind in kinds):
            stored, values = how(name.removesuffix(".weight"), view.clone())
            tensors |= stored
            view.copy_(values)
        else:
            tensors[name] = view.clone().contiguous()
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**CONFIG, "quantization_config": {"quant_method": method}}))
    return model


def hidden_of(model: DiffusionGemma) -> Tensor:
    kv = KeyValues(model.config, CPU, torch.float32)
    memory = CanvasMemory(kv, 5)
    torch.manual_seed(1)
    tokens, belief = torch.randint(0, 60, (1, 5)), torch.randn(1, 5, 64)
    return model.denoise(tokens, belief, memory.positions(), memory.masks(), memory)


def few_bytes(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Leaves memory for the weights as they are stored, but not for more."""
    size = (folder / "model.safetensors").stat().st_size
    monkeypatch.setattr(loading, "reserved_bytes", lambda *sizes: 0)
    monkeypatch.setattr(loading, "available_memory", lambda device: size)


@torch.inference_mode()
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_published_layout_computes_what_its_numbers_say(layout: str, tmp_path: Path) -> None:
    wanted = hidden_of(write(tmp_path, layout))
    done: list[tuple[int, int]] = []
    model = load_model(tmp_path, CPU, torch.float32, lambda *progress: done.append(progress))
    torch.testing.assert_close(hidden_of(model), wanted, atol=1e-4, rtol=1e-4)
    assert 0 < done[-1][0] <= done[-1][1] and not any(p.requires_grad for p in model.parameters())
    assert not isinstance(model, QuantizedModel) and isinstance(pack(model), PackedModel)


@torch.inference_mode()
@pytest.mark.parametrize("layout", LAYOUTS)
def test_where_memory_is_short_the_weights_stay_in_few_bits(
    layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = hidden_of(write(tmp_path, layout))
    few_bytes(monkeypatch, tmp_path)
    model = load_model(tmp_path, CPU, torch.float32)
    assert isinstance(model, QuantizedModel) and "stay quantized" in caplog.text
    torch.testing.assert_close(hidden_of(model), wanted, atol=1e-4, rtol=1e-4)
    gate_up = model.layers[0].experts.gate_up_proj  # type: ignore[union-attr]
    names = {"modelopt": "nvfp4", "nvfp4-pack-quantized": "nvfp4", "pack-quantized": "int4"}
    assert isinstance(gate_up, QuantizedWeight) and gate_up.format == names.get(layout, "fp8") and len(gate_up) == 2
    assert isinstance(model.layers[0].attention.o_proj, QuantizedLinear)  # type: ignore[union-attr]
    assert model.weight_bytes <= (tmp_path / "model.safetensors").stat().st_size
    assert pack(model) is model


def test_too_little_memory_even_so_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "modelopt")
    monkeypatch.setattr(loading, "available_memory", lambda device: 10)
    with pytest.raises(ModelError, match="close other programs or choose a smaller model"):
        load_model(tmp_path, CPU, torch.float32)


def test_modelopts_own_file_marks_the_model_as_quantized(tmp_path: Path) -> None:
    write(tmp_path, "modelopt")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "hf_quant_config.json").write_text(json.dumps({"quantization": {"quant_algo": "NVFP4"}}))
    assert load_model(tmp_path, CPU, torch.float32).config.num_experts == 2


def test_scales_of_square_blocks() -> None:
    from engine.checkpoints.published import Matrix
    from engine.checkpoints.weight_files import StoredTensor

    numbers, scales = torch.randn(200, 300).to(torch.float8_e4m3fn), torch.rand(2, 3) + 0.5
    tensors = {"m.weight": numbers, "m.weight_scale": scales}
    stored = {
        name: StoredTensor(name, dtype, tuple(tensors[name].shape), Path("x"), 0, 0)
        for name, dtype in (("m.weight", "F8_E4M3"), ("m.weight_scale", "F32"))
    }
    matrix = Matrix("m", 200, 300)
    assert matrix.problem(stored) is None
    found: QuantizedWeight = matrix.weight(stored, tensors.__getitem__, torch.float32)
    whole = scales.repeat_interleave(128, 0)[:200].repeat_interleave(128, 1)[:, :300]
    torch.testing.assert_close(found.dequantize(), numbers.float() * whole)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("model.decoder.layers.1.experts.1.up_proj.weight_scale_2", "weight_scale_2 is missing"),
        ("model.decoder.layers.0.experts.0.down_proj.weight", "missing or in an unknown layout"),
        ("model.decoder.norm.weight", "norm.weight is missing"),
        ("+model.decoder.layers.0.mlp.extra.weight", "unexpected"),
        ("-model.decoder.layers.0.experts.0.gate_proj.weight_scale", "was expected"),
    ],
)
def test_what_does_not_fit_is_refused(damage: str, message: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    write(tmp_path, "modelopt")
    tensors = load_file(tmp_path / "model.safetensors")
    if damage.startswith("+"):
        tensors[damage[1:]] = torch.ones(3)
    elif damage.startswith("-"):
        tensors[damage[1:]] = tensors[damage[1:]][:, :-1].contiguous()
    else:
        del tensors[damage]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=message):
        load_model(tmp_path, CPU, torch.float32)
    problems = [problem for check in verify(tmp_path) for problem in check.problems]
    assert re.search(message, problems[0])


def test_a_whole_folder_has_no_problems(tmp_path: Path) -> None:
    write(tmp_path, "pack-quantized")
    assert not any(check.problems for check in verify(tmp_path))
