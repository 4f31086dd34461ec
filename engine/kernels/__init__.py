"""Triton kernels for a GPU: fast versions of the operations in `engine.ops`.

Experimental: the kernels are tested in Triton's interpreter and compiled for GPUs, but have never run on one.

Importing this package does not import Triton. `usable` says whether a tensor can be given to a kernel: only on a GPU
that `enable` was called for, once its self-check has passed (`engine.device_setup`). Must not know models or checks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec

import torch
from torch import Tensor

FAST_TYPES = (torch.bfloat16, torch.float16)
LOWEST_CAPABILITY = (8, 9)  # Ada: the first with E4M3 in its arithmetic
_enabled: set[int] = set()  # indices of CUDA devices
_paused: ContextVar[bool] = ContextVar("kernels_paused", default=False)


def usable(x: Tensor) -> bool:
    """Whether kernels take `x`: it is on a GPU with enabled kernels, and gradients are off."""
    return x.is_cuda and not torch.is_grad_enabled() and enabled(x.device)


def enabled(device: torch.device) -> bool:
    """Whether kernels are used on `device`; where they are not, plain PyTorch is."""
    return device.type == "cuda" and (device.index or 0) in _enabled and not _paused.get()


def enable(device: torch.device) -> None:
    """Uses kernels on the CUDA `device` from now on."""
    _enabled.add(device.index or 0)


def disable(device: torch.device) -> None:
    """Uses plain PyTorch on `device` from now on."""
    _enabled.discard(device.index or 0)


@contextmanager
def paused() -> Iterator[None]:
    """Uses plain PyTorch everywhere in this thread until the context ends, as a reference for the kernels."""
    before = _paused.set(True)
    try:
        yield
    finally:
        _paused.reset(before)


def unavailable_reason(capability: tuple[int, int]) -> str | None:
    """Why kernels cannot run on a GPU of this compute capability; None if they can. GESSO_KERNELS=off disables them."""
    if os.environ.get("GESSO_KERNELS", "").strip().lower() == "off":
        return "GESSO_KERNELS is off"
    if torch.version.hip is not None:
        return "they are made for NVIDIA GPUs"
    if find_spec("triton") is None:
        return "Triton is not installed (pip install 'gesso[cuda]')"
    if capability < LOWEST_CAPABILITY:
        return "the GPU has compute capability {}.{}, but they need {}.{}".format(*capability, *LOWEST_CAPABILITY)
    return None
