"""A canvas: tokens that are known and stay (pinned), and holes that are the model's to write.

Knows nothing of the model. What becomes of a canvas while it is denoised is kept by `engine.denoiser`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from engine.errors import InputError


@dataclass(frozen=True)
class Known:
    """A run of tokens that stand as they are."""

    tokens: Sequence[int]


@dataclass(frozen=True)
class Hole:
    """`slots` positions to fill. `draft` starts the first of them with tokens, not noise (None: noise)."""

    slots: int
    draft: Sequence[int | None] = ()


@dataclass(frozen=True)
class Canvas:
    """tokens [width]: known tokens, drafts, and -1 where noise is to stand; pinned [width] bool.

    allowed: for a column, the token ids it may take (a hole that must begin with text already typed).
    """

    tokens: Tensor
    pinned: Tensor
    allowed: Mapping[int, Tensor] = field(default_factory=dict)

    @staticmethod
    def of(*parts: Known | Hole, allowed: Mapping[int, Sequence[int]] | None = None) -> Canvas:
        """Lays known runs and holes side by side; raises InputError where nothing is left to fill."""
        tokens: list[int] = []
        pinned: list[bool] = []
        for part in parts:
            if isinstance(part, Known):
                tokens += part.tokens
                pinned += [True] * len(part.tokens)
            else:
                draft = [-1 if token is None else token for token in part.draft][: part.slots]
                tokens += draft + [-1] * (part.slots - len(draft))
                pinned += [False] * part.slots
        if all(pinned):
            raise InputError("The canvas has no hole to fill; give at least one hole with at least one slot.")
        restricted = {column: torch.tensor(list(ids)) for column, ids in (allowed or {}).items()}
        for column, ids in restricted.items():
            if not 0 <= column < len(tokens) or pinned[column] or not len(ids):
                raise InputError(
                    f"Column {column} of the canvas cannot be restricted: it is no hole, or allows nothing."
                )
        return Canvas(torch.tensor(tokens), torch.tensor(pinned), restricted)

    @property
    def width(self) -> int:
        return len(self.tokens)

    @property
    def hole_columns(self) -> Tensor:
        """[holes]: the columns to fill, in order."""
        return (~self.pinned).nonzero().squeeze(1)
