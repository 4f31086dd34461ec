"""When kernels are used, and what is logged when they are not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from engine import device_setup, kernels
from engine.self_check import kernel_failure


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No GPU has been set up yet, and the first two support the kernels."""
    monkeypatch.setattr(kernels, "_enabled", set())
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (9, 0))
    device_setup.enable_kernels.cache_clear()
    yield
    device_setup.enable_kernels.cache_clear()


def test_there_are_no_kernels_on_a_cpu() -> None:
    with torch.inference_mode():
        assert not kernels.usable(torch.ones(2, dtype=torch.bfloat16))


@pytest.mark.parametrize(
    ("capability", "reason"), [((8, 0), "capability 8.0, but they need 8.9"), ((9, 0), None), ((12, 0), None)]
)
def test_a_gpu_that_is_too_old_is_named(
    capability: tuple[int, int], reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "find_spec", lambda name: object())
    found = kernels.unavailable_reason(capability)
    assert found is None if reason is None else reason in str(found)


def test_triton_may_be_absent_and_kernels_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "find_spec", lambda name: None)
    assert "not installed" in str(kernels.unavailable_reason((9, 0)))
    monkeypatch.setenv("GESSO_KERNELS", "OFF")
    assert kernels.unavailable_reason((9, 0)) == "GESSO_KERNELS is off"


def test_a_failing_self_check_is_logged_once_and_means_plain_pytorch(
    fresh: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("triton")
    checked = []
    monkeypatch.setattr("engine.self_check.kernel_failure", lambda device: checked.append(device) or "no compiler")
    assert not device_setup.enable_kernels(0) and not device_setup.enable_kernels(0)
    assert len(checked) == 1 and caplog.text.count("no compiler") == 1
    assert not device_setup.enable_kernels(1) and "CUDA_VISIBLE_DEVICES" in caplog.text
    assert not kernels.enabled(torch.device("cuda", 0)) and not kernels.enabled(torch.device("cuda"))


def test_kernels_are_used_only_once_the_self_check_has_passed(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    monkeypatch.setattr("engine.self_check.kernel_failure", lambda device: None)
    assert not kernels.enabled(torch.device("cuda"))
    assert device_setup.enable_kernels(0)
    assert kernels.enabled(torch.device("cuda")) and kernels.enabled(torch.device("cuda", 0))
    assert not kernels.enabled(torch.device("cuda", 1)) and not kernels.enabled(torch.device("cpu"))


def test_a_self_check_without_a_gpu_fails_in_words() -> None:
    pytest.importorskip("triton")
    if not torch.cuda.is_available():
        assert kernel_failure(torch.device("cpu"))
