"""int8 on disk with one scale per row: what the stored numbers mean, both ways.

Loading dequantizes them, so this format saves disk and download, not memory. Must not know tensor names or files.
"""

from __future__ import annotations

import torch
from torch import Tensor


def stored_shapes(dtype: str, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Shapes of the numbers and of the scales of a weight of `shape` whose safetensors type is `dtype`; None if it is
    not quantized."""
    return (shape, shape[:-1]) if dtype == "I8" and len(shape) > 1 else None


def row_scales(weight: Tensor) -> Tensor:
    """The value of one step in each row of `weight` [..., rows, columns]: float32 [..., rows], on the CPU.

    It is the largest magnitude of the row / 127.
    """
    largest = weight.detach().abs().amax(dim=-1).float().cpu()
    scales = largest / 127
    return torch.where(scales > 0, scales, torch.ones_like(scales))


def quantize_rows(weight: Tensor, scales: Tensor) -> Tensor:
    """`weight` [..., rows, columns] in steps of `scales` [..., rows]: int8 on the CPU, off by at most half a step."""
    steps = weight.detach().float().cpu() / scales[..., None]
    return steps.round().clamp(-127, 127).to(torch.int8)


def dequantize_rows(numbers: Tensor, scales: Tensor) -> Tensor:
    """The weight in float32, for int8 `numbers` [..., rows, columns] and `scales` [..., rows]."""
    return numbers.float() * scales.float()[..., None]
