"""Buffers of keys and values: capacity, growth, truncation, and what a canvas sees of a prompt."""

from __future__ import annotations

import pytest
import torch

from engine.config import ModelConfig
from engine.key_values import BatchedCanvasMemory, CanvasMemory, KeyValues, PromptMemory
from tests.engine.tiny import ours, reference

WINDOW = 8  # of the sliding layers 0 and 2


@pytest.fixture(scope="module")
def config() -> ModelConfig:
    return ours(reference()).config


def filled(config: ModelConfig, length: int, offset: float = 0.0) -> KeyValues:
    """A prompt whose keys at position p are p + offset, and whose values are the negative of that."""
    kv = KeyValues(config, torch.device("cpu"), torch.float32)
    kv.reserve(length)
    places = (torch.arange(length) + offset)[None, None, :, None]
    for layer in range(len(config.layers)):
        kv.keys[layer][:, :, :length] = places
        kv.values[layer][:, :, :length] = -places
    kv.length = length
    return kv


def new(config: ModelConfig, layer: int, width: int, number: float, batch: int = 1) -> torch.Tensor:
    shape = config.layers[layer]
    return torch.full((batch, shape.num_kv_heads, width, shape.head_dim), number)


def test_growing_keeps_what_is_there(config: ModelConfig) -> None:
    kv = filled(config, 5)
    assert kv.capacity == 5
    kv.reserve(20)
    assert kv.capacity == 25 and kv.length == 5
    for layer in range(4):
        assert kv.keys[layer][0, 0, :5, 0].tolist() == [0, 1, 2, 3, 4]
        assert kv.values[layer][0, 0, :5, 0].tolist() == [0, -1, -2, -3, -4]


def test_room_grows_by_half_at_least(config: ModelConfig) -> None:
    kv = filled(config, 100)
    kv.reserve(1)
    assert kv.capacity == 150
    before = kv.keys[0]
    kv.reserve(50)
    assert kv.keys[0] is before, "there is room already"


def test_bytes_are_those_of_all_buffers(config: ModelConfig) -> None:
    kv = filled(config, 10)
    per_position = sum(2 * layer.num_kv_heads * layer.head_dim * 4 for layer in config.layers)
    assert kv.bytes == 10 * per_position


def test_a_copy_lives_on_its_own(config: ModelConfig) -> None:
    kv = filled(config, 9)
    other = kv.copy(4)
    other.keys[0].zero_()
    assert (other.length, other.capacity, kv.length) == (4, 4, 9)
    assert kv.keys[0][0, 0, :, 0].tolist() == list(range(9))
    assert other.values[1][0, 0, :, 0].tolist() == [0, -1, -2, -3]


def test_cutting_back_never_lengthens(config: ModelConfig) -> None:
    kv = filled(config, 9)
    kv.truncate(12)
    assert kv.length == 9
    kv.truncate(3)
    assert kv.length == 3


def test_sliding_layers_show_a_canvas_the_window_less_one(config: ModelConfig) -> None:
    kv = filled(config, 20)
    assert [kv.visible_from(layer) for layer in range(4)] == [20 - WINDOW + 1, 0, 20 - WINDOW + 1, 0]
    assert [filled(config, 3).visible_from(layer) for layer in range(4)] == [0, 0, 0, 0]


def test_an_encoder_pass_joins_the_prompt_when_it_is_committed(config: ModelConfig) -> None:
    kv = filled(config, 6)
    memory = PromptMemory(kv, 2)
    assert memory.positions().tolist() == [[6, 7]]
    keys, values = memory.extend(1, new(config, 1, 2, 50.0), new(config, 1, 2, 51.0))
    assert keys[0, 0, :, 0].tolist() == [0, 1, 2, 3, 4, 5, 50, 50]
    assert values[0, 0, -2:, 0].tolist() == [51, 51]
    assert kv.length == 6
    memory.commit()
    assert kv.length == 8


def test_an_encoder_pass_looks_back_and_no_further_than_the_window(config: ModelConfig) -> None:
    masks = PromptMemory(filled(config, 10), 3).masks()
    assert masks["full_attention"] is not None and masks["sliding_attention"] is not None
    for row, position in enumerate((10, 11, 12)):
        full = masks["full_attention"][row].nonzero().flatten().tolist()
        sliding = masks["sliding_attention"][row].nonzero().flatten().tolist()
        assert full == list(range(position + 1))
        assert sliding == list(range(position - WINDOW + 1, position + 1))


def test_a_single_token_sees_the_window_without_a_mask(config: ModelConfig) -> None:
    memory = PromptMemory(filled(config, 20), 1)
    assert set(memory.masks().values()) == {None}
    keys, values = memory.extend(0, new(config, 0, 1, 50.0), new(config, 0, 1, 51.0))
    assert keys[0, 0, :, 0].tolist() == [*range(20 - WINDOW + 1, 20), 50] and len(values[0, 0]) == WINDOW
    keys, _ = memory.extend(1, new(config, 1, 1, 50.0), new(config, 1, 1, 51.0))
    assert keys[0, 0, :, 0].tolist() == [*range(20), 50]
    short, _ = PromptMemory(filled(config, 2), 1).extend(0, new(config, 0, 1, 50.0), new(config, 0, 1, 51.0))
    assert short[0, 0, :, 0].tolist() == [0, 1, 50]


def test_a_canvas_is_written_behind_the_prompt_and_leaves_it_alone(config: ModelConfig) -> None:
    kv = filled(config, 20)
    memory = CanvasMemory(kv, 3)
    for number in (70.0, 80.0):
        for layer, first in ((0, 13), (1, 0)):
            keys, values = memory.extend(layer, new(config, layer, 3, number), new(config, layer, 3, number + 1))
            assert keys[0, 0, :, 0].tolist() == [*range(first, 20), number, number, number]
            assert values[0, 0, :, 0].tolist() == [
                *range(-first, -20, -1),
                number + 1,
                number + 1,
                number + 1,
            ]
    assert kv.length == 20
    assert memory.positions().tolist() == [[20, 21, 22]]


def test_a_batch_sets_prompts_flush_right_and_masks_the_rest(config: ModelConfig) -> None:
    rows = [filled(config, 4, offset=100), filled(config, 12, offset=200)]
    memory = BatchedCanvasMemory(rows, [5, 2])
    assert memory.positions().tolist() == [[4, 5, 6, 7, 8], [12, 13, 14, 15, 16]]
    for layer, seen in ((1, (4, 12)), (0, (4, WINDOW - 1))):
        keys, values = memory.extend(layer, new(config, layer, 5, 9.0, 2), new(config, layer, 5, 8.0, 2))
        mask = memory.masks()[config.layers[layer].kind]
        assert mask is not None
        for row, (width, count) in enumerate(((5, seen[0]), (2, seen[1]))):
            shown = keys[row, 0, mask[row, 0, 0], 0].tolist()
            last = [(row + 1) * 100 + p for p in range(rows[row].length - count, rows[row].length)]
            assert shown == last + [9.0] * width
            assert values[row, 0, mask[row, 0, 0], 0].tolist() == [-key for key in last] + [8.0] * width


def test_a_batch_of_equals_needs_no_mask(config: ModelConfig) -> None:
    memory = BatchedCanvasMemory([filled(config, 12), filled(config, 12, offset=50)], [5, 5])
    assert memory.masks() == {"sliding_attention": None, "full_attention": None}


def test_a_batch_leaves_the_prompts_alone(config: ModelConfig) -> None:
    rows = [filled(config, 4), filled(config, 12)]
    memory = BatchedCanvasMemory(rows, [5, 5])
    memory.extend(1, new(config, 1, 5, 9.0, 2), new(config, 1, 5, 9.0, 2))
    assert [kv.length for kv in rows] == [4, 12]
    assert rows[1].keys[1][0, 0, :, 0].tolist() == list(range(12))


FP8 = torch.float8_e4m3fn


def test_keys_in_fp8_take_a_quarter_of_fp32_and_are_near(config: ModelConfig) -> None:
    small, large = (KeyValues(config, torch.device("cpu"), dtype) for dtype in (FP8, torch.float32))
    torch.manual_seed(0)
    key = torch.randn(1, config.layers[0].num_kv_heads, 6, config.layers[0].head_dim)
    for kv in (small, large):
        memory = PromptMemory(kv, 6)
        keys, _ = memory.extend(0, key, 1000 * key)
        memory.commit()
        assert keys.dtype == kv.dtype and (keys.float() - key).norm() < 0.05 * key.norm()
    assert 4 * small.bytes == large.bytes
    assert small.values[0].float().abs().max() == 448, "what is too large is cut off"
    batch = BatchedCanvasMemory([small, small], [3, 2])
    seen, _ = batch.extend(0, new(config, 0, 3, 2.0, 2), new(config, 0, 3, 1.0, 2))
    assert seen.dtype == FP8 and torch.equal(seen[:, :, :6].float()[0], small.keys[0][0, :, :6].float())
    assert CanvasMemory(small, 4).extend(1, new(config, 1, 4, 3.0), new(config, 1, 4, 1.0))[0][0, 0, -1, 0] == 3.0
