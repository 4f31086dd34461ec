"""Counts the operations of a training step and measures the machine's peak, for the share of peak in the log.

Counts matrix products only, a multiply-add as two operations, without recomputation. Must not know data or optimizers.
"""

from __future__ import annotations

import time

import torch

from engine.config import ModelConfig
from engine.models.diffusion_gemma import DiffusionGemma
from train.layout import LayoutConfig


def matrix_weights(config: ModelConfig) -> int:
    """Weights of the layers that one token is multiplied with: those of unused experts do not count."""
    with torch.device("meta"):
        model = DiffusionGemma(config)
    total = 0
    for parameter in model.layers.parameters():
        if parameter.dim() == 3:
            total += parameter.numel() * config.experts_per_token // config.num_experts
        elif parameter.dim() == 2:
            total += parameter.numel()
    return total


def window_flops(config: ModelConfig, layout: LayoutConfig, kind: str) -> float:
    """Floating-point operations of one window, forward and backward. kind: "causal" or "diffusion".

    6 per weight and position (2 forward, 4 backward), and per visible pair of attention; half of the diffusion steps
    add a forward pass over the canvas for self-conditioning.
    """
    weights, head = matrix_weights(config), config.vocab_size * config.hidden_size
    pair = (
        2.0 * config.num_heads * sum(layer.head_dim for layer in config.layers)
    )  # scores and weighted sum, per visible pair
    if kind == "causal":
        length = layout.window(kind)
        return 6.0 * length * (weights + head) + 6.0 * pair * length * length / 2
    prompt, canvas, targets = layout.prompt_beside_canvas, layout.canvas, layout.supervised
    encoder = 6.0 * prompt * (weights + head) + 6.0 * pair * prompt * prompt / 2
    canvas_pass = 2.0 * canvas * weights + 2.0 * targets * head + 2.0 * pair * canvas * (prompt + canvas)
    self_conditioning = canvas_pass + 2.0 * targets * head
    return encoder + layout.canvases * (3.0 * canvas_pass + 0.5 * self_conditioning)


def measured_peak(device: torch.device, seconds: float = 1.0) -> float:
    """Operations per second of large bfloat16 products on `device` with the current threads: the best measurement."""
    size, count = (8192, 10) if device.type == "cuda" else (2048, 1)
    one = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    best, ends = 0.0, time.perf_counter() + seconds
    for _ in range(3):
        one @ one
    while best == 0.0 or time.perf_counter() < ends:
        _wait(device)
        started = time.perf_counter()
        for _ in range(count):
            one @ one
        _wait(device)
        best = max(best, count * 2.0 * size**3 / (time.perf_counter() - started))
    return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
