"""Qwen2 against transformers' own, on random weights, from every file it is loaded from."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.checkpoints import qwen2 as loading
from engine.checkpoints.qwen2 import open_weights, pack_qwen2, plain_qwen2, weight_bytes
from engine.errors import ModelError
from engine.key_values import KeyValues, PromptMemory
from engine.models.packed_qwen2 import FloatProduct, PackedQwen2
from engine.models.qwen2 import Qwen2
from engine.ops.int8_linear import Int8Product, PlainMatrix, int8_works
from engine.quantized import quantize_weight
from tests.engine.tiny_qwen2 import reference, resident_bytes, save_folder, save_gguf

MLP = "model.layers.0.mlp.up_proj.weight"
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "grouped": {},
    "one key head": {"num_key_value_heads": 1},
    "no grouping": {"num_key_value_heads": 4},
    "untied": {"tie_word_embeddings": False},
    "other theta": {"rope_parameters": {"rope_type": "default", "rope_theta": 5e4}},
    "deep": {"num_hidden_layers": 6},
}


def encode(model: Qwen2 | PackedQwen2, tokens: Tensor, chunks: Sequence[int]) -> Tensor:
    """Logits [length, vocab] of `tokens` [length], read in chunks of these lengths."""
    kv = KeyValues(model.config, tokens.device, model.kv_dtype)  # type: ignore[arg-type]
    found = []
    for chunk in tokens.split(list(chunks)):
        memory = PromptMemory(kv, len(chunk))
        found.append(model.logits(model.encode(chunk[None], memory.positions(), memory.masks(), memory))[0])
        memory.commit()
    return torch.cat(found)


@pytest.mark.parametrize("name", CONFIGURATIONS)
@pytest.mark.parametrize("chunks", [(40,), (17, 1, 1, 21)])
@torch.inference_mode()
def test_packed_logits_equal_transformers(name: str, chunks: Sequence[int], tmp_path: Path) -> None:
    theirs = reference(**CONFIGURATIONS[name])
    mine = pack_qwen2(open_weights(save_folder(theirs, tmp_path)), FloatProduct, kv_dtype=torch.float32)
    tokens = torch.randint(160, (40,))
    assert torch.allclose(encode(mine, tokens, chunks), theirs(tokens[None]).logits[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", CONFIGURATIONS)
@torch.inference_mode()
def test_plain_logits_equal_transformers(name: str, tmp_path: Path) -> None:
    theirs = reference(**CONFIGURATIONS[name])
    mine = plain_qwen2(open_weights(save_folder(theirs, tmp_path)), torch.device("cpu"), torch.float32)
    tokens = torch.randint(160, (40,))
    assert torch.allclose(encode(mine, tokens, (23, 1, 16)), theirs(tokens[None]).logits[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["grouped", "untied"])
@torch.inference_mode()
def test_int4_layers_equal_dequantized_ones(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "QUANTIZED_AT_ONCE", 64 * 5)  # no matrix has a multiple of five rows
    theirs = reference(**CONFIGURATIONS[name])
    weights = open_weights(save_folder(theirs, tmp_path))
    mine = plain_qwen2(weights, torch.device("cpu"), torch.float32, layers="int4")
    exact = plain_qwen2(weights, torch.device("cpu"), torch.float32)
    for parameter_name, parameter in theirs.named_parameters():
        if ".layers." in parameter_name and parameter.dim() == 2:
            parameter.copy_(quantize_weight(parameter, "int4").dequantize())
    tokens = torch.randint(160, (40,))
    found = encode(mine, tokens, (23, 1, 16))
    assert torch.allclose(found, theirs(tokens[None]).logits[0], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(found, encode(exact, tokens, (40,)), atol=1e-2)
    assert mine.weight_bytes == weight_bytes(weights.config, torch.float32, int4=True)
    assert exact.weight_bytes == weight_bytes(weights.config, torch.float32)


@pytest.mark.parametrize("tied", [True, False])
@torch.inference_mode()
def test_a_gguf_is_the_same_model(tied: bool, tmp_path: Path) -> None:
    theirs = reference(tie_word_embeddings=tied)
    weights = open_weights(save_gguf(theirs, tmp_path / "model.gguf"))
    folder = open_weights(save_folder(theirs, tmp_path / "folder"))
    assert replace(weights.config, norm_eps=folder.config.norm_eps) == folder.config
    assert weights.config.norm_eps == pytest.approx(folder.config.norm_eps)
    mine = pack_qwen2(weights, FloatProduct, kv_dtype=torch.float32)
    tokens = torch.randint(160, (40,))
    assert torch.allclose(encode(mine, tokens, (40,)), theirs(tokens[None]).logits[0], atol=1e-4, rtol=1e-4)


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux says what is resident")
@pytest.mark.parametrize("save", [save_gguf, save_folder])
def test_a_packed_model_does_not_keep_its_file_in_memory(save: Callable[..., Path], tmp_path: Path) -> None:
    place = save(reference(hidden_size=128), tmp_path / "model.gguf")
    weights = open_weights(place)
    file = place if place.is_file() else place / "model.safetensors"
    weights.read(MLP)
    assert resident_bytes(file) > 0
    mine = pack_qwen2(weights, FloatProduct)
    assert resident_bytes(file) < 20_000, "the page of the norm, at most"
    assert mine.embed(torch.tensor([3])).shape == (1, 128)


@pytest.mark.skipif(not int8_works(), reason="this machine has no products in 8 bits")
@torch.inference_mode()
def test_products_in_eight_bits_stay_near(tmp_path: Path) -> None:
    theirs = reference(hidden_size=128, intermediate_size=256)
    mine = pack_qwen2(open_weights(save_folder(theirs, tmp_path)), Int8Product)
    tokens = torch.randint(160, (64,))
    found, wanted = encode(mine, tokens, (40, 24)), theirs(tokens[None]).logits[0]
    assert (found - wanted).norm() < 0.06 * wanted.norm()


@pytest.mark.skipif(not int8_works(), reason="this machine has no products in 8 bits")
@pytest.mark.parametrize("rows", [1, 2, 7, 16, 17, 130])
def test_an_outlier_in_one_token_leaves_the_others_precise(rows: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    weight, bias = torch.randn(96, 64, generator=generator), torch.randn(96, generator=generator)
    x = torch.randn(rows, 64, generator=generator)
    x[0, 3] = 1000.0
    with torch.inference_mode():
        found = Int8Product(PlainMatrix(weight), bias)(x)
    wanted = x @ weight.T + bias
    errors = (found - wanted).norm(dim=1) / wanted.norm(dim=1)
    assert found.shape == wanted.shape and float(errors.max()) < 0.03


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    file = save_gguf(reference(), tmp_path / "model.gguf", leave_out="blk.1.ffn_up.weight")
    with pytest.raises(ModelError, match=r"mlp.up_proj.weight is missing"):
        open_weights(file)


def test_other_architectures_are_refused_by_name(tmp_path: Path) -> None:
    file = save_gguf(reference(), tmp_path / "model.gguf", architecture="llama")
    with pytest.raises(ModelError, match=r"'llama'.*diffusion_gemma, qwen2 and Dream"):
        open_weights(file)


@pytest.mark.parametrize("name, value", [("num_hidden_layers", 10**6), ("vocab_size", 10**12), ("hidden_size", 1e999)])
def test_sizes_that_no_model_has_are_refused_before_anything_is_built(tmp_path: Path, name: str, value: float) -> None:
    folder = save_folder(reference(), tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, name: value}))
    with pytest.raises(ModelError, match="sizes that no model has|lacks a size"):
        open_weights(folder)
