"""A code model in int4: products with the kernel compared with those that dequantize."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from engine import device_setup, self_check
from engine.checkpoints.qwen2 import plain_qwen2
from engine.kernels import linear as kernel
from engine.models.quantized import dequantized_product
from engine.models.qwen2 import Qwen2
from tests.engine.models.test_qwen2 import encode
from tests.engine.tiny_qwen2 import in_memory, reference


def tiny() -> Qwen2:
    return plain_qwen2(in_memory(reference(num_hidden_layers=1)), torch.device("cpu"), torch.float32, layers="int4")


@pytest.fixture(autouse=True)
def few_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_check, "PRODUCT_TOKENS", (1, 4))


@torch.inference_mode()
def test_the_kernel_computes_what_the_dequantizing_product_does() -> None:
    plain, fast = tiny(), tiny()
    device_setup.use_kernels(fast)
    assert all(layer.product is kernel.linear for layer in fast.quantized_layers())
    tokens = torch.randint(160, (8,))
    found, wanted = (encode(model, tokens, (7, 1)) for model in (fast, plain))
    assert (found - wanted).norm() < 1e-2 * wanted.norm()  # the kernel dequantizes to bfloat16


@pytest.mark.parametrize("failure", ["wrong", "raises"])
def test_a_kernel_that_fails_is_logged_and_not_used(
    failure: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    computed = kernel.quantized_linear

    def failing(x: Tensor, weight: Any) -> Tensor:
        if weight.rows == 192 and len(x) > 1:  # gate and up
            if failure == "raises":
                raise RuntimeError("no registers")
            return -computed(x, weight)
        return computed(x, weight)

    monkeypatch.setattr(kernel, "quantized_linear", failing)
    model = tiny()
    device_setup.use_kernels(model)
    assert all(layer.product is dequantized_product for layer in model.quantized_layers())
    assert ("192 by 64 is wrong" if failure == "wrong" else "no registers") in caplog.text
