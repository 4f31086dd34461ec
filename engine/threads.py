"""Chooses the number of CPU threads for a model by measuring it when it is loaded.

A step of a small model is hundreds of products of a few microseconds each. On some machines waking the threads for
every product (they must not spin, see `engine/__init__.py`) costs more than it gains: on two virtual cores a step of
the pocket model took 15 ms on one thread and 38 ms on two (bench/NOTES.md). Elsewhere, or with larger weights, all
cores help. Must not know what the model is used for.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from engine.canvas import Canvas, Slots
from engine.canvas_run import DenoiseRequest
from engine.config import SamplingConfig
from engine.denoiser import Denoiser
from engine.device import threads_are_given
from engine.key_values import KeyValues, PromptMemory
from engine.memory import CausalModel
from engine.models.text_model import TextModel

GAIN = 1.25  # least speedup that is worth twice the threads
LARGE_BYTES = 2**30  # larger weights use all threads: their products are long, and so would be the measurement
PROMPT, CANVAS = 128, 48  # tokens
MEASURED_STEPS = 3  # after one step of warm-up
DECODER_PROMPT, DECODED, DECODER_RUNS = 128, 8, 2  # tokens read, tokens decoded, measurements
log = logging.getLogger(__name__)


def settle_threads(model: TextModel) -> int:
    """Sets the number of PyTorch threads, at most as many as are set now, to the fastest for `model`; returns it.

    Measures nothing on a GPU, or if the user has set a number (`engine.device.set_threads`). A thread reads the number
    when it first needs it, so the threads that run the model must start later.
    """
    most = torch.get_num_threads()
    on_cpu = model.embed_tokens.weight.device.type == "cpu"
    if most == 1 or not on_cpu or model.weight_bytes > LARGE_BYTES or threads_are_given():
        return most
    best = 1
    try:
        best = _fastest(Denoiser(model), most)
    except Exception as error:  # a model that cannot make a step reports it at the first request
        log.warning("Threads could not be measured (%s); using one.", type(error).__name__)
    torch.set_num_threads(best)
    return best


def _fastest(denoiser: Denoiser, most: int) -> int:
    best, best_s = 1, _seconds(denoiser, 1)
    for count in _doubled(most):
        taken_s = _seconds(denoiser, count, enough=best_s)
        if best_s < GAIN * taken_s:
            break
        best, best_s = count, taken_s
    log.info("Using %d of %d threads: a step takes %.1f ms.", best, most, 1000 * best_s)
    return best


def _doubled(most: int) -> Iterator[int]:
    """2, 4, 8 and so on, and `most` at the end."""
    count = 2
    while count < most:
        yield count
        count *= 2
    yield most


def _seconds(denoiser: Denoiser, threads: int, enough: float = math.inf) -> float:
    """The shortest time of a step on `threads` threads, because other load only makes it longer. Stops after two steps
    that took `enough` or more."""
    torch.set_num_threads(threads)
    config, least = denoiser.model.config, math.inf
    prompt, canvas = [1] * min(PROMPT, config.max_positions // 2), Canvas.of(Slots(min(CANVAS, config.canvas_length)))
    request = DenoiseRequest(prompt, canvas, SamplingConfig(max_steps=1))
    denoiser.run([request])
    for index in range(MEASURED_STEPS):
        started = time.perf_counter()
        denoiser.run([request])
        least = min(least, time.perf_counter() - started)
        if index and least >= enough:
            break
    return least


@dataclass(frozen=True)
class DecoderSpeed:
    """prompt: tokens of a prompt read per second. token_s: seconds to decode a token. threads: that were best."""

    prompt: float
    token_s: float
    threads: int


def settle_decoder_threads(model: CausalModel) -> DecoderSpeed:
    """Sets the number of PyTorch threads to the fastest for a decoder, or leaves it as `settle_threads` does.

    Returns the speed on that many threads.
    """
    most = torch.get_num_threads()
    counts = [most] if model.device.type != "cpu" or threads_are_given() else sorted({1, *_doubled(most)})
    best_s, speed = math.inf, DecoderSpeed(0.0, math.inf, most)
    for count in counts:
        torch.set_num_threads(count)
        prompt_s = _decoder_seconds(model, DECODER_PROMPT)
        token_s = _decoder_seconds(model, 1)
        taken_s = prompt_s + DECODED * token_s
        if GAIN * taken_s < best_s:
            best_s, speed = taken_s, DecoderSpeed(DECODER_PROMPT / prompt_s, token_s, count)
    torch.set_num_threads(speed.threads)
    return speed


@torch.inference_mode()
def _decoder_seconds(model: CausalModel, length: int) -> float:
    """The shorter time of some passes over `length` tokens and the head for the last."""
    kv, shortest = KeyValues(model.config, model.device, model.kv_dtype), math.inf
    tokens = torch.ones(1, length, dtype=torch.long, device=model.device)
    for _ in range(DECODER_RUNS):
        started = time.perf_counter()
        memory = PromptMemory(kv, length)
        hidden = model.encode(tokens, memory.positions(), memory.masks(), memory)
        float(model.logits(hidden[:, -1])[0, 0])
        shortest = min(shortest, time.perf_counter() - started)
    return shortest
