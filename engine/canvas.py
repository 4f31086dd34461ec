"""A canvas: known tokens, which are pinned, and holes, which the model fills.

Must not know the model. `engine.canvas_run` holds the state of a canvas while it is denoised.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from engine.errors import InputError


@dataclass(frozen=True)
class Known:
    """A run of pinned tokens."""

    tokens: Sequence[int]


@dataclass(frozen=True)
class Slots:
    """A hole of `count` positions. draft: tokens that the first ones start with instead of noise (None: noise)."""

    count: int
    draft: Sequence[int | None] = ()


@dataclass(frozen=True)
class Canvas:
    """tokens [width]: known tokens, drafts, and -1 for noise; pinned [width] bool.

    allowed: by column, the token ids it may take (for a hole that must begin with text already typed).
    """

    tokens: Tensor
    pinned: Tensor
    allowed: Mapping[int, Tensor] = field(default_factory=dict)

    @staticmethod
    def of(*parts: Known | Slots, allowed: Mapping[int, Sequence[int] | Tensor] | None = None) -> Canvas:
        """Concatenates known runs and holes; raises InputError if nothing is left to fill."""
        tokens: list[int] = []
        pinned: list[bool] = []
        for part in parts:
            if isinstance(part, Known):
                tokens += part.tokens
                pinned += [True] * len(part.tokens)
            else:
                draft = [-1 if token is None else token for token in part.draft][: part.count]
                tokens += draft + [-1] * (part.count - len(draft))
                pinned += [False] * part.count
        if all(pinned):
            raise InputError("The canvas has no hole to fill; give at least one hole with at least one slot.")
        restricted = {column: torch.as_tensor(ids) for column, ids in (allowed or {}).items()}
        for column, ids in restricted.items():
            if not 0 <= column < len(tokens) or pinned[column] or not len(ids):
                raise InputError(
                    f"Column {column} of the canvas cannot be restricted; choose a column in a hole and allow at least "
                    "one token."
                )
        return Canvas(torch.tensor(tokens), torch.tensor(pinned), restricted)

    @property
    def width(self) -> int:
        return len(self.tokens)

    @property
    def hole_columns(self) -> Tensor:
        """[holes]: the columns to fill, in order."""
        return (~self.pinned).nonzero().squeeze(1)
