"""From a model folder to the denoiser that runs it: the only module of the engine that knows which kinds there are.

Must not know text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from engine.canvas_loop import CanvasLoop
from engine.checkpoints.checkpoint import load_model
from engine.checkpoints.config_files import read_config, read_sampling
from engine.checkpoints.masked import is_masked, open_masked, read_masked_sampling
from engine.checkpoints.qwen2 import load_qwen2
from engine.config import Sampling, SelfConditioning
from engine.denoiser import Denoiser
from engine.masked.denoiser import MaskedDenoiser
from engine.models.packed import pack
from engine.prefix_cache import PrefixCache
from engine.threads import settle_decoder_threads, settle_threads
from engine.warm_up import warm_up

MASKED_FAMILY = "masked"


@dataclass(frozen=True)
class CanvasModel:
    """family: the name of the model's prompt format. sampling: the model's defaults."""

    denoiser: CanvasLoop[Any]
    family: str
    sampling: Sampling


def load_canvas_model(
    folder: Path,
    device: torch.device,
    dtype: torch.dtype,
    on_progress: Callable[[int, int], None] | None = None,
    fp8_keys: bool = False,
    exact: bool = False,
    self_conditioning: SelfConditioning = "all",
) -> CanvasModel:
    """Loads the model of `folder`, and sets the number of threads that is best for it. Raises ModelError.

    fp8_keys: stores keys and values in half the memory. exact: a model that could keep keys and values of what has
    changed since computes them again. self_conditioning: see `Denoiser`.
    """
    if is_masked(folder):
        sampling = read_masked_sampling(folder)
        backbone = load_qwen2(open_masked(folder), device, dtype, on_progress)
        settle_decoder_threads(backbone)
        return CanvasModel(MaskedDenoiser(backbone, PrefixCache(backbone), cached=not exact), MASKED_FAMILY, sampling)
    weights = pack(load_model(folder, device, dtype, on_progress, fp8_keys=fp8_keys))
    settle_threads(weights)
    denoiser = Denoiser(weights, PrefixCache(weights), self_conditioning=self_conditioning)
    warm_up(denoiser)
    return CanvasModel(denoiser, read_config(folder).family, read_sampling(folder))
