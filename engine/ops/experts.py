"""Mixture of experts: router and grouped feed-forward, in plain PyTorch, or by the kernels on a GPU.

Source: transformers, `DiffusionGemmaTextRouter` and `DiffusionGemmaTextExperts`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from engine.kernels import FAST_TYPES, usable
from engine.quantized import QuantizedWeight, plain


def gated_gelu(gate_up: Tensor) -> Tensor:
    """gelu(gate) * up, for `gate_up` [..., 2 * size] with the gate first."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.gelu(gate, approximate="tanh") * up


def route(scores: Tensor, per_expert_scale: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """Weights and indices, each [tokens, top_k], from router scores [tokens, experts].

    The weights of a token sum to one before `per_expert_scale` [experts] is applied. In fp32.
    """
    weights, indices = torch.topk(torch.softmax(scores, dim=-1, dtype=torch.float32), top_k, dim=-1)
    weights = weights / weights.sum(dim=-1, keepdim=True)
    return weights * per_expert_scale[indices], indices


def experts(
    x: Tensor, weights: Tensor, indices: Tensor, gate_up: Tensor | QuantizedWeight, down: Tensor | QuantizedWeight
) -> Tensor:
    """Sum over each token's experts of weight * down(gelu(gate x) * up x).

    x [tokens, hidden], weights and indices [tokens, top_k], gate_up [experts, 2 * size, hidden], down [experts, hidden,
    size]; returns [tokens, hidden]. Quantized weights are dequantized one expert at a time.
    """
    if x.dtype in FAST_TYPES and usable(x):
        from engine.kernels.mixture import mixture

        return mixture(x, weights, indices, *(plain(w) if isinstance(w, Tensor) else w for w in (gate_up, down)))
    top_k = indices.shape[-1]
    order = indices.flatten().argsort(stable=True)
    counts = torch.bincount(indices.flatten(), minlength=len(gate_up)).tolist()
    tokens = order // top_k
    outputs = []
    for expert, group in enumerate(tokens.split(counts)):
        if len(group):
            inner = gated_gelu(F.linear(x[group], matrix(gate_up, expert, x.dtype)))
            outputs.append(F.linear(inner, matrix(down, expert, x.dtype)))
    by_token = torch.cat(outputs)[order.argsort()].unflatten(0, (-1, top_k))
    return (by_token * weights[..., None].to(x.dtype)).sum(dim=1)


def matrix(weights: Tensor | QuantizedWeight, expert: int, dtype: torch.dtype) -> Tensor:
    """The matrix of one expert, in `dtype` if it is quantized."""
    return weights[expert] if isinstance(weights, Tensor) else weights[expert].dequantize(dtype)
