"""`gesso infill --model FOLDER` with the scaled-down 26B in each published layout, with and without the service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from typer.testing import CliRunner, Result

from bench.gpu import agreement
from engine.checkpoints.checkpoint import load_model
from engine.checkpoints.tensor_views import checkpoint_views
from engine.checkpoints.weight_files import stored_tensors
from infill.cli.main import app
from infill.service.client import ServiceClient
from infill.service.location import all_locations, lock_holder
from tests.infill.published_26b import BUILDS, VOCAB, Build, save_published

CPU = torch.device("cpu")
CODE = "def total(items):\n    found = 0\n    for item in items:\n        found += item.\n    return found\n"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("published")
    return {build: save_published(root / build, build) for build in BUILDS}


@pytest.fixture(autouse=True)
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in (("XDG_RUNTIME_DIR", str(home)), ("GESSO_DTYPE", "float32"), ("GESSO_THREADS", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    Path("app.py").write_text(CODE)


def infill(folder: Path, *options: str) -> Result:
    found = ("infill", "app.py", "--at", "4:23", "--model", str(folder), "--steps", "6", "--json")
    return CliRunner().invoke(app, [*found, *options])


def answer(result: Result) -> dict[str, Any]:
    assert result.exit_code in (0, 1), result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return {name: value for name, value in found.items() if name not in ("timings_ms", "encoded_tokens")}


@pytest.mark.parametrize("build", BUILDS)
def test_a_hole_is_filled_with_and_without_the_service(folders: dict[str, Path], build: Build) -> None:
    folder = folders[build]
    without = answer(infill(folder, "--no-service"))
    assert without["model"] == str(folder) and without["steps"] > 6 and without["text"], without
    assert answer(infill(folder, "--service")) == without
    running = {ServiceClient(one).health().model for one in all_locations() if lock_holder(one)}
    assert str(folder) in running


@pytest.mark.parametrize("build", BUILDS)
def test_the_folder_is_complete_and_has_what_a_published_one_has(folders: dict[str, Path], build: Build) -> None:
    folder = folders[build]
    assert CliRunner().invoke(app, ["model", "verify", str(folder)]).exit_code == 0
    stored = stored_tensors(folder)
    assert len({tensor.file for tensor in stored.values()}) > 2
    assert any(name.startswith("model.encoder.vision_tower.") for name in stored)
    expert = {"bfloat16": "experts.down_proj", "nvfp4": "experts.7.up_proj.weight_scale_2"}.get(
        build, "experts.7.down_proj.weight_scale"
    )
    assert f"model.decoder.layers.5.{expert}" in stored
    scalars = []
    for part in ("encoder.language_model", "decoder"):
        tensor = stored[f"model.{part}.layers.3.layer_scalar"]
        with safe_open(tensor.file, framework="pt") as reader:
            scalars.append(float(reader.get_tensor(tensor.name)))
    assert scalars[0] != scalars[1]


def test_the_bfloat16_folder_gives_the_logits_of_transformers(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agreement, "LAST", VOCAB)
    monkeypatch.setattr(agreement, "choose_dtype", lambda device, name: torch.float32)
    same, difference = agreement.with_transformers(folders["bfloat16"], CPU)
    assert same == 1.0 and difference < 1e-3


@pytest.mark.parametrize(("build", "error"), [("nvfp4", 0.2), ("fp8", 0.05)])
def test_a_quantized_folder_has_about_the_weights_of_the_bfloat16_one(
    folders: dict[str, Path], build: Build, error: float
) -> None:
    exact, rounded = (checkpoint_views(load_model(folders[one], CPU, torch.float32)) for one in ("bfloat16", build))  # type: ignore[arg-type]
    for name, weight in exact.items():
        off = float((rounded[name] - weight).norm() / weight.norm())
        quantized = ".experts." in name or (build == "fp8" and "_proj." in name and "layers." in name)
        assert 0 < off < error if quantized else off == 0, name
