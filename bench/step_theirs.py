"""A denoise step of transformers' own DiffusionGemma at the true shapes, with random weights made on the device.

Used by `bench.step --theirs`. A step is the difference between a run of many steps and a run of one, over the steps in
between, so that reading the prompt counts for nothing.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any

import torch
from transformers import DiffusionGemmaConfig, DiffusionGemmaForBlockDiffusion
from transformers.models.diffusion_gemma.generation_diffusion_gemma import EntropyBoundSamplerConfig
from transformers.utils import logging as transformers_logging

from bench.parity_speed import NEVER, SMALL_VISION

STEPS = 9  # of the long run


def steps_of_generate(
    config_json: dict[str, Any], canvas: int, context: int, compiled: bool, repeats: int
) -> list[float]:
    """Milliseconds per step, one figure for each of `repeats` pairs of runs.

    compiled: with a static cache, for which transformers compiles its decoder with CUDA graphs; else eager.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = random_theirs(config_json, canvas, device)
    prompt = torch.randint(3, 250, (1, context), device=device)
    more: dict[str, Any] = {"cache_implementation": "static"} if compiled else {}

    def run(steps: int) -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        started = perf_counter()
        model.generate(
            prompt,
            max_new_tokens=canvas,
            max_denoising_steps=steps,
            sampler_config=EntropyBoundSamplerConfig(0.1),
            t_min=0.4,
            t_max=0.8,
            stability_threshold=1,
            confidence_threshold=NEVER,
            eos_token_id=None,
            **more,
        )
        if device.type == "cuda":
            torch.cuda.synchronize()
        return 1000 * (perf_counter() - started)

    for steps in (1, STEPS, 1):
        run(steps)
    return [(run(STEPS) - run(1)) / (STEPS - 1) for _ in range(repeats)]


def random_theirs(config_json: dict[str, Any], canvas: int, device: torch.device) -> Any:
    """transformers' model in bfloat16, its weights made on `device`; float32 on a CPU."""
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
        elif "norm" in name:
            parameter.fill_(1.0)
    return model.eval().requires_grad_(False)
