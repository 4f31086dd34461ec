"""What is added to the logits of a canvas: tokens that must not appear, and columns that may take few tokens only.

A canvas has one row of values for all its holes, and one more for each restricted column, so a vocabulary of 262,144
takes one or two rows and not one per hole. Must not know why a token is banned.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.canvas import Canvas

BANNED_LOGIT = -1e4


@dataclass(frozen=True)
class LogitBias:
    """values [n, vocab] float; rows [m] int32: the row of `values` for each of m rows of logits."""

    values: Tensor
    rows: Tensor

    def added(self, logits: Tensor) -> Tensor:
        """logits [m, vocab] with the bias."""
        return logits + (self.values if len(self.values) == 1 else self.values[self.rows])


def bias_values(canvas: Canvas, banned: Tensor | None, vocab: int, device: torch.device) -> Tensor:
    """[1 + restricted columns, vocab]: first that of `banned` ids, then one row per column of `canvas.allowed`."""
    values = torch.zeros(1 + len(canvas.allowed), vocab, device=device)
    if banned is not None:
        values[0, banned.to(device)] = BANNED_LOGIT
    values[1:] = BANNED_LOGIT
    for row, ids in enumerate(canvas.allowed.values(), 1):
        values[row, ids.to(device)] = 0.0
    return values


def bias_rows(canvas: Canvas) -> Tensor:
    """[holes] int32, on the CPU: the row of `bias_values` for each hole."""
    columns = canvas.hole_columns.cpu()
    rows = torch.zeros(len(columns), dtype=torch.int32)
    for row, column in enumerate(canvas.allowed, 1):
        rows[columns == column] = row
    return rows
