"""Published folders of masked models: what is loaded, and the sentence about what is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.canvas_model import load_canvas_model
from engine.checkpoints.masked import is_masked, open_masked, read_masked_sampling
from engine.checkpoints.quantizing import KINDS, Kind, quantize_folder, quantized
from engine.checkpoints.qwen2 import EMBEDDING, open_weights, plain_qwen2
from engine.checkpoints.verification import verify
from engine.errors import ModelError
from engine.key_values import KeyValues, PromptMemory
from engine.masked.config import MaskedConfig, MaskedSampling
from engine.masked.denoiser import MaskedDenoiser
from infill.complete.code_model import is_code_model
from tests.engine.tiny_qwen2 import reference, save_folder
from tests.infill.tiny_masked import save_dream, save_open_dcoder


def change(folder: Path, name: str, **fields: Any) -> Path:
    file = folder / name
    content = json.loads(file.read_text("utf-8")) if file.exists() else {}
    kept = {key: value for key, value in {**content, **fields}.items() if value is not ...}
    file.write_text(json.dumps(kept), "utf-8")
    return folder


def config_of(folder: Path) -> MaskedConfig:
    config = open_masked(folder).config
    assert isinstance(config, MaskedConfig)
    return config


def test_the_three_published_layouts_are_masked_models(tmp_path: Path) -> None:
    dream, dreamon, open_dcoder = (
        save_dream(tmp_path / "dream"),
        save_dream(tmp_path / "dreamon", grows=True),
        save_open_dcoder(tmp_path / "open"),
    )
    for folder in (dream, dreamon, open_dcoder):
        assert is_masked(folder) and not is_code_model(folder)
        added = json.loads((folder / "added_tokens.json").read_text("utf-8"))
        config = config_of(folder)
        assert config.mask in (added.get("<|mask|>"), added.get("<M>"))
        assert config.expand == added.get("<|expand|>")
        assert config.delete == (added["<|endoftext|>"] if folder == dreamon else None)
        assert config.shifted
    causal = save_folder(reference(), tmp_path / "causal")
    assert not is_masked(causal) and is_code_model(causal)
    assert not config_of(change(dream, "config.json", gesso={"shifted": False})).shifted


def test_remote_code_is_not_run(tmp_path: Path) -> None:
    folder = save_dream(tmp_path / "dream")
    for name in ("modeling_dream.py", "configuration_dream.py", "tokenization_dream.py", "generation_utils.py"):
        (folder / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n", "utf-8")
    model = load_canvas_model(folder, torch.device("cpu"), torch.float32)
    assert isinstance(model.denoiser, MaskedDenoiser) and not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": "llada", "architectures": ["LLaDAModelLM"]}, "diffusion_gemma, qwen2 and Dream"),
        ({"architectures": ["DreamVLModel"]}, "only DreamModel and DreamOnModel are known"),
        ({"mask_token_id": 10**6}, "not in the model's vocabulary"),
        ({"mask_token_id": True}, "which token is the mask"),
        ({"expand_token_id": "x"}, "not a token"),
        ({"expand_token_id": 10**6}, "not in the model's vocabulary"),
        ({"num_hidden_layers": 10**9}, "sizes that no model has"),
        ({"hidden_size": 63}, "sizes|shape"),
        ({"num_hidden_layers": 3}, "is missing from"),
        ({"use_sliding_window": True}, "sliding window"),
        ({"rope_scaling": {"type": "yarn"}, "rope_parameters": ...}, "scaled positions"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_sentence(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    folder = change(save_dream(tmp_path / "dream"), "config.json", **fields)
    with pytest.raises(ModelError, match=message) as refused:
        load_canvas_model(folder, torch.device("cpu"), torch.float32)
    assert str(refused.value).count(". ") == 0


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("added_tokens.json", "[]"),
        ("added_tokens.json", '{"<|mask|>": "x"}'),
        ("tokenizer_config.json", "{"),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"x": {"content": "<|a|>"}}}'),
        ("tokenizer_config.json", '{"added_tokens_decoder": [1]}'),
    ],
)
def test_damaged_token_files_are_an_error(tmp_path: Path, name: str, content: str) -> None:
    folder = save_dream(tmp_path / "dream", grows=True)
    (folder / name).write_text(content, "utf-8")
    with pytest.raises(ModelError):
        open_masked(folder)


@pytest.mark.parametrize("save", [save_dream, save_open_dcoder])
def test_verify_checks_such_a_folder(tmp_path: Path, save: Callable[[Path], Path]) -> None:
    folder = save(tmp_path / "model")
    assert not any(check.problems for check in verify(folder))
    change(folder, "config.json", num_hidden_layers=3)
    assert any("is missing from" in problem for check in verify(folder) for problem in check.problems)


def test_verify_checks_a_causal_folder(tmp_path: Path) -> None:
    folder = save_folder(reference(), tmp_path / "causal")
    assert not any(check.problems for check in verify(folder))
    change(folder, "config.json", vocab_size=161)
    assert any("shape" in problem for check in verify(folder) for problem in check.problems)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("masked", [True, False])
def test_a_quantized_folder_computes_what_its_stored_weights_do(masked: bool, kind: Kind, tmp_path: Path) -> None:
    """In the same formats on a GPU; on a CPU they are unpacked row by row, and packed in 8 bits."""
    plain = save_dream(tmp_path / "plain", grows=True) if masked else save_folder(reference(), tmp_path / "plain")
    quantize_folder(plain, tmp_path / "few", kind)
    opened = open_masked if masked else open_weights
    weights, original = opened(tmp_path / "few"), opened(plain)
    assert weights.config == original.config and original.stored_bytes is None
    assert weights.stored_bytes is not None and weights.stored_bytes < sum(
        file.stat().st_size for file in plain.glob("*.safetensors")
    )
    name = "model.layers.0.mlp.down_proj.weight"
    expected = quantized(original.read(name), kind)
    assert torch.equal(weights.quantized(name, torch.float32).numbers, expected.numbers)
    assert torch.equal(weights.read(name, 3, 9), expected.dequantize()[3:9])
    assert torch.equal(weights.read(EMBEDDING), original.read(EMBEDDING))
    stored = plain_qwen2(weights, torch.device("cpu"), torch.float32, layers="stored")
    assert {layer.quantized.format for layer in stored.quantized_layers()} == {kind}
    computed = plain_qwen2(weights, torch.device("cpu"), torch.float32)
    tokens = torch.arange(8)[None]
    kept = [KeyValues(weights.config, torch.device("cpu"), torch.float32) for _ in range(2)]
    one, other = (
        model.encode(tokens, memory.positions(), memory.masks(), memory)
        for model, memory in ((stored, PromptMemory(kept[0], 8)), (computed, PromptMemory(kept[1], 8)))
    )
    assert torch.allclose(one, other, atol=1e-4)
    assert not any(check.problems for check in verify(tmp_path / "few"))
    with pytest.raises(ModelError, match="quantized already"):
        quantize_folder(tmp_path / "few", tmp_path / "fewer", kind)
    change(tmp_path / "few", "config.json", quantization_config={"quant_method": "awq"})
    with pytest.raises(ModelError, match="quantized by awq"):
        opened(tmp_path / "few")


def test_sampling_is_read_from_the_checkpoint(tmp_path: Path) -> None:
    folder = save_dream(tmp_path / "dream")
    assert read_masked_sampling(folder) == MaskedSampling()
    file = "generation_config.json"
    change(folder, file, alg="topk_margin", steps=64, temperature=0.0, top_p=None, top_k=50, alg_temp=0.1, eps=0.01)
    expected = MaskedSampling("topk_margin", 64, None, None, 0.0, 0.9, 50, 0.1, 0.01)
    assert read_masked_sampling(folder) == expected
    change(folder, file, number_transfer_tokens=2, pad_eos_to_right=False, threshold=0.9, top_k=0)
    found = read_masked_sampling(folder)
    assert (found.tokens_per_step, found.delete_rest, found.threshold, found.top_k) == (2, False, 0.9, None)
    change(folder, file, _from_model_config=True, alg="origin")
    assert read_masked_sampling(folder) == MaskedSampling(), "what transformers wrote from a class says nothing"
    change(folder, "config.json", gesso={"sampling": {"alg": "maskgit_plus"}})
    assert read_masked_sampling(folder).order == "maskgit_plus"


@pytest.mark.parametrize(
    "fields",
    [
        {"alg": "random"},
        {"alg": 3},
        {"steps": 0},
        {"steps": 10**9},
        {"steps": 1.5},
        {"steps": True},
        {"temperature": -1},
        {"temperature": float("inf")},
        {"temperature": float("nan")},
        {"top_p": 0},
        {"top_p": 2},
        {"top_k": -1},
        {"eps": 1},
        {"number_transfer_tokens": 0},
        {"threshold": 0},
        {"pad_eos_to_right": 1},
        {"alg_temp": "hot"},
    ],
)
def test_impossible_sampling_is_an_error(tmp_path: Path, fields: dict[str, Any]) -> None:
    with pytest.raises(ModelError):
        read_masked_sampling(change(save_dream(tmp_path / "dream"), "generation_config.json", **fields))
