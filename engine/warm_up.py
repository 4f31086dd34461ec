"""Compiles the kernels that requests use when a model is loaded, so that no request waits for a compiler.

A kernel is compiled for each set of its constants, and these depend on how many tokens, rows and keys a pass has. The
passes here have every set that a request has, which a test shows by recording both. Must not know text.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from engine.canvas import Canvas, Known, Slots
from engine.canvas_run import DenoiseRequest
from engine.config import SamplingConfig
from engine.denoiser import Denoiser
from engine.errors import describe_error
from engine.key_values import KeyValues, PromptMemory
from engine.prefix_cache import ENCODE_CHUNK

log = logging.getLogger(__name__)
# Tokens of passes one after the other: a single one has no mask, and its keys are split once there are many; the others
# have the tiles of few and of many tokens, and the blocks of few, more and many tokens per expert.
PASSES = (1, 16, 64, 512, ENCODE_CHUNK, 1)


@dataclass(frozen=True)
class _Step:
    """Canvases stepped together. holes: columns of each that are filled."""

    canvases: int
    width: int
    holes: int


# Few programs split the keys, many do not; 16, 32, 64 and 128 rows of logits have kernels of their own.
STEPS = _Step(1, 32, 16), _Step(2, 256, 16), _Step(1, 64, 64), _Step(1, 128, 128)


@torch.inference_mode()
def warm_up(denoiser: Denoiser) -> None:
    """Runs one pass and one step of every kind; without kernels it does nothing. Never fails: what does not compile or
    fit is logged, and the request that needs it fails or finds more memory."""
    if not denoiser.model.has_kernels:
        return
    try:
        _encode(denoiser)
        for step in STEPS:
            denoiser.run([*_requests(denoiser, step)])
    except Exception as error:  # compilers and drivers raise types of their own
        log.warning("Not all kernels could be compiled ahead (%s); first requests may be slow.", describe_error(error))
    finally:
        denoiser.release()


def _encode(denoiser: Denoiser) -> None:
    model = denoiser.model
    kv = KeyValues(model.config, model.device, model.kv_dtype)
    for count in PASSES:
        memory = PromptMemory(kv, count)
        tokens = torch.zeros(1, count, dtype=torch.long, device=model.device)
        model.encode(tokens, memory.positions(), memory.masks(), memory)
        memory.commit()


def _requests(denoiser: Denoiser, step: _Step) -> Iterator[DenoiseRequest]:
    width = min(step.width, denoiser.config.canvas_length)
    holes = min(step.holes, width)
    prompt = [0] * min(ENCODE_CHUNK, denoiser.config.max_positions - width)
    canvas = Canvas.of(*[Known([0] * (width - holes))] * (width > holes), Slots(holes))
    for seed in range(step.canvases):
        yield DenoiseRequest(prompt, canvas, SamplingConfig(max_steps=1), seed, banned=torch.tensor([0]))
