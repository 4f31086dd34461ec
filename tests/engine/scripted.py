"""Test doubles for a model: one records its calls, one returns scripted logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.models.diffusion_gemma import DiffusionGemma


class Recorder:
    """Records the canvas tokens and beliefs of every pass of `model`, which otherwise works as usual."""

    def __init__(self, model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tokens: list[Tensor] = []
        self.beliefs: list[Tensor] = []
        denoise = model.denoise

        def recorded(tokens: Tensor, belief: Tensor, *rest: Any) -> Tensor:
            self.tokens.append(tokens.clone())
            self.beliefs.append(belief.clone())
            return denoise(tokens, belief, *rest)

        monkeypatch.setattr(model, "denoise", recorded)


def script(model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch, says: Callable[[int], Tensor]) -> None:
    """Makes `model` return the logits says(n) [width, vocab] at step n (from 0), for any input."""
    steps = iter(range(10_000))
    table = torch.empty(0)

    def denoise(tokens: Tensor, belief: Tensor, *rest: Any) -> Tensor:
        nonlocal table
        table = says(next(steps))
        columns = torch.arange(tokens.shape[1], dtype=torch.float)
        return columns[None, :, None].expand(tokens.shape[0], -1, model.config.hidden_size)

    monkeypatch.setattr(model, "denoise", denoise)
    monkeypatch.setattr(model, "logits", lambda hidden: table[hidden[..., 0].long()].clone())


def two_way(vocab: int, token: int, other: int, entropy: float) -> Tensor:
    """Logits [vocab] that prefer `token` to `other` by so much that the entropy is `entropy` (below ln 2)."""
    low, high = 0.5, 1.0 - 1e-12
    for _ in range(100):
        middle = torch.tensor((low + high) / 2, dtype=torch.double)
        spread = -(middle * middle.log() + (1 - middle) * (1 - middle).log())
        low, high = (float(middle), high) if spread > entropy else (low, float(middle))
    logits = torch.full((vocab,), -100.0)
    logits[token], logits[other] = float(middle.log()), float((1 - middle).log())
    return logits
