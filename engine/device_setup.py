"""Prepares a loaded model for its device: on a GPU it uses the kernels, if they pass their self-check.

If they do not, the log says why, and the model runs in plain PyTorch, slower. (For a CPU see `engine.models.packed`.)
Must not know where the weights came from.
"""

from __future__ import annotations

import logging
from functools import cache

import torch

from engine import kernels, self_check
from engine.errors import UsageError, describe_error
from engine.models.diffusion_gemma import DiffusionGemma
from engine.models.qwen2 import Qwen2
from engine.models.text_model import TextModel

log = logging.getLogger(__name__)


def prepare_for_device(model: DiffusionGemma, fp8_keys: bool = False) -> TextModel:
    """The fused model for a `model` in a 16-bit type on a GPU with working kernels; otherwise `model` itself.

    fp8_keys: whether the model keeps keys and values in E4M3. Raises UsageError on a device that does not support it.
    """
    device = model.embed_tokens.weight.device
    if fp8_keys and device.type == "mps":
        raise UsageError("Keys and values in fp8 need a CPU or an NVIDIA GPU; leave the option out.")
    on_gpu = device.type == "cuda" and enable_kernels(device.index or 0)
    prepared = _with_kernels(model) if on_gpu else model
    prepared.fp8_keys = fp8_keys
    return prepared


@cache
def enable_kernels(index: int) -> bool:
    """Runs the self-check on the CUDA device `index` and enables the kernels if it passes; otherwise logs why not."""
    device = torch.device("cuda", index)
    reason = kernels.unavailable_reason(torch.cuda.get_device_capability(index))
    if index:  # Triton launches on a thread's current GPU, and every thread starts with the first
        reason = reason or "they run on the first GPU only; choose a GPU with CUDA_VISIBLE_DEVICES"
    if reason is None and (failure := self_check.kernel_failure(device)):
        reason = f"they fail here: {failure}"
    if reason:
        log.warning("Plain PyTorch instead of Triton kernels: %s.", reason)
        return False
    kernels.enable(device)
    return True


@torch.inference_mode()
def use_kernels(model: Qwen2) -> None:
    """Makes the int4 layers of `model` multiply with the kernel if it is right for their shapes; otherwise logs why
    not. The kernels must be enabled."""
    layers = model.quantized_layers()
    try:
        from engine.kernels.linear import linear  # imports Triton, which may not be installed

        shapes = {(layer.quantized.rows, layer.quantized.columns): layer.quantized for layer in layers}
        failure = self_check.product_failure(shapes.values(), model.embed_tokens.weight.dtype)
    except Exception as error:  # compilers and drivers raise types of their own; plain PyTorch works in any case
        failure = describe_error(error)
    if failure is not None:
        log.warning("Plain PyTorch instead of the kernel for int4 weights: %s.", failure)
        return
    for layer in layers:
        layer.product = linear


def _with_kernels(model: DiffusionGemma) -> TextModel:
    dtype = model.embed_tokens.weight.dtype
    if dtype not in kernels.FAST_TYPES:
        log.info("Plain PyTorch instead of the fused model, which does not support %s.", dtype)
        return model
    return fused_or_plain(model)


@torch.inference_mode()
def fused_or_plain(model: DiffusionGemma) -> TextModel:
    """The fused model, if it agrees with `model` on a small canvas; otherwise logs why not and returns `model`."""
    try:
        from engine.models.fused import fuse  # imports Triton, which may not be installed

        fused = fuse(model)
        failure = self_check.model_failure(fused, model)
    except Exception as error:  # compilers and drivers raise types of their own; the plain model works in any case
        failure = describe_error(error)
    if failure is None:
        return fused
    log.warning("Plain PyTorch instead of the fused model: %s.", failure)
    kernels.disable(model.device)
    return model
