"""The interfaces between a model's causal pass, its callers, and whatever stores keys and values.

Must not know models, or how keys and values are stored.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from engine.config import LayerConfig, LayerKind

Masks = dict[LayerKind, Tensor | None]
"""By kind of layer, a mask as `engine.ops.attention.attend` takes it."""


class Memory(Protocol):
    """Stores the keys and values of a pass, and returns those that the pass attends to."""

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Takes key and value [batch, kv_heads, new, head_dim]; returns all that this layer attends to."""
        ...


@runtime_checkable
class SlottedMemory(Memory, Protocol):
    """A memory in which a pass may write its keys and values itself. `extend` then copies nothing."""

    def slots(self, layer: int) -> tuple[Tensor, Tensor]:
        """Views [batch, kv_heads, new, head_dim] for the new keys and values of a layer, always the same tensors."""
        ...


class Shape(Protocol):
    """The sizes of a model that storing its keys and values depends on."""

    @property
    def layers(self) -> tuple[LayerConfig, ...]: ...

    @property
    def sliding_window(self) -> int: ...

    @property
    def max_positions(self) -> int: ...


class CausalPass(Protocol):
    """The causal pass and the head of a model: see `engine.models.text_model.TextModel`."""

    @property
    def config(self) -> Shape: ...

    def encode(self, tokens: Tensor, positions: Tensor, masks: Masks, memory: Memory) -> Tensor: ...

    def logits(self, hidden: Tensor) -> Tensor: ...


class CausalModel(CausalPass, Protocol):
    """A model in memory. kv_dtype: the type of its keys and values. weight_bytes: the memory its weights take."""

    @property
    def device(self) -> torch.device: ...

    @property
    def kv_dtype(self) -> torch.dtype: ...

    @property
    def weight_bytes(self) -> int: ...

    def encode(
        self, tokens: Tensor, positions: Tensor, masks: Masks, memory: Memory, keys_only: bool = False
    ) -> Tensor:
        """keys_only: for a caller that only wants keys and values; the result is meaningless."""
        ...
