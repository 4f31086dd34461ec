"""Headers and indices that do not fit their files are named, whatever the tensors are for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from engine.checkpoints.weight_files import INDEX_FILE, SINGLE_FILE, read_header, read_json, stored_tensors
from engine.errors import ModelError

SHARDS = {
    "model-00001-of-00002.safetensors": {"a": torch.zeros(2, 3), "b": torch.zeros(5, dtype=torch.int8)},
    "model-00002-of-00002.safetensors": {"c": torch.zeros(4, dtype=torch.bfloat16)},
}


@pytest.fixture
def single(tmp_path: Path) -> Path:
    save_file({"a": torch.zeros(2, 3), "b": torch.zeros(5)}, tmp_path / SINGLE_FILE)
    return tmp_path


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    for file, tensors in SHARDS.items():
        save_file(tensors, tmp_path / file)
    weight_map = {name: file for file, tensors in SHARDS.items() for name in tensors}
    (tmp_path / INDEX_FILE).write_text(json.dumps({"weight_map": weight_map}))
    return tmp_path


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        stored_tensors(folder)
    return str(caught.value).replace(str(folder), "FOLDER")


def with_header(file: Path, header: str, data: bytes) -> None:
    file.write_bytes(len(header).to_bytes(8, "little") + header.encode() + data)


def test_headers_tell_type_shape_and_place(sharded: Path) -> None:
    tensors = stored_tensors(sharded)
    assert {name: (tensor.dtype, tensor.shape, tensor.bytes) for name, tensor in tensors.items()} == {
        "a": ("F32", (2, 3), 24),
        "b": ("I8", (5,), 5),
        "c": ("BF16", (4,), 8),
    }
    assert tensors["c"].file == sharded / "model-00002-of-00002.safetensors"


def test_one_file_goes_before_an_index(sharded: Path) -> None:
    save_file({"whole": torch.zeros(1)}, sharded / SINGLE_FILE)
    assert set(stored_tensors(sharded)) == {"whole"}


@pytest.mark.parametrize(
    "header",
    [
        "[]",
        "{",
        '{"a": 3}',
        '{"a": {"dtype": "F32", "shape": [2]}}',
        '{"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}',
        '{"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}}',
        '{"a": {"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]}}',
        '{"a": {"dtype": "F32", "shape": [2], "data_offsets": [true, 8]}}',
        '{"a": {"dtype": ["F32"], "shape": [2], "data_offsets": [0, 8]}}',
        '{"a": {"dtype": "X32", "shape": [2], "data_offsets": [0, 8]}}',
        '{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}',
        '{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], "data_offsets": [0, 8]}}',
        '{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},'
        ' "b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}',
        "[" * 100_000,
    ],
)
def test_corrupt_headers(tmp_path: Path, header: str) -> None:
    with_header(tmp_path / SINGLE_FILE, header, bytes(8))
    assert refusal(tmp_path).startswith("FOLDER/model.safetensors ")


def test_header_longer_than_the_file(tmp_path: Path) -> None:
    (tmp_path / SINGLE_FILE).write_bytes((2**63).to_bytes(8, "little") + b"{}")
    assert "truncated or has a corrupt header (10 bytes in all)" in refusal(tmp_path)


def test_bytes_too_many(single: Path) -> None:
    with (single / SINGLE_FILE).open("ab") as stream:
        stream.write(b"more")
    assert "FOLDER/model.safetensors has bytes that belong to no tensor" in refusal(single)


def test_git_lfs_pointer(single: Path) -> None:
    (single / SINGLE_FILE).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    assert "git lfs pull" in refusal(single)


def test_shard_missing(sharded: Path) -> None:
    (sharded / "model-00002-of-00002.safetensors").unlink()
    message = refusal(sharded)
    assert "1 of 2 weight files are missing" in message and "model-00002-of-00002.safetensors" in message


def test_link_into_an_emptied_cache(single: Path) -> None:
    (single / SINGLE_FILE).unlink()
    (single / SINGLE_FILE).symlink_to(single / "blobs" / "gone")
    assert "FOLDER" in refusal(single)
    with pytest.raises(ModelError, match="cannot be read"):
        read_header(single / SINGLE_FILE)


BAD_INDICES: dict[str, tuple[Callable[[dict[str, Any]], Any], list[str]]] = {
    "without a map": (lambda index: index.pop("weight_map"), [INDEX_FILE, "weight_map"]),
    "empty": (lambda index: index.update(weight_map={}), [INDEX_FILE, "weight_map"]),
    "of a wrong kind": (lambda index: index["weight_map"].update(a=["x"]), ["['x']"]),
    "leads out of the folder": (
        lambda index: index["weight_map"].update(a="../x.safetensors"),
        ["../x.safetensors", "not a safetensors file in its folder"],
    ),
    "leads to a pickle": (
        lambda index: index["weight_map"].update(a="pytorch_model.bin"),
        ["pytorch_model.bin"],
    ),
    "names too much": (
        lambda index: index["weight_map"].update(ghost="model-00001-of-00002.safetensors"),
        ["ghost is not in FOLDER/model-00001-of-00002.safetensors"],
    ),
    "names too little": (lambda index: index["weight_map"].pop("b"), ["tensor b", "unexpected"]),
    "names the wrong file": (
        lambda index: index["weight_map"].update(b="model-00002-of-00002.safetensors"),
        ["tensor b is not in FOLDER/model-00002-of-00002.safetensors"],
    ),
}


@pytest.mark.parametrize("change, culprits", BAD_INDICES.values(), ids=BAD_INDICES.keys())
def test_index_that_does_not_fit(sharded: Path, change: Callable[[dict[str, Any]], Any], culprits: list[str]) -> None:
    save_file({"a": torch.zeros(1)}, sharded.parent / "x.safetensors")
    (sharded / "pytorch_model.bin").write_bytes(b"pickle")
    index = json.loads((sharded / INDEX_FILE).read_text())
    change(index)
    (sharded / INDEX_FILE).write_text(json.dumps(index))
    message = refusal(sharded)
    assert all(culprit in message for culprit in culprits), message


def test_tensor_in_two_files(sharded: Path) -> None:
    save_file({"a": torch.zeros(2, 3), "c": torch.zeros(4)}, sharded / "model-00002-of-00002.safetensors")
    assert "The tensor a is in both" in refusal(sharded)


def test_index_missing(sharded: Path) -> None:
    (sharded / INDEX_FILE).unlink()
    assert f"FOLDER has weight files but no {INDEX_FILE}" in refusal(sharded)


def test_only_pickled_weights(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    assert "only pickled weights (pytorch_model.bin)" in refusal(tmp_path)


def test_json_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(ModelError, match="folder.json cannot be read"):
        read_json(tmp_path / "folder.json")
