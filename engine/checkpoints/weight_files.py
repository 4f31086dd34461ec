"""Lists the tensors of a model folder from its index and the headers of its safetensors files alone.

Every size in a header is compared with the file, so a damaged download is found before any weight is read. Pickled
weights are never opened. Must not know any architecture. Source of the format: the safetensors README (eight bytes of
header length, a JSON header, then the data without gaps).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from safetensors import safe_open

from engine.errors import ModelError, panics_as
from engine.files import JSON_BYTES, LARGE_JSON_BYTES, open_regular, read_json_object, unique_names

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
SUMS_FILE = "SHA256SUMS"
FETCH_AGAIN = "fetch the model again with `gesso model pull`"
MAX_HEADER_BYTES = 32 << 20  # 200,000 tensors
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
FLOATS = ("F64", "F32", "F16", "BF16")
DTYPE_BYTES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2}
DTYPE_BYTES |= {"U16": 2, "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as a header describes it; `start` and `bytes` give its position behind that header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int
    bytes: int


def broken(what: str) -> ModelError:
    """An error that a fresh download fixes; `what` is a clause about the problem."""
    return ModelError(f"{what}; {FETCH_AGAIN}.")


def unreadable(file: Path, reason: OSError) -> ModelError:
    return ModelError(f"{file} cannot be read ({reason.strerror}); check its permissions.")


def read_json(file: Path, limit: int = JSON_BYTES) -> dict[str, Any]:
    """Reads the JSON object in `file`; raises ModelError if it is absent, unreadable or not a JSON object."""
    try:
        return read_json_object(file, limit)
    except FileNotFoundError as absent:
        raise broken(f"The model folder {file.parent} has no {file.name}") from absent
    except OSError as reason:
        raise unreadable(file, reason) from reason
    except ValueError as damaged:
        raise broken(f"{file} is not valid JSON ({damaged})") from damaged


def find_shards(folder: Path) -> tuple[list[Path], dict[str, str] | None]:
    """The safetensors files of `folder`, and the index (tensor name to file name) if there is one.

    Raises ModelError if there are no weights, only pickled ones, or if a file that the index names is missing.
    """
    if (folder / SINGLE_FILE).is_file():
        return [folder / SINGLE_FILE], None
    if not (folder / INDEX_FILE).is_file():
        raise ModelError(_why_no_weights(folder))
    index = read_json(folder / INDEX_FILE, LARGE_JSON_BYTES).get("weight_map")
    if not isinstance(index, dict) or not index:
        raise broken(f"{folder / INDEX_FILE} has no 'weight_map'")
    for name in index.values():
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise broken(f"{folder / INDEX_FILE} names {name!r}, which is not a safetensors file in its folder")
    names = sorted(set(index.values()))
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise broken(f"{len(missing)} of {len(names)} weight files are missing from {folder}, first {missing[0]}")
    return [folder / name for name in names], index


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor of the folder by name; raises ModelError if headers, index and files disagree."""
    shards, index = find_shards(folder)
    tensors: dict[str, StoredTensor] = {}
    for shard in shards:
        for name, tensor in read_header(shard).items():
            if name in tensors:
                raise broken(f"The tensor {name} is in both {tensors[name].file} and {shard}")
            tensors[name] = tensor
    if index is not None:
        _compare_with_index(folder, index, tensors)
    return tensors


def read_header(file: Path) -> dict[str, StoredTensor]:
    """The tensors of one safetensors file; raises ModelError if header and file do not agree."""
    try:
        size = file.stat().st_size
        with open_regular(file) as stream:
            start = stream.read(8) or b""
            length = int.from_bytes(start, "little")
            header = (stream.read(length) or b"") if length <= min(size - 8, MAX_HEADER_BYTES) else b""
    except OSError as reason:
        raise unreadable(file, reason) from reason
    if start == b"version ":
        raise ModelError(f"{file} is a Git LFS pointer instead of weights; run `git lfs pull` in its folder.")
    if size < 8 or length > MAX_HEADER_BYTES or size < 8 + length:
        raise broken(f"{file} is truncated or has a corrupt header ({size} bytes in all)")
    try:
        tensors = _parse_header(file, json.loads(header, object_pairs_hook=unique_names))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as damaged:
        raise broken(f"{file} has a corrupt header ({damaged})") from damaged
    expected = 8 + length + sum(tensor.bytes for tensor in tensors.values())
    if size != expected:
        problem = "is truncated" if size < expected else "has bytes that belong to no tensor"
        raise broken(f"{file} {problem}: its header asks for {expected} bytes, it has {size}")
    with (
        panics_as(lambda refusal: broken(f"{file} is refused by safetensors ({refusal})")),
        safe_open(file, framework="pt"),
    ):
        pass
    return tensors


def _parse_header(file: Path, header: Mapping[str, Any]) -> dict[str, StoredTensor]:
    """Raises ValueError, TypeError, KeyError or AttributeError if the header is not sound."""
    tensors = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        dtype, shape, (start, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not all(type(number) is int and number >= 0 for number in (start, end, *shape)):
            raise ValueError(f"{name} has a size that is not a number")
        if dtype in DTYPE_BYTES and end - start != prod(shape) * DTYPE_BYTES[dtype]:
            raise ValueError(f"{name} takes {end - start} bytes, which does not fit {dtype} {shape}")
        tensors.append(StoredTensor(name, dtype, tuple(shape), file, start, end - start))
    return {tensor.name: tensor for tensor in tensors}


def _compare_with_index(folder: Path, index: Mapping[str, str], tensors: Mapping[str, StoredTensor]) -> None:
    for name, file in index.items():
        if name not in tensors or tensors[name].file.name != file:
            raise broken(f"The tensor {name} is not in {folder / file}, where {INDEX_FILE} says it is")
    for name, tensor in tensors.items():
        if name not in index:
            raise broken(f"The tensor {name} in {tensor.file} is unexpected: {INDEX_FILE} does not name it")


def _why_no_weights(folder: Path) -> str:
    if not folder.is_dir():
        return f"There is no model folder {folder}; name a folder that exists, or {FETCH_AGAIN}."
    names = sorted(file.name for file in folder.iterdir())
    pickled = [name for name in names if name.endswith(PICKLED)]
    if any(name.endswith(".safetensors") for name in names):
        return f"The model folder {folder} has weight files but no {INDEX_FILE}; {FETCH_AGAIN}."
    if pickled:
        return (
            f"The model folder {folder} holds only pickled weights ({pickled[0]}), which can run code when "
            "opened and are never read here; convert them to safetensors or choose a model that has them."
        )
    return f"The model folder {folder} has neither {SINGLE_FILE} nor {INDEX_FILE}; {FETCH_AGAIN}."
