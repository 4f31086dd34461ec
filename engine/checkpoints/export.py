"""Writes a `DiffusionGemma` as a model folder that transformers or this engine can load.

The inverse of `engine.checkpoints.checkpoint`. A reader never finds a half-written file, or old and new weights mixed:
files get their names when they are complete, the index last. Must not know where a model comes from or what it is for.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from engine.checkpoints.checkpoint import SCALE_SUFFIX
from engine.checkpoints.config_files import CONFIG_FILE, GENERATION_FILE, INT8_METHOD
from engine.checkpoints.int8 import quantize_rows, row_scales
from engine.checkpoints.tensor_views import checkpoint_views
from engine.checkpoints.weight_files import INDEX_FILE, SINGLE_FILE, SUMS_FILE
from engine.errors import ModelError
from engine.models.diffusion_gemma import DiffusionGemma

ExportType = Literal["float32", "bfloat16", "int8"]
Stored = Literal["as_is", "numbers", "scales"]
HEADER_BYTES = 256  # upper limit for one tensor in a shard's header
PARTIAL = ".partial-"


@dataclass(frozen=True)
class _Piece:
    """A tensor to write, made from the view `source`: as it is, or the numbers or scales of its int8 form."""

    name: str
    source: Tensor
    dtype: torch.dtype
    stored: Stored = "as_is"

    @property
    def bytes(self) -> int:
        count = self.source.numel()
        if self.stored == "scales":
            count //= self.source.shape[-1]
        return count * self.dtype.itemsize + HEADER_BYTES

    def tensor(self) -> Tensor:
        if self.stored == "as_is":
            return self.source.to(device="cpu", dtype=self.dtype, copy=True).contiguous()
        scales = row_scales(self.source)
        return scales if self.stored == "scales" else quantize_rows(self.source, scales)


def save_model(
    model: DiffusionGemma,
    config_json: Mapping[str, Any],
    generation_json: Mapping[str, Any],
    folder: Path,
    dtype: ExportType,
    max_shard_bytes: int = 5 * 10**9,
) -> None:
    """Writes config.json, generation_config.json and the weights, in shards with an index if necessary.

    config_json: as transformers lays it out; `dtype` and `quantization_config` are replaced. dtype: `int8` quantizes
    projections, experts and embedding by row; norms, router and scalars stay float32. Only this engine can load such a
    folder: transformers would ignore the scales. max_shard_bytes: size of a file with its header; a single larger
    tensor gets a file of its own. Replaces an older model in `folder` (and its SHA256SUMS) and leaves other files
    unchanged. Raises ModelError if a weight is NaN or infinite, or if writing fails.
    """
    pieces = _pieces(model, dtype)
    shards = _split(pieces, max_shard_bytes)
    names = [SINGLE_FILE] if len(shards) == 1 else [_shard_name(i, len(shards)) for i in range(len(shards))]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_json(folder / (PARTIAL + CONFIG_FILE), _config(config_json, dtype))
        _write_json(folder / (PARTIAL + GENERATION_FILE), generation_json)
        for name, shard in zip(names, shards, strict=True):
            file = folder / (PARTIAL + name)
            save_file({piece.name: piece.tensor() for piece in shard}, file, metadata={"format": "pt"})
            shutil.copymode(folder / (PARTIAL + CONFIG_FILE), file)
        if len(shards) > 1:
            weight_map = {piece.name: name for name, shard in zip(names, shards, strict=True) for piece in shard}
            total = sum(piece.bytes - HEADER_BYTES for piece in pieces)
            index = {"metadata": {"total_size": total}, "weight_map": weight_map}
            _write_json(folder / (PARTIAL + INDEX_FILE), index)
            names.append(INDEX_FILE)
        _put_in_place(folder, [CONFIG_FILE, GENERATION_FILE, *names])
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"The model cannot be written to {folder} ({error}); check its free space and permissions."
        ) from error
    finally:
        for partial in folder.glob(PARTIAL + "*"):
            with suppress(OSError):
                partial.unlink()


def write_checksums(folder: Path) -> None:
    """Writes `SHA256SUMS` of all files in the folder, for `engine.checkpoints.verification` and `sha256sum -c`."""
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and file.name != SUMS_FILE]
    lines = []
    for file in files:
        with file.open("rb") as stream:
            lines.append(f"{hashlib.file_digest(stream, 'sha256').hexdigest()}  {file.name}\n")
    partial = folder / (PARTIAL + SUMS_FILE)
    partial.write_text("".join(lines), "utf-8")
    os.replace(partial, folder / SUMS_FILE)


def _pieces(model: DiffusionGemma, dtype: ExportType) -> list[_Piece]:
    pieces = []
    for name, view in checkpoint_views(model).items():
        if not bool(torch.isfinite(view).all()):
            raise ModelError(f"The tensor {name} holds NaN or infinity; export an earlier state.")
        if dtype == "int8" and view.dim() > 1 and ".router." not in name:
            pieces.append(_Piece(name, view, torch.int8, "numbers"))
            pieces.append(_Piece(name + SCALE_SUFFIX, view, torch.float32, "scales"))
        else:
            pieces.append(_Piece(name, view, torch.bfloat16 if dtype == "bfloat16" else torch.float32))
    return pieces


def _split(pieces: list[_Piece], max_shard_bytes: int) -> list[list[_Piece]]:
    shards: list[list[_Piece]] = [[]]
    size = 0
    for piece in pieces:
        if shards[-1] and size + piece.bytes > max_shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(piece)
        size += piece.bytes
    return shards


def _shard_name(index: int, count: int) -> str:
    return f"model-{index + 1:05}-of-{count:05}.safetensors"


def _config(config_json: Mapping[str, Any], dtype: ExportType) -> dict[str, Any]:
    config = {**config_json, "dtype": "bfloat16" if dtype == "bfloat16" else "float32"}
    config.pop("torch_dtype", None)
    config.pop("quantization_config", None)
    if dtype == "int8":
        config["quantization_config"] = {"quant_method": INT8_METHOD}
    return config


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", "utf-8")


def _put_in_place(folder: Path, names: list[str]) -> None:
    """Gives the complete files their names; in between, a reader finds no model rather than a mixture."""
    old = [folder / name for name in (SINGLE_FILE, INDEX_FILE, SUMS_FILE)]
    for file in (*old, *folder.glob("model-*-of-*.safetensors")):
        file.unlink(missing_ok=True)
    for name in names:
        os.replace(folder / (PARTIAL + name), folder / name)
