"""The interfaces between a model's causal pass, its callers, and whatever stores keys and values.

Must not know models, or how keys and values are stored.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from engine.config import LayerKind, ModelConfig

Masks = dict[LayerKind, Tensor | None]
"""By kind of layer, a mask as `engine.ops.attention.attend` takes it."""


class Memory(Protocol):
    """Stores the keys and values of a pass, and returns those that the pass attends to."""

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Takes key and value [batch, kv_heads, new, head_dim]; returns all that this layer attends to."""
        ...


class CausalModel(Protocol):
    """The causal pass and the head of a model: see `engine.models.text_model.TextModel`."""

    @property
    def config(self) -> ModelConfig: ...

    def encode(self, tokens: Tensor, positions: Tensor, masks: Masks, memory: Memory) -> Tensor: ...

    def logits(self, hidden: Tensor) -> Tensor: ...
