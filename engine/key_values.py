"""Keys and values of an encoded prompt, in buffers with free space for what follows.

The canvas is written into the free space behind the prompt, so no step copies the prompt's keys. Sliding layers keep
the whole prompt too, so a prompt can be truncated at any length. Must not know tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.config import ModelConfig
from engine.memory import Masks
from engine.ops.attention import COMPILED_ROWS, KEY_BLOCK, causal_mask, should_come_in_blocks
from engine.quantized import E4M3_LARGEST


def put(buffer: Tensor, new: Tensor) -> None:
    """Writes keys or values to a buffer in the type of the buffer. E4M3 has no infinity, so values that are too large
    are clamped; otherwise they would become NaN."""
    buffer.copy_(new.clamp(-E4M3_LARGEST, E4M3_LARGEST) if buffer.dtype == torch.float8_e4m3fn else new)


class KeyValues:
    """One sequence: per layer keys and values [1, kv_heads, capacity, head_dim], with `length` positions in use.

    dtype: the model's, or float8_e4m3fn, which takes half the memory. Keys and values are normed, so they need no
    scale.
    """

    def __init__(self, config: ModelConfig, device: torch.device, dtype: torch.dtype) -> None:
        self.config, self.device, self.dtype = config, device, dtype
        self.length = self.capacity = 0
        self.keys = [self._empty(index, 0) for index in range(len(config.layers))]
        self.values = [self._empty(index, 0) for index in range(len(config.layers))]

    @property
    def bytes(self) -> int:
        return sum(buffer.nbytes for buffer in (*self.keys, *self.values))

    def reserve(self, new: int) -> None:
        """Makes space for `new` positions behind those in use; grows by at least half.

        Works layer by layer, so that little is held twice; if memory runs out on the way, nothing is lost.
        """
        if self.length + new > self.capacity:
            capacity = max(self.length + new, self.capacity + self.capacity // 2)
            for index in range(len(self.keys)):
                self.keys[index] = self._grown(index, self.keys[index], capacity)
                self.values[index] = self._grown(index, self.values[index], capacity)
            self.capacity = capacity

    def write(self, layer: int, key: Tensor, value: Tensor, first: int, end: int) -> tuple[Tensor, Tensor]:
        """Writes the keys and values of new positions behind those in use; returns those of positions [first, end)."""
        keys, values, behind = self.keys[layer], self.values[layer], self.length + key.shape[2]
        put(keys[:, :, self.length : behind], key)
        put(values[:, :, self.length : behind], value)
        return keys[:, :, first:end], values[:, :, first:end]

    def truncate(self, length: int) -> None:
        self.length = min(self.length, length)

    def copy(self, length: int) -> KeyValues:
        """A copy of the first `length` positions."""
        other = KeyValues(self.config, self.device, self.dtype)
        other.length = other.capacity = length
        other.keys = [buffer[:, :, :length].clone() for buffer in self.keys]
        other.values = [buffer[:, :, :length].clone() for buffer in self.values]
        return other

    def visible_from(self, layer: int) -> int:
        """The first prompt position that the canvas sees in this layer: sliding layers see window - 1 positions."""
        if not self.config.layers[layer].is_sliding:
            return 0
        return max(0, self.length - self.config.sliding_window + 1)

    def _empty(self, layer: int, capacity: int) -> Tensor:
        shape = self.config.layers[layer]
        return torch.empty(1, shape.num_kv_heads, capacity, shape.head_dim, device=self.device, dtype=self.dtype)

    def _grown(self, layer: int, old: Tensor, capacity: int) -> Tensor:
        new = self._empty(layer, capacity)
        new[:, :, : self.length] = old[:, :, : self.length]
        return new


class PromptMemory:
    """Memory of an encoder pass over `new` tokens that follow `kv`; `commit` adds them to `kv`."""

    def __init__(self, kv: KeyValues, new: int) -> None:
        kv.reserve(new)
        self.kv, self.new = kv, new

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        first, end = 0, self.kv.length + self.new
        if self.new == 1 and self.kv.config.layers[layer].is_sliding:
            first = max(0, end - self.kv.config.sliding_window)
        return self.kv.write(layer, key, value, first, end)

    def positions(self) -> Tensor:
        return torch.arange(self.kv.length, self.kv.length + self.new, device=self.kv.device)[None]

    def masks(self) -> Masks:
        """A single token sees everything that `extend` returns, so it needs no mask."""
        if self.new == 1:
            return {"full_attention": None, "sliding_attention": None}
        window = self.kv.config.sliding_window
        return {
            "full_attention": causal_mask(self.new, self.kv.length, None, self.kv.device),
            "sliding_attention": causal_mask(self.new, self.kv.length, window, self.kv.device),
        }

    def commit(self) -> None:
        self.kv.length += self.new


class CanvasMemory:
    """Memory of denoiser passes over one canvas, written into the free space behind the prompt of `kv`.

    If keys should come in blocks, `extend` also returns some of the free space, masked.
    """

    def __init__(self, kv: KeyValues, width: int) -> None:
        block = KEY_BLOCK if width >= COMPILED_ROWS and should_come_in_blocks(kv.keys[0]) else 1
        kv.reserve(width + block - 1)
        self.kv, self.width, end = kv, width, kv.length + width
        self._positions = torch.arange(kv.length, end, device=kv.device)[None]
        self._ends: list[int] = []
        self._masks: Masks = {"full_attention": None, "sliding_attention": None}
        for index, layer in enumerate(kv.config.layers):
            first = kv.visible_from(index)
            more = (first - end) % block
            self._ends.append(end + more)
            if more:
                for buffer in (kv.keys[index], kv.values[index]):
                    buffer[:, :, end : end + more] = 0
                self._masks[layer.kind] = (torch.arange(end + more - first) < end - first)[None]

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        return self.kv.write(layer, key, value, self.kv.visible_from(layer), self._ends[layer])

    def positions(self) -> Tensor:
        return self._positions

    def masks(self) -> Masks:
        return self._masks


class BatchedCanvasMemory:
    """Memory of a batch of canvases: prompts are copied once, right-aligned, and the padding is masked.

    widths: how many positions of each row are canvas; the rest of the row is padding.
    """

    def __init__(self, rows: Sequence[KeyValues], widths: Sequence[int]) -> None:
        self.width = max(widths)
        self.lengths = [kv.length for kv in rows]
        first = rows[0]
        self.device = first.device
        self.buffers: list[tuple[Tensor, Tensor]] = []
        self._masks: Masks = {}
        starts = torch.tensor(self.lengths, device=self.device)[:, None]
        self._positions = starts + torch.arange(self.width, device=self.device)[None]
        in_canvas = torch.tensor([[column < width for column in range(self.width)] for width in widths])
        for index, layer in enumerate(first.config.layers):
            visible = [kv.length - kv.visible_from(index) for kv in rows]
            longest = max(visible)
            if should_come_in_blocks(first.keys[0]):
                longest += -(longest + self.width) % KEY_BLOCK
            shape = (len(rows), layer.num_kv_heads, longest + self.width, layer.head_dim)
            keys = torch.zeros(shape, device=first.device, dtype=first.dtype)
            values = torch.zeros_like(keys)
            for row, kv in enumerate(rows):
                span = slice(kv.length - visible[row], kv.length)
                keys[row, :, longest - visible[row] : longest] = kv.keys[index][0, :, span]
                values[row, :, longest - visible[row] : longest] = kv.values[index][0, :, span]
            self.buffers.append((keys, values))
            if layer.kind not in self._masks:
                prompt = torch.arange(longest)[None] >= longest - torch.tensor(visible)[:, None]
                mask = torch.cat((prompt, in_canvas), dim=1)
                self._masks[layer.kind] = None if bool(mask.all()) else mask[:, None, None].to(first.device)

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = self.buffers[layer]
        put(keys[:, :, -self.width :], key)
        put(values[:, :, -self.width :], value)
        return keys, values

    def positions(self) -> Tensor:
        return self._positions

    def masks(self) -> Masks:
        return self._masks
