"""Compares the kernels with plain PyTorch on a GPU, with small inputs, before anything relies on them.

An old driver, a missing compiler or a wrong result is found here, not during a request. Must not know who acts on it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch

from engine.errors import describe_error
from engine.key_values import CanvasMemory, KeyValues, PromptMemory
from engine.models.text_model import TextModel
from engine.ops import vocabulary as reference
from engine.quantized import FORMATS, QuantizedWeight, quantize_weight

TOLERANCE = 2e-2  # bfloat16 sums of a few hundred products
MODEL_TOLERANCE = 0.3  # on the last hidden states: thirty layers of bfloat16, a token routed to another expert
COMPARED, WIDEST = 16, 256  # columns of the canvases that a whole model is run with
PRODUCT_TOKENS = (1, 64, 256)  # one for each tiling of `engine.kernels.linear`
PRODUCT_ROWS = 64  # of each weight are compared; all are multiplied


def kernel_failure(device: torch.device) -> str | None:
    """What is wrong with the kernels on `device`, as a clause; None if nothing is."""
    try:
        wrong = _wrong_kernels(device)
    except Exception as error:  # compilers and drivers raise types of their own; plain PyTorch works in any case
        return describe_error(error)
    return f"wrong results of {', '.join(wrong)}" if wrong else None


def model_failure(fused: TextModel, plain: TextModel) -> str | None:
    """What is wrong with a fused model compared with the plain one, as a clause; None if nothing is.

    The widest canvas is run but not compared, to compile the kernels for it. Raises what a compiler raises.
    """
    found, expected = (_hidden(model, COMPARED) for model in (fused, plain))
    if not bool(expected.isfinite().all()):
        return None  # the weights are broken, which the first request reports
    if not _near(found, expected, MODEL_TOLERANCE):
        return "its results are wrong"
    return None if bool(_hidden(fused, WIDEST).isfinite().all()) else "a wide canvas produces NaN or infinity"


def product_failure(weights: Iterable[QuantizedWeight], dtype: torch.dtype) -> str | None:
    """What is wrong with the kernel's products with int4 `weights` [rows, columns], as a clause; None if nothing is.

    dtype: of the activations. Raises what a compiler raises.
    """
    from engine.kernels.linear import quantized_linear  # imports Triton, which may not be installed

    generator = torch.Generator().manual_seed(0)
    for weight in weights:
        assert weight.group_scales is not None
        few = replace(weight, numbers=weight.numbers[:PRODUCT_ROWS], group_scales=weight.group_scales[:PRODUCT_ROWS])
        expected_weight = few.dequantize()
        for tokens in PRODUCT_TOKENS:
            x = torch.randn(tokens, weight.columns, generator=generator).to(weight.numbers.device, dtype)
            found, expected = quantized_linear(x, weight)[:, :PRODUCT_ROWS], x.float() @ expected_weight.T
            if bool(expected.isfinite().all()) and not _near(found, expected):
                return f"a product of {tokens} tokens with a weight of {weight.rows} by {weight.columns} is wrong"
    return None


def _hidden(model: TextModel, width: int) -> torch.Tensor:
    """Hidden states of a canvas of random tokens after a prompt of one token."""
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
    # The kernel modules import Triton, which may not be installed.
    from engine.kernels import vocabulary
    from engine.kernels.attention import attend
    from engine.kernels.linear import quantized_linear

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20, 256, generator=generator).to(device, torch.bfloat16)
    wrong = []
    for kind in FORMATS:
        weight = torch.randn(192, 256, generator=generator)
        quantized = quantize_weight(weight.bfloat16() if kind == "plain" else weight, kind).to(device)
        expected = x.float() @ quantized.dequantize().T
        if not _near(quantized_linear(x, quantized), expected):
            wrong.append(f"{kind} products")
    query, key = (torch.randn(1, heads, 70, 256, generator=generator).to(device, torch.bfloat16) for heads in (4, 2))
    scores = torch.einsum("bhqd,bhkd->bhqk", query.float() / 16, key.float().repeat_interleave(2, dim=1))
    expected = (scores.softmax(-1) @ key.float().repeat_interleave(2, dim=1)).transpose(1, 2).flatten(2)
    if not _near(attend(query / 16, key, key), expected):
        wrong.append("attention")
    logits, temperature = x.float() * 3, torch.full((20,), 0.6, device=device)
    found = vocabulary.stats_from_logits(logits, 0.0, temperature, 4)
    stats = reference.logit_stats(logits, temperature, 4)
    if not (torch.equal(found.argmax, stats.argmax) and _near(found.entropy, stats.entropy)):
        wrong.append("vocabulary")
    return wrong


def _near(found: torch.Tensor, expected: torch.Tensor, tolerance: float = TOLERANCE) -> bool:
    return bool((found.float() - expected.float()).norm() <= tolerance * expected.float().norm())
