"""The text tower of DiffusionGemma: one set of weights, `encode` (causal) and `denoise` (bidirectional).

Source: transformers, `models/diffusion_gemma/modeling_diffusion_gemma.py`, with which the tests compare it. Must not
know sampling, pinned tokens, files, or where keys and values are kept: that is up to the `Memory`.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.config import LayerConfig, ModelConfig
from engine.memory import Masks, Memory
from engine.models.text_model import TextModel
from engine.ops.attention import attend
from engine.ops.experts import experts, gated_gelu, matrix, route
from engine.ops.norm import RMSNorm
from engine.ops.rope import rotate, rotation

Rotation = tuple[Tensor, Tensor]


class Attention(nn.Module):
    """Grouped-query attention with normed queries, keys and values; full layers take V from the raw K."""

    def __init__(self, config: ModelConfig, layer: LayerConfig) -> None:
        super().__init__()
        self.head_dim = layer.head_dim
        self.heads = config.num_heads
        self.kv_heads = layer.num_kv_heads
        self.has_value = layer.has_value_projection
        projected = self.heads + self.kv_heads * (2 if self.has_value else 1)
        self.qkv_proj = nn.Linear(config.hidden_size, projected * self.head_dim, bias=False)
        self.o_proj = nn.Linear(self.heads * self.head_dim, config.hidden_size, bias=False)
        self.q_norm = RMSNorm(self.head_dim, config.norm_eps)
        self.k_norm = RMSNorm(self.head_dim, config.norm_eps)
        self.v_norm = RMSNorm(self.head_dim, config.norm_eps, scaled=False)

    def forward(self, x: Tensor, rope: Rotation) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value of `x` [batch, length, hidden], each [batch, heads, length, head_dim]."""
        projected = self.qkv_proj(x).unflatten(-1, (-1, self.head_dim))
        query = rotate(self.q_norm(projected[:, :, : self.heads]), *rope)
        raw_key = projected[:, :, self.heads : self.heads + self.kv_heads]
        raw_value = projected[:, :, self.heads + self.kv_heads :] if self.has_value else raw_key
        key = rotate(self.k_norm(raw_key), *rope)
        value = self.v_norm(raw_value)
        return query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)


class FeedForward(nn.Module):
    """down(gelu(gate x) * up x)."""

    def __init__(self, hidden: int, intermediate: int) -> None:
        super().__init__()
        self.gate_up_proj = nn.Linear(hidden, 2 * intermediate, bias=False)
        self.down_proj = nn.Linear(intermediate, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(gated_gelu(self.gate_up_proj(x)))


class Router(nn.Module):
    """Chooses experts from the raw residual stream, not from the normed one."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.top_k = config.experts_per_token
        self.root_size = config.hidden_size**-0.5
        self.norm = RMSNorm(config.hidden_size, config.norm_eps, scaled=False)
        self.proj = nn.Linear(config.hidden_size, config.num_experts, bias=False)
        self.scale = nn.Parameter(torch.ones(config.hidden_size))
        self.per_expert_scale = nn.Parameter(torch.ones(config.num_experts))

    def forward(self, residual: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.proj(self.norm(residual) * self.scale * self.root_size)
        return route(scores, self.per_expert_scale, self.top_k)


class Experts(nn.Module):
    """The weights of all experts: gate_up [experts, 2 * size, hidden], down [experts, hidden, size]."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        count, size = config.num_experts, config.expert_intermediate_size
        self.gate_up_proj = nn.Parameter(torch.empty(count, 2 * size, config.hidden_size))
        self.down_proj = nn.Parameter(torch.empty(count, config.hidden_size, size))


class Layer(nn.Module):
    """Attention, then a dense feed-forward in parallel with a mixture of experts.

    Split into two halves, with memory and attention between them: the halves know neither the layer's position nor its
    kind, so a compiler compiles them once for all layers.
    """

    encoder_scalar: Tensor
    decoder_scalar: Tensor

    def __init__(self, config: ModelConfig, layer: LayerConfig) -> None:
        super().__init__()

        def norm() -> RMSNorm:
            return RMSNorm(config.hidden_size, config.norm_eps)

        self.kind = layer.kind
        self.single_expert = config.num_experts == 1
        self.attention = Attention(config, layer)
        self.mlp = FeedForward(config.hidden_size, config.intermediate_size)
        self.router = Router(config)
        self.experts = Experts(config)
        self.input_norm, self.post_attention_norm = norm(), norm()
        self.pre_mlp_norm, self.post_mlp_norm = norm(), norm()
        self.pre_experts_norm, self.post_experts_norm = norm(), norm()
        self.post_feedforward_norm = norm()
        self.register_buffer("encoder_scalar", torch.ones(1))
        self.register_buffer("decoder_scalar", torch.ones(1))

    def forward(self, x: Tensor, rope: Rotation, mask: Tensor | None, memory: Memory, index: int) -> Tensor:
        query, key, value = self.before_attention(x, rope)
        keys, values = memory.extend(index, key, value)
        return self.after_attention(x, attend(query, keys, values, mask))

    def before_attention(self, x: Tensor, rope: Rotation) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value, each [batch, heads, length, head_dim]."""
        return self.attention(self.input_norm(x), rope)

    def after_attention(self, x: Tensor, attended: Tensor) -> Tensor:
        """The rest of the layer, for `x` [batch, length, hidden] and the result of `attend`."""
        x = x + self.post_attention_norm(self.attention.o_proj(attended))
        dense = self.post_mlp_norm(self.mlp(self.pre_mlp_norm(x)))
        sparse = self.post_experts_norm(self._experts(x))
        return x + self.post_feedforward_norm(dense + sparse)

    def _experts(self, residual: Tensor) -> Tensor:
        normed = self.pre_experts_norm(residual)
        if self.single_expert:
            gate_up, down = (matrix(w, 0, normed.dtype) for w in (self.experts.gate_up_proj, self.experts.down_proj))
            product = F.linear(gated_gelu(F.linear(normed, gate_up)), down)
            return product * self.router.per_expert_scale.to(product.dtype)
        weights, indices = self.router(residual.flatten(0, 1))
        return experts(
            normed.flatten(0, 1), weights, indices, self.experts.gate_up_proj, self.experts.down_proj
        ).view_as(residual)


class SelfConditioning(nn.Module):
    """Adds the belief of the last step (a mean of embeddings) to the canvas embeddings."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.pre_norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.mlp = FeedForward(config.hidden_size, config.intermediate_size)
        self.post_norm = RMSNorm(config.hidden_size, config.norm_eps, scaled=False)

    def forward(self, embedded: Tensor, belief: Tensor) -> Tensor:
        return self.post_norm(embedded + self.mlp(self.pre_norm(belief)))


class DiffusionGemma(TextModel):
    """The plain model, in PyTorch's own modules; the only one that can be trained and exported."""

    def __init__(self, config: ModelConfig) -> None:
        embedding = torch.empty(config.vocab_size, config.hidden_size)
        super().__init__(config, nn.Embedding.from_pretrained(embedding, freeze=False))
        if not embedding.is_meta:  # on meta this would import PyTorch's compiler, which takes longer than loading
            self.embed_tokens.reset_parameters()
        self.layers = nn.ModuleList(Layer(config, layer) for layer in config.layers)
        self.norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.self_conditioning = SelfConditioning(config)

    def denoise(self, tokens: Tensor, belief: Tensor, positions: Tensor, masks: Masks, memory: Memory) -> Tensor:
        x = self.self_conditioning(self.embed(tokens), belief)
        return self._run(x, positions, masks, memory, encoder=False)

    def _run(
        self, x: Tensor, positions: Tensor, masks: Masks, memory: Memory, encoder: bool, keys_only: bool = False
    ) -> Tensor:
        ropes = {kind: rotation(positions, self._frequency(kind, x.device), x.dtype) for kind in self._ropes}
        for index, module in enumerate(self.layers):
            layer = cast(Layer, module)
            if keys_only and index + 1 == len(self.layers):
                memory.extend(index, *layer.before_attention(x, ropes[layer.kind])[1:])
                return x
            x = layer(x, ropes[layer.kind], masks[layer.kind], memory, index)
            x = x * (layer.encoder_scalar if encoder else layer.decoder_scalar).to(x.dtype)
        return self.norm(x)
