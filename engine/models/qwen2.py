"""Qwen2: a causal decoder with one pass, `encode`, and a head, `logits`; it has no denoiser.

Source: transformers, `models/qwen2/modeling_qwen2.py`, which the tests hold it to (Qwen2 technical report, arXiv
2407.10671). Runs on any device in any float type, and with `QuantizedLinear` layers; `engine.models.packed_qwen2` is
the same for a CPU with weights in 8 bits. Must not know sampling, text or files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.config import LayerConfig, RopeConfig
from engine.memory import Masks, Memory
from engine.models.diffusion_gemma import Rotation
from engine.models.quantized import QuantizedLinear
from engine.ops.attention import attend
from engine.ops.norm import RMSNorm
from engine.ops.rope import inverse_frequencies, rotate, rotation


@dataclass(frozen=True)
class Qwen2Config:
    """Sizes of a Qwen2 model. tied: whether the head is the embedding."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_positions: int = 32_768
    norm_eps: float = 1e-6
    rope_theta: float = 1_000_000.0
    tied: bool = True

    @property
    def layers(self) -> tuple[LayerConfig, ...]:
        """As `engine.key_values` needs them: full attention everywhere."""
        layer = LayerConfig("full_attention", self.head_dim, self.num_kv_heads, RopeConfig("default", self.rope_theta))
        return (layer,) * self.num_layers

    @property
    def sliding_window(self) -> int:
        """No layer has a window."""
        return self.max_positions


class Attention(nn.Module):
    """Grouped-query attention with biases on queries, keys and values, which one product computes."""

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = config.num_heads, config.num_kv_heads, config.head_dim
        projected = (self.heads + 2 * self.kv_heads) * self.head_dim
        self.qkv_proj = nn.Linear(config.hidden_size, projected)
        self.o_proj = nn.Linear(self.heads * self.head_dim, config.hidden_size, bias=False)

    def forward(self, x: Tensor, rope: Rotation, mask: Tensor | None, memory: Memory, index: int) -> Tensor:
        """x [batch, length, hidden]; returns the same shape."""
        query, keys, values = self.store_keys(x, rope, memory, index)
        return self.o_proj(attend(query * self.head_dim**-0.5, keys, values, mask))

    def store_keys(self, x: Tensor, rope: Rotation, memory: Memory, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Gives new keys and values to `memory`; returns the queries and all that they attend to."""
        projected = self.qkv_proj(x).unflatten(-1, (-1, self.head_dim))
        rotated = rotate(projected[:, :, : self.heads + self.kv_heads], *rope).transpose(1, 2)
        value = projected[:, :, self.heads + self.kv_heads :].transpose(1, 2)
        return rotated[:, : self.heads], *memory.extend(index, rotated[:, self.heads :], value)


class FeedForward(nn.Module):
    """down(silu(gate x) * up x), gate and up in one product."""

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__()
        self.gate_up_proj = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up_proj(x).chunk(2, dim=-1)
        return self.down_proj(F.silu(gate) * up)


class Layer(nn.Module):
    """Attention, then the feed-forward, each with a norm before it."""

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__()
        self.input_norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.attention = Attention(config)
        self.post_attention_norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.mlp = FeedForward(config)

    def forward(self, x: Tensor, rope: Rotation, mask: Tensor | None, memory: Memory, index: int) -> Tensor:
        x = x + self.attention(self.input_norm(x), rope, mask, memory, index)
        return x + self.mlp(self.post_attention_norm(x))


class Qwen2(nn.Module):
    """Weights and the causal pass. Shapes: batch, length, hidden, vocab."""

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.head = None if config.tied else nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self._frequencies: Tensor | None = None

    @property
    def device(self) -> torch.device:
        return self.embed_tokens.weight.device

    @property
    def kv_dtype(self) -> torch.dtype:
        """The type that keys and values are kept in."""
        return self.embed_tokens.weight.dtype

    @property
    def weight_bytes(self) -> int:
        """Bytes of memory that the weights take."""
        quantized = sum(layer.quantized.bytes for layer in self.quantized_layers())
        return quantized + sum(parameter.nbytes for parameter in self.parameters())

    def quantized_layers(self) -> list[QuantizedLinear]:
        """The linear layers with quantized weights."""
        return [module for module in self.modules() if isinstance(module, QuantizedLinear)]

    def encode(
        self, tokens: Tensor, positions: Tensor, masks: Masks, memory: Memory, keys_only: bool = False
    ) -> Tensor:
        """Normed hidden states [batch, length, hidden] of `tokens` [batch, length]; `memory` receives keys and values.

        positions [batch, length]; masks as `engine.ops.attention.attend` takes them. keys_only: of the last layer only
        keys and values are computed, and the result is meaningless.
        """
        x = self.embed_tokens(tokens)
        rope = rotation(positions, self._frequency(x.device), x.dtype)
        for index, module in enumerate(self.layers):
            layer = cast(Layer, module)
            if keys_only and index + 1 == len(self.layers):
                layer.attention.store_keys(layer.input_norm(x), rope, memory, index)
                return x
            x = layer(x, rope, masks["full_attention"], memory, index)
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [..., vocab] in fp32 of normed hidden states [..., hidden]."""
        weight = self.embed_tokens.weight if self.head is None else self.head.weight
        return F.linear(hidden, weight).float()

    def _frequency(self, device: torch.device) -> Tensor:
        if self._frequencies is None or self._frequencies.device != device:
            rope = RopeConfig("default", self.config.rope_theta)
            self._frequencies = inverse_frequencies(rope, self.config.head_dim).to(device)
        return self._frequencies
