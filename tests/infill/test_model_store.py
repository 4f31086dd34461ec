"""From names of models to folders, without a network."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from engine.errors import ModelError, UsageError
from infill import model_store

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
        ("pocked", UsageError, "There is no model 'pocked'; use pocket, 26b"),
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

    for name, kind in (("right", model_store.MODEL_TYPE), ("wrong", "llama")):
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
    pocket, cached = model_store.stored_models()
    assert (pocket.name, pocket.source) == ("pocket", "shipped") and pocket.bytes > 1_000_000
    assert cached.name == "owner/right" and 1000 < cached.bytes < 1100
    assert cached.folder == tmp_path / "models--owner--right" / "snapshots" / "abc123"


def test_without_a_cache_the_list_has_the_shipped_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    scan: Any = huggingface_hub.scan_cache_dir
    monkeypatch.setattr("huggingface_hub.scan_cache_dir", lambda: scan(tmp_path / "absent"))
    assert [model.name for model in model_store.stored_models()] == ["pocket"]
