"""`engine.models.diffusion_gemma` with weights that stay in few bits: a matrix becomes numbers each time it is multiplied with.

Runs wherever PyTorch does, slowly: the twin that `engine.models.fused` is held to, and what is left where its kernels
cannot run. Not for training. Knows nothing of files nor of how weights are quantized.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from engine.models.diffusion_gemma import DiffusionGemma, Layer
from engine.quantized import QuantizedWeight

Convert = Callable[[str, "Tensor | QuantizedWeight"], QuantizedWeight]
"""From a weight's name in `engine.models.diffusion_gemma` and what stands there (on "meta", only its shape) to the weight to be."""


class QuantizedLinear(nn.Module):
    """See `torch.nn.Linear`, without bias."""

    def __init__(self, weight: QuantizedWeight) -> None:
        super().__init__()
        self.quantized = weight

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.quantized.dequantize(x.dtype))


class QuantizedExperts(nn.Module):
    """See `engine.models.diffusion_gemma.Experts`."""

    def __init__(self, gate_up: QuantizedWeight, down: QuantizedWeight) -> None:
        super().__init__()
        self.gate_up_proj, self.down_proj = gate_up, down


class QuantizedModel(DiffusionGemma):
    """See `engine.models.diffusion_gemma.DiffusionGemma`. Takes the parts of `model`, which must not be used afterwards.

    convert: makes the weights of the layers that are multiplied with; router, norms and embedding stay.
    """

    def __init__(self, model: DiffusionGemma, convert: Convert) -> None:
        nn.Module.__init__(self)
        self.config, self.embed_tokens, self.embed_scale = model.config, model.embed_tokens, model.embed_scale
        self._ropes, self._frequencies = model._ropes, model._frequencies
        self.layers, self.norm, self.self_conditioning = model.layers, model.norm, model.self_conditioning
        for index, module in enumerate(self.layers):
            layer = cast(Layer, module)
            made = {name: convert(f"layers.{index}.{name}", weight) for name, weight in layer_weights(layer)}
            for name in ("attention.qkv_proj", "attention.o_proj", "mlp.gate_up_proj", "mlp.down_proj"):
                owner, _, own = name.partition(".")
                setattr(layer.get_submodule(owner), own, QuantizedLinear(made[name]))
            experts = QuantizedExperts(made["experts.gate_up_proj"], made["experts.down_proj"])
            layer.experts = experts  # type: ignore[assignment]

    @property
    def weight_bytes(self) -> int:
        quantized = (weight for module in self.layers for _, weight in layer_weights(cast(Layer, module)))
        return super().weight_bytes + sum(w.bytes for w in quantized if isinstance(w, QuantizedWeight))


def layer_weights(layer: Layer) -> Iterator[tuple[str, Tensor | QuantizedWeight]]:
    """By name within the layer the weights that it multiplies with, but for its router's."""
    for name in ("attention.qkv_proj", "attention.o_proj", "mlp.gate_up_proj", "mlp.down_proj"):
        linear = layer.get_submodule(name)
        yield name, linear.quantized if isinstance(linear, QuantizedLinear) else cast(Tensor, linear.weight)
    yield "experts.gate_up_proj", layer.experts.gate_up_proj
    yield "experts.down_proj", layer.experts.down_proj
