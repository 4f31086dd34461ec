"""The model prepared for a GPU: products with weights in any format, everything between them in fused kernels.

Experimental: compared with the plain model in Triton's interpreter, but never run on a GPU. Neither for training nor
for export. Must not know sampling, pinned tokens or files.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor
from torch.nn import functional as F

from engine.config import LayerKind
from engine.kernels import attention
from engine.kernels.linear import linear, partial_linear
from engine.kernels.mixture import by_slot, tokens_a_block
from engine.kernels.norms import add_normed, gated, join_branches, split_heads
from engine.kernels.routing import choose, schedule
from engine.kernels.vocabulary import mean_of_rows, probabilities, stats_from_hidden, stats_from_logits
from engine.logit_bias import LogitBias
from engine.logit_stats import LogitStats
from engine.memory import Masks, Memory, SlottedMemory
from engine.models.diffusion_gemma import DiffusionGemma, Layer
from engine.models.quantized import Convert, layer_weights
from engine.models.text_model import TextModel
from engine.ops import attention as plain_attention
from engine.ops.norm import RMSNorm
from engine.quantized import Format, QuantizedWeight, plain, quantize_weight

FUSED_HEAD_ROWS = 64  # up to this many rows, the product with the head is part of the pass over the vocabulary

Angles = tuple[Tensor, Tensor]


def fuse(model: DiffusionGemma, experts: Format = "plain", dense: Format = "plain") -> FusedModel:
    """The fused form of `model`, with shared weights: quantized ones as they are, plain ones in the given formats."""

    def convert(name: str, weight: Tensor | QuantizedWeight) -> QuantizedWeight:
        if isinstance(weight, QuantizedWeight):
            return weight
        return quantize_weight(weight.detach(), experts if ".experts." in name else dense)

    return FusedModel(model, convert)


class FusedLayer:
    """`engine.models.diffusion_gemma.Layer`. x: [rows, hidden], the residual stream; normed: x after the layer's input
    norm."""

    def __init__(self, layer: Layer, prefix: str, convert: Convert) -> None:
        self.kind, part = layer.kind, layer.attention
        self.heads, self.kv_heads, self.head_dim = part.heads, part.kv_heads, part.head_dim
        self.eps = layer.input_norm.eps
        made = {name: convert(prefix + name, weight) for name, weight in layer_weights(layer)}
        self.qkv, self.out = made["attention.qkv_proj"], made["attention.o_proj"]
        self.gate_up, self.down = made["mlp.gate_up_proj"], made["mlp.down_proj"]
        self.experts_gate_up, self.experts_down = made["experts.gate_up_proj"], made["experts.down_proj"]
        self.q_gain, self.k_gain = _gain(part.q_norm), _gain(part.k_norm)
        router = layer.router
        self.top_k, self.router = router.top_k, router.proj.weight.detach()
        self.expert_scale = router.per_expert_scale.detach().float()
        self.input_gain, self.attention_gain = _gain(layer.input_norm), _gain(layer.post_attention_norm)
        router_gain = router.scale.detach().float() * router.root_size
        self.inner_gains = [_gain(layer.pre_mlp_norm), _gain(layer.pre_experts_norm), router_gain]
        self.outer_gains = (
            _gain(layer.post_mlp_norm),
            _gain(layer.post_experts_norm),
            _gain(layer.post_feedforward_norm),
        )
        self.encoder_scalar, self.decoder_scalar = layer.encoder_scalar, layer.decoder_scalar

    @property
    def weights(self) -> tuple[QuantizedWeight, ...]:
        """All weights of its products, except the router's."""
        return self.qkv, self.out, self.gate_up, self.down, self.experts_gate_up, self.experts_down

    def __call__(
        self, x: Tensor, normed: Tensor, angles: Angles, mask: Tensor | None, memory: Memory, index: int,
        next_gain: Tensor, encoder: bool,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """The residual stream after this layer, and the same normed for the next layer; both [batch, length,
        hidden]."""
        attended = self._attended(normed, angles, mask, memory, index)
        x, (for_dense, for_experts, for_router) = add_normed(
            x, partial_linear(attended, self.out), self.attention_gain, self.eps, self.inner_gains
        )
        dense = partial_linear(gated(linear(for_dense, self.gate_up)), self.down)
        weights, indices = choose(F.linear(for_router, self.router).flatten(0, 1), self.expert_scale, self.top_k)
        count = len(self.experts_gate_up.numbers)
        plan = schedule(indices, count, tokens_a_block(indices.numel(), count))
        slots = by_slot(for_experts.flatten(0, 1), weights, plan, self.experts_gate_up, self.experts_down)
        scalar = self.encoder_scalar if encoder else self.decoder_scalar
        return join_branches(x, dense, slots, self.outer_gains, scalar, self.eps, next_gain)

    def _attended(self, normed: Tensor, angles: Angles, mask: Tensor | None, memory: Memory, index: int) -> Tensor:
        query, keys, values = self.store_keys(normed, angles, memory, index)
        if attention.takes(query, mask):
            return attention.attend(query, keys, values, mask)
        return plain_attention.attend(query, keys, values, mask)

    def store_keys(self, normed: Tensor, angles: Angles, memory: Memory, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Gives new keys and values to `memory`; returns the queries and all that they attend to."""
        batch, length = normed.shape[:2]
        projected = linear(normed, self.qkv).view(batch, length, -1, self.head_dim)
        key, value = self._places(projected, memory, index)
        query = split_heads(projected, angles, self.q_gain, self.k_gain, self.eps, key, value, self.heads)
        return query, *memory.extend(index, key, value)

    def _places(self, projected: Tensor, memory: Memory, index: int) -> tuple[Tensor, Tensor]:
        """Where to write keys and values: in the memory itself, if it has places of their type."""
        if isinstance(memory, SlottedMemory):
            key, value = memory.slots(index)
            if key.dtype == projected.dtype:
                return key, value
        batch, length = projected.shape[:2]
        new = projected.new_empty(2, batch, self.kv_heads, length, self.head_dim)
        return new[0], new[1]


class FusedModel(TextModel):
    """See `TextModel`. Shares the parts of `model`, which stays usable.

    convert: makes the weights that the layers multiply with.
    """

    has_kernels = True

    def __init__(self, model: DiffusionGemma, convert: Convert) -> None:
        super().__init__(model.config, model.embed_tokens)
        self.norm, self.self_conditioning = model.norm, model.self_conditioning
        self.fused_layers = []
        for index, module in enumerate(model.layers):
            self.fused_layers.append(FusedLayer(cast(Layer, module), f"layers.{index}.", convert))
        gains = [layer.input_gain for layer in self.fused_layers[1:]]
        self.next_gains = [*gains, _gain(model.norm)]
        self.head = plain(model.embed_tokens.weight)
        self._angles: tuple[Tensor, dict[LayerKind, Angles]] | None = None

    @property
    def weight_bytes(self) -> int:
        return super().weight_bytes + sum(weight.bytes for layer in self.fused_layers for weight in layer.weights)

    def denoise(self, tokens: Tensor, belief: Tensor, positions: Tensor, masks: Masks, memory: Memory) -> Tensor:
        x = self.self_conditioning(self.embed(tokens), belief)
        return self._run(x, positions, masks, memory, encoder=False)

    def logit_stats(
        self, hidden: Tensor, temperature: Tensor, top: int, seeds: Tensor | None = None, bias: LogitBias | None = None
    ) -> LogitStats:
        """Statistics of the logits of normed `hidden` states [rows, hidden]: see `engine.kernels.vocabulary`."""
        cap = self.config.logit_softcap
        if len(hidden) <= FUSED_HEAD_ROWS:
            return stats_from_hidden(hidden, self.head, cap, temperature, top, seeds, bias)
        return stats_from_logits(F.linear(hidden, self.head.numbers), cap, temperature, top, seeds, bias)

    def stats_and_mean(
        self, hidden: Tensor, temperature: Tensor, seeds: Tensor, bias: LogitBias | None = None
    ) -> tuple[LogitStats, Tensor]:
        """`logit_stats` with the likeliest token alone, and `embed_mean` of all probabilities [rows, hidden]."""
        logits, cap = F.linear(hidden, self.head.numbers), self.config.logit_softcap
        stats = stats_from_logits(logits, cap, temperature, 1, seeds, bias)
        return stats, self.embed_mean(probabilities(logits, cap, temperature, stats, bias))

    def embed_few(self, tokens: Tensor, weights: Tensor) -> Tensor:
        """`embed_mean` of few tokens: tokens and weights [rows, top] give [rows, hidden]."""
        return mean_of_rows(self.head.numbers, tokens, weights, float(self._scale()))

    def _run(
        self, x: Tensor, positions: Tensor, masks: Masks, memory: Memory, encoder: bool, keys_only: bool = False
    ) -> Tensor:
        angles = self._angles_at(positions)
        first = self.fused_layers[0]
        normed = F.rms_norm(x, (x.shape[-1],), first.input_gain.to(x.dtype), first.eps)
        for index, (layer, gain) in enumerate(zip(self.fused_layers, self.next_gains, strict=True)):
            if keys_only and index + 1 == len(self.fused_layers):
                layer.store_keys(normed, angles[layer.kind], memory, index)
                return normed
            x, normed = layer(x, normed, angles[layer.kind], masks[layer.kind], memory, index, gain, encoder)
        return normed

    def _angles_at(self, positions: Tensor) -> dict[LayerKind, Angles]:
        """Cosine and sine [batch, length, head_dim / 2] in fp32, cached: all steps of a canvas pass the same tensor."""
        if self._angles is None or self._angles[0] is not positions:
            found = {}
            for kind in self._ropes:
                angles = positions[..., None].float() * self._frequency(kind, positions.device)
                found[kind] = angles.cos(), angles.sin()
            self._angles = positions, found
        return self._angles[1]


def _gain(norm: RMSNorm) -> Tensor:
    return cast(Tensor, norm.weight).detach()
