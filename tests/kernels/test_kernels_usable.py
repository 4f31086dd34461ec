"""When kernels are taken, and what is told when they are not."""

from __future__ import annotations

import pytest
import torch

from engine import kernels


def test_there_are_no_kernels_on_a_cpu() -> None:
    with torch.inference_mode():
        assert not kernels.usable(torch.ones(2, dtype=torch.bfloat16))


@pytest.mark.parametrize(
    ("capability", "told"), [((8, 0), "capability 8.0, and they need 8.9"), ((9, 0), None), ((12, 0), None)]
)
def test_a_gpu_that_is_too_old_is_told(
    capability: tuple[int, int], told: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "find_spec", lambda name: object())
    reason = kernels.why_not(capability)
    assert reason is None if told is None else told in str(reason)


def test_triton_may_be_absent_and_kernels_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "find_spec", lambda name: None)
    assert "not installed" in str(kernels.why_not((9, 0)))
    monkeypatch.setenv("GESSO_KERNELS", "OFF")
    assert kernels.why_not((9, 0)) == "GESSO_KERNELS is off"


def test_a_failing_trial_is_told_and_remembered(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("triton")
    asked = []
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (9, 0))
    monkeypatch.setattr("engine.self_check.fails", lambda device: asked.append(device) or "no compiler")
    kernels._works_on.cache_clear()
    try:
        assert not kernels._works_on(0) and not kernels._works_on(0)
        assert not kernels._works_on(1) and "CUDA_VISIBLE_DEVICES" in caplog.text
    finally:
        kernels._works_on.cache_clear()
    assert len(asked) == 1 and "no compiler" in caplog.text


def test_a_trial_without_a_gpu_fails_in_words() -> None:
    pytest.importorskip("triton")
    from engine.self_check import fails

    if not torch.cuda.is_available():
        assert fails(torch.device("cpu"))
