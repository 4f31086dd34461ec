"""A pass for keys and values alone leaves out most of the last layer, and stores the same keys and values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from engine.checkpoints.qwen2 import pack_qwen2, plain_qwen2
from engine.key_values import KeyValues, PromptMemory
from engine.memory import CausalModel
from engine.models import diffusion_gemma, packed
from engine.models.packed import pack
from engine.models.packed_qwen2 import FloatProduct
from engine.prefix_cache import PrefixCache
from tests.engine.tiny import ours, reference
from tests.engine.tiny_qwen2 import in_memory
from tests.engine.tiny_qwen2 import reference as qwen2_reference

MODELS: dict[str, Callable[[], CausalModel]] = {
    "plain": lambda: ours(reference()),
    "packed": lambda: pack(ours(reference())),
    "qwen2": lambda: plain_qwen2(in_memory(qwen2_reference()), torch.device("cpu"), torch.float32),
    "packed qwen2": lambda: pack_qwen2(in_memory(qwen2_reference()), FloatProduct, kv_dtype=torch.float32),
}
TOKENS = [n % 100 for n in range(3, 60)]


def counted(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[int]:
    """Grows by one with every call of the function `name` of `owner`."""
    calls: list[int] = []
    function = getattr(owner, name)

    def counting(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        return function(*arguments, **options)

    monkeypatch.setattr(owner, name, counting)
    return calls


def stored(model: CausalModel, keys_only: bool, chunks: tuple[int, ...]) -> KeyValues:
    kv = KeyValues(model.config, model.device, torch.float32)
    for chunk in torch.tensor([TOKENS]).split(list(chunks), dim=1):
        memory = PromptMemory(kv, chunk.shape[1])
        model.encode(chunk, memory.positions(), memory.masks(), memory, keys_only)
        memory.commit()
    return kv


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("chunks", [(57,), (40, 1, 16)])
@torch.inference_mode()
def test_keys_and_values_are_those_of_a_whole_pass(name: str, chunks: tuple[int, ...]) -> None:
    model = MODELS[name]()
    expected, found = stored(model, False, chunks), stored(model, True, chunks)
    assert found.length == expected.length == len(TOKENS)
    for mine, theirs in zip((*found.keys, *found.values), (*expected.keys, *expected.values), strict=True):
        assert torch.equal(mine[:, :, : len(TOKENS)], theirs[:, :, : len(TOKENS)])


@pytest.mark.parametrize("name", MODELS)
def test_a_prompt_is_read_without_the_end_of_the_last_layer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = MODELS[name]()
    layers = len(model.config.layers)
    attentions = counted(monkeypatch, F, "scaled_dot_product_attention")
    mixtures = [counted(monkeypatch, module, "experts") for module in (diffusion_gemma, packed)]
    PrefixCache(model).acquire(TOKENS)
    assert len(attentions) == layers - 1
    assert sum(map(len, mixtures)) == (0 if "qwen2" in name else layers - 1)
