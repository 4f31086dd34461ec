"""What quantization costs: nothing for the same weights, something for others."""

from __future__ import annotations

import pytest
import torch

from bench.gpu.step_shapes import BUILDS, TINY, random_plain_model
from bench.quality.few_bits import AFTER, BEFORE, HOLE, PROMPT, row, run_model, windows
from engine.config import ModelConfig, SamplingConfig
from engine.errors import InputError
from engine.graphs.step_stats import exact_stats, top_stats

SIZE = PROMPT + BEFORE + HOLE + AFTER


def test_windows_are_apart_in_long_enough_texts() -> None:
    texts = [list(range(SIZE + 100)), list(range(SIZE - 1)), list(range(1000, 1000 + SIZE))]
    found = windows(texts, 4)
    assert [window[0] for window in found] == [0, 1000, 100, 1000] and {len(window) for window in found} == {SIZE}
    with pytest.raises(InputError, match="held-out"):
        windows(texts[1:2], 3)


def test_a_model_equals_itself_and_differs_from_another() -> None:
    config = ModelConfig.from_json(TINY)
    torch.manual_seed(0)
    one, other = (random_plain_model(config, BUILDS["int4"], torch.device("cpu"), torch.float32) for _ in range(2))
    chosen = windows([torch.randint(0, 300, (SIZE,)).tolist() for _ in range(2)], 2)
    reference = run_model(one, SamplingConfig(), chosen, exact_stats)
    same = row("same", 1.0, run_model(one, SamplingConfig(), chosen, exact_stats), reference)[1]
    assert same["same_likeliest"] == 1.0 and abs(same["kl_first"]) < 1e-6 and abs(same["kl_last"]) < 1e-6
    cells, different = row("other", 1.0, run_model(other, SamplingConfig(), chosen, exact_stats), reference)
    assert different["kl_first"] > 0.1 and different["same_likeliest"] < 0.8 and cells[0] == "other"
    assert 3 < different["causal_nats"] < 12 and 3 < different["denoised_nats"] < 12
    sparse = row("few", 1.0, run_model(one, SamplingConfig(), chosen, top_stats), reference)[1]
    assert abs(sparse["kl_first"]) < 1e-5 < sparse["kl_last"], "the first step has no self-conditioning"
