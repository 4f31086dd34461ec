"""The optimizers: Muon for the matrices of the layers, AdamW for the rest, fp32 masters, averaging over processes.

Must not know losses, data or schedules.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from engine.models.diffusion_gemma import DiffusionGemma
from train.recipe import RunConfig

MOMENTUM = 0.95
# Coefficients and iterations of Newton-Schulz: Keller Jordan's Muon, https://kellerjordan.github.io/posts/muon/
QUINTIC = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
SMALLEST_NORM = 1e-7
MATCHED_RMS = 0.2  # of an update, about that of AdamW (arXiv 2502.16982, section 2.2)


def initialize(model: DiffusionGemma, generator: torch.Generator) -> None:
    """Normal weights with variance 1 / fan-in. The last norm of each branch starts at 0.3."""
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5, generator=generator)
        elif "post_attention_norm" in name or "post_feedforward_norm" in name:
            nn.init.constant_(parameter, 0.3)


def orthogonalized(matrices: Tensor) -> Tensor:
    """`matrices` [count, rows, columns] with singular values near 1 (0.5 to 1.5), in bf16."""
    wide = matrices.bfloat16()
    if tall := wide.shape[1] > wide.shape[2]:
        wide = wide.mT
    wide = wide / wide.norm(dim=(1, 2), keepdim=True).clamp(min=SMALLEST_NORM)
    a, b, c = QUINTIC
    for _ in range(ITERATIONS):
        gram = wide @ wide.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        wide = torch.baddbmm(wide, polynomial, wide, beta=a)
    return wide.mT if tall else wide


class Muon(torch.optim.Optimizer):
    """Orthogonalized Nesterov momentum with decoupled weight decay; the RMS of an update matches AdamW.

    Computes the same as torch.optim.Muon with adjust_lr_fn="match_rms_adamw", and reads its state. Matrices of the same
    shape are updated together, which launches the kernels once per shape and not once per matrix.
    """

    def __init__(self, matrices: Iterable[Tensor], lr: float, weight_decay: float) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            by_shape = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    by_shape[matrix.shape].append(matrix)
            for matrices in by_shape.values():
                self._step_together(matrices, group["lr"], group["weight_decay"])

    def _step_together(self, matrices: list[Tensor], lr: float, weight_decay: float) -> None:
        for matrix in matrices:
            if "momentum_buffer" not in self.state[matrix]:
                self.state[matrix]["momentum_buffer"] = torch.zeros_like(matrix)
        grads = [matrix.grad for matrix in matrices if matrix.grad is not None]
        momenta = [self.state[matrix]["momentum_buffer"] for matrix in matrices]
        torch._foreach_lerp_(momenta, grads, 1 - MOMENTUM)
        ahead = torch._foreach_lerp(grads, momenta, MOMENTUM)
        updates = orthogonalized(torch.stack(ahead)).float()
        scale = MATCHED_RMS * max(matrices[0].shape) ** 0.5
        torch._foreach_mul_(matrices, 1 - lr * weight_decay)
        torch._foreach_add_(matrices, updates.unbind(), alpha=-lr * scale)


class Optimizers:
    """Muon for the matrices of the layers, AdamW for embedding, experts, norms and scalars.

    Both update fp32 masters. `step` reads the gradients of the working weights and writes the new weights back.
    """

    def __init__(self, model: DiffusionGemma, run: RunConfig) -> None:
        self.working = dict(model.named_parameters())
        self.masters = {name: p.detach().float().clone().requires_grad_() for name, p in self.working.items()}
        self.grads = {name: torch.zeros_like(p) for name, p in self.masters.items()}
        matrices = [
            p for name, p in self.masters.items() if p.dim() == 2 and "embed" not in name and "router" not in name
        ]
        others = [p for p in self.masters.values() if all(p is not matrix for matrix in matrices)]
        self.rates = (run.muon_lr, run.adam_lr)
        fused = True if others[0].is_cuda else None
        self.optimizers: list[torch.optim.Optimizer] = [
            Muon(matrices, run.muon_lr, run.weight_decay),
            torch.optim.AdamW(others, lr=run.adam_lr, betas=(0.9, 0.98), weight_decay=0.0, fused=fused),
        ]

    def step(self, rate: float, numbers: list[float]) -> tuple[Tensor, list[float]]:
        """One update with the learning rates times `rate`.

        Returns the norm of the gradient before clipping at 1, and the mean of `numbers` over all processes. The numbers
        are sent with the gradients, so that all processes get the same.
        """
        found = {name: p.grad for name, p in self.working.items() if p.grad is not None}
        if dist.is_initialized():
            numbers = _average(found, numbers)
        torch._foreach_copy_([self.grads[name] for name in found], list(found.values()))
        for name, master in self.masters.items():
            master.grad = self.grads[name] if name in found else None
        norm = nn.utils.clip_grad_norm_(self.masters.values(), 1.0)
        for optimizer, full in zip(self.optimizers, self.rates, strict=True):
            optimizer.param_groups[0]["lr"] = full * rate
            optimizer.step()
        with torch.no_grad():
            torch._foreach_copy_(list(self.working.values()), list(self.masters.values()))
        for parameter in self.working.values():
            parameter.grad = None
        return norm, numbers

    def state(self) -> dict[str, Any]:
        return {"masters": self.masters, "optimizers": [optimizer.state_dict() for optimizer in self.optimizers]}

    def load(self, state: Mapping[str, Any]) -> None:
        """Loads weights and moments. Settings such as the weight decay are not loaded."""
        self.load_weights(state["masters"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            pairs = zip(optimizer.param_groups, saved["param_groups"], strict=True)
            groups = [{**ours, "params": theirs["params"]} for ours, theirs in pairs]
            optimizer.load_state_dict({"state": saved["state"], "param_groups": groups})

    @torch.no_grad()
    def load_weights(self, masters: Mapping[str, Tensor]) -> None:
        for name, master in self.masters.items():
            master.copy_(masters[name])
            self.working[name].copy_(master)


def _average(grads: dict[str, Tensor], numbers: list[float]) -> list[float]:
    """Replaces all gradients by their mean over processes, in one message with `numbers`; returns their mean."""
    device = next(iter(grads.values())).device
    flat = torch.cat([*(grad.float().flatten() for grad in grads.values()), torch.tensor(numbers, device=device)])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    at = 0
    for name, grad in grads.items():
        grads[name] = flat[at : at + grad.numel()].view_as(grad)
        at += grad.numel()
    return flat[at:].tolist()
