"""Linear products for inference on a CPU, with the weight laid out in advance.

`Product` chooses the fastest layout for this machine (measured: bench/results/cpu_linear.md):

1. bfloat16 weights, if oneDNN multiplies in bfloat16 (AMX, AVX-512 BF16, Arm BF16): reordered once into oneDNN's
   blocked layout, not in every call, and with the activation of a feed-forward inside the product;
2. otherwise PyTorch's own product in the weight's type. For float32 MKL is as fast on the plain layout. Int8 products
   are twice as fast there, but round the activations, so they are not used.

Not for training: a product keeps no gradient, and a reordered weight cannot be changed. Must not know the model.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from engine.device import cpu_has_bfloat16

FUSED_ROWS = 8  # from this many rows on, an activation inside a product is faster than a separate one
ROW_STEP = 16


class Product:
    """x @ weight.T for a `weight` [out, in]. x: [..., in] of any float type; the result has the weight's type.

    may_copy: False uses the weight in place, for a weight that is needed elsewhere and too large to hold twice.
    """

    def __init__(self, weight: Tensor, may_copy: bool = True) -> None:
        weight = weight.detach()
        self.dtype = weight.dtype
        self.packed = may_copy and can_pack(weight)
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous()) if self.packed else weight

    def __call__(self, x: Tensor) -> Tensor:
        if x.dtype != self.dtype:
            x = x.to(self.dtype)
        if not self.packed:
            return F.linear(x, self.weight)
        return torch.ops.mkldnn._linear_pointwise.default(x, self.weight, None, "none", [], "")


class GatedProduct:
    """gelu(gate x) * up x, for weights `gate` and `up` [size, in]. Reference: `engine.ops.experts.gated_gelu`."""

    def __init__(self, gate: Tensor, up: Tensor) -> None:
        self.gate, self.up = Product(gate), Product(up)
        self.fusable = self.gate.packed and self.up.packed

    def __call__(self, x: Tensor) -> Tensor:
        if x.dtype != self.gate.dtype:
            x = x.to(self.gate.dtype)
        if not self.fusable or x.numel() < FUSED_ROWS * x.shape[-1]:
            return F.gelu(self.gate(x), approximate="tanh").mul_(self.up(x))
        operator, gate, up = torch.ops.mkldnn._linear_pointwise, self.gate.weight, self.up.weight
        return operator.binary(x, operator.default(x, gate, None, "gelu", [], "tanh"), up, None, "mul")


def pad_rows(x: Tensor, packed: bool) -> Tensor:
    """x [..., size] as [rows, size], with zero rows appended up to `padded_rows` if products are `packed`."""
    rows = x.reshape(-1, x.shape[-1])
    missing = padded_rows(len(rows)) - len(rows) if packed else 0
    return F.pad(rows, (0, 0, 0, missing)) if missing else rows


def padded_rows(rows: int) -> int:
    """`rows` rounded up to a multiple of ROW_STEP, or of an eighth of the next power of two; 1 stays 1.

    oneDNN compiles a product for every number of rows, which takes longer than the product (1 to 2 ms, and 0.6 to 0.9
    MiB that it keeps), so only a few numbers of rows should occur.
    """
    step = max(ROW_STEP, (1 << max(0, rows - 1).bit_length()) // 8)
    return rows + -rows % step if rows > 1 else rows


def can_pack(weight: Tensor) -> bool:
    """Whether oneDNN takes this weight in a layout of its own, and is faster with it."""
    return weight.device.type == "cpu" and weight.dtype == torch.bfloat16 and _bfloat16_works()


@cache
def _bfloat16_works() -> bool:
    """Whether this PyTorch has the operators, and they compute correct results on this machine."""
    if not cpu_has_bfloat16():
        return False
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(32, 64, generator=generator).bfloat16()
    x = torch.randn(16, 64, generator=generator).bfloat16()
    expected = F.linear(x.float(), weight.float())
    gelu = F.gelu(expected, approximate="tanh")
    try:
        with torch.inference_mode():
            operator, packed = torch.ops.mkldnn._linear_pointwise, torch.ops.mkldnn._reorder_linear_weight(weight)
            plain = operator.default(x, packed, None, "none", [], "")
            activated = operator.default(x, packed, None, "gelu", [], "tanh")
            product = operator.binary(x, activated, packed, None, "mul")
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
    pairs = ((plain, expected), (activated, gelu), (product, expected * gelu))
    return all(torch.allclose(found.float(), reference, atol=0.1, rtol=0.02) for found, reference in pairs)
