"""Qwen2 for a CPU: weights in 8 bits where the machine multiplies them, everything else in fp32.

Computes what `engine.models.qwen2` computes, but for the rounding of products. Built layer by layer from a source of
weights, so that no more than a few layers are ever held in full. Not for training. Knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from engine.config import RopeConfig
from engine.memory import Masks, Memory
from engine.models.diffusion_gemma import Rotation
from engine.models.qwen2 import Qwen2Config
from engine.ops.attention import attend
from engine.ops.int8_linear import Int8Product, Matrix, int8_works
from engine.ops.norm import UnitNorm
from engine.ops.rope import inverse_frequencies, rotate, rotation

CACHED_ROWS = 256  # of the feed-forward at once: their intermediate results stay in the processor's cache


class Product(Protocol):
    """x [rows, in] to [rows, out], both in fp32."""

    @property
    def bytes(self) -> int: ...

    def __call__(self, x: Tensor) -> Tensor: ...


class FloatProduct:
    """The product in fp32, for machines without one in 8 bits, and for tests."""

    def __init__(self, weight: Matrix, bias: Tensor | None = None, precise: bool = False) -> None:
        self.weight, self.bias = weight.read(0, weight.shape[0]), bias
        self.bytes = self.weight.nbytes

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


@dataclass(frozen=True)
class LayerWeights:
    """One layer: qkv [heads and key/value heads, hidden] and gate_up, both times the norm before them; out and down."""

    qkv: Matrix
    qkv_bias: Tensor
    out: Matrix
    gate_up: Matrix
    down: Matrix


class PackedLayer:
    """See `engine.models.qwen2.Layer`; the weights of the norms are part of the products that follow them."""

    def __init__(self, config: Qwen2Config, weights: LayerWeights, product: Callable[..., Product]) -> None:
        self.heads, self.kv_heads, self.head_dim = config.num_heads, config.num_kv_heads, config.head_dim
        self.qkv = product(weights.qkv, weights.qkv_bias)
        self.out = product(weights.out)
        self.gate_up = product(weights.gate_up)
        self.down = product(weights.down, precise=True)
        self.unit = UnitNorm(config.hidden_size, config.norm_eps)

    @property
    def bytes(self) -> int:
        return self.qkv.bytes + self.out.bytes + self.gate_up.bytes + self.down.bytes

    def __call__(
        self, x: Tensor, batch: int, rope: Rotation, mask: Tensor | None, memory: Memory, index: int, kv: torch.dtype
    ) -> Tensor:
        """x [batch * length, hidden]; returns the same shape."""
        query, keys, values = self.store_keys(x, batch, rope, memory, index, kv)
        query = query.mul_(self.head_dim**-0.5).to(kv)
        x = x + self.out(attend(query, keys, values, mask).flatten(0, 1).float())
        for rows in x.split(CACHED_ROWS):
            gate, up = self.gate_up(self.unit(rows)).chunk(2, dim=-1)
            rows.add_(self.down(F.silu(gate, inplace=True).mul_(up)))
        return x

    def store_keys(
        self, x: Tensor, batch: int, rope: Rotation, memory: Memory, index: int, kv: torch.dtype
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gives new keys and values to `memory`; returns the queries in fp32 and all that they attend to."""
        projected = self.qkv(self.unit(x)).view(batch, -1, self.heads + 2 * self.kv_heads, self.head_dim)
        rotated = rotate(projected[:, :, : self.heads + self.kv_heads], *rope).transpose(1, 2)
        value = projected[:, :, self.heads + self.kv_heads :].transpose(1, 2)
        return rotated[:, : self.heads], *memory.extend(index, rotated[:, self.heads :].to(kv), value.to(kv))


class PackedQwen2:
    """See `engine.models.qwen2.Qwen2`. embed: rows of the embedding for token ids [...], [..., hidden] in fp32."""

    def __init__(
        self,
        config: Qwen2Config,
        embed: Callable[[Tensor], Tensor],
        layers: list[PackedLayer],
        norm: Tensor,
        head: Product,
        kv_dtype: torch.dtype,
    ) -> None:
        self.config, self.embed, self.layers, self.head, self.kv_dtype = config, embed, layers, head, kv_dtype
        self.norm, self.unit = norm, UnitNorm(config.hidden_size, config.norm_eps)
        self.device = torch.device("cpu")
        self._frequencies = inverse_frequencies(RopeConfig("default", config.rope_theta), config.head_dim)

    @property
    def weight_bytes(self) -> int:
        """The memory that the weights take; the embedding is read from the file."""
        return self.head.bytes + sum(layer.bytes for layer in self.layers)

    def encode(
        self, tokens: Tensor, positions: Tensor, masks: Masks, memory: Memory, keys_only: bool = False
    ) -> Tensor:
        """See `engine.models.qwen2.Qwen2.encode`."""
        batch, length = tokens.shape
        x = self.embed(tokens).view(batch * length, -1)
        rope = rotation(positions, self._frequencies, torch.float32)
        for index, layer in enumerate(self.layers):
            if keys_only and index + 1 == len(self.layers):
                layer.store_keys(x, batch, rope, memory, index, self.kv_dtype)
                return x.view(batch, length, -1)
            x = layer(x, batch, rope, masks["full_attention"], memory, index, self.kv_dtype)
        return self.unit(x).mul_(self.norm).view(batch, length, -1)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [..., vocab] in fp32 of normed hidden states [..., hidden]."""
        return self.head(hidden.reshape(-1, hidden.shape[-1])).view(*hidden.shape[:-1], -1)


def fastest_product() -> Callable[..., Product]:
    """In 8 bits where that works here, otherwise in fp32."""
    return Int8Product if int8_works() else FloatProduct
