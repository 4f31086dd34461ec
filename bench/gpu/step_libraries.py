"""Library functions that do the same work as our kernels, for `bench.gpu.step_kernels`.

Only their time counts: quantized weights are random for them, so their results differ. Each may fail on a GPU that it
does not support. Must not know how times are taken.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from engine.quantized import INT4_GROUP, Format

Work = Callable[[], Tensor]
INNER_TILES = 8  # of tinygemm's packing, as torchao chooses it


def grouped(x: Tensor, weights: Tensor, indices: Tensor, gate_up: Tensor, down: Tensor) -> Work:
    """A mixture of experts with PyTorch's grouped product; tokens are sorted on the device."""

    def run() -> Tensor:
        flat = indices.flatten()
        order = flat.argsort(stable=True)
        counts = torch.zeros(len(gate_up), dtype=torch.int32, device=x.device)
        ends = counts.scatter_add(0, flat, torch.ones_like(flat, dtype=torch.int32)).cumsum(0, dtype=torch.int32)
        rows = x[order // indices.shape[-1]]
        gate, up = torch._grouped_mm(rows, gate_up.transpose(1, 2), offs=ends).chunk(2, dim=-1)
        product = torch._grouped_mm(F.gelu(gate, approximate="tanh") * up, down.transpose(1, 2), offs=ends)
        back = torch.empty_like(product).index_copy_(0, order, product)
        return (back.view(*indices.shape, -1) * weights[..., None].to(x.dtype)).sum(1)

    return run


def product(x: Tensor, rows: int, kind: Format) -> tuple[Work, str]:
    """(product of x [tokens, columns] with random weights [rows, columns], name of the library function)."""
    columns, device = x.shape[-1], x.device
    if kind == "int4" and device.type == "cuda":
        codes = torch.randint(0, 256, (rows, columns // 2), dtype=torch.uint8, device=device)
        scales = torch.ones(columns // INT4_GROUP, rows, 2, dtype=torch.bfloat16, device=device)

        def tinygemm() -> Tensor:
            return torch.ops.aten._weight_int4pack_mm(x, packed(), INT4_GROUP, scales)

        held: list[Tensor] = []

        def packed() -> Tensor:
            if not held:
                held.append(torch.ops.aten._convert_weight_to_int4pack(codes, INNER_TILES))
            return held[0]

        return tinygemm, "tinygemm, as used by torchao"
    if kind == "fp8" and device.type == "cuda":
        whole = torch.randn(rows, columns, device=device).to(torch.float8_e4m3fn).t()
        by_row, by_column = torch.ones(len(x), 1, device=device), torch.ones(1, rows, device=device)

        def scaled() -> Tensor:
            return torch._scaled_mm(x.to(torch.float8_e4m3fn), whole, by_row, by_column, out_dtype=x.dtype)

        return scaled, "torch._scaled_mm, x in fp8 too"
    plain = torch.randn(rows, columns, device=device).to(x.dtype)
    return lambda: F.linear(x, plain), "F.linear, plain weight"


def sdpa(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Attention by PyTorch in `dtype`, as `engine.kernels.attention.attend` lays it out; mask [batch, 1, 1, keys]."""
    query, key, value = (part.to(dtype) for part in (query, key, value))
    groups = query.shape[1] // key.shape[1]
    if mask is not None:  # with groups and a mask PyTorch has only its slowest kernel
        key, value = (part.repeat_interleave(groups, dim=1) for part in (key, value))
    out = F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=1.0, enable_gqa=mask is None and groups > 1
    )
    return out.transpose(1, 2).flatten(2)


def flex(query: Tensor, key: Tensor, value: Tensor) -> Work:
    """The same by FlexAttention, compiled at the first call; without a mask."""
    from torch.nn.attention.flex_attention import flex_attention

    compiled = torch.compile(flex_attention, dynamic=False)
    return lambda: compiled(query, key, value, scale=1.0, enable_gqa=True)
