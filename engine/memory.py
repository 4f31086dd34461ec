"""The interface between a model's passes and whatever stores their keys and values.

Must not know models, nor how keys and values are stored.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from engine.config import LayerKind

Masks = dict[LayerKind, Tensor | None]
"""By kind of layer, a mask as `engine.ops.attention.attend` takes it."""


class Memory(Protocol):
    """Stores the keys and values of a pass, and returns those that the pass attends to."""

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Takes key and value [batch, kv_heads, new, head_dim]; returns all that this layer attends to."""
        ...
