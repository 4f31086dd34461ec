"""Weights in few bits for storage: int8 with a scale a row, int4 with a scale a group of columns.

What the numbers of a stored tensor mean, both ways. Loading turns them into the type that is computed with
(`engine.checkpoints.checkpoint`), so they save disk and download, not memory. Must not know names of tensors nor files.

int8: a step is worth largest / 127 of its row. int4: GROUP columns share a scale in float16; two neighbouring columns
lie in one byte, the first in its low half, each as its number of steps + 8 (the layout of ggml's Q4_0, save that the
scales stand in a tensor of their own and are chosen for the least squared error).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Bits = Literal[4, 8]
GROUP = 32
SHRINKING = (0.95, 0.9, 0.85, 0.8)  # of a group's scale: the largest weight is cut off, the others gain


def stored_shapes(dtype: str, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Shapes of the numbers and of the scales of a weight of `shape`, where safetensors' `dtype` says it is quantized;
    None where it does not, or the weight cannot be."""
    if dtype == "I8" and len(shape) > 1:
        return shape, shape[:-1]
    if dtype == "U8" and can_group(shape):
        return (*shape[:-1], shape[-1] // 2), (*shape[:-1], shape[-1] // GROUP)
    return None


def can_group(shape: tuple[int, ...]) -> bool:
    """Whether a weight of this shape can be stored as int4."""
    return len(shape) > 1 and shape[-1] > 0 and shape[-1] % GROUP == 0


def quantize(weight: Tensor, bits: Bits) -> tuple[Tensor, Tensor]:
    """(numbers, scales) of a `weight` [..., rows, columns], on the CPU."""
    if bits == 4:
        return quantize_groups(weight)
    scales = row_scales(weight)
    return quantize_rows(weight, scales), scales


def dequantize(numbers: Tensor, scales: Tensor) -> Tensor:
    """The weight in float32: int8 `numbers` [..., rows, columns] with `scales` [..., rows], or uint8 numbers
    [..., rows, columns / 2] with scales [..., rows, columns / GROUP]."""
    if numbers.dtype == torch.int8:
        return numbers.float() * scales.float()[..., None]
    steps = torch.stack((numbers & 15, numbers >> 4), dim=-1).flatten(-2).float() - 8
    return (steps.unflatten(-1, (-1, GROUP)) * scales.float()[..., None]).flatten(-2)


def row_scales(weight: Tensor) -> Tensor:
    """What a step of int8 is worth in each row of `weight` [..., rows, columns]: float32 [..., rows], CPU."""
    largest = weight.detach().abs().amax(dim=-1).float().cpu()
    scales = largest / 127
    return torch.where(scales > 0, scales, torch.ones_like(scales))


def quantize_rows(weight: Tensor, scales: Tensor) -> Tensor:
    """`weight` [..., rows, columns] in steps of `scales` [..., rows], at most half a step off: int8, CPU."""
    steps = weight.detach().float().cpu() / scales[..., None]
    return steps.round().clamp(-127, 127).to(torch.int8)


def quantize_groups(weight: Tensor) -> tuple[Tensor, Tensor]:
    """`weight` [..., rows, columns] as int4: uint8 [..., rows, columns / 2] and float16 [..., rows, columns / GROUP].

    The largest weight of a group, with its sign, is worth -8 steps, or a little more where that makes the squared
    error of the group smaller.
    """
    groups = weight.detach().float().cpu().unflatten(-1, (-1, GROUP))
    largest = groups.gather(-1, groups.abs().argmax(dim=-1, keepdim=True))
    scales, steps, error = _in_steps(groups, largest / -8)
    for factor in SHRINKING:
        smaller, in_smaller, squared = _in_steps(groups, largest * (factor / -8))
        better = squared < error
        scales, steps = torch.where(better, smaller, scales), torch.where(better, in_smaller, steps)
        error = torch.where(better, squared, error)
    numbers = (steps + 8).to(torch.uint8).flatten(-2)
    return numbers[..., ::2] | (numbers[..., 1::2] << 4), scales.squeeze(-1).half()


def _in_steps(groups: Tensor, scales: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The scales as float16 keeps them, the steps of the groups [..., GROUP] in them, the squared error of a group."""
    scales = scales.half().float()
    scales = torch.where(scales == 0, torch.ones_like(scales), scales)
    steps = (groups / scales).round().clamp(-8, 7)
    return scales, steps, (steps * scales - groups).square().sum(dim=-1, keepdim=True)
