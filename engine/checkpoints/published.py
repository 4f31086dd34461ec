"""How expert weight matrix of a published quantized checkpoint is stored.

| layout | tensors of a matrix `M` |
|---|---|
| not quantized | `M.weight` in a float type |
| compressed-tensors float-quantized | `M.weight` F8_E4M3, `M.weight_scale` per row, tensor or block |
| ModelOpt NVFP4 | `M.weight` U8, `M.weight_scale` F8_E4M3 per group of 16, `M.weight_scale_2` F32, a factor |
| compressed-tensors nvfp4-pack-quantized | `M.weight_packed` U8, `M.weight_scale`, `M.weight_global_scale`: a divisor |
| compressed-tensors pack-quantized, 4 bits | `M.weight_packed` I32, `M.weight_scale` per group, `M.weight_shape` |

Sources: ModelOpt's `NVFP4QTensor` and unified export; compressed-tensors' `naive_quantized`, `nvfp4_quantized`,
`pack_quantized`. The tensors that are present decide the layout. Scales of activations are ignored, because activations
are not quantized here. Must not know any architecture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from engine.checkpoints.weight_files import FLOATS, StoredTensor
from engine.errors import ModelError
from engine.quantized import NVFP4_GROUP, PACKED, QuantizedWeight

ACTIVATION_SCALES = (".input_scale", ".input_global_scale", ".k_scale", ".v_scale", ".q_scale", ".output_scale")
PARTS = (".weight", ".weight_packed", ".weight_scale", ".weight_scale_2", ".weight_global_scale", ".weight_shape")
INT4_GROUPS = (32, 64, 128, 256)

Read = Callable[[str], Tensor]


@dataclass(frozen=True)
class Matrix:
    """The matrix `base` of `rows` x `columns`, as it is stored."""

    base: str
    rows: int
    columns: int

    def names(self, stored: Mapping[str, StoredTensor]) -> list[str]:
        """The tensors that store it."""
        return [self.base + part for part in PARTS if self.base + part in stored]

    def problem(self, stored: Mapping[str, StoredTensor]) -> str | None:
        """What is wrong with the stored tensors, judged from headers alone; None if `weight` can read them."""
        expected = self._expected(stored)
        if expected is None:
            return f"The weight {self.base} is missing or in an unknown layout."
        for part, (dtypes, shapes) in expected.items():
            tensor = stored.get(self.base + part)
            if tensor is None:
                return f"The tensor {self.base}{part} is missing."
            if tensor.dtype not in dtypes or tensor.shape not in shapes:
                return (
                    f"The tensor {tensor.name} in {tensor.file} is {tensor.dtype} {list(tensor.shape)} where "
                    f"{' or '.join(dtypes)} {' or '.join(str(list(shape)) for shape in shapes)} was expected."
                )
        extra = [name for name in self.names(stored) if name.removeprefix(self.base) not in expected]
        return f"The tensor {extra[0]} does not belong to the layout of its weight." if extra else None

    def weight(self, stored: Mapping[str, StoredTensor], read: Read, dtype: torch.dtype) -> QuantizedWeight:
        """The matrix, once `problem` returned None; a matrix that is not quantized comes in `dtype`."""

        def part(suffix: str) -> Tensor:
            return read(self.base + suffix)

        if self.base + ".weight_packed" in stored:
            numbers, scales = part(".weight_packed"), part(".weight_scale")
            if numbers.dtype == torch.int32:
                return QuantizedWeight("int4", numbers.view(torch.uint8), None, scales, self.columns // scales.shape[1])
            rows = (1 / part(".weight_global_scale").float()).reshape(-1).expand(self.rows).contiguous()
            return QuantizedWeight("nvfp4", numbers, rows, scales, NVFP4_GROUP)
        kind = stored[self.base + ".weight"].dtype
        numbers = part(".weight")
        if kind in FLOATS:
            return QuantizedWeight("plain", numbers.to(dtype))
        scales = part(".weight_scale")
        if kind == "U8":
            rows = part(".weight_scale_2").float().reshape(-1).expand(self.rows).contiguous()
            return QuantizedWeight("nvfp4", numbers, rows, scales, NVFP4_GROUP)
        block = self._block(tuple(scales.shape))
        if block is None:
            return QuantizedWeight("fp8", numbers, scales.float().reshape(-1).expand(self.rows).contiguous())
        by_row = scales.float().repeat_interleave(block, dim=0)[: self.rows].contiguous()
        return QuantizedWeight("fp8", numbers, None, by_row, block)

    def _expected(
        self, stored: Mapping[str, StoredTensor]
    ) -> dict[str, tuple[tuple[str, ...], list[tuple[int, ...]]]] | None:
        """The types and shapes that each tensor of the layout may have; None for an unknown layout."""
        rows, columns = self.rows, self.columns
        single: list[tuple[int, ...]] = [(), (1,)]
        scale = stored.get(self.base + ".weight_scale")
        packed, weight = stored.get(self.base + ".weight_packed"), stored.get(self.base + ".weight")
        groups: list[tuple[int, ...]] = [(rows, columns // NVFP4_GROUP)]
        if packed is not None and packed.dtype == "I32":
            return {
                ".weight_packed": (("I32",), [(rows, columns // 8)]),
                ".weight_scale": (FLOATS, [(rows, columns // g) for g in INT4_GROUPS if columns % g == 0]),
                ".weight_shape": (("I64", "I32"), [(2,)]),
            }
        if packed is not None:
            return {
                ".weight_packed": (("U8",), [(rows, columns // 2)]),
                ".weight_scale": (("F8_E4M3",), groups),
                ".weight_global_scale": (FLOATS, single),
            }
        if weight is None:
            return None
        if weight.dtype == "U8":
            return {
                ".weight": (("U8",), [(rows, columns // 2)]),
                ".weight_scale": (("F8_E4M3",), groups),
                ".weight_scale_2": (FLOATS, single),
            }
        if weight.dtype == "F8_E4M3":
            shapes = [*single, (rows,), (rows, 1)]
            if scale is not None and self._block(scale.shape) is not None:
                shapes.append(scale.shape)
            return {".weight": (("F8_E4M3",), [(rows, columns)]), ".weight_scale": (FLOATS, shapes)}
        return {".weight": (FLOATS, [(rows, columns)])}

    def _block(self, shape: tuple[int, ...]) -> int | None:
        """The side of the square blocks that share a scale, if `shape` is the shape of block scales."""
        if len(shape) != 2 or shape[1] == 1 or prod(shape) == 1:
            return None
        sides = (64, 128, 256)
        return next((side for side in sides if shape == (-(-self.rows // side), -(-self.columns // side))), None)


def stack(weights: Iterator[QuantizedWeight], count: int, base: str) -> QuantizedWeight:
    """The weights of `count` experts as one stack, filled one by one, so that only one expert is held twice.

    Raises ModelError if their formats differ.
    """
    first = next(weights)

    def empty_stack(part: Tensor | None) -> Tensor | None:
        return None if part is None else part.new_empty((count, *part.shape))

    numbers, rows, groups = (empty_stack(part) for part in (first.numbers, first.row_scales, first.group_scales))
    assert numbers is not None
    whole = QuantizedWeight(first.format, numbers, rows, groups, first.group)
    for index in range(count):
        expert = first if index == 0 else next(weights)
        if (expert.format, expert.group) != (first.format, first.group):
            raise ModelError(
                f"The experts of {base} are stored in different formats; choose another build of the model."
            )
        for target, part in ((numbers, expert.numbers), (rows, expert.row_scales), (groups, expert.group_scales)):
            if target is not None and part is not None:
                target[index].copy_(part)
    return whole


def one_format(parts: list[QuantizedWeight], base: str, dtype: torch.dtype) -> list[QuantizedWeight]:
    """Weights to be concatenated, dequantized to `dtype` if their formats differ."""
    if len({(part.format, part.group, _scale_type(part)) for part in parts}) == 1:
        return parts
    if any(part.format in PACKED for part in parts) and sum(part.numbers.numel() for part in parts) > 2**28:
        raise ModelError(f"The parts of {base} are stored in different formats; choose another build of the model.")
    return [QuantizedWeight("plain", part.dequantize(dtype)) for part in parts]


def _scale_type(weight: QuantizedWeight) -> torch.dtype | None:
    return None if weight.group_scales is None else weight.group_scales.dtype
