"""On how many CPU threads a model is fastest here: measured when it is loaded, since no rule knows.

A step of a small model is hundreds of products that take microseconds each. Threads that must wake up for every one of
them (they must not spin, see `engine/__init__.py`) cost more than they bring on some machines: on two virtual cores a
step of the pocket model took 15 ms on one thread and 38 on two (bench/NOTES.md). Elsewhere, or with larger weights, all
cores pay. Knows nothing of who asks, nor for what.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator

import torch

from engine.canvas import Canvas, Hole
from engine.canvas_run import DenoiseRequest
from engine.config import SamplingConfig
from engine.denoiser import Denoiser
from engine.device import threads_are_given
from engine.models.text_model import TextModel

GAIN = 1.25  # times as fast, at least, for twice the threads
LARGE_BYTES = 2**30  # weights from which on all threads are taken: products are long, and so would be the measurement
PROMPT, CANVAS = 128, 48  # tokens
TRIES = 3  # steps, after one that warms up
log = logging.getLogger(__name__)


def settle_threads(model: TextModel) -> int:
    """Sets PyTorch's threads to as many as `model` is fastest on, at most as many as are set; returns their number.

    Nothing is measured on a GPU, nor where the user has given a number (`engine.device.set_threads`). A thread takes
    the number when it first needs it, so those that run the model must begin later.
    """
    most = torch.get_num_threads()
    on_cpu = model.embed_tokens.weight.device.type == "cpu"
    if most == 1 or not on_cpu or model.weight_bytes > LARGE_BYTES or threads_are_given():
        return most
    best = 1
    try:
        best = _fastest(Denoiser(model), most)
    except Exception as trouble:  # a model that can make no step says so at the first request
        log.warning("The threads could not be measured (%s); one is taken.", type(trouble).__name__)
    torch.set_num_threads(best)
    return best


def _fastest(denoiser: Denoiser, most: int) -> int:
    best, best_s = 1, _seconds(denoiser, 1)
    for count in _doubled(most):
        taken_s = _seconds(denoiser, count, enough=best_s)
        if best_s < GAIN * taken_s:
            break
        best, best_s = count, taken_s
    log.info("%d threads of %d: a step takes %.1f ms.", best, most, 1000 * best_s)
    return best


def _doubled(most: int) -> Iterator[int]:
    """2, 4, 8 and so on, and `most` at the end."""
    count = 2
    while count < most:
        yield count
        count *= 2
    yield most


def _seconds(denoiser: Denoiser, threads: int, enough: float = math.inf) -> float:
    """The least that a step takes on so many: what else the machine does only makes it longer. Given up after two tries
    that took `enough` or more."""
    torch.set_num_threads(threads)
    config, least = denoiser.model.config, math.inf
    prompt, canvas = [1] * min(PROMPT, config.max_positions // 2), Canvas.of(Hole(min(CANVAS, config.canvas_length)))
    request = DenoiseRequest(prompt, canvas, SamplingConfig(max_steps=1))
    denoiser.run([request])
    for turn in range(TRIES):
        started = time.perf_counter()
        denoiser.run([request])
        least = min(least, time.perf_counter() - started)
        if turn and least >= enough:
            break
    return least
