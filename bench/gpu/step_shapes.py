"""Models of the true 26B shapes with random weights made on the device, and the bytes that one step must read.

Random weights show the speed of a step and not how many steps a trained model needs. Must not know how a step is timed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from engine.config import ModelConfig
from engine.key_values import KeyValues
from engine.models.diffusion_gemma import DiffusionGemma, Layer
from engine.models.fused import FusedModel
from engine.models.quantized import Convert, QuantizedModel
from engine.quantized import INT4_GROUP, NVFP4_GROUP, Format, QuantizedWeight
from engine.released import TRUE_26B as TRUE_26B

TINY: dict[str, Any] = {
    "model_type": "diffusion_gemma",
    "canvas_length": 8,
    "text_config": {
        "vocab_size": 300,
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "global_head_dim": 32,
        "num_global_key_value_heads": 1,
        "sliding_window": 16,
        "num_experts": 4,
        "top_k_experts": 2,
        "moe_intermediate_size": 32,
    },
}
INT4_RMS = 4.6  # root mean square of -8 … 7
E2M1_RMS = 2.9  # root mean square of the e2m1 numbers


@dataclass(frozen=True)
class Build:
    """Weight formats of the experts and of the other projections. Embedding, head and router are bfloat16."""

    experts: Format
    dense: Format


BUILDS = {
    "bf16": Build("plain", "plain"),
    "fp8": Build("fp8", "fp8"),
    "nvfp4": Build("nvfp4", "plain"),
    "int4": Build("int4", "fp8"),
}


def random_model(config: ModelConfig, build: Build, device: torch.device, dtype: torch.dtype) -> FusedModel:
    """A fused model with random weights. At most one matrix at a time exists in another format."""
    return fused(shapes_of(config, dtype), build, device)


def random_plain_model(config: ModelConfig, build: Build, device: torch.device, dtype: torch.dtype) -> DiffusionGemma:
    """A random model without kernels, for any device."""
    model = shapes_of(config, dtype)
    _make_small_parts(model, device)
    return QuantizedModel(model, _random_weights(build, device))


def shapes_of(config: ModelConfig, dtype: torch.dtype) -> DiffusionGemma:
    """A model without values, on the "meta" device."""
    with torch.device("meta"):
        model = DiffusionGemma(config).to(dtype)
    return model.eval().requires_grad_(False)


def fused(model: DiffusionGemma, build: Build, device: torch.device) -> FusedModel:
    """A fused model with random weights in the shapes of `model`, which must not be used afterwards."""
    _make_small_parts(model, device)
    return FusedModel(model, _random_weights(build, device))


def _random_weights(build: Build, device: torch.device) -> Convert:
    def made(name: str, weight: Tensor | QuantizedWeight) -> QuantizedWeight:
        return random_weight(cast(Tensor, weight), build.experts if ".experts." in name else build.dense, device)

    return made


def random_weight(like: Tensor, kind: Format, device: torch.device) -> QuantizedWeight:
    """A random weight with the shape and type of `like`, and values about as large as in a trained model."""
    shape, spread = like.shape, like.shape[-1] ** -0.5
    if kind == "plain":
        return QuantizedWeight("plain", torch.empty(shape, device=device, dtype=like.dtype).normal_(0, spread))
    if kind == "fp8":
        numbers = torch.empty(shape, device=device, dtype=torch.bfloat16).normal_().to(torch.float8_e4m3fn)
        return QuantizedWeight("fp8", numbers, torch.full(shape[:-1], spread, device=device))
    codes = torch.randint(0, 256, (*shape[:-1], shape[-1] // 2), dtype=torch.uint8, device=device)
    group = INT4_GROUP if kind == "int4" else NVFP4_GROUP
    scales = torch.ones(*shape[:-1], shape[-1] // group, device=device)
    if kind == "int4":
        return QuantizedWeight("int4", codes, None, (scales * (spread / INT4_RMS)).bfloat16(), group)
    rows = torch.full(shape[:-1], spread / E2M1_RMS, device=device)
    return QuantizedWeight("nvfp4", codes, rows, scales.to(torch.float8_e4m3fn), group)


def random_keys(config: ModelConfig, context: int, canvas: int, device: torch.device, dtype: torch.dtype) -> KeyValues:
    """Random keys and values of a prompt of `context` tokens, with space for the canvas."""
    kv = KeyValues(config, device, dtype)
    kv.reserve(context + canvas)
    for buffer in (*kv.keys, *kv.values):
        buffer.normal_()
    kv.length = context
    return kv


@dataclass(frozen=True)
class Bytes:
    """The minimum of bytes that a step must read, each once."""

    experts: int
    dense: int
    head: int
    keys: int

    @property
    def total(self) -> int:
        return self.experts + self.dense + self.head + self.keys


def step_bytes(model: FusedModel, kv: KeyValues, canvas: int, likeliest: bool = False) -> Bytes:
    """The bytes for a step over `canvas` tokens.

    Experts count if any token chooses them, with all experts equally likely; keys and values if a layer may see them.
    The embedding counts twice, as the head and for self-conditioning; once if that takes the `likeliest` tokens alone,
    whose few rows are left out.
    """
    config = model.config
    touched = 1 - (1 - config.experts_per_token / config.num_experts) ** canvas
    experts = sum(layer.experts_gate_up.bytes + layer.experts_down.bytes for layer in model.fused_layers)
    dense = sum(part.bytes for layer in model.fused_layers for part in layer.weights[:4])
    dense += sum(layer.router.nbytes for layer in model.fused_layers)
    dense += sum(parameter.nbytes for parameter in model.self_conditioning.parameters())
    keys = 0
    for index, buffer in enumerate(kv.keys):
        seen = kv.length - kv.visible_from(index) + canvas
        keys += 2 * seen * buffer[0, :, 0].numel() * buffer.element_size()
    return Bytes(int(experts * touched), dense, model.head.bytes * (1 if likeliest else 2), keys)


def _make_small_parts(model: DiffusionGemma, device: torch.device) -> None:
    """Fills norms, routers, scalars, embedding and self-conditioning; the other weights stay on "meta"."""
    for name, parameter in list(model.named_parameters()):
        if ".experts." in name or (name.startswith("layers.") and name.endswith("_proj.weight")):
            continue
        owner, _, attribute = name.rpartition(".")
        made = torch.empty(parameter.shape, device=device, dtype=parameter.dtype)
        if parameter.dim() > 1:
            made.normal_(0, parameter.shape[-1] ** -0.5)
        else:
            made.fill_(1.0)
        setattr(model.get_submodule(owner), attribute, torch.nn.Parameter(made, requires_grad=False))
    for module in model.layers:
        layer = cast(Layer, module)
        layer.encoder_scalar = torch.ones(1, device=device, dtype=torch.float32)
        layer.decoder_scalar = torch.ones(1, device=device, dtype=torch.float32)
