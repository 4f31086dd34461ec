"""GGUF files: every block type against the `gguf` package, and damage of every kind."""

from __future__ import annotations

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.checkpoints.gguf import BLOCK_TYPES, MAX_HEADER, MAX_ITEMS, GgufFile
from engine.errors import ModelError
from tests.engine.tiny_qwen2 import resident_bytes


def write(file: Path, **tensors: np.ndarray) -> Path:
    writer = gguf.GGUFWriter(file, "qwen2")
    writer.add_token_list(["a", "é", "\n"])
    writer.add_array("some.numbers", [1, 2, 3])
    writer.add_array("some.flags", [True, False])
    writer.add_float32("some.share", 0.5)
    for name, values in tensors.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@pytest.mark.parametrize("number", BLOCK_TYPES)
def test_blocks_decode_as_the_gguf_package_decodes_them(number: int) -> None:
    kind, block = gguf.GGMLQuantizationType(number), BLOCK_TYPES[number]
    assert kind.name == block.name
    assert gguf.GGML_QUANT_SIZES[kind] == (block.values, block.bytes)
    stored = np.random.default_rng(number).integers(0, 256, (3, 5 * max(block.bytes, 8)), dtype=np.uint8)
    with np.errstate(all="ignore"):
        if number in (0, 1):
            wanted = stored.view({0: np.float32, 1: np.float16}[number]).astype(np.float32)
        else:
            wanted = gguf.quants.dequantize(stored, kind)
    found = block.decode(torch.from_numpy(stored).view(-1, block.bytes)).view(3, -1).numpy()
    assert np.array_equal(found, wanted, equal_nan=True)


def test_metadata_and_tensors_are_those_that_were_written(tmp_path: Path) -> None:
    matrix, vector = np.random.rand(3, 8).astype(np.float32), np.arange(5, dtype=np.float16)
    file = GgufFile(write(tmp_path / "a.gguf", matrix=matrix, vector=vector))
    assert file.metadata["tokenizer.ggml.tokens"] == ["a", "é", "\n"]
    assert file.metadata["some.numbers"] == [1, 2, 3] and file.metadata["some.flags"] == [True, False]
    assert file.metadata["general.architecture"] == "qwen2" and file.metadata["some.share"] == 0.5
    assert np.array_equal(file.read("matrix").numpy(), matrix)
    assert np.array_equal(file.read("matrix", 1, 3).numpy(), matrix[1:3])
    assert np.array_equal(file.read("vector").numpy(), vector.astype(np.float32))


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux says what is resident")
def test_pages_that_were_read_leave_the_memory(tmp_path: Path) -> None:
    matrix = np.random.rand(512, 512).astype(np.float32)
    file = GgufFile(write(tmp_path / "a.gguf", matrix=matrix))
    file.read("matrix")
    assert resident_bytes(file.file) >= matrix.nbytes
    file.drop_pages()
    assert resident_bytes(file.file) == 0
    assert np.array_equal(file.read("matrix", 7, 8).numpy(), matrix[7:8])
    assert 0 < resident_bytes(file.file) < matrix.nbytes / 4, "those around are not read too"


@pytest.mark.parametrize("kept", [0, 3, 4, 20, 100, 0.5, 0.99])
def test_a_file_that_was_cut_off_is_refused(kept: float, tmp_path: Path) -> None:
    file = write(tmp_path / "a.gguf", matrix=np.random.rand(3, 64).astype(np.float32))
    content = file.read_bytes()
    file.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    with pytest.raises(ModelError, match="fetch the model again"):
        GgufFile(file)


def test_a_type_that_is_not_read_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "a.gguf", matrix=np.zeros((1, 256), dtype=np.float32))
    content, name = file.read_bytes(), b"matrix"
    at = content.rindex(name) + len(name) + 4 + 16
    file.write_bytes(content[:at] + struct.pack("<I", 10) + content[at + 4 :])
    with pytest.raises(ModelError, match=r"type 10 of ggml.*Q4_K"):
        GgufFile(file)


@given(at=st.integers(0, 400), value=st.integers(0, 255))
@settings(max_examples=300)
def test_damage_is_an_error_or_harmless(at: int, value: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("damage")
    content = bytearray(write(folder / "a.gguf", matrix=np.random.rand(3, 8).astype(np.float32)).read_bytes())
    content[at % len(content)] = value
    damaged = folder / "b.gguf"
    damaged.write_bytes(content)
    try:
        file = GgufFile(damaged)
        for name in file.tensors:
            file.read(name)
    except ModelError as error:
        assert str(error).endswith(".")


def header(tensors: int, entries: int, content: bytes) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, entries) + content


def array(name: str, kind: int, length: int, items: bytes) -> bytes:
    return struct.pack("<Q", len(name)) + name.encode() + struct.pack("<IIQ", 9, kind, length) + items


def directory(name: str, size: int, offset: int) -> bytes:
    return struct.pack("<Q", len(name)) + name.encode() + struct.pack("<IQIQ", 1, size, 0, offset)


CRAFTED = {
    "tensors without end": header(1 << 60, 0, b""),
    "entries without end": header(0, 1 << 60, b""),
    "a string without end": header(0, 1, struct.pack("<Q", (1 << 64) - 1)),
    "arrays with too many items together": header(
        0, 3, b"".join(array(f"a{number}", 1, MAX_ITEMS // 2, b"\x9c" * (MAX_ITEMS // 2)) for number in range(3))
    ),
    "an array in an array": header(0, 1, array("a", 9, 1, struct.pack("<IQ", 9, 1) * 100)),
    "a tensor without numbers": header(1, 0, directory("a", 0, 0) + bytes(64)),
    "a tensor behind the end": header(1, 0, directory("a", 4, 1 << 59) + bytes(64)),
    "two tensors in the same bytes": header(2, 0, directory("a", 4, 0) + directory("b", 4, 0) + bytes(128)),
    "two tensors that overlap": header(2, 0, directory("a", 16, 0) + directory("b", 4, 32) + bytes(128)),
    "a name that occurs twice": header(2, 0, directory("a", 4, 0) + directory("a", 4, 32) + bytes(128)),
}


@pytest.mark.parametrize("content", CRAFTED.values(), ids=CRAFTED.keys())
def test_a_crafted_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.gguf").write_bytes(content)
    with pytest.raises(ModelError, match="fetch the model again"):
        GgufFile(tmp_path / "a.gguf")


def test_a_header_is_bounded_however_large_the_file_is(tmp_path: Path) -> None:
    name = struct.pack("<Q", 1) + b"a"
    with (tmp_path / "a.gguf").open("wb") as stream:
        stream.write(header(0, 1, name + struct.pack("<IQ", 8, MAX_HEADER)))
        stream.truncate(MAX_HEADER + (1 << 20))  # sparse
    with pytest.raises(ModelError, match="header .* is damaged"):
        GgufFile(tmp_path / "a.gguf")
