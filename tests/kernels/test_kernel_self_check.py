"""The self-check refuses each kernel that computes something wrong, and its references call no kernel."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor
from triton.runtime.jit import KernelInterface

from engine import kernels, self_check
from engine.device_setup import fused_or_plain
from engine.kernels import attention, linear, mixture, norms, routing, vocabulary
from engine.models.fused import FusedModel
from engine.ops import experts
from engine.self_check import kernel_failure
from tests.kernels.test_kernel_model import random_model

CPU = torch.device("cpu")
STATS = ("argmax", "sample", "entropy", "log_probability", "top_tokens", "top_probabilities")
OUTPUTS = {
    "attention._attend": ("out", "parts", "sums"),
    "attention._merge": ("out",),
    "linear._linear": ("out",),
    "mixture._gate_up": ("out",),
    "mixture._down": ("out",),
    "norms._add_normed": ("out", "out_0", "out_1", "out_2"),
    "norms._join_branches": ("out", "out_0"),
    "norms._gated": ("out",),
    "norms._heads": ("query", "key", "value"),
    "routing._choose": ("weights", "indices"),
    "routing._schedule": ("order", "blocks"),
    "vocabulary._from_hidden": ("numbers", "candidates", "ids"),
    "vocabulary._from_logits": ("numbers", "candidates", "ids"),
    "vocabulary._merge": STATS,
    "vocabulary._probabilities": ("out",),
    "vocabulary._mean": ("out",),
}
NOT_IN_REQUESTS = {"vocabulary._noise"}


class Wrong:
    """The kernel `kernel`, one of whose outputs is wrong."""

    def __init__(self, kernel: Any, output: str) -> None:
        self.kernel, self.output = kernel, output

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        def launch(*arguments: Any, **named: Any) -> None:
            self.kernel[grid](*arguments, **named)
            spoil(arguments[self.kernel.arg_names.index(self.output)], self.output)

        return launch


def spoil(x: Tensor, name: str) -> None:
    """Changes the numbers; integers stay valid as indices."""
    if x.is_floating_point():
        x.mul_(1.5).add_(0.25)
    elif name == "blocks":
        used = x[:, 0] >= 0
        x[used, 0] = x[used, 0].roll(1)
    else:
        x.copy_(x.flatten().roll(1).view_as(x))


@pytest.fixture(autouse=True)
def few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_check, "SAMPLED_ROWS", 64)
    monkeypatch.setattr(self_check, "SHARE_ERROR", 0.2)


def test_right_kernels_pass() -> None:
    assert kernel_failure(CPU, torch.float32) is None


@pytest.mark.parametrize(
    ("kernel", "output"), [(kernel, one) for kernel, outputs in OUTPUTS.items() for one in outputs]
)
def test_a_wrong_kernel_is_refused(kernel: str, output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, _, name = kernel.partition(".")
    place = import_module(f"engine.kernels.{module}")
    monkeypatch.setattr(place, name, Wrong(getattr(place, name), output))
    failure = kernel_failure(CPU, torch.float32)
    assert failure is not None and failure.startswith("wrong results of ")


def test_a_sample_that_ignores_the_seed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    computed = vocabulary.stats_from_logits
    monkeypatch.setattr(
        vocabulary,
        "stats_from_logits",
        lambda logits, cap, temperature, top, seeds=None, bias=None: computed(
            logits, cap, temperature, top, None if seeds is None else seeds * 0, bias
        ),
    )
    assert kernel_failure(CPU, torch.float32) == "wrong results of samples"


def test_every_kernel_is_in_the_table() -> None:
    launched = set()
    for module in (attention, linear, mixture, norms, routing, vocabulary):
        source = inspect.getsource(module)
        for name, value in vars(module).items():
            if isinstance(value, KernelInterface) and f"    {name}[" in source:
                launched.add(f"{module.__name__.rpartition('.')[2]}.{name}")
    assert launched == OUTPUTS.keys() | NOT_IN_REQUESTS


@torch.inference_mode()
def test_the_plain_model_calls_no_kernel(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """As on a GPU with enabled kernels, where the plain model would use them too."""
    monkeypatch.setattr(self_check, "COMPARED", 4)
    monkeypatch.setattr(self_check, "WIDEST", 6)
    monkeypatch.setattr(experts, "FAST_TYPES", (torch.float32,))
    monkeypatch.setattr(experts, "usable", lambda x: not kernels._paused.get())
    assert isinstance(fused_or_plain(random_model()), FusedModel)
    monkeypatch.setattr(mixture, "_down", Wrong(mixture._down, "out"))
    plain = random_model()
    assert fused_or_plain(plain) is plain and "wrong" in caplog.text


@torch.inference_mode()
def test_the_head_of_the_fused_model_is_compared_too(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(self_check, "COMPARED", 4)
    monkeypatch.setattr(self_check, "WIDEST", 6)
    plain = random_model()
    for name, output in (
        ("_merge", "entropy"),
        ("_mean", "out"),
        ("_from_hidden", "numbers"),
        ("_probabilities", "out"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(vocabulary, name, Wrong(getattr(vocabulary, name), output))
            assert fused_or_plain(plain) is plain and "over the vocabulary are wrong" in caplog.text
        caplog.clear()
