"""A small run of the kernels on a GPU beside their twins, before anything relies on them.

A driver that is too old, a compiler that is missing, or a wrong result shows here, and not in the middle of an answer.
"""

from __future__ import annotations

import torch

from engine.key_values import CanvasMemory, KeyValues, PromptMemory
from engine.models.diffusion_gemma import DiffusionGemma
from engine.quantized import FORMATS, quantize_weight

TOLERANCE = 2e-2  # bfloat16 sums of some hundred products
MODEL_TOLERANCE = 0.3  # of the last hidden states: thirty layers of bfloat16, a token sent to another expert
COMPARED, WIDEST = 16, 256  # columns of the canvases that a whole model is tried with


def fails(device: torch.device) -> str | None:
    """What goes wrong with the kernels on `device`, in a clause; None where nothing does."""
    try:
        wrong = _wrong_kernels(device)
    except Exception as trouble:  # a compiler's or driver's own kind: whatever it is, the plain twin works
        return f"{type(trouble).__name__}: {str(trouble).strip().partition(chr(10))[0][:200]}"
    return f"wrong results of {', '.join(wrong)}" if wrong else None


def model_fails(fused: DiffusionGemma, plain: DiffusionGemma) -> str | None:
    """What is wrong with a fused model beside its twin, in a clause; None where nothing is.

    The widest canvas is only run, which compiles the kernels for it; what cannot be compiled raises.
    """
    found, wanted = (_hidden(model, COMPARED) for model in (fused, plain))
    if not bool(wanted.isfinite().all()):
        return None  # the weights are at fault, and whoever denoises will be told
    if not _near(found, wanted, MODEL_TOLERANCE):
        return "its results are wrong"
    return None if bool(_hidden(fused, WIDEST).isfinite().all()) else "a wide canvas gives numbers that are not finite"


def _hidden(model: DiffusionGemma, width: int) -> torch.Tensor:
    """Of a canvas of random tokens behind a prompt of one."""
    weight = model.embed_tokens.weight
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, len(weight), (1, 1 + width), generator=generator).to(weight.device)
    kv = KeyValues(model.config, weight.device, weight.dtype)
    prompt = PromptMemory(kv, 1)
    model.encode(tokens[:, :1], prompt.positions(), prompt.masks(), prompt)
    prompt.commit()
    canvas = CanvasMemory(kv, width)
    belief = model.embed(tokens[:, 1:])
    return model.denoise(tokens[:, 1:], belief, canvas.positions(), canvas.masks(), canvas)


@torch.inference_mode()
def _wrong_kernels(device: torch.device) -> list[str]:
    from engine.kernels.attention import attend
    from engine.kernels.linear import quantized_linear
    from engine.kernels.vocabulary import read_out_logits
    from engine.ops.vocabulary import read_out

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20, 256, generator=generator).to(device, torch.bfloat16)
    wrong = []
    for kind in FORMATS:
        weight = torch.randn(192, 256, generator=generator)
        quantized = quantize_weight(weight.bfloat16() if kind == "plain" else weight, kind).to(device)
        wanted = x.float() @ quantized.dequantize().T
        if not _near(quantized_linear(x, quantized), wanted):
            wrong.append(f"{kind} products")
    query, key = (torch.randn(1, heads, 70, 256, generator=generator).to(device, torch.bfloat16) for heads in (4, 2))
    scores = torch.einsum("bhqd,bhkd->bhqk", query.float() / 16, key.float().repeat_interleave(2, dim=1))
    wanted = (scores.softmax(-1) @ key.float().repeat_interleave(2, dim=1)).transpose(1, 2).flatten(2)
    if not _near(attend(query / 16, key, key), wanted):
        wrong.append("attention")
    logits, warmth = x.float() * 3, torch.full((20,), 0.6, device=device)
    found, right = read_out_logits(logits, 0.0, warmth, 4), read_out(logits, warmth, 4)
    if not (torch.equal(found.argmax, right.argmax) and _near(found.entropy, right.entropy)):
        wrong.append("vocabulary")
    return wrong


def _near(found: torch.Tensor, wanted: torch.Tensor, tolerance: float = TOLERANCE) -> bool:
    return bool((found.float() - wanted.float()).norm() <= tolerance * wanted.float().norm())
