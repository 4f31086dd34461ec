"""A quantized checkpoint loads again, is close to its source, and never exists in part."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from engine.checkpoints import quantized_loading as loading
from engine.checkpoints import quantizing
from engine.checkpoints.checkpoint import load_model
from engine.checkpoints.export import save_model
from engine.checkpoints.quantizing import KINDS, Kind, quantize_folder
from engine.checkpoints.tensor_views import checkpoint_views
from engine.checkpoints.verification import verify
from engine.config import ModelConfig
from engine.errors import InputError, ModelError, UsageError
from engine.models.diffusion_gemma import DiffusionGemma
from engine.quantized import quantize_weight
from tests.engine.checkpoints.test_published import CONFIG, CPU, hidden_of

ERRORS = {"fp8": 0.04, "int4": 0.12, "nvfp4": 0.13}


def write(folder: Path, experts: int = 2, shard: int = 10**9) -> DiffusionGemma:
    text = {**CONFIG["text_config"], "num_experts": experts}
    config = {**CONFIG, "text_config": text}
    torch.manual_seed(0)
    model = DiffusionGemma(ModelConfig.from_json(config)).requires_grad_(False)
    for parameter in model.parameters():
        parameter.uniform_(0.5, 1.5) if parameter.dim() == 1 else parameter.normal_(0, parameter.shape[-1] ** -0.5)
    save_model(model, config, {"t_min": 0.25}, folder, "float32", shard)
    (folder / "tokenizer.json").write_text("{}")
    return model


def quantized(weight: Tensor, kind: Kind) -> Tensor:
    made = quantize_weight(weight, kind)
    if kind == "int4":
        assert made.group_scales is not None
        made = replace(made, group_scales=made.group_scales.bfloat16())
    return made.dequantize()


@pytest.mark.parametrize("experts", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_every_matrix_is_what_quantizing_it_gives(kind: Kind, experts: int, tmp_path: Path) -> None:
    model = write(tmp_path / "plain", experts, 20_000)
    quantize_folder(tmp_path / "plain", tmp_path / "few", kind)
    found = checkpoint_views(load_model(tmp_path / "few", CPU, torch.float32))
    dense: Kind = kind if experts == 1 else "fp8"
    for name, weight in checkpoint_views(model).items():
        if ".experts." in name:
            halves = [part for one in weight for part in (one.chunk(2) if "gate_up" in name else (one,))]
            wanted = torch.cat([quantized(half, kind) for half in halves]).view_as(weight)
        elif "layers." in name and weight.dim() == 2 and "router" not in name:
            wanted = quantized(weight, dense)
        else:
            wanted = weight
        torch.testing.assert_close(found[name], wanted, atol=1e-6, rtol=1e-5)
        assert (wanted - weight).norm() <= ERRORS[kind] * weight.norm()
    assert not any(check.problems for check in verify(tmp_path / "few"))
    names = {file.name for file in (tmp_path / "few").iterdir()}
    assert {"tokenizer.json", "generation_config.json", "SHA256SUMS"} <= names
    assert not any("plan" in name or "partial" in name or "writing" in name for name in names)


def test_few_bits_take_few_bytes_and_compute_as_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = write(tmp_path / "plain")
    quantize_folder(tmp_path / "plain", tmp_path / "few", "int4")
    wanted = hidden_of(load_model(tmp_path / "few", CPU, torch.float32))
    monkeypatch.setattr(loading, "reserved_bytes", lambda *sizes: 0)
    monkeypatch.setattr(loading, "available_memory", lambda device: model.weight_bytes - 1)
    small = load_model(tmp_path / "few", CPU, torch.float32)
    torch.testing.assert_close(hidden_of(small), wanted, atol=1e-4, rtol=1e-4)
    layers = sum(p.nbytes for layer in model.layers for name, p in layer.named_parameters() if p.dim() > 1)
    others = model.weight_bytes - layers
    assert small.weight_bytes < others + layers * 0.32  # of float32, with fp8 and scales


def test_a_run_that_was_cut_off_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "plain")
    saved: list[str] = []
    save_file = quantizing.save_file

    def counting(tensors: dict[str, Tensor], file: Path, metadata: dict[str, str]) -> None:
        saved.append(file.name)
        save_file(tensors, file, metadata)
        if len(saved) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(quantizing, "save_file", counting)
    with pytest.raises(KeyboardInterrupt):
        quantize_folder(tmp_path / "plain", tmp_path / "few", "fp8")
    assert not (tmp_path / "few").exists()
    progress: list[tuple[int, int]] = []
    quantize_folder(tmp_path / "plain", tmp_path / "few", "fp8", lambda *one: progress.append(one))
    assert len(saved) == 4 and saved[1] == saved[2]  # the incomplete file is made again, the first one is not
    assert progress[-1][0] == progress[-1][1] > progress[0][0] > 0
    once = tmp_path / "once"
    quantize_folder(tmp_path / "plain", once, "fp8")
    for file in once.iterdir():
        assert file.read_bytes() == (tmp_path / "few" / file.name).read_bytes(), file.name
    assert {path.name for path in tmp_path.iterdir()} == {"plain", "few", "once"}


def test_unfinished_work_of_another_run_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "plain")
    with monkeypatch.context() as patch:
        patch.setattr(quantizing, "_write_config", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            quantize_folder(tmp_path / "plain", tmp_path / "few", "fp8")
    quantize_folder(tmp_path / "plain", tmp_path / "few", "int4")
    index = json.loads((tmp_path / "few" / "model.safetensors.index.json").read_bytes())["weight_map"]
    assert any(name.endswith("experts.0.down_proj.weight_packed") for name in index)


def test_what_cannot_be_is_refused_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "plain")
    quantize_folder(tmp_path / "plain", tmp_path / "few", "fp8")
    with pytest.raises(InputError, match="new or empty"):
        quantize_folder(tmp_path / "plain", tmp_path / "few", "fp8")
    with pytest.raises(ModelError, match=r"quantized already \(compressed-tensors\)"):
        quantize_folder(tmp_path / "few", tmp_path / "fewer", "int4")
    with pytest.raises(UsageError, match="int3"):
        quantize_folder(tmp_path / "plain", tmp_path / "other", "int3")  # type: ignore[arg-type]
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 5, 5))  # type: ignore[attr-defined]
        with pytest.raises(ModelError, match="free some space"):
            quantize_folder(tmp_path / "plain", tmp_path / "other", "int4")
    model = load_model(tmp_path / "plain", CPU, torch.float32)
    monkeypatch.setattr(quantizing._Reader, "matrix", lambda self, matrix: torch.full((2, 32), torch.nan))
    with pytest.raises(ModelError, match="NaN or infinity"):
        quantize_folder(tmp_path / "plain", tmp_path / "other", "fp8")
    assert model.config.num_experts == 2 and not (tmp_path / "other").exists()
