"""The model prepared for inference on a CPU: weights laid out for fast products, activations in fp32.

Computes what `engine.models.diffusion_gemma` does, faster: few operations on small tensors, because each operation
costs more than its arithmetic. Everything between two products is fp32, so in bfloat16 it is closer to the fp32 model
than the plain bfloat16 model is; in float32 it computes the same. Neither for training nor for export. Must not know
sampling, pinned tokens or files.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from engine.config import LayerKind
from engine.memory import Masks, Memory
from engine.models.diffusion_gemma import Attention, DiffusionGemma, Experts, Layer, Rotation, Router
from engine.models.quantized import QuantizedModel
from engine.models.text_model import TextModel
from engine.ops.attention import attend
from engine.ops.experts import experts
from engine.ops.linear import GatedProduct, Product, pad_rows
from engine.ops.norm import RMSNorm, UnitNorm
from engine.ops.rope import rotate, rotation

COPIED_EMBEDDING_BYTES = 2**26  # an embedding up to this size is also held in oneDNN's layouts


def pack(model: TextModel) -> TextModel:
    """The packed form of a plain `model` on a CPU; any other model is returned unchanged.

    Takes the model's weights away layer by layer, so that memory holds them once. `model` must not be used afterwards.
    """
    on_cpu = model.embed_tokens.weight.device.type == "cpu"
    if on_cpu and isinstance(model, DiffusionGemma) and not isinstance(model, QuantizedModel):
        return PackedModel(model)
    return model


class PackedAttention:
    """`engine.models.diffusion_gemma.Attention`, with queries, keys and values normed together and rotated together.

    input_gain [hidden]: a factor of the input, multiplied into the weights.
    """

    def __init__(self, attention: Attention, unit: UnitNorm, input_gain: Tensor) -> None:
        self.heads, self.head_dim, self.unit = attention.heads, attention.head_dim, unit
        self.rotated = attention.heads + attention.kv_heads
        self.values = slice(self.rotated, None) if attention.has_value else slice(self.heads, self.rotated)
        self.qkv = Product(_scaled(attention.qkv_proj.weight, input_gain))
        self.out = Product(attention.o_proj.weight)
        query_gain, key_gain = _gain(attention.q_norm), _gain(attention.k_norm)
        self.gain = torch.cat((query_gain.expand(self.heads, -1), key_gain.expand(attention.kv_heads, -1)))

    def __call__(
        self, x: Tensor, batch: int, length: int, rope: Rotation, mask: Tensor | None, memory: Memory, index: int
    ) -> Tensor:
        """x: [rows, hidden], whose first batch * length rows are the sequences; returns the same shape."""
        query, keys, values = self.store_keys(x, batch, length, rope, memory, index)
        return self.out(pad_rows(attend(query, keys, values, mask), self.out.packed))

    def store_keys(
        self, x: Tensor, batch: int, length: int, rope: Rotation, memory: Memory, index: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gives new keys and values to `memory`; returns the queries and all that they attend to."""
        unit = self.unit(self.qkv(x)[: batch * length].view(batch, length, -1, self.head_dim))
        rotated = rotate(unit[:, :, : self.rotated] * self.gain, *rope).to(self.qkv.dtype).transpose(1, 2)
        value = unit[:, :, self.values].to(self.qkv.dtype).transpose(1, 2)
        return rotated[:, : self.heads], *memory.extend(index, rotated[:, self.heads :], value)


class PackedFeedForwards:
    """The dense feed-forward of a layer and its mixture of experts, both for the normed residual stream.

    A single expert is a feed-forward too: its first products are made together with the dense ones.
    """

    def __init__(self, layer: Layer) -> None:
        dense, sparse = layer.mlp, layer.experts
        gain, self.sparse_gain = _gain(layer.pre_mlp_norm), _gain(layer.pre_experts_norm)
        inner = [_scaled(dense.gate_up_proj.weight, gain).chunk(2)]
        self.router: Router | None = layer.router
        self.weights: Experts | None = sparse
        self.sparse_down: Product | None = None
        if layer.single_expert:
            inner.append(_scaled(sparse.gate_up_proj[0], self.sparse_gain).chunk(2))
            scale = layer.router.per_expert_scale.detach().float()
            self.sparse_down = Product(_scaled(sparse.down_proj[0], scale))
            self.router = self.weights = None
        self.gated = GatedProduct(*(torch.cat(weights) for weights in zip(*inner, strict=True)))
        self.dense_down, self.dense_size = Product(dense.down_proj.weight), dense.down_proj.in_features

    def __call__(self, residual: Tensor, unit: Tensor) -> tuple[Tensor, Tensor]:
        """(dense, sparse) for the residual stream, and the same stream normed: all [rows, hidden]."""
        inner = self.gated(unit)
        dense = self.dense_down(inner[..., : self.dense_size])
        if self.sparse_down is not None:
            return dense, self.sparse_down(inner[..., self.dense_size :])
        assert self.router is not None and self.weights is not None
        weights, indices = self.router(residual.to(dense.dtype))
        normed = (unit * self.sparse_gain).to(dense.dtype)
        return dense, experts(normed, weights, indices, self.weights.gate_up_proj, self.weights.down_proj)


class PackedLayer:
    """`engine.models.diffusion_gemma.Layer`. x: [rows, hidden], the rows of all sequences followed by rows of zeros."""

    def __init__(self, layer: Layer, unit: UnitNorm, head_unit: UnitNorm) -> None:
        self.kind, self.unit = layer.kind, unit
        self.attention = PackedAttention(layer.attention, head_unit, _gain(layer.input_norm))
        self.feed_forwards = PackedFeedForwards(layer)
        self.attention_gain, self.feed_forward_gain = (
            _gain(layer.post_attention_norm),
            _gain(layer.post_feedforward_norm),
        )
        self.dense_gain, self.sparse_gain = _gain(layer.post_mlp_norm), _gain(layer.post_experts_norm)
        self.encoder_scalar, self.decoder_scalar = layer.encoder_scalar.float(), layer.decoder_scalar.float()

    def __call__(
        self, x: Tensor, batch: int, length: int, rope: Rotation, mask: Tensor | None, memory: Memory, index: int
    ) -> Tensor:
        attended = self.attention(self.unit(x), batch, length, rope, mask, memory, index)
        x = torch.addcmul(x, self.unit(attended), self.attention_gain)
        dense, sparse = self.feed_forwards(x, self.unit(x))
        both = self.unit(dense).mul_(self.dense_gain).addcmul_(self.unit(sparse), self.sparse_gain)
        return x.addcmul_(self.unit(both), self.feed_forward_gain)


class PackedModel(TextModel):
    """See `TextModel`. A small embedding is held three times: by row, for logits and for means."""

    def __init__(self, model: DiffusionGemma) -> None:
        super().__init__(model.config, model.embed_tokens)
        self.fp8_keys = model.fp8_keys
        weight, plain_bytes = model.embed_tokens.weight.detach(), model.weight_bytes
        sizes = {model.config.hidden_size, *(layer.head_dim for layer in model.config.layers)}
        units = {size: UnitNorm(size, model.config.norm_eps) for size in sizes}
        self.unit, self.gain = units[model.config.hidden_size], _gain(model.norm)
        self.packed_layers = []
        for index, module in enumerate(model.layers):
            layer = cast(Layer, module)
            self.packed_layers.append(PackedLayer(layer, self.unit, units[layer.attention.head_dim]))
            model.layers[index] = nn.Identity()
        conditioning = model.self_conditioning
        gate_up = _scaled(conditioning.mlp.gate_up_proj.weight, _gain(conditioning.pre_norm))
        self.signal, self.signal_down = GatedProduct(*gate_up.chunk(2)), Product(conditioning.mlp.down_proj.weight)
        small = weight.nbytes <= COPIED_EMBEDDING_BYTES
        self.head, self.mean = Product(weight, small), Product(weight.t(), small)
        copies = sum(product.packed for product in (self.head, self.mean))
        self._weight_bytes = plain_bytes + copies * weight.nbytes
        self.scale = self._scale().float()
        self._rotations: tuple[Tensor, dict[LayerKind, Rotation]] | None = None

    @property
    def weight_bytes(self) -> int:
        return self._weight_bytes

    def embed(self, tokens: Tensor) -> Tensor:
        return self.embed_tokens(tokens).float() * self.scale

    def embed_mean(self, probabilities: Tensor) -> Tensor:
        return self._product(self.mean, probabilities) * self.scale

    def denoise(self, tokens: Tensor, belief: Tensor, positions: Tensor, masks: Masks, memory: Memory) -> Tensor:
        signal = self.signal_down(self.signal(self.unit(pad_rows(belief, self.signal_down.packed))))
        x = self.unit(self.embed(tokens) + signal[: tokens.numel()].view_as(belief))
        return self._run(x, positions, masks, memory, encoder=False)

    def logits(self, hidden: Tensor) -> Tensor:
        cap = self.config.logit_softcap
        return self._product(self.head, hidden).div_(cap).tanh_().mul_(cap)

    def _product(self, product: Product, x: Tensor) -> Tensor:
        """x [..., in] to [..., out] in fp32."""
        rows = product(pad_rows(x, product.packed))
        return rows[: x.numel() // x.shape[-1]].float().view(*x.shape[:-1], -1)

    def _run(
        self, x: Tensor, positions: Tensor, masks: Masks, memory: Memory, encoder: bool, keys_only: bool = False
    ) -> Tensor:
        ropes = self._rotations_at(positions)
        batch, length = x.shape[:2]
        rows = pad_rows(x, self.signal_down.packed)
        for index, layer in enumerate(self.packed_layers):
            if keys_only and index + 1 == len(self.packed_layers):
                layer.attention.store_keys(self.unit(rows), batch, length, ropes[layer.kind], memory, index)
                return x
            rows = layer(rows, batch, length, ropes[layer.kind], masks[layer.kind], memory, index)
            rows *= layer.encoder_scalar if encoder else layer.decoder_scalar
        return self.unit(rows[: batch * length]).mul_(self.gain).view_as(x)

    def _rotations_at(self, positions: Tensor) -> dict[LayerKind, Rotation]:
        """Cached from pass to pass: all steps of a canvas pass the same tensor."""
        if self._rotations is None or self._rotations[0] is not positions:
            device = positions.device
            found = {kind: rotation(positions, self._frequency(kind, device), torch.float32) for kind in self._ropes}
            self._rotations = positions, found
        return self._rotations[1]


def _scaled(weight: Tensor, gain: Tensor) -> Tensor:
    """`weight` [out, in] for an input that would first be multiplied by `gain` [in]."""
    return (weight.detach().float() * gain).to(weight.dtype)


def _gain(norm: RMSNorm) -> Tensor:
    """The weight of a norm, in fp32."""
    assert norm.weight is not None
    return norm.weight.detach().float()
