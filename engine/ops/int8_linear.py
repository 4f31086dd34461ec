"""Linear products on a CPU with weights and activations in 8 bits, by oneDNN.

A weight is rounded to int8 with one scale per output row, an activation to 8 bits with one scale per token, as it comes
(LLM.int8(), arXiv 2208.07339, without its outlier columns). The weight is read once for up to 16 tokens at the cost of
one, and a prompt is faster than in bfloat16 on every processor measured (bench/NOTES.md). Knows nothing of the model.
"""

from __future__ import annotations

from functools import cache
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from engine.ops.linear import padded_rows

LEAST_SCALE = 1e-12  # a row of zeros has some scale too
FEW_ROWS = 64  # at least as many as decoding reads at once, for all requests, whose results must not depend on how many
CACHED_VALUES = 2**17  # of a weight at once, which stay in the processor's cache


class Matrix(Protocol):
    """A weight that is read some rows at a time. shape: [rows, columns]."""

    @property
    def shape(self) -> tuple[int, int]: ...

    def read(self, first: int, end: int) -> Tensor:
        """The rows [first, end) in fp32, as a tensor that may be changed."""
        ...


class Int8Product:
    """x @ weight.T + bias for a `weight` [out, in] and a `bias` [out], or no bias.

    x: [rows, in] in fp32; the result is [rows, out] in fp32. precise: whether `x` has outliers, so that many rows are
    rounded to 16 bits too, in two parts of 8 bits each. Few rows always are: that costs little, and the result for a
    token does not depend on the others of its pass.
    """

    def __init__(self, weight: Matrix, bias: Tensor | None = None, precise: bool = False) -> None:
        self.precise = precise
        rows, columns = weight.shape
        scales, codes = torch.empty(rows), torch.empty(rows, columns, dtype=torch.int8)
        step = max(1, CACHED_VALUES // columns)
        for first in range(0, rows, step):
            end = min(rows, first + step)
            values = weight.read(first, end)
            scales[first:end] = _largest(values).div_(127).clamp_(min=LEAST_SCALE)[:, 0]
            codes[first:end] = values.div_(scales[first:end, None]).round_()
        self.weight = torch.ops.onednn.qlinear_prepack(codes, None)
        self.scales, self.zero_points = scales, torch.zeros(len(codes), dtype=torch.int64)
        self.bias = None if bias is None else bias.float()
        self.bytes = codes.nbytes
        self.levels = 127.0 if has_dot_product() else 63.0

    def __call__(self, x: Tensor) -> Tensor:
        scale = _largest(x).div_(self.levels).clamp_(min=LEAST_SCALE)
        values = x / scale
        if self.precise or len(x) <= FEW_ROWS:
            coarse = values.round()
            fine = values.sub_(coarse).mul_(2 * self.levels)
            product = self._product(coarse, fine)
            result = product[: len(x)].add_(product[len(x) : 2 * len(x)], alpha=0.5 / self.levels).mul_(scale)
        else:
            result = self._product(values)[: len(x)].mul_(scale)
        return result if self.bias is None else result.add_(self.bias)

    def _product(self, *parts: Tensor) -> Tensor:
        """The product of the rows of all `parts` [rows, in], rounded to integers, which are at most `levels` large.

        Changes `parts`. Behind the result are the rows that were added to reach a number that oneDNN knows.
        """
        zero, rows = int(self.levels) + 1, len(parts[0])
        codes = torch.empty(padded_rows(rows * len(parts)), parts[0].shape[1], dtype=torch.uint8)
        for index, part in enumerate(parts):
            codes[index * rows : (index + 1) * rows].copy_(part.add_(zero + 0.5))
        product: Tensor = torch.ops.onednn.qlinear_pointwise.default(
            codes, 1.0, zero, self.weight, self.scales, self.zero_points, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return product


def _largest(x: Tensor) -> Tensor:
    """The largest magnitude of each row of `x` [rows, columns]: [rows, 1]. `aminmax` takes eight times as long."""
    return torch.maximum(x.amax(dim=1, keepdim=True), x.amin(dim=1, keepdim=True).neg_())


class PlainMatrix:
    """A tensor as a `Matrix`."""

    def __init__(self, weight: Tensor) -> None:
        self.weight, self.shape = weight, (weight.shape[0], weight.shape[1])

    def read(self, first: int, end: int) -> Tensor:
        return self.weight[first:end].float().clone()


@cache
def has_dot_product() -> bool:
    """Whether the processor adds products of bytes in 32 bits (VNNI). Others add pairs of them in 16 bits first, which
    overflow unless activations keep to 7 bits."""
    capabilities = torch.backends.cpu.get_cpu_capability()
    if torch.cpu._is_vnni_supported() or torch.cpu._is_amx_tile_supported():
        return True
    return "AVX" not in capabilities and "DEFAULT" not in capabilities


@cache
def int8_works() -> bool:
    """Whether this PyTorch has the operators, and they compute what they should on this machine."""
    generator = torch.Generator().manual_seed(0)
    weight, x = (torch.randn(rows, 64, generator=generator) for rows in (48, 20))
    wanted = F.linear(x, weight)
    try:
        with torch.inference_mode():
            found = Int8Product(PlainMatrix(weight))(x)
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
    return bool((found - wanted).norm() < 0.05 * wanted.norm())
