"""Model folders that load, folders that must not, and the error messages."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import DiffusionGemmaConfig, DiffusionGemmaForBlockDiffusion

from engine.checkpoints import checkpoint
from engine.checkpoints.checkpoint import load_model
from engine.checkpoints.config_files import read_config, read_sampling
from engine.checkpoints.tensor_views import checkpoint_views
from engine.checkpoints.verification import verify
from engine.config import SamplingConfig
from engine.errors import ModelError
from engine.models.diffusion_gemma import DiffusionGemma
from tests.engine.tiny import VISION

CPU = torch.device("cpu")
DOWN = "model.decoder.layers.0.mlp.down_proj.weight"
EXPERTS = "model.decoder.layers.1.experts.gate_up_proj"
TEXT = {
    "model_type": "diffusion_gemma_text",
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "global_head_dim": 16,
    "num_global_key_value_heads": 1,
    "sliding_window": 8,
    "layer_types": ["sliding_attention", "full_attention"],
    "num_experts": 4,
    "top_k_experts": 2,
    "moe_intermediate_size": 16,
    "max_position_embeddings": 512,
}
SMALL_VISION = {**VISION, "position_embedding_size": 16}


@pytest.fixture(scope="module")
def reference() -> DiffusionGemmaForBlockDiffusion:
    """A small random transformers model in which no two tensors are equal, including norms and scalars."""
    torch.manual_seed(0)
    config = DiffusionGemmaConfig(text_config=dict(TEXT), vision_config=dict(SMALL_VISION), canvas_length=16)
    model = DiffusionGemmaForBlockDiffusion(config).eval()
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.copy_(torch.randn(tensor.shape))
    return model


@pytest.fixture(scope="module")
def saved(reference: DiffusionGemmaForBlockDiffusion, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("single")
    reference.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def saved_shards(reference: DiffusionGemmaForBlockDiffusion, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    reference.save_pretrained(folder, max_shard_size="40KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


@pytest.fixture
def shards(saved_shards: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved_shards, tmp_path / "model"))


def load(folder: Path, dtype: torch.dtype = torch.float32) -> DiffusionGemma:
    return load_model(folder, CPU, dtype)


def change_weights(folder: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def change_json(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def refusal(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The message with which loading is refused before any memory is allocated, with FOLDER for the folder's name."""
    with monkeypatch.context() as patch:
        patch.setattr(nn.Module, "to_empty", lambda self, device: pytest.fail("memory was allocated"))
        with pytest.raises(ModelError) as caught:
            load(folder)
    assert str(folder) in str(caught.value) or "config.json" in str(caught.value)
    return str(caught.value).replace(str(folder), "FOLDER")


def assert_same_weights(model: DiffusionGemma, reference: DiffusionGemmaForBlockDiffusion) -> None:
    expected = reference.state_dict()
    for name, view in checkpoint_views(model).items():
        assert torch.equal(view, expected[name]), name


def test_every_weight_arrives(saved: Path, reference: DiffusionGemmaForBlockDiffusion) -> None:
    model = load(saved)
    assert_same_weights(model, reference)
    assert sum(view.numel() for view in checkpoint_views(model).values()) == sum(
        tensor.numel() for tensor in model.state_dict().values()
    )
    assert not model.training and not any(parameter.requires_grad for parameter in model.parameters())
    assert not any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))


def test_fused_weights_are_stored_in_the_order_the_model_reads_them(
    saved: Path, reference: DiffusionGemmaForBlockDiffusion
) -> None:
    model: Any = load(saved)
    decoder: Any = reference.model.decoder
    for ours, theirs in zip(model.layers, decoder.layers, strict=True):
        attention, heads = theirs.self_attn, [theirs.self_attn.q_proj, theirs.self_attn.k_proj]
        heads += [attention.v_proj] if attention.v_proj is not None else []
        assert torch.equal(ours.attention.qkv_proj.weight, torch.cat([head.weight for head in heads]))
        gate_up = torch.cat((theirs.mlp.gate_proj.weight, theirs.mlp.up_proj.weight))
        assert torch.equal(ours.mlp.gate_up_proj.weight, gate_up)
        assert torch.equal(ours.post_mlp_norm.weight, theirs.post_feedforward_layernorm_1.weight)
        assert torch.equal(ours.pre_experts_norm.weight, theirs.pre_feedforward_layernorm_2.weight)
        assert torch.equal(ours.decoder_scalar, theirs.layer_scalar)
    encoder: Any = reference.model.encoder.language_model
    for ours, theirs in zip(model.layers, encoder.layers, strict=True):
        assert torch.equal(ours.encoder_scalar, theirs.layer_scalar)


def test_shards_with_an_index(saved_shards: Path, reference: DiffusionGemmaForBlockDiffusion) -> None:
    assert_same_weights(load(saved_shards), reference)


def test_config_as_the_hub_has_it(folder: Path, saved: Path, reference: DiffusionGemmaForBlockDiffusion) -> None:
    def to_hub_style(config: dict[str, Any]) -> None:
        del config["text_config"]["per_layer_config"]
        config["text_config"] |= {"global_head_dim": 16, "num_global_key_value_heads": 1}

    change_json(folder / "config.json", to_hub_style)
    assert read_config(folder) == read_config(saved)
    assert_same_weights(load(folder), reference)


def test_weights_are_converted(saved: Path) -> None:
    exact = checkpoint_views(load(saved))
    for name, view in checkpoint_views(load(saved, torch.bfloat16)).items():
        assert view.dtype == torch.bfloat16
        assert torch.equal(view, exact[name].bfloat16()), name


def test_progress_ends_at_the_total_and_skips_vision(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "ELEMENTS_AT_ONCE", 100)
    seen: list[tuple[int, int]] = []
    model = load_model(saved, CPU, torch.float32, lambda done, total: seen.append((done, total)))
    total = sum(view.nbytes for view in checkpoint_views(model).values())
    assert seen == sorted(seen) and seen[-1] == (total, total) and len(seen) > 100


def test_tied_copies_are_skipped(folder: Path, reference: DiffusionGemmaForBlockDiffusion) -> None:
    def add(tensors: dict[str, Tensor]) -> None:
        tensors["lm_head.weight"] = torch.zeros(96, 32)
        tensors["model.encoder.language_model.layers.0.mlp.up_proj.weight"] = torch.zeros(48, 32)

    change_weights(folder, add)
    assert_same_weights(load(folder), reference)


@pytest.mark.parametrize("elements_at_once", [100, 2**23])
def test_int8_weights_are_dequantized(folder: Path, monkeypatch: pytest.MonkeyPatch, elements_at_once: int) -> None:
    monkeypatch.setattr(checkpoint, "ELEMENTS_AT_ONCE", elements_at_once)
    expected = {}

    def quantize(tensors: dict[str, Tensor]) -> None:
        for name in (DOWN, EXPERTS):
            weight = torch.randint(-127, 128, tensors[name].shape, dtype=torch.int8)
            scale = torch.rand(weight.shape[:-1])
            tensors[name], tensors[name + ".scale"] = weight, scale.bfloat16()
            expected[name] = weight.float() * scale.bfloat16().float()[..., None]

    change_weights(folder, quantize)
    views = checkpoint_views(load(folder))
    assert all(torch.equal(views[name], weight) for name, weight in expected.items())


def test_remote_code_is_never_run(folder: Path, reference: DiffusionGemmaForBlockDiffusion) -> None:
    (folder / "modeling_foreign.py").write_text("raise SystemExit('foreign code was run')")
    change_json(folder / "config.json", lambda config: config.update(auto_map={"AutoModel": "modeling_foreign.Model"}))
    assert_same_weights(load(folder), reference)


def test_sampling_settings(folder: Path) -> None:
    assert read_sampling(folder) == SamplingConfig()
    content = {"max_denoising_steps": 7, "sampler_config": {"entropy_bound": 0.3}, "t_min": None}
    (folder / "generation_config.json").write_text(json.dumps(content))
    assert read_sampling(folder) == SamplingConfig(max_steps=7, entropy_bound=0.3)
    (folder / "generation_config.json").unlink()
    assert read_sampling(folder) == SamplingConfig()


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"t_min": "warm"}',
        '{"t_max": NaN}',
        '{"confidence_threshold": "x"}',
        '{"stability_threshold": 0.5}',
        '{"max_denoising_steps": 1e9}',
        '{"sampler_config": {"entropy_bound": Infinity}}',
        '{"sampler_config": 3}',
        "\xff",
    ],
)
def test_bad_sampling_settings(folder: Path, text: str) -> None:
    (folder / "generation_config.json").write_text(text, "latin-1")
    with pytest.raises(ModelError, match="generation_config.json"):
        read_sampling(folder)


def drop(name: str) -> Callable[[dict[str, Tensor]], Any]:
    return lambda tensors: tensors.pop(name)


def put(**tensors: Tensor) -> Callable[[dict[str, Tensor]], Any]:
    return lambda old: old.update({name.replace("__", "."): tensor for name, tensor in tensors.items()})


BAD_WEIGHTS = {
    "missing": (drop(DOWN), [DOWN, "missing"]),
    "encoder scalar missing": (
        drop("model.encoder.language_model.layers.1.layer_scalar"),
        ["model.encoder.language_model.layers.1.layer_scalar", "missing"],
    ),
    "unexpected": (put(model__decoder__adapter=torch.zeros(3)), ["model.decoder.adapter", "unexpected"]),
    "a layer too many": (
        put(model__encoder__language_model__layers__2__layer_scalar=torch.ones(1)),
        ["model.encoder.language_model.layers.2.layer_scalar", "unexpected"],
    ),
    "a value projection on a full layer": (
        put(model__decoder__layers__1__self_attn__v_proj__weight=torch.zeros(16, 32)),
        ["model.decoder.layers.1.self_attn.v_proj.weight", "unexpected"],
    ),
    "wrong shape": (lambda old: old.update({DOWN: torch.zeros(32, 47)}), [DOWN, "[32, 47]", "[32, 48]"]),
    "transposed": (lambda old: old.update({DOWN: torch.zeros(48, 32)}), [DOWN, "[48, 32]", "[32, 48]"]),
    "whole numbers": (lambda old: old.update({DOWN: torch.zeros(32, 48, dtype=torch.int32)}), [DOWN, "I32"]),
    "float8": (
        lambda old: old.update({DOWN: torch.zeros(32, 48).to(torch.float8_e4m3fn)}),
        [DOWN, "F8_E4M3"],
    ),
    "int8 without scale": (
        lambda old: old.update({DOWN: torch.zeros(32, 48, dtype=torch.int8)}),
        [DOWN + ".scale", "missing"],
    ),
    "scale without int8": (
        lambda old: old.update({DOWN + ".scale": torch.ones(32)}),
        [DOWN + ".scale", "unexpected"],
    ),
    "int8 scale of wrong shape": (
        lambda old: old.update({EXPERTS: torch.zeros(4, 32, 32, dtype=torch.int8), EXPERTS + ".scale": torch.ones(32)}),
        [EXPERTS + ".scale", "[32]", "[4, 32]"],
    ),
    "int8 norm": (
        lambda old: old.update({"model.decoder.norm.weight": torch.ones(32, dtype=torch.int8)}),
        ["model.decoder.norm.weight"],
    ),
}


@pytest.mark.parametrize("change, culprits", BAD_WEIGHTS.values(), ids=BAD_WEIGHTS.keys())
def test_weights_that_do_not_fit(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[dict[str, Tensor]], Any],
    culprits: list[str],
) -> None:
    change_weights(folder, change)
    message = refusal(folder, monkeypatch)
    assert all(culprit in message for culprit in culprits), message
    assert any(culprits[0] in problem for check in verify(folder) for problem in check.problems)


BAD_CONFIGS = {
    "foreign": (lambda config: config.update(model_type="llama"), ["llama", "diffusion_gemma"]),
    "no type": (lambda config: config.pop("model_type"), ["None", "diffusion_gemma"]),
    "no text": (lambda config: config.pop("text_config"), ["text_config"]),
    "a field missing": (lambda config: config["text_config"].pop("hidden_size"), ["hidden_size"]),
    "a field of a wrong kind": (
        lambda config: config["text_config"].update(vocab_size="many"),
        ["config.json"],
    ),
    "no layers": (
        lambda config: config["text_config"].update(num_hidden_layers=0, layer_types=[]),
        ["config.json"],
    ),
    "a million layers": (
        lambda config: config["text_config"].update(num_hidden_layers=10**6, layer_types=None),
        ["num_hidden_layers 1000000", "between 1 and 1024"],
    ),
    "a thousand layers": (
        lambda config: config["text_config"].update(num_hidden_layers=1024, layer_types=None),
        ["no layer 1023", "config.json"],
    ),
    "positions in a part of each head": (
        lambda config: config["text_config"].update(
            rope_parameters={
                "full_attention": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}
            }
        ),
        ["rotary embedding of a part"],
    ),
    "an endless canvas": (lambda config: config.update(canvas_length=10**12), ["canvas_length"]),
    "an infinite size": (lambda config: config["text_config"].update(hidden_size=float("inf")), ["config.json"]),
    "a token outside the vocabulary": (lambda config: config["text_config"].update(pad_token_id=10**9), ["pad_token"]),
    "experts without end": (
        lambda config: config["text_config"].update(
            num_experts=1 << 22, quantization_config={"quant_method": "modelopt", "quant_algo": "NVFP4"}
        ),
        ["more than 131,072 experts"],
    ),
    "more experts for a token than there are": (
        lambda config: config["text_config"].update(top_k_experts=1 << 20),
        ["do not fit together"],
    ),
    "an odd head": (lambda config: config["text_config"].update(head_dim=7), ["do not fit together"]),
    "no number as the base of positions": (
        lambda config: config["text_config"].update(
            rope_parameters={"full_attention": {"rope_type": "default", "rope_theta": float("nan")}}
        ),
        ["rope_theta nan"],
    ),
    "a negative norm": (lambda config: config["text_config"].update(rms_norm_eps=-1), ["rms_norm_eps -1"]),
    "an infinite cap": (
        lambda config: config["text_config"].update(final_logit_softcapping=float("inf")),
        ["final_logit_softcapping inf"],
    ),
    "noise of a wrong kind": (
        lambda config: config.update(gesso={"noise": {"uniform_share": 7}}),
        ["uniform_share"],
    ),
    "below zero": (lambda config: config["text_config"].update(hidden_size=-32), ["config.json"]),
    "other sizes": (
        lambda config: config["text_config"].update(hidden_size=64),
        ["[96, 32]", "[96, 64]", "more"],
    ),
    "untied": (lambda config: config.update(tie_word_embeddings=False), ["unties"]),
    "compressed-tensors": (
        lambda config: config.update(
            quantization_config={"quant_method": "compressed-tensors", "format": "float-quantized"}
        ),
        ["compressed-tensors", "missing or in an unknown layout", "choose another build"],
    ),
    "modelopt": (
        lambda config: config["text_config"].update(
            quantization_config={"quant_method": "modelopt", "quant_algo": "NVFP4"}
        ),
        ["modelopt", "missing or in an unknown layout"],
    ),
    "bitsandbytes": (
        lambda config: config.update(quantization_config={"quant_method": "bitsandbytes", "format": "nf4"}),
        ["bitsandbytes", "nf4", "does not read", "NVFP4"],
    ),
}


@pytest.mark.parametrize("change, culprits", BAD_CONFIGS.values(), ids=BAD_CONFIGS.keys())
def test_configs_that_cannot_run(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[dict[str, Any]], Any],
    culprits: list[str],
) -> None:
    change_json(folder / "config.json", change)
    message = refusal(folder, monkeypatch)
    assert all(culprit in message for culprit in culprits), message


def test_modelopt_by_its_own_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "hf_quant_config.json").write_text('{"quantization": {"quant_algo": "NVFP4"}}')
    assert "(modelopt) cannot be read" in refusal(folder, monkeypatch)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"model_type": 1, "model_type": 2}', "[" * 100_000])
def test_config_that_is_no_json_object(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (folder / "config.json").write_text(text)
    message = refusal(folder, monkeypatch)
    assert "config.json" in message and "gesso model pull" in message


@pytest.mark.parametrize("target", ["/dev/zero", "pipe"])
def test_config_that_is_not_a_regular_file(folder: Path, monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    (folder / "config.json").unlink()
    os.mkfifo(folder / "pipe")
    (folder / "config.json").symlink_to(target)
    assert "not a regular file" in refusal(folder, monkeypatch)


def test_no_folder_no_config_no_weights(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no model folder FOLDER" in refusal(tmp_path / "nowhere", monkeypatch)
    (folder / "model.safetensors").unlink()
    assert "neither model.safetensors nor model.safetensors.index.json" in refusal(folder, monkeypatch)
    (folder / "config.json").unlink()
    assert "has no config.json" in refusal(folder, monkeypatch)


def test_pickled_weights_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("a pickle was opened"))
    message = refusal(folder, monkeypatch)
    assert "pytorch_model.bin" in message and "pickled" in message and "safetensors" in message


@pytest.mark.parametrize("kept", [0, 5, 8, 200, -1])
def test_truncated_file(folder: Path, monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    message = refusal(folder, monkeypatch)
    assert "FOLDER/model.safetensors is truncated" in message and "gesso model pull" in message


def test_any_flipped_header_bit_is_refused_or_harmless(
    folder: Path, reference: DiffusionGemmaForBlockDiffusion
) -> None:
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    length = 8 + int.from_bytes(whole[:8], "little")
    draw = random.Random(0)
    refused = 0
    for place in [*range(8), *(draw.randrange(8, length) for _ in range(60))]:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << draw.randrange(8)
        file.write_bytes(flipped)
        try:
            assert_same_weights(load(folder), reference)
        except ModelError as error:
            refused += 1
            assert str(folder) in str(error)
    assert refused > 30


def test_shard_missing(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = sorted(shards.glob("model-*.safetensors"))[1]
    victim.unlink()
    message = refusal(shards, monkeypatch)
    assert victim.name in message and "gesso model pull" in message
    assert any(victim.name in problem for check in verify(shards) for problem in check.problems)


def test_shard_truncated(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = sorted(shards.glob("model-*.safetensors"))[1]
    victim.write_bytes(victim.read_bytes()[:-4])
    message = refusal(shards, monkeypatch)
    assert victim.name in message and "truncated" in message


def test_too_little_memory(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "available_memory", lambda device: 2**27)
    message = refusal(saved, monkeypatch)
    assert "0.3 GiB" in message and "0.1 GiB are free" in message and "gesso doctor" in message


def test_device_that_fails_while_loading(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: nn.Module, device: torch.device) -> nn.Module:
        raise RuntimeError("out of memory\nmore lines")

    monkeypatch.setattr(nn.Module, "to_empty", fail)
    with pytest.raises(ModelError, match=r"cpu \(out of memory\)"):
        load(saved)
