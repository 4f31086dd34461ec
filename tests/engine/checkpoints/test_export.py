"""An exported model loads again, here and in transformers; a failed export leaves the old model intact."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import DiffusionGemmaForBlockDiffusion

from engine.checkpoints import export
from engine.checkpoints.checkpoint import load_model
from engine.checkpoints.config_files import read_config, read_sampling
from engine.checkpoints.export import ExportType, save_model, write_checksums
from engine.checkpoints.tensor_views import checkpoint_views
from engine.checkpoints.verification import verify
from engine.config import ModelConfig
from engine.errors import ModelError
from engine.key_values import CanvasMemory, KeyValues, PromptMemory
from engine.models.diffusion_gemma import DiffusionGemma
from tests.engine.tiny import VISION

CPU = torch.device("cpu")
CONFIG: dict[str, Any] = {
    "architectures": ["DiffusionGemmaForBlockDiffusion"],
    "model_type": "diffusion_gemma",
    "canvas_length": 8,
    "dtype": "float16",
    "text_config": {
        "model_type": "diffusion_gemma_text",
        "vocab_size": 96,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "global_head_dim": 16,
        "num_global_key_value_heads": 1,
        "sliding_window": 6,
        "layer_types": ["sliding_attention", "full_attention", "full_attention"],
        "num_experts": 4,
        "top_k_experts": 2,
        "moe_intermediate_size": 16,
        "max_position_embeddings": 512,
    },
    "vision_config": {**VISION, "position_embedding_size": 16},
}
GENERATION = {"max_denoising_steps": 9, "t_max": 0.7, "sampler_config": {"entropy_bound": 0.2}}


def build(seed: int = 0) -> DiffusionGemma:
    torch.manual_seed(seed)
    model = DiffusionGemma(ModelConfig.from_json(CONFIG)).eval().requires_grad_(False)
    for view in checkpoint_views(model).values():
        view.copy_(torch.randn(view.shape) * (0.3 if view.dim() > 1 else 1.0))
    return model


@pytest.fixture(scope="module")
def model() -> DiffusionGemma:
    return build()


def logits(model: DiffusionGemma, prompt: torch.Tensor, canvas: torch.Tensor) -> torch.Tensor:
    """[1, canvas, vocab] of one denoising pass without self-conditioning."""
    kv = KeyValues(model.config, CPU, torch.float32)
    encoding = PromptMemory(kv, prompt.shape[1])
    model.encode(prompt, encoding.positions(), encoding.masks(), encoding)
    encoding.commit()
    memory = CanvasMemory(kv, canvas.shape[1])
    belief = torch.zeros(1, canvas.shape[1], model.config.hidden_size)
    return model.logits(model.denoise(canvas, belief, memory.positions(), memory.masks(), memory))


def load(folder: Path) -> DiffusionGemma:
    return load_model(folder, CPU, torch.float32)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("max_shard_bytes", [10**9, 40_000])
def test_float32_round_trip_is_exact(model: DiffusionGemma, tmp_path: Path, max_shard_bytes: int) -> None:
    save_model(model, CONFIG, GENERATION, tmp_path / "new" / "model", "float32", max_shard_bytes)
    again = load(tmp_path / "new" / "model")
    state = again.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert again.config == model.config
    assert read_sampling(tmp_path / "new" / "model").max_steps == 9
    assert not any(check.problems for check in verify(tmp_path / "new" / "model"))


def test_bfloat16_round_trip_rounds_once(model: DiffusionGemma, tmp_path: Path) -> None:
    save_model(model, CONFIG, GENERATION, tmp_path, "bfloat16")
    for name, view in checkpoint_views(load(tmp_path)).items():
        assert torch.equal(view, checkpoint_views(model)[name].bfloat16().float()), name
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"


def test_transformers_loads_it_and_agrees(model: DiffusionGemma, tmp_path: Path) -> None:
    save_model(model, CONFIG, {}, tmp_path, "float32", 40_000)
    loaded: Any = DiffusionGemmaForBlockDiffusion.from_pretrained(tmp_path, output_loading_info=True)
    theirs, report = loaded
    absent = [name for name in report["missing_keys"] if "vision" not in name]
    assert not absent and not report["unexpected_keys"] and not report["mismatched_keys"]
    prompt, canvas = torch.randint(0, 96, (1, 11)), torch.randint(0, 96, (1, 8))
    with torch.no_grad():
        expected = theirs.eval()(input_ids=prompt, decoder_input_ids=canvas).logits
    torch.testing.assert_close(logits(load(tmp_path), prompt, canvas), expected, atol=1e-4, rtol=1e-4)


def test_int8_is_half_a_step_off_at_most(model: DiffusionGemma, tmp_path: Path) -> None:
    save_model(model, CONFIG, GENERATION, tmp_path, "int8")
    exact = checkpoint_views(model)
    for name, view in checkpoint_views(load(tmp_path)).items():
        if view.dim() < 2 or ".router." in name:
            assert torch.equal(view, exact[name]), name
        else:
            step = exact[name].abs().amax(dim=-1, keepdim=True) / 127
            assert not torch.equal(view, exact[name])
            assert bool(((view - exact[name]).abs() <= step * 0.5001).all()), name
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["quantization_config"] == {"quant_method": "gesso_int8"}


def test_int8_takes_a_quarter_of_float32(model: DiffusionGemma, tmp_path: Path) -> None:
    sizes = {}
    dtypes: tuple[ExportType, ...] = ("float32", "int8")
    for dtype in dtypes:
        save_model(model, CONFIG, GENERATION, tmp_path / dtype, dtype)
        with safe_open(tmp_path / dtype / "model.safetensors", "pt") as reader:
            sizes[dtype] = sum(reader.get_tensor(name).nbytes for name in reader.keys())
    assert sizes["int8"] < 0.4 * sizes["float32"]


def test_int8_whose_scales_do_not_fit_is_refused(model: DiffusionGemma, tmp_path: Path) -> None:
    save_model(model, CONFIG, GENERATION, tmp_path, "int8")
    file, name = tmp_path / "model.safetensors", "model.decoder.layers.0.mlp.gate_proj.weight"
    tensors = load_file(file)
    assert tensors[name].dtype == torch.int8 and tensors[name].shape == (48, 32)
    save_file({**tensors, name + ".scale": torch.ones(48, 1)}, file)
    with pytest.raises(ModelError, match=r"gate_proj.weight.scale .*\[48, 1\].*\[48\]"):
        load(tmp_path)
    save_file({other: tensor for other, tensor in tensors.items() if other != name + ".scale"}, file)
    with pytest.raises(ModelError, match="gate_proj.weight.scale is missing"):
        load(tmp_path)


def test_the_removed_int4_format_is_refused_with_advice(model: DiffusionGemma, tmp_path: Path) -> None:
    save_model(model, CONFIG, GENERATION, tmp_path, "int8")
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"]["quant_method"] = "gesso_int4"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="gesso_int4.*no longer reads.*gesso model quantize --format int4"):
        load(tmp_path)


def test_quantized_shards_hold_what_their_index_says(model: DiffusionGemma, tmp_path: Path) -> None:
    save_model(model, CONFIG, GENERATION, tmp_path, "int8", 20_000)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert len(files) > 1 and all(file.stat().st_size <= 20_000 for file in files)
    total = json.loads((tmp_path / "model.safetensors.index.json").read_text())["metadata"]["total_size"]
    assert total == sum(tensor.nbytes for file in files for tensor in load_file(file).values())


def test_shards_stay_below_the_limit(model: DiffusionGemma, tmp_path: Path) -> None:
    save_model(model, CONFIG, GENERATION, tmp_path, "int8", 20_000)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert len(files) > 2 and all(file.stat().st_size <= 20_000 for file in files)
    assert [file.name for file in files] == [
        f"model-{number:05}-of-{len(files):05}.safetensors" for number in range(1, len(files) + 1)
    ]


def test_a_new_export_replaces_the_old_and_nothing_else(model: DiffusionGemma, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    save_model(model, CONFIG, GENERATION, tmp_path, "float32", 40_000)
    write_checksums(tmp_path)
    newer = build(seed=1)
    save_model(newer, CONFIG, GENERATION, tmp_path, "float32")
    assert set(contents(tmp_path)) == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
    }
    assert torch.equal(load(tmp_path).embed_tokens.weight, newer.embed_tokens.weight)
    save_model(model, CONFIG, GENERATION, tmp_path, "float32", 40_000)
    assert "model.safetensors" not in contents(tmp_path)
    assert torch.equal(load(tmp_path).embed_tokens.weight, model.embed_tokens.weight)


def test_a_failed_export_leaves_the_old_model(
    model: DiffusionGemma, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(model, CONFIG, GENERATION, tmp_path, "float32", 40_000)
    before = contents(tmp_path)
    written: list[Path] = []

    def fill_the_disk(tensors: dict[str, torch.Tensor], file: Path, metadata: dict[str, str]) -> None:
        file.write_bytes(b"half")
        written.append(file)
        if len(written) > 1:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "save_file", fill_the_disk)
    with pytest.raises(ModelError, match="No space left on device"):
        save_model(build(seed=1), CONFIG, GENERATION, tmp_path, "float32", 40_000)
    assert len(written) == 2 and contents(tmp_path) == before


def test_an_export_cut_short_between_files_is_no_model(
    model: DiffusionGemma, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old and new shards have the same shapes, so a mixture of them must not load."""
    save_model(model, CONFIG, GENERATION, tmp_path, "float32", 40_000)
    replace, calls = export.os.replace, []

    def stop_midway(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 5:
            raise OSError(5, "Input/output error")
        replace(source, target)

    monkeypatch.setattr(export.os, "replace", stop_midway)
    with pytest.raises(ModelError, match="Input/output error"):
        save_model(build(seed=1), CONFIG, GENERATION, tmp_path, "float32", 40_000)
    with pytest.raises(ModelError, match="index.json"):
        load(tmp_path)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    model = build()
    model.embed_tokens.weight[3, 1] = float("nan")
    with pytest.raises(ModelError, match="model.decoder.embed_tokens.weight"):
        save_model(model, CONFIG, GENERATION, tmp_path / "model", "int8")
    assert not (tmp_path / "model").exists()


def test_config_says_what_was_written(model: DiffusionGemma, tmp_path: Path) -> None:
    given = {**CONFIG, "quantization_config": {"quant_method": "other"}, "gesso": {"family": "native"}}
    before = json.dumps(given)
    save_model(model, given, GENERATION, tmp_path, "float32")
    written = json.loads((tmp_path / "config.json").read_text())
    assert "quantization_config" not in written and written["dtype"] == "float32"
    assert read_config(tmp_path).family == "native"
    assert json.dumps(given) == before


def test_checksums_cover_all_files(model: DiffusionGemma, tmp_path: Path) -> None:
    save_model(model, CONFIG, GENERATION, tmp_path, "bfloat16")
    (tmp_path / "tokenizer.json").write_text("{}")
    write_checksums(tmp_path)
    lines = (tmp_path / "SHA256SUMS").read_text().splitlines()
    assert f"{hashlib.sha256(b'{}').hexdigest()}  tokenizer.json" in lines and len(lines) == 4
    assert not any(check.problems for check in verify(tmp_path))
    (tmp_path / "tokenizer.json").write_text("[]")
    assert [check.file for check in verify(tmp_path) if check.problems] == ["tokenizer.json"]


def test_verify_reads_all_and_finds_nothing(model: DiffusionGemma, tmp_path: Path) -> None:
    save_model(model, CONFIG, GENERATION, tmp_path, "float32", 40_000)
    seen: list[tuple[int, int]] = []
    checks = verify(tmp_path, lambda done, total: seen.append((done, total)))
    assert {check.file for check in checks} == {file.name for file in tmp_path.iterdir()}
    assert not any(check.problems for check in checks) and all(check.sha256 for check in checks)
    assert seen[-1] == (sum(check.bytes for check in checks),) * 2


def test_verify_compares_sums(model: DiffusionGemma, tmp_path: Path) -> None:
    save_model(model, CONFIG, GENERATION, tmp_path, "bfloat16")
    write_checksums(tmp_path)
    with (tmp_path / "SHA256SUMS").open("a") as sums:
        sums.write("0" * 64 + " *tokenizer.json\n")
    content = bytearray((tmp_path / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(content)
    bad = {check.file: check.problems for check in verify(tmp_path) if check.problems}
    assert set(bad) == {"model.safetensors", "tokenizer.json"}
    assert "SHA-256" in bad["model.safetensors"][0] and "missing" in bad["tokenizer.json"][0]
    (tmp_path / "SHA256SUMS").write_text("nonsense ../../x\n")
    assert [check.file for check in verify(tmp_path) if check.problems] == ["SHA256SUMS"]


def test_verify_compares_with_the_hub_cache(model: DiffusionGemma, tmp_path: Path) -> None:
    save_model(model, CONFIG, GENERATION, tmp_path, "bfloat16")
    weights, blobs = tmp_path / "model.safetensors", tmp_path / "blobs"
    blobs.mkdir()
    for name, fits in ((hashlib.sha256(weights.read_bytes()).hexdigest(), True), ("0" * 64, False)):
        weights.rename(blobs / name)
        weights.symlink_to(blobs / name)
        assert (not any(check.problems for check in verify(tmp_path))) == fits
        weights.unlink()
        (blobs / name).rename(weights)


def test_verify_finds_all_that_is_wrong(model: DiffusionGemma, tmp_path: Path) -> None:
    save_model(model, CONFIG, GENERATION, tmp_path, "float32", 40_000)
    first, second, *_ = sorted(tmp_path.glob("model-*.safetensors"))
    first.write_bytes(first.read_bytes()[:-1])
    second.write_bytes(b"")
    (tmp_path / "generation_config.json").write_text("{")
    bad = {check.file for check in verify(tmp_path) if check.problems}
    assert bad == {first.name, second.name, "generation_config.json"}


def test_verify_without_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nowhere"):
        verify(tmp_path / "nowhere")
