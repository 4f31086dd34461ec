"""Loading a code model from a file, and the choice of the pipeline by the kind of model."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import pytest
import torch

from engine.checkpoints.qwen2 import GgufWeights, open_weights
from engine.errors import ModelError
from engine.threads import DecoderSpeed
from infill import downloads, speeds
from infill.complete import code_model
from infill.complete.causal_completion import CausalCompleter
from infill.complete.code_model import LEAST_PROMPT, CodeModel, _has_chat, is_code_model
from infill.complete.confidence import Calibration
from infill.complete.pipeline import load_model, make_completer
from infill.settings import Settings
from tests.engine.tiny_qwen2 import reference, save_folder, save_gguf
from tests.infill.fakes import POCKET, request
from tests.infill.tiny_coder import coder_tokens, metadata


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A code model as a folder, and an empty folder of fetched models."""
    for module in (downloads, speeds):
        monkeypatch.setattr(module, "models_folder", lambda: tmp_path)
    model = reference(vocab_size=len(metadata()["tokenizer.ggml.tokens"]), max_position_embeddings=4096)
    place = save_folder(model, tmp_path / "model")
    coder_tokens().tokenizer.save(str(place / "tokenizer.json"))
    return place


def test_a_folder_of_a_code_model_becomes_its_pipeline(folder: Path) -> None:
    reported: list[tuple[int, int]] = []
    settings = Settings(model=str(folder), threads=1)
    model = load_model(settings, lambda done, total: reported.append((done, total)))
    assert isinstance(model, CodeModel) and model.name == str(folder)
    assert reported == sorted(reported) and reported[-1][0] <= reported[-1][1]
    assert model.family.budget.prefix > 0.5 * LEAST_PROMPT
    completer = make_completer(model, settings)
    assert isinstance(completer, CausalCompleter)
    assert completer.complete(request("x = §\n")).model == str(folder)
    assert 0 < (speeds.measured_token_s(str(folder)) or 0) < 1


def test_the_speed_of_a_model_is_measured_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = list[int]()

    def settle(model: object) -> DecoderSpeed:
        measured.append(torch.get_num_threads())
        torch.set_num_threads(2)
        return DecoderSpeed(1000.0, 0.05, 2)

    monkeypatch.setattr(code_model, "settle_decoder_threads", settle)
    settings, other = Settings(model=str(folder), threads=4), Settings(model=str(folder), threads=3)
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.setattr(code_model, "set_threads", torch.set_num_threads)
    try:
        first = CodeModel.load(settings)
        torch.set_num_threads(1)
        again = CodeModel.load(settings)
        assert measured == [4] and torch.get_num_threads() == 2
        assert again.family.budget == first.family.budget
        CodeModel.load(other)
        assert measured == [4, 3], "it depends on how many threads are allowed"
        (folder / "model.safetensors").touch()
        CodeModel.load(other)
        assert measured == [4, 3, 3], "and on the weights"
        monkeypatch.setattr(code_model, "cpu_name", lambda: "another")
        CodeModel.load(other)
        assert measured == [4, 3, 3, 3]
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("name", "content", "has_chat"),
    [
        ("chat_template.jinja", "{{ '<|im_start|>user' }}", True),
        ("chat_template.jinja", "{{ '<user>' }}", False),
        ("tokenizer_config.json", json.dumps({"chat_template": "<|im_start|>"}), True),
        ("tokenizer_config.json", json.dumps({"added_tokens_decoder": {"7": {"content": "<|im_start|>"}}}), False),
        ("tokenizer_config.json", "{", False),
    ],
)
def test_a_folder_with_a_chat_template_in_chatml_follows_instructions(
    folder: Path, name: str, content: str, has_chat: bool
) -> None:
    assert not CodeModel.load(Settings(model=str(folder), threads=1)).has_chat
    (folder / name).write_text(content, "utf-8")
    assert CodeModel.load(Settings(model=str(folder), threads=1)).has_chat is has_chat


def test_a_gguf_with_a_chat_template_in_chatml_follows_instructions(tmp_path: Path) -> None:
    weights = open_weights(save_gguf(reference(), tmp_path / "model.gguf"))
    assert isinstance(weights, GgufWeights) and not _has_chat(weights)
    weights.file.metadata = {**weights.file.metadata, "tokenizer.chat_template": "<|im_start|>user"}
    assert _has_chat(weights)


def test_files_and_folders_of_qwen2_are_code_models(folder: Path, tmp_path: Path) -> None:
    assert is_code_model(folder) and not is_code_model(POCKET)
    assert is_code_model(save_gguf(reference(), tmp_path / "model.gguf", gguf.GGMLQuantizationType.F32))
    assert not is_code_model(tmp_path / "absent")
    for content in ("", "[]", json.dumps({"model_type": "llama"})):
        (folder / "config.json").write_text(content, "utf-8")
        assert not is_code_model(folder)


def test_a_gguf_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    file = save_gguf(reference(), tmp_path / "model.gguf")
    with pytest.raises(ModelError, match=r"model\.gguf has a tokenizer of the kind"):
        load_model(Settings(model=str(file)))


def test_a_model_without_a_calibration_has_that_of_the_coder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = {
        "coder": {"intercept": -1.0, "weights": {"seam": 2.0}, "min_confidence": 0.4},
        str(folder): {"intercept": 0.5, "weights": {"seam": 3.0}, "min_confidence": 0.2},
    }
    file = tmp_path / "calibrations.json"
    monkeypatch.setattr("infill.complete.code_model.CALIBRATIONS", file)
    settings = Settings(model=str(folder), threads=1)
    file.write_text(json.dumps(stored), "utf-8")
    model = CodeModel.load(settings)
    assert (model.calibration, model.min_confidence) == (Calibration({"seam": 3.0}, 0.5), 0.2)
    del stored[str(folder)]
    file.write_text(json.dumps(stored), "utf-8")
    model = CodeModel.load(settings)
    assert (model.calibration, model.min_confidence) == (Calibration({"seam": 2.0}, -1.0), 0.4)
    file.write_text("{}", "utf-8")
    with pytest.raises(ModelError, match="install Gesso again"):
        CodeModel.load(settings)


def test_auto_loads_the_best_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infill.model_store.best_model", lambda: str(folder))
    model = load_model(Settings(threads=1))
    assert isinstance(model, CodeModel) and model.name == str(folder)
    assert model.decoder.device == torch.device("cpu")
