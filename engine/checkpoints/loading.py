"""What the loaders of plain and of quantized checkpoints share: the empty model, checks and errors.

Must not know how a tensor is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError

from engine.checkpoints.config_files import CONFIG_FILE
from engine.checkpoints.weight_files import broken
from engine.config import ModelConfig
from engine.errors import ModelError
from engine.models.diffusion_gemma import DiffusionGemma

VISION = ("model.encoder.vision_tower.", "model.encoder.embed_vision.")
TIED = ("lm_head.weight", "model.encoder.language_model.")

Progress = Callable[[int, int], None]
"""Receives bytes done and bytes in total."""


def empty_model(folder: Path, config: ModelConfig, dtype: torch.dtype) -> DiffusionGemma:
    """The model on the meta device: shapes only."""
    try:
        with torch.device("meta"):
            return DiffusionGemma(config).to(dtype)
    except (RuntimeError, ValueError, TypeError) as error:
        raise broken(f"{folder / CONFIG_FILE} asks for impossible sizes ({error})") from error


def check_layers(folder: Path, config: ModelConfig, names: Iterable[str]) -> None:
    """Raises ModelError if there is no tensor of the last layer, before a model of that many layers is built."""
    last = len(config.layers) - 1
    if not any(name.startswith(f"model.decoder.layers.{last}.") for name in names):
        raise broken(f"The weights of {folder} have no layer {last}, which {CONFIG_FILE} asks for")


def is_skipped(name: str) -> bool:
    """Whether a stored tensor is not loaded: the vision tower, and copies of tied weights."""
    return name.startswith(VISION) or (name.startswith(TIED) and not name.endswith(".layer_scalar"))


def refuse(mismatches: Iterable[tuple[str, str]]) -> None:
    """Raises ModelError with the first sentence of `mismatches`, if there is one."""
    problems = list(mismatches)
    if problems:
        others = f" ({len(problems) - 1} more tensors do not fit.)" if len(problems) > 1 else ""
        raise ModelError(problems[0][1] + others)


def refuse_too_large(folder: Path, needed: int, available: int, device: torch.device) -> None:
    """Raises ModelError if `needed` bytes are more than the `available` ones."""
    if needed > available:
        raise ModelError(
            f"The model in {folder} needs {needed / 2**30:.1f} GiB on {device}, but only {available / 2**30:.1f} GiB "
            "are free; close other programs or choose a smaller model (`gesso doctor` shows which models fit)."
        )


@contextmanager
def loading_errors(folder: Path, device: torch.device) -> Iterator[None]:
    """Turns errors of reading and moving weights into ModelError."""
    try:
        yield
    except (SafetensorError, OSError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise ModelError(
            f"The weights of {folder} could not be loaded to {device} ({reason}); check the model with "
            "`gesso model verify` and the machine with `gesso doctor`."
        ) from error
