"""The update: fp32 masters, Muon for the matrices of the layers, AdamW for the rest, gradients averaged over processes.

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
# The quintic of Newton-Schulz and its number of turns: Keller Jordan's Muon, https://kellerjordan.github.io/posts/muon/
QUINTIC = (3.4445, -4.7750, 2.0315)
TURNS = 5
SMALLEST_NORM = 1e-7
MATCHED_RMS = 0.2  # of an update, about that of AdamW's: arXiv 2502.16982, section 2.2


def initialise(model: DiffusionGemma, generator: torch.Generator) -> None:
    """Normal weights of variance 1 / fan-in; branches enter the residual stream at a third of their scale."""
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5, generator=generator)
        elif "post_attention_norm" in name or "post_feedforward_norm" in name:
            nn.init.constant_(parameter, 0.3)


def orthogonalised(matrices: Tensor) -> Tensor:
    """`matrices` [count, rows, columns] with their singular values brought near 1 (0.5 to 1.5), in bf16."""
    wide = matrices.bfloat16()
    if tall := wide.shape[1] > wide.shape[2]:
        wide = wide.mT
    wide = wide / wide.norm(dim=(1, 2), keepdim=True).clamp(min=SMALLEST_NORM)
    a, b, c = QUINTIC
    for _ in range(TURNS):
        gram = wide @ wide.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        wide = torch.baddbmm(wide, polynomial, wide, beta=a)
    return wide.mT if tall else wide


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised; the update's root mean square matches AdamW's, the decay is decoupled.

    Does what torch.optim.Muon does with adjust_lr_fn="match_rms_adamw", and reads its state. Matrices of one shape are
    worked on together: some dozens of kernels for a shape, not for a matrix.
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
        updates = orthogonalised(torch.stack(ahead)).float()
        scale = MATCHED_RMS * max(matrices[0].shape) ** 0.5
        torch._foreach_mul_(matrices, 1 - lr * weight_decay)
        torch._foreach_add_(matrices, updates.unbind(), alpha=-lr * scale)


class Optimizers:
    """Muon for the matrices of the layers, AdamW for embedding, experts, norms and scalars.

    They hold fp32 masters; `step` takes the gradients of the working copy and writes the new weights back.
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
        """One update at `rate` of the full learning rates.

        Returns the gradient's norm before clipping at 1, and the mean of `numbers` over all processes: they travel with
        the gradients, so that all processes see the same.
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
        """Weights and moments; settings, such as the weight decay, stay as they are here."""
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
    """All gradients in one message, replaced by their mean; `numbers` at its end."""
    device = next(iter(grads.values())).device
    flat = torch.cat([*(grad.float().flatten() for grad in grads.values()), torch.tensor(numbers, device=device)])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    at = 0
    for name, grad in grads.items():
        grads[name] = flat[at : at + grad.numel()].view_as(grad)
        at += grad.numel()
    return flat[at:].tolist()
