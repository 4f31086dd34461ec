"""transformers' DiffusionGemma at the true shapes, with random weights made on the device, for `bench.gpu.step_beside`.

Must not know this engine.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import DiffusionGemmaConfig, DiffusionGemmaForBlockDiffusion
from transformers.utils import logging as transformers_logging

from bench.speed.parity import SMALL_VISION, whole_runs

STEPS = 9  # of the long run


def generate(model: Any, prompt: torch.Tensor, canvas: int, steps: int, compiled: bool) -> None:
    """Runs transformers' generate over one canvas and waits for it. prompt: [1, length].

    compiled: with a static cache, for which transformers compiles its decoder; otherwise eager.
    """
    more: dict[str, Any] = {"cache_implementation": "static"} if compiled else {}
    model.generate(prompt, **whole_runs(canvas, steps), **more)
    if prompt.is_cuda:
        torch.cuda.synchronize()


def random_theirs(config_json: dict[str, Any], canvas: int, device: torch.device) -> Any:
    """transformers' model with weights made on `device`, in bfloat16, or in float32 on a CPU."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    config = DiffusionGemmaConfig(
        text_config={"model_type": "diffusion_gemma_text", **config_json["text_config"]},
        vision_config=SMALL_VISION,
        canvas_length=canvas,
    )
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    previous = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model: Any = DiffusionGemmaForBlockDiffusion(config)
    finally:
        torch.set_default_dtype(previous)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            parameter.normal_(0, parameter.shape[-1] ** -0.5)
        elif name.endswith(("q_norm.weight", "k_norm.weight")):  # gives attention scores of about one
            parameter.fill_(parameter.shape[-1] ** -0.25)
        elif "norm" in name:
            parameter.fill_(1.0)
    return model.eval().requires_grad_(False)
