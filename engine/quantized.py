"""Weights that stay quantized in memory: what their bits mean, in plain PyTorch.

`QuantizedWeight.dequantize` is the reference for `engine.kernels`. A weight is one matrix or a stack of matrices
(experts). Must not know tensor names, files or kernels. Sources: OCP 8-bit floating point (E4M3), OCP Microscaling
Formats (E2M1), NVIDIA ModelOpt (`NVFP4QTensor`), ggml's Q4_0 for int4, with scales chosen for the least squared error.

| format | numbers | group_scales | row_scales |
|---|---|---|---|
| plain | the weight itself [..., rows, columns] | none | none |
| fp8 | float8_e4m3fn [..., rows, columns] | none, or a float per block of `group` columns | float32, or none |
| int4 | uint8 [..., rows, columns / 2], steps + 8 | float16 per group of 32 columns | none |
| nvfp4 | uint8 [..., rows, columns / 2], e2m1 | float8_e4m3fn per group of 16 columns | float32: the global scale |

Two neighbouring columns share a byte, the first in its low half. Every scale is a factor.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from engine.errors import ModelError

Format = Literal["plain", "fp8", "int4", "nvfp4"]
FORMATS: tuple[Format, ...] = get_args(Format)
PACKED: tuple[Format, ...] = ("int4", "nvfp4")  # two columns per byte
INT4_GROUP = 32
NVFP4_GROUP = 16
INT4_SHRINKS = (0.95, 0.9, 0.85, 0.8)  # factors for a group's scale: the largest weight is clipped, the others gain
E4M3_LARGEST = 448.0
E2M1_LARGEST = 6.0
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # the eight magnitudes; bit 3 is the sign


@dataclass(frozen=True)
class QuantizedWeight:
    """See the table above. group: columns that share a group scale, 0 if there are none."""

    format: Format
    numbers: Tensor
    row_scales: Tensor | None = None
    group_scales: Tensor | None = None
    group: int = 0

    @property
    def rows(self) -> int:
        return self.numbers.shape[-2]

    @property
    def columns(self) -> int:
        return self.numbers.shape[-1] * (2 if self.format in PACKED else 1)

    @property
    def bytes(self) -> int:
        return sum(part.nbytes for part in self._parts())

    def __len__(self) -> int:
        """The number of matrices."""
        return 1 if self.numbers.dim() == 2 else len(self.numbers)

    def __getitem__(self, index: int) -> QuantizedWeight:
        """One matrix of a stack."""
        row, group = self.row_scales, self.group_scales
        return replace(
            self,
            numbers=self.numbers[index],
            row_scales=None if row is None else row[index],
            group_scales=None if group is None else group[index],
        )

    def part(self, first: int, end: int | None) -> QuantizedWeight:
        """The rows [first, end) of one matrix."""
        row, group = self.row_scales, self.group_scales
        return replace(
            self,
            numbers=self.numbers[first:end],
            row_scales=None if row is None else row[first:end],
            group_scales=None if group is None else group[first:end],
        )

    def to(self, device: torch.device) -> QuantizedWeight:
        """The same on another device."""
        row, group = self.row_scales, self.group_scales
        return replace(
            self,
            numbers=self.numbers.to(device),
            row_scales=None if row is None else row.to(device),
            group_scales=None if group is None else group.to(device),
        )

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The weight [..., rows, columns], computed in float32 and rounded once to `dtype`, row scales last.

        The kernels round to the type of the activations before they apply row scales.
        """
        if self.format == "int4":
            values = unpack_bytes(self.numbers).float() - 8
        elif self.format == "nvfp4":
            values = e2m1_values(unpack_bytes(self.numbers))
        else:
            values = self.numbers.float()
        if self.group_scales is not None:
            scales = self.group_scales.float().repeat_interleave(self.group, dim=-1)
            values = values * scales[..., : values.shape[-1]]  # the last block of a row may be narrower
        if self.row_scales is not None:
            values = values * self.row_scales[..., None]
        return values.to(dtype)

    def _parts(self) -> list[Tensor]:
        return [part for part in (self.numbers, self.row_scales, self.group_scales) if part is not None]


def plain(weight: Tensor) -> QuantizedWeight:
    """A weight that is not quantized."""
    return QuantizedWeight("plain", weight.detach().contiguous())


def quantize_weight(weight: Tensor, kind: Format) -> QuantizedWeight:
    """Quantizes `weight` [..., rows, columns]: fp8 with a scale per row, int4 in groups of 32, nvfp4 with one global
    scale per matrix. Raises ModelError if the columns cannot be grouped."""
    if kind == "plain":
        return plain(weight)
    if kind == "fp8":
        return _quantize_fp8(weight)
    group = INT4_GROUP if kind == "int4" else NVFP4_GROUP
    if weight.shape[-1] % group:
        raise ModelError(
            f"A weight with {weight.shape[-1]} columns cannot be quantized to {kind}, which needs a multiple of "
            f"{group}; choose fp8 or bfloat16."
        )
    if kind == "int4":
        return _quantize_int4(weight)
    return _quantize_nvfp4(weight)


def concatenate(parts: list[QuantizedWeight]) -> QuantizedWeight:
    """Concatenates weights of the same format and number of columns along the rows."""
    first = parts[0]
    rows = [part.row_scales for part in parts if part.row_scales is not None]
    groups = [part.group_scales for part in parts if part.group_scales is not None]
    return replace(
        first,
        numbers=torch.cat([part.numbers for part in parts], dim=-2),
        row_scales=torch.cat(rows, dim=-1) if rows else None,
        group_scales=torch.cat(groups, dim=-2) if groups else None,
    )


def unpack_bytes(numbers: Tensor) -> Tensor:
    """uint8 [..., columns / 2] as uint8 [..., columns] of four bits each, the low half of a byte first."""
    return torch.stack((numbers & 15, numbers >> 4), dim=-1).flatten(-2)


def pack_bytes(numbers: Tensor) -> Tensor:
    """The inverse of `unpack_bytes`."""
    return numbers[..., ::2] | (numbers[..., 1::2] << 4)


def e2m1_values(codes: Tensor) -> Tensor:
    """The float32 values of e2m1 codes (uint8, 0 to 15)."""
    table = torch.tensor([*E2M1, *(-value for value in E2M1)], device=codes.device)
    return table[codes.long()]


def _quantize_fp8(weight: Tensor) -> QuantizedWeight:
    values = weight.detach().float()
    scales = _nonzero(values.abs().amax(dim=-1) / E4M3_LARGEST)
    return QuantizedWeight("fp8", (values / scales[..., None]).to(torch.float8_e4m3fn), scales)


def _quantize_int4(weight: Tensor) -> QuantizedWeight:
    """The largest weight of a group, with its sign, becomes -8 steps, or slightly more if that reduces the squared
    error of the group."""
    groups = weight.detach().float().unflatten(-1, (-1, INT4_GROUP))
    largest = groups.gather(-1, groups.abs().argmax(dim=-1, keepdim=True))
    scales, steps, error = _int4_steps(groups, largest / -8)
    for factor in INT4_SHRINKS:
        smaller, smaller_steps, squared = _int4_steps(groups, largest * (factor / -8))
        better = squared < error
        scales, steps = torch.where(better, smaller, scales), torch.where(better, smaller_steps, steps)
        error = torch.where(better, squared, error)
    numbers = pack_bytes((steps + 8).to(torch.uint8).flatten(-2))
    return QuantizedWeight("int4", numbers, None, scales.squeeze(-1).half(), INT4_GROUP)


def _int4_steps(groups: Tensor, scales: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The scales rounded to float16, the `groups` [..., INT4_GROUP] in steps of them, and the squared error of each
    group."""
    scales = _nonzero(scales.half().float())
    steps = (groups / scales).round().clamp(-8, 7)
    return scales, steps, (steps * scales - groups).square().sum(dim=-1, keepdim=True)


def _quantize_nvfp4(weight: Tensor) -> QuantizedWeight:
    """The global scale makes the largest group scale the largest E4M3 number, as ModelOpt does."""
    groups = weight.detach().float().unflatten(-1, (-1, NVFP4_GROUP))
    largest = groups.abs().amax(dim=-1)
    overall = _nonzero(largest.amax(dim=(-2, -1)) / (E2M1_LARGEST * E4M3_LARGEST))
    scales = (largest / (E2M1_LARGEST * overall[..., None, None])).to(torch.float8_e4m3fn)
    units = groups / (_nonzero(scales.float()) * overall[..., None, None])[..., None]
    edges = torch.tensor([(low + high) / 2 for low, high in zip(E2M1, E2M1[1:], strict=False)], device=weight.device)
    codes = torch.bucketize(units.abs(), edges).to(torch.uint8) | ((units < 0).to(torch.uint8) << 3)
    rows = overall[..., None].expand(weight.shape[:-1]).contiguous()
    return QuantizedWeight("nvfp4", pack_bytes(codes.flatten(-2)), rows, scales, NVFP4_GROUP)


def _nonzero(scales: Tensor) -> Tensor:
    return torch.where(scales == 0, torch.ones_like(scales), scales)
