"""Cross-entropy over the vocabulary, computed in chunks with its gradient, so that all logits are never in memory.

The idea is that of Liger's fused linear cross-entropy and of Cut Cross-Entropy (arXiv 2411.09009): moving hundreds
of MB of logits costs more than the products. Two compiled kernels read the logits of a chunk. The softcap bounds the
logits, so no maximum is needed. Must not know what the targets mean.
"""

from __future__ import annotations

from math import ceil
from typing import Any

import torch
from torch import Tensor

CHUNK = {"cpu": 512, "cuda": 16384, "mps": 1024}
LARGEST_CAP = 40.0  # exp(-2 * cap) must not vanish in fp32


def _log_total(logits: Tensor, cap: float) -> Tensor:
    """log(sum(exp(capped logits))) - cap: [tokens] in fp32 for logits [tokens, vocab]."""
    return _below_cap(logits, cap).exp().sum(dim=-1).log()


def _gradient(logits: Tensor, log_total: Tensor, factor: Tensor, cap: float) -> Tensor:
    """Gradient of factor * log_total with respect to the uncapped logits [tokens, vocab], in their type."""
    probability = (_below_cap(logits, cap) - log_total[:, None]).exp()
    return (probability * _slope(logits, cap) * factor[:, None]).to(logits.dtype)


def _below_cap(logits: Tensor, cap: float) -> Tensor:
    """cap * tanh(logits / cap) - cap, with one exp, which is several times faster than tanh on a CPU."""
    return -2.0 * cap / (1.0 + (logits.float() * (2.0 / cap)).exp())


def _slope(logits: Tensor, cap: float) -> Tensor:
    """1 - tanh(logits / cap) ** 2."""
    rest = 1.0 / (1.0 + (logits.float() * (2.0 / cap)).exp())
    return 4.0 * rest * (1.0 - rest)


def _of_any_length(x: Tensor) -> Tensor:
    """`x` [tokens, ...], marked so that one compiled kernel serves all numbers of tokens."""
    torch._dynamo.maybe_mark_dynamic(x, 0)
    return x


def _in_fp32(one: Tensor, other: Tensor) -> Tensor:
    """one @ other [rows, columns]; on a GPU the sums stay in fp32."""
    return torch.mm(one, other, out_dtype=torch.float32) if one.is_cuda else one @ other


_compiled_log_total = torch.compile(_log_total)
_compiled_gradient = torch.compile(_gradient)


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        scale: Tensor,
        cap: float,
        dtype: torch.dtype,
        compiled: bool,
        graded: bool,
    ) -> Tensor:
        log_total_of = _compiled_log_total if compiled else _log_total
        gradient_of = _compiled_gradient if compiled else _gradient
        table, inputs = weight.detach().to(dtype), hidden.detach().to(dtype)
        grad_hidden = torch.empty_like(inputs)
        grad_table = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        largest = CHUNK.get(hidden.device.type, 1024)
        size = ceil(len(inputs) / ceil(len(inputs) / largest))
        for start in range(0, len(inputs), size):
            chunk, target, factor = (x[start : start + size] for x in (inputs, targets, scale))
            logits = chunk @ table.T
            log_total = log_total_of(_of_any_length(logits), cap)
            at_target = logits.gather(1, target[:, None])
            loss = log_total - _below_cap(at_target, cap).squeeze(1)
            total += (loss * factor).sum()
            if not graded:
                continue
            grad = gradient_of(_of_any_length(logits), _of_any_length(log_total), _of_any_length(factor), cap)
            missing = torch.expm1(-loss) * factor  # (probability - 1) * factor
            grad.scatter_(1, target[:, None], (missing[:, None] * _slope(at_target, cap)).to(dtype))
            torch.mm(grad, table, out=grad_hidden[start : start + size])
            grad_table += _in_fp32(grad.T, chunk)
        ctx.save_for_backward(grad_hidden.to(hidden.dtype), grad_table.to(weight.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_table = ctx.saved_tensors
        return grad_hidden * grads[0], grad_table * grads[0], None, None, None, None, None, None


def head_loss(
    hidden: Tensor,
    table: Tensor,
    targets: Tensor,
    weight: Tensor,
    cap: float,
    dtype: torch.dtype,
    compiled: bool = False,
) -> Tensor:
    """Weighted mean of -log softmax(cap * tanh(hidden table^T / cap))[target].

    hidden [..., size], table [vocab, size], targets and weight [...]. The products run in `dtype`. Raises ValueError
    for a cap above LARGEST_CAP.
    """
    if cap > LARGEST_CAP:
        raise ValueError(f"The softcap {cap} is above {LARGEST_CAP}, so small probabilities would vanish.")
    scale = weight.flatten().float() / weight.sum().clamp(min=1.0)
    graded = torch.is_grad_enabled()
    return _HeadLoss.apply(hidden.flatten(0, -2), table, targets.flatten(), scale, cap, dtype, compiled, graded)
