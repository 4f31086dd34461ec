"""Cross-entropy over the vocabulary without ever holding all logits: loss and gradient chunk by chunk.

The idea is that of Liger's fused linear cross-entropy and of Cut Cross-Entropy (arXiv 2411.09009): with
logits of some hundred MB a batch, memory traffic costs more than the products. Must not know what the targets
mean.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHUNK = {"cpu": 128, "cuda": 8192, "mps": 1024}


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
    ) -> Tensor:
        table = weight.detach().to(dtype)
        inputs = hidden.detach().to(dtype)
        grad_hidden = torch.empty_like(inputs)
        grad_table = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        size = CHUNK.get(hidden.device.type, 1024)
        for start in range(0, len(inputs), size):
            chunk, target, factor = (x[start : start + size] for x in (inputs, targets, scale))
            squashed = (chunk @ table.T).float().div_(cap).tanh_()
            logits = squashed * cap
            log_total = logits.logsumexp(dim=-1, keepdim=True)
            total += ((log_total.squeeze(1) - logits.gather(1, target[:, None]).squeeze(1)) * factor).sum()
            grad = logits.sub_(log_total).exp_()
            grad.scatter_add_(1, target[:, None], torch.full_like(log_total, -1.0))
            slope = squashed.square_().neg_().add_(1.0).mul_(factor[:, None])
            grad = grad.mul_(slope).to(dtype)
            grad_hidden[start : start + size] = grad @ table
            grad_table += (grad.T @ chunk).float()
        ctx.save_for_backward(grad_hidden.to(hidden.dtype), grad_table.to(weight.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_table = ctx.saved_tensors
        return grad_hidden * grads[0], grad_table * grads[0], None, None, None, None


def head_loss(hidden: Tensor, table: Tensor, targets: Tensor, weight: Tensor, cap: float, dtype: torch.dtype) -> Tensor:
    """Weighted mean of -log softmax(cap * tanh(hidden table^T / cap))[target].

    hidden [..., size], table [vocab, size], targets and weight [...]; the products run in `dtype`.
    """
    scale = weight.flatten().float() / weight.sum().clamp(min=1.0)
    return _HeadLoss.apply(hidden.flatten(0, -2), table, targets.flatten(), scale, cap, dtype)
