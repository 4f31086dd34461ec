"""From names of models to folders, without a network."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from engine.errors import ModelError, UsageError
from infill import downloads, model_store, speeds
from infill.downloads import KNOWN
from infill.speeds import Speed, remember_speed

LARGE = model_store.ALIASES["26b"]


class Hub:
    """Replaces `snapshot_download`: returns cached folders and records the calls."""

    def __init__(self, cached: dict[str, Path], error: Exception | None = None) -> None:
        self.cached, self.error = cached, error
        self.calls: list[tuple[str, bool]] = []

    def __call__(self, repository: str, allow_patterns: list[str], local_files_only: bool) -> str:
        from huggingface_hub.errors import LocalEntryNotFoundError

        self.calls.append((repository, local_files_only))
        self.patterns = allow_patterns
        if local_files_only and repository not in self.cached:
            raise LocalEntryNotFoundError("not cached")
        if self.error is not None:
            raise self.error
        return str(self.cached.get(repository, Path("/fetched")))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    fake = Hub({})
    monkeypatch.setattr("huggingface_hub.snapshot_download", fake)
    return fake


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of fetched models, on a machine without a GPU and without the 26B."""
    folder = tmp_path / "models"
    folder.mkdir()
    for module in (downloads, speeds):
        monkeypatch.setattr(module, "models_folder", lambda: folder)
    monkeypatch.setattr(model_store, "_gpu_bytes", lambda: 0)
    monkeypatch.setattr(model_store, "_hub_has", lambda repository: False)
    return folder


def put(folder: Path, *names: str) -> None:
    """Files of the size of these models, without content."""
    for name in names:
        (folder / KNOWN[name].file).touch()
        os.truncate(folder / KNOWN[name].file, KNOWN[name].bytes)


def test_names_and_folders_need_no_hub(hub: Hub, tmp_path: Path) -> None:
    assert model_store.resolve("pocket") == model_store.POCKET_FOLDER
    assert model_store.resolve(str(tmp_path)) == tmp_path
    assert model_store.pull("pocket") == model_store.POCKET_FOLDER
    assert hub.calls == []


def test_resolving_never_downloads(hub: Hub) -> None:
    with pytest.raises(ModelError, match="gesso model pull 26b"):
        model_store.resolve("26b")
    assert hub.calls == [(LARGE, True)]


def test_a_cached_model_is_found(hub: Hub, tmp_path: Path) -> None:
    hub.cached["owner/model"] = tmp_path
    assert model_store.resolve("owner/model") == tmp_path


def test_pulling_downloads_weights_and_text_files_only(hub: Hub) -> None:
    assert model_store.pull("26b") == Path("/fetched")
    assert hub.calls == [(LARGE, False)]
    assert not any(pattern.endswith((".bin", ".py", ".pt", "*")) for pattern in set(hub.patterns) - {"LICENSE*"})


def test_offline_refuses_downloads(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="refused while `offline` is set"):
        model_store.pull("26b", offline=True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="refused"):
        model_store.pull("26b")
    assert hub.calls == []


def test_a_failed_download_says_what_to_do(hub: Hub) -> None:
    hub.error = OSError("No space left on device")
    with pytest.raises(ModelError, match=r"\(No space left on device\).*resumes the download"):
        model_store.pull("owner/model")


@pytest.mark.parametrize(
    ("name", "error", "sentence"),
    [
        ("pocked", UsageError, "There is no model 'pocked'; use pocket, coder, coder-1.5b, 26b"),
        ("a/b/c", UsageError, "There is no model 'a/b/c'"),
        ("./absent", ModelError, "There is no model folder ./absent"),
        ("/absent/x", ModelError, "There is no model folder /absent/x"),
    ],
)
def test_an_invalid_name_is_refused(hub: Hub, name: str, error: type[Exception], sentence: str) -> None:
    for act in (model_store.resolve, model_store.pull):
        with pytest.raises(error, match=sentence):
            act(name)
    assert hub.calls == []


def test_the_list_has_the_shipped_model_and_cached_models_of_its_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    for name, kind in (("right", model_store.MODEL_TYPES[0]), ("wrong", "llama")):
        repository = tmp_path / f"models--owner--{name}"
        snapshot = repository / "snapshots" / "abc123"
        snapshot.mkdir(parents=True)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("abc123")
        (snapshot / "config.json").write_text(json.dumps({"model_type": kind}))
        (snapshot / "model.safetensors").write_bytes(bytes(1000))
        older = repository / "snapshots" / "0ld"
        shutil.copytree(snapshot, older)
        (older / "model.safetensors").write_bytes(bytes(5000))
        for file in older.iterdir():
            os.utime(file, (1e9, 1e9))
    scan: Any = huggingface_hub.scan_cache_dir
    monkeypatch.setattr("huggingface_hub.scan_cache_dir", lambda: scan(tmp_path))
    monkeypatch.setattr("infill.downloads.models_folder", lambda: tmp_path / "models")
    pocket, cached = model_store.stored_models()
    assert (pocket.name, pocket.source) == ("pocket", "shipped") and pocket.bytes > 1_000_000
    assert cached.name == "owner/right" and 1000 < cached.bytes < 1100
    assert cached.folder == tmp_path / "models--owner--right" / "snapshots" / "abc123"


def test_without_a_cache_the_list_has_the_shipped_model_and_fetched_ones(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    scan: Any = huggingface_hub.scan_cache_dir
    monkeypatch.setattr("huggingface_hub.scan_cache_dir", lambda: scan(tmp_path / "absent"))
    assert [model.name for model in model_store.stored_models()] == ["pocket"]
    put(models, "coder")
    _, fetched = model_store.stored_models()
    assert (fetched.name, fetched.source, fetched.bytes) == ("coder", "downloaded", KNOWN["coder"].bytes)
    assert fetched.folder == models / KNOWN["coder"].file


# the model that `auto` names


def test_without_other_models_it_is_the_shipped_one(models: Path) -> None:
    assert model_store.best_model() == "pocket" and model_store.best_code_model() is None
    assert model_store.resolve("auto") == model_store.POCKET_FOLDER


@pytest.mark.parametrize(
    ("names", "seconds", "chosen"),
    [
        (["coder"], {}, "coder"),
        (["coder-1.5b"], {}, "coder-1.5b"),
        (["coder", "coder-1.5b"], {}, "coder-1.5b"),
        (["coder", "coder-1.5b"], {"coder-1.5b": 0.03}, "coder-1.5b"),
        (["coder", "coder-1.5b"], {"coder-1.5b": 0.1}, "coder-1.5b"),
        (["coder", "coder-1.5b"], {"coder-1.5b": 0.11}, "coder"),
        (["coder", "coder-1.5b"], {"coder-1.5b": 0.9, "coder": 0.3}, "coder"),
        (["coder-1.5b"], {"coder-1.5b": 0.9}, "coder-1.5b"),
        (["coder"], {"coder-1.5b": 0.01}, "coder"),
    ],
)
def test_it_is_the_largest_code_model_that_is_fast_enough(
    models: Path, names: list[str], seconds: dict[str, float], chosen: str
) -> None:
    put(models, *names)
    for name, token_s in seconds.items():
        remember_speed(name, "", Speed(100.0, token_s, 1))
    assert model_store.best_model() == chosen
    assert model_store.resolve("auto") == models / KNOWN[chosen].file


def test_a_code_model_that_is_not_complete_does_not_count(models: Path) -> None:
    put(models, "coder")
    os.truncate(models / KNOWN["coder"].file, 1000)
    assert model_store.best_model() == "pocket"
    with pytest.raises(ModelError, match="coder is not on this machine; fetch it with `gesso model pull coder`"):
        model_store.resolve("coder")


@pytest.mark.parametrize(
    ("gpu_bytes", "cached", "chosen"),
    [(80 << 30, True, "26b"), (40 << 30, True, "26b"), (24 << 30, True, "coder"), (80 << 30, False, "coder")],
)
def test_it_is_the_26b_on_a_gpu_that_holds_it(
    models: Path, monkeypatch: pytest.MonkeyPatch, gpu_bytes: int, cached: bool, chosen: str
) -> None:
    put(models, "coder")
    monkeypatch.setattr(model_store, "_gpu_bytes", lambda: gpu_bytes)
    monkeypatch.setattr(model_store, "_hub_has", lambda repository: cached and repository == LARGE)
    assert model_store.best_model() == chosen and model_store.best_code_model() == "coder"


def test_auto_finds_the_26b_in_the_cache_of_the_hub(
    models: Path, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.cached[LARGE] = tmp_path
    monkeypatch.setattr(model_store, "_gpu_bytes", lambda: 80 << 30)
    monkeypatch.setattr(model_store, "_hub_has", lambda repository: True)
    assert model_store.resolve("auto") == tmp_path


@pytest.mark.parametrize("variable", ["HF_HUB_CACHE", "HF_HOME"])
def test_the_cache_of_the_hub_is_found_by_its_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    for name in ("HF_HUB_CACHE", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    assert not model_store._hub_has("owner/model")
    hub = tmp_path / "hub" if variable == "HF_HOME" else tmp_path
    (hub / "models--owner--model" / "snapshots").mkdir(parents=True)
    assert model_store._hub_has("owner/model")


@pytest.mark.parametrize(("output", "gib"), [("", 0), ("24564\n", 23), ("24564\n81559\n", 79), ("[N/A]\n", 0)])
def test_the_memory_of_the_largest_gpu_counts(monkeypatch: pytest.MonkeyPatch, output: str, gib: int) -> None:
    run = subprocess.CompletedProcess([], 0, output)
    monkeypatch.setattr(subprocess, "run", lambda *command, **options: run)
    assert model_store._gpu_bytes() >> 30 == gib


@pytest.mark.parametrize("error", [FileNotFoundError(), subprocess.TimeoutExpired("nvidia-smi", 5)])
def test_without_the_tool_of_the_driver_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*command: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(subprocess, "run", fail)
    assert model_store._gpu_bytes() == 0


# code models by name


def test_a_gguf_file_is_its_own_name(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    with pytest.raises(ModelError, match="There is no model folder"):
        model_store.resolve(str(file))
    file.touch()
    assert model_store.resolve(str(file)) == file


def test_pulling_a_code_model_fetches_its_file(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    pulled: list[str] = []

    def fetch(model: downloads.KnownModel, on_progress: downloads.Progress) -> Path:
        pulled.append(model.name)
        put(models, model.name)
        return models / model.file

    monkeypatch.setattr(model_store, "fetch", fetch)
    with pytest.raises(ModelError, match="Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF is refused while `offline` is set"):
        model_store.pull("coder", offline=True)
    for _ in range(2):
        assert model_store.pull("coder") == models / KNOWN["coder"].file
    assert pulled == ["coder"]
