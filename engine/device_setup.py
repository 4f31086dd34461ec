"""A model that is loaded is made ready for the device it lies on: on a GPU by the kernels, where they work.

Where they do not, the log tells why, and the model runs as it is, slower. (On a CPU see `engine.models.packed`.) Must not know
where the weights came from.
"""

from __future__ import annotations

import logging

import torch

from engine.errors import UsageError
from engine.kernels import FAST_TYPES, work_on
from engine.models.diffusion_gemma import DiffusionGemma

log = logging.getLogger(__name__)


def for_device(model: DiffusionGemma, fp8_keys: bool = False) -> DiffusionGemma:
    """The fused twin of `model` on a GPU whose kernels work, in a 16-bit type; otherwise `model`.

    fp8_keys: whether it is to keep keys and values in E4M3. Raises UsageError on a device that does not know it.
    """
    weight = model.embed_tokens.weight
    if fp8_keys and weight.device.type == "mps":
        raise UsageError("Keys and values in fp8 need a CPU or an NVIDIA GPU; leave the option out.")
    model = _with_kernels(model)
    model.fp8_keys = fp8_keys
    return model


def _with_kernels(model: DiffusionGemma) -> DiffusionGemma:
    weight = model.embed_tokens.weight
    if weight.device.type != "cuda":
        return model
    if weight.dtype not in FAST_TYPES:
        log.info("Plain PyTorch instead of Triton kernels, which are not made for %s.", weight.dtype)
        return model
    return fused_or_plain(model) if work_on(weight.device) else model


@torch.inference_mode()
def fused_or_plain(model: DiffusionGemma) -> DiffusionGemma:
    """The fused twin, if a small canvas comes out of it as of `model`; otherwise `model`, and the log tells why."""
    from engine.models.fused import fuse
    from engine.self_check import model_fails

    try:
        fused = fuse(model)
        failure = model_fails(fused, model)
    except Exception as trouble:  # a compiler's or driver's own kind: whatever it is, the plain model works
        failure = f"{type(trouble).__name__}: {str(trouble).strip().partition(chr(10))[0][:200]}"
    if failure is None:
        return fused
    log.warning("Plain PyTorch instead of the fused model: %s.", failure)
    return model
