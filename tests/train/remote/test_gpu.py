"""Training on a rented machine, from the pack to the collected model, at a small scale on the CPU."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from engine.checkpoints.checkpoint import load_model
from engine.errors import InputError
from tests.train.prepared import TOKENIZER, write_prepared
from tests.train.small_recipe import MODEL
from train.remote import gpu
from train.remote.gpu import app, records, running
from train.remote.pack import pack

ROOT = Path(__file__).parents[3]
RECIPE = f"""
[model]
{MODEL}
[layout]
prompt = 112
canvas = 32

[run]
rows = 2
workers = 1
causal_share = 0.5
warmup_steps = 4
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return tmp_path


def call(folder: Path, *arguments: str) -> str:
    result = CliRunner().invoke(app, [*arguments, "--work", str(folder / "work")], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.slow
def test_from_the_pack_to_the_collected_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "data").mkdir()
    write_prepared(folder / "data", {"train": 20, "valid": 8}, lines=(20, 30))
    pack(folder / "data", TOKENIZER, folder / "pack", 1 << 20)
    recipe = ("--recipe", str(folder / "recipe.toml"), "--no-compile")
    run = folder / "work" / "run"

    monkeypatch.setattr(gpu, "PROBE_STEPS", 40)
    assert "train: 20 files" in call(folder, "prepare", str(folder / "pack"))
    probed = call(folder, "probe", "2", *recipe)
    assert "causal" in probed and "diffusion" in probed, probed
    assert records(folder / "work" / "probe-2")[-1]["step"] == gpu.PROBE_STEPS

    assert "Started" in call(folder, "start", "30", *recipe, "--follow", "0")
    with pytest.raises(InputError, match="in progress"):
        call(folder, "start", "30", *recipe)
    ends = time.monotonic() + 300
    while len(records(run)) < 2 and time.monotonic() < ends:
        time.sleep(0.1)
    assert "running" in call(folder, "status", "--follow", "0.2")
    assert "not running" in call(folder, "stop")
    assert running(run) is None and records(run)[-1]["step"] >= 40

    monkeypatch.setattr(gpu, "PIECE", 200_000)
    call(folder, "collect", str(folder / "out"))
    pieces = sorted((folder / "out").glob("model.tar.*"))
    assert len(pieces) > 1 and max(piece.stat().st_size for piece in pieces) <= 200_000
    (folder / "model.tar").write_bytes(b"".join(piece.read_bytes() for piece in pieces))
    with tarfile.open(folder / "model.tar") as archive:
        archive.extractall(folder, filter="data")
    model = load_model(folder / "model", torch.device("cpu"), torch.float32)
    state = torch.load(run / "checkpoint.pt", map_location="cpu", weights_only=True)
    name = "layers.0.mlp.down_proj.weight"
    torch.testing.assert_close(model.state_dict()[name], state["masters"][name].bfloat16().float())
    assert (folder / "out" / "log.jsonl").read_bytes() == (run / "log.jsonl").read_bytes()


@pytest.mark.slow
def test_a_run_that_fails_shows_why(folder: Path) -> None:
    data = folder / "work" / "data"
    data.mkdir(parents=True)
    (data / "tokenizer.json").write_bytes(TOKENIZER.read_bytes())
    shown = call(folder, "start", "1", "--recipe", str(folder / "recipe.toml"), "--no-compile", "--follow", "300")
    assert "not running" in shown and "tokens-train.bin" in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["start", "1"], "prepare"),
        (["probe", "2"], "prepare"),
        (["status"], "start"),
        (["stop"], "No run"),
        (["collect", "OUT"], "no log"),
        (["prepare", "none"], "train.remote.pack"),
    ],
)
def test_commands_in_the_wrong_order_say_what_to_do_first(folder: Path, arguments: list[str], words: str) -> None:
    arguments = [str(folder / "out") if one == "OUT" else one for one in arguments]
    with pytest.raises(InputError, match=words):
        call(folder, *arguments)


@pytest.mark.slow
def test_training_needs_no_packages_of_data_preparation() -> None:
    absent = ["tree_sitter", "tree_sitter_python", "platformdirs", "transformers", "huggingface_hub", "matplotlib"]
    lines = ["import sys", f"sys.modules.update(dict.fromkeys({absent}))"]
    lines += ["import train.remote.gpu, train.remote.pack, train.run, train.export, train.curves"]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True, cwd=ROOT)
