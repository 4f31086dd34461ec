"""`gesso model quantize`: reads a model folder and writes a quantized one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from engine.checkpoints.checkpoint import load_model
from engine.checkpoints.export import save_model
from engine.config import ModelConfig
from engine.models.diffusion_gemma import DiffusionGemma
from infill import model_store
from infill.cli.main import app

CONFIG: dict[str, Any] = {
    "model_type": "diffusion_gemma",
    "text_config": {
        "vocab_size": 40,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "global_head_dim": 32,
        "sliding_window": 8,
        "num_experts": 2,
        "top_k_experts": 1,
        "moe_intermediate_size": 32,
    },
}


def gesso(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["model", "quantize", *(str(argument) for argument in arguments)])


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = DiffusionGemma(ModelConfig.from_json(CONFIG)).requires_grad_(False)
    for parameter in model.parameters():
        parameter.normal_()
    save_model(model, CONFIG, {}, tmp_path / "plain", "bfloat16")
    return tmp_path / "plain"


def test_a_model_is_quantized(plain: Path, tmp_path: Path) -> None:
    target = tmp_path / "quantized"
    done = gesso(plain, target, "--format", "int4")
    assert done.exit_code == 0 and done.stdout == f"{target}\n" and "gesso infill" in done.stderr
    assert load_model(target, torch.device("cpu"), torch.float32).config.num_experts == 2
    assert CliRunner().invoke(app, ["model", "verify", str(target)]).exit_code == 0
    again = gesso(plain, target, "--format", "int4")
    assert again.exit_code == 3 and "new or empty" in again.stderr and "Traceback" not in again.stderr


def test_usage_errors(plain: Path, tmp_path: Path) -> None:
    assert gesso(plain, tmp_path / "quantized").exit_code == 2
    assert gesso(plain, tmp_path / "quantized", "--format", "int3").exit_code == 2
    pocket = gesso(model_store.POCKET, tmp_path / "quantized", "--format", "fp8")
    assert pocket.exit_code == 3 and "quantized already (gesso_int8)" in " ".join(pocket.stderr.split())
