"""Keys and values of a whole sequence that a bidirectional model read, kept from pass to pass and from request to
request.

Source of the idea: the dual cache of Fast-dLLM (arXiv 2505.22618), which keeps what is before and after the block that
is filled. Here the rows of a pass are any positions, and a key that moves is rotated on. Must not know tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from engine.errors import Stop, leave_if
from engine.ops.rope import rotate, rotation


class SequenceKeys:
    """Per layer keys and values [1, kv_heads, length, head_dim], of positions 0 to length - 1."""

    def __init__(self, keys: list[Tensor], values: list[Tensor]) -> None:
        self.keys, self.values = keys, values

    @property
    def length(self) -> int:
        return self.keys[0].shape[2]

    @property
    def bytes(self) -> int:
        return sum(tensor.nbytes for tensor in (*self.keys, *self.values))

    def moved(self, sources: Tensor, frequencies: Tensor) -> SequenceKeys:
        """A copy for a changed sequence: position i gets what position `sources[i]` had, rotated to its new position.

        sources [length] on the device; what is where nothing fits must be computed by the next pass. frequencies: of
        the rotary embedding.
        """
        shift = torch.arange(len(sources), device=sources.device) - sources
        keys = [tensor.index_select(2, sources) for tensor in self.keys]
        if bool(shift.any()):
            cos, sin = rotation(shift[None], frequencies, torch.float32)
            keys = [rotate(key.transpose(1, 2).float(), cos, sin).transpose(1, 2).to(key.dtype) for key in keys]
        return SequenceKeys(keys, [tensor.index_select(2, sources) for tensor in self.values])


class WholePass:
    """`Memory` of a pass over a whole sequence. stop: called in every layer; if it returns True, Cancelled is raised.

    kept: whether `result` can return the keys and values afterwards.
    """

    def __init__(self, kept: bool, stop: Stop | None) -> None:
        self.kept, self.stop = kept, stop
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        leave_if(self.stop)
        if self.kept:
            self.keys.append(key.contiguous())
            self.values.append(value.contiguous())
        return key, value

    def result(self) -> SequenceKeys:
        return SequenceKeys(self.keys, self.values)


class PartialPass:
    """`Memory` of a pass over some positions `rows` [rows] of a sequence; the others stay as they are."""

    def __init__(self, keys: SequenceKeys, rows: Tensor, stop: Stop | None) -> None:
        self.kept, self.rows, self.stop = keys, rows, stop

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        leave_if(self.stop)
        keys, values = self.kept.keys[layer], self.kept.values[layer]
        keys.index_copy_(2, self.rows, key)
        values.index_copy_(2, self.rows, value)
        return keys, values
