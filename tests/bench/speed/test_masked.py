"""The bench programs of masked models, at tiny shapes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench.quality.masked_steps import table, variants
from bench.speed import masked
from engine.errors import UsageError
from engine.models.qwen2 import Qwen2
from infill.complete.completion import Completer
from tests.infill import tiny_masked


def test_the_cache_is_measured_beside_passes_over_everything() -> None:
    model = masked.random_model(masked.SHAPES["tiny"], torch.device("cpu"), torch.float32)
    assert isinstance(model, Qwen2)
    (case,) = masked.random_cases(masked.SHAPES["tiny"], [40], 4)
    exact, cached = masked.MaskedDenoiser(model, cached=False), masked.MaskedDenoiser(model)
    found = masked.measure(exact, cached, case, 4, repeats=2)
    assert found["passes"] == 4 and found["agreement"][1] == 1.0
    assert found["rows"]["exact"] == 4 * 44 and found["rows"]["cached"] == 44 + 3 * 5
    assert found["rows"]["next key, cached"] < found["rows"]["cached"]


def test_memory_is_counted_for_a_7b() -> None:
    sizes = masked.memory(masked.SHAPES["7b"])
    assert 14 < sizes["bfloat16"] < 15 and 8 < sizes["fp8"] < 9 and 5.5 < sizes["int4"] < 6


def test_a_checkpoint_is_measured_on_code(tmp_path: Path) -> None:
    loaded = tiny_masked.completer(tiny_masked.save_dream(tmp_path / "dream")).model
    cases = masked.code_cases(loaded, [64], 3)
    assert len(cases) == 3 and all(len(case.before) + len(case.after) == 64 for case in cases)


def test_the_steps_are_varied_and_tabled(tmp_path: Path) -> None:
    pipeline = tiny_masked.completer(tiny_masked.save_dream(tmp_path / "dream", grows=True))
    found = variants(pipeline)
    assert [name for name, _ in found] == ["1 a pass", "2 a pass", "4 a pass", "above 0.95", "above 0.9", "above 0.7"]
    assert all(isinstance(one, Completer) and not one.settings.copy_drafts for _, one in found)
    assert table([])[1] == []


def test_another_model_is_refused(completer: Completer) -> None:
    with pytest.raises(UsageError, match="does not fill masks"):
        variants(completer)
