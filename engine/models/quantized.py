"""Layers that keep quantized weights, and the plain model made of them, which dequantizes them at every product.

Runs wherever PyTorch does, slowly: the reference for `engine.models.fused`, and the fallback if the kernels cannot run.
Not for training. Must not know files, or how weights are quantized.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.models.diffusion_gemma import DiffusionGemma, Layer
from engine.quantized import QuantizedWeight

LINEARS = ("attention.qkv_proj", "attention.o_proj", "mlp.gate_up_proj", "mlp.down_proj")

Convert = Callable[[str, "Tensor | QuantizedWeight"], QuantizedWeight]
"""From the name of a weight in `engine.models.diffusion_gemma` and its present value (on "meta", only a shape) to the
new weight."""


def dequantized_product(x: Tensor, weight: QuantizedWeight) -> Tensor:
    """x [..., columns] times the dequantized weight [rows, columns], transposed: [..., rows]."""
    return F.linear(x, weight.dequantize(x.dtype))


class QuantizedLinear(nn.Module):
    """A `torch.nn.Linear` with a quantized weight. `product` may be replaced by a faster one, such as
    `engine.kernels.linear.linear`."""

    def __init__(self, weight: QuantizedWeight, bias: nn.Parameter | None = None) -> None:
        super().__init__()
        self.quantized, self.bias = weight, bias
        self.product: Callable[[Tensor, QuantizedWeight], Tensor] = dequantized_product

    def forward(self, x: Tensor) -> Tensor:
        product = self.product(x, self.quantized)
        return product if self.bias is None else product + self.bias


class QuantizedExperts(nn.Module):
    """The weights of `engine.models.diffusion_gemma.Experts`."""

    def __init__(self, gate_up: QuantizedWeight, down: QuantizedWeight) -> None:
        super().__init__()
        self.gate_up_proj, self.down_proj = gate_up, down


class QuantizedModel(DiffusionGemma):
    """A `DiffusionGemma` that takes over the parts of `model`, which must not be used afterwards.

    convert: makes the weights that the layers multiply with; router, norms and embedding stay.
    """

    def __init__(self, model: DiffusionGemma, convert: Convert) -> None:
        with torch.device("meta"):
            super().__init__(model.config)
        self.embed_tokens, self.layers = model.embed_tokens, model.layers
        self.norm, self.self_conditioning = model.norm, model.self_conditioning
        for index, module in enumerate(self.layers):
            layer = cast(Layer, module)
            weights = {name: convert(f"layers.{index}.{name}", weight) for name, weight in layer_weights(layer)}
            for name in LINEARS:
                parent, _, attribute = name.partition(".")
                setattr(layer.get_submodule(parent), attribute, QuantizedLinear(weights[name]))
            experts = QuantizedExperts(weights["experts.gate_up_proj"], weights["experts.down_proj"])
            layer.experts = experts  # type: ignore[assignment]

    @property
    def weight_bytes(self) -> int:
        quantized = (weight for module in self.layers for _, weight in layer_weights(cast(Layer, module)))
        return super().weight_bytes + sum(w.bytes for w in quantized if isinstance(w, QuantizedWeight))


def layer_weights(layer: Layer) -> Iterator[tuple[str, Tensor | QuantizedWeight]]:
    """The weights that a layer multiplies with, by name within the layer, except the router's."""
    for name in LINEARS:
        linear = layer.get_submodule(name)
        yield name, linear.quantized if isinstance(linear, QuantizedLinear) else cast(Tensor, linear.weight)
    yield "experts.gate_up_proj", layer.experts.gate_up_proj
    yield "experts.down_proj", layer.experts.down_proj
