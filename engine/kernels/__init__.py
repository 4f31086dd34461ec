"""Triton kernels: fast twins of the plain operations, for a GPU. Each is held to its twin in Triton's interpreter.

Importing this package does not import Triton; `usable` says whether a tensor can be given to a kernel. What may go
wrong with a kernel is told once in the log, and the plain twin takes over. Knows nothing of models.
"""

from __future__ import annotations

import logging
import os
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

FAST_TYPES = (torch.bfloat16, torch.float16)
LOWEST_CAPABILITY = (8, 9)  # Ada: the first with E4M3 in its arithmetic
log = logging.getLogger(__name__)


def usable(x: Tensor) -> bool:
    """Whether kernels take `x`: on a GPU that they are made for, with Triton there, not switched off, no gradients.

    GESSO_KERNELS=off switches them off.
    """
    return x.is_cuda and not torch.is_grad_enabled() and work_on(x.device)


def work_on(device: torch.device) -> bool:
    """Whether the kernels run on `device` and give what they should; why not is told once in the log."""
    return device.type == "cuda" and _works_on(device.index or 0)


@cache
def _works_on(index: int) -> bool:
    reason = why_not(torch.cuda.get_device_capability(index))
    if index:  # Triton launches on a thread's current GPU, and every thread begins with the first
        reason = reason or "they run on the first GPU alone; choose one by CUDA_VISIBLE_DEVICES"
    if reason:
        log.warning("Plain PyTorch instead of Triton kernels: %s.", reason)
        return False
    from engine.self_check import fails

    failure = fails(torch.device("cuda", index))
    if failure:
        log.warning("Plain PyTorch instead of Triton kernels, which fail here: %s.", failure)
    return failure is None


def why_not(capability: tuple[int, int]) -> str | None:
    """Why there are no kernels for a GPU of this compute capability here; None where there are."""
    if os.environ.get("GESSO_KERNELS", "").strip().lower() == "off":
        return "GESSO_KERNELS is off"
    if torch.version.hip is not None:
        return "they are made for NVIDIA GPUs"
    if find_spec("triton") is None:
        return "Triton is not installed (pip install 'gesso[cuda]')"
    if capability < LOWEST_CAPABILITY:
        return "the GPU has compute capability {}.{}, and they need {}.{}".format(*capability, *LOWEST_CAPABILITY)
    return None
