"""Small causal passes of several requests as one pass, so that the weights are read once for all of them.

The keys of all requests are put one behind the other, and a mask keeps them apart. For models in which every layer sees
the whole prompt. Must not know who makes the passes, or why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.memory import CausalPass, Masks, Memory
from engine.ops.attention import CAUSAL

MOST_ROWS = 64  # tokens of a joined pass


@dataclass(frozen=True)
class Pass:
    """The arguments of `CausalPass.encode` with a batch of one."""

    tokens: Tensor
    positions: Tensor
    masks: Masks
    memory: Memory

    @property
    def rows(self) -> int:
        return self.tokens.shape[1]

    def run(self, model: CausalPass) -> Tensor:
        return model.encode(self.tokens, self.positions, self.masks, self.memory)

    def can_be_joined(self, model: CausalPass) -> bool:
        small = self.rows <= MOST_ROWS and self.masks["full_attention"] is not CAUSAL
        return small and not any(layer.is_sliding for layer in model.config.layers)


def run_together(model: CausalPass, passes: Sequence[Pass]) -> list[Tensor]:
    """What `encode` returns for each: hidden states [1, rows, hidden]."""
    if len(passes) == 1:
        return [passes[0].run(model)]
    tokens = torch.cat([one.tokens for one in passes], dim=1)
    positions = torch.cat([one.positions for one in passes], dim=1)
    mask = torch.block_diag(*(_mask(one) for one in passes))
    hidden = model.encode(tokens, positions, {"full_attention": mask}, _JoinedMemory(passes))
    return list(hidden.split([one.rows for one in passes], dim=1))


def _mask(one: Pass) -> Tensor:
    """[rows, keys]; without a mask a pass sees every position up to its own."""
    mask = one.masks["full_attention"]
    if mask is not None:
        return mask
    return torch.ones(one.rows, int(one.positions.max()) + 1, dtype=torch.bool, device=one.tokens.device)


class _JoinedMemory:
    """The `Memory` of all passes."""

    def __init__(self, passes: Sequence[Pass]) -> None:
        self.passes, self.rows = passes, [one.rows for one in passes]

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        found = [
            one.memory.extend(layer, own_key, own_value)
            for one, own_key, own_value in zip(
                self.passes, key.split(self.rows, dim=2), value.split(self.rows, dim=2), strict=True
            )
        ]
        return torch.cat([keys for keys, _ in found], dim=2), torch.cat([values for _, values in found], dim=2)
