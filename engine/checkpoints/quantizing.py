"""Quantizes a checkpoint in 16 or 32 bits, matrix by matrix, to a layout that `engine.checkpoints` loads.

The layouts are those of compressed-tensors: see `engine.checkpoints.published`. Memory holds one file of the result at
a time. The result grows file by file in a temporary folder beside the target, so an interrupted run resumes where it
stopped; the folder gets its name when it is complete. Must not know where a model comes from.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from engine.checkpoints.checkpoint import mismatches
from engine.checkpoints.config_files import CONFIG_FILE, MODELOPT_FILE, quantization_method, read_config
from engine.checkpoints.export import write_checksums
from engine.checkpoints.loading import Progress, empty_model, refuse
from engine.checkpoints.masked import is_masked, open_masked
from engine.checkpoints.published import Matrix
from engine.checkpoints.qwen2 import ARCHITECTURE as QWEN2
from engine.checkpoints.qwen2 import expected_shapes, layer_matrices, open_weights
from engine.checkpoints.tensor_names import matrices_of, plain_views
from engine.checkpoints.weight_files import (
    INDEX_FILE,
    SINGLE_FILE,
    SUMS_FILE,
    StoredTensor,
    read_header,
    read_json,
    stored_tensors,
)
from engine.errors import InputError, ModelError, UsageError
from engine.files import read_json_object
from engine.quantized import Format, QuantizedWeight, quantize_weight

Kind = Literal["int4", "fp8", "nvfp4"]
KINDS: tuple[Kind, ...] = get_args(Kind)
PLAN_FILE = "plan.json"
COPIED = ("*.json", "*.jinja", "LICENSE*", "*.md", "tokenizer.model", "merges.txt")
LAYOUTS = {"fp8": "float-quantized", "int4": "pack-quantized", "nvfp4": "nvfp4-pack-quantized"}
SPARE_BYTES = 2**26  # free disk space beyond the weights

Part = tuple[str, Callable[[], "dict[str, Tensor]"], int]
"""A name, a function that makes the tensors to write, and how many bytes of the source it reads."""


@dataclass(frozen=True)
class Source:
    """The source folder, the headers of its files, and what is quantized: the matrices of each layer.

    plain: the tensors that stay as they are. has_experts: whether the model is a mixture.
    """

    folder: Path
    stored: Mapping[str, StoredTensor]
    layers: Sequence[Sequence[Matrix]]
    plain: Sequence[str]
    has_experts: bool = False

    @staticmethod
    def open(folder: Path) -> Source:
        """Raises ModelError if the folder is incomplete, of another architecture, or already quantized."""
        masked = is_masked(folder)
        is_qwen2 = masked or read_json(folder / CONFIG_FILE).get("model_type") == QWEN2
        config = None if is_qwen2 else read_config(folder)
        if method := quantization_method(folder):
            raise ModelError(
                f"The model in {folder} is quantized already ({method}); choose its bfloat16 or float32 checkpoint."
            )
        stored = stored_tensors(folder)
        if config is None:
            sizes = (open_masked(folder) if masked else open_weights(folder)).config
            layers = [layer_matrices(sizes, index) for index in range(sizes.num_layers)]
            quantized = {f"{matrix.base}.weight" for matrices in layers for matrix in matrices}
            return Source(folder, stored, layers, [name for name in expected_shapes(sizes) if name not in quantized])
        empty = empty_model(folder, config, torch.float32)
        refuse(mismatches(folder, empty, stored))
        matrices = matrices_of(config)
        by_layer = [
            [part for name, parts in matrices.items() if name.startswith(f"layers.{index}.") for part in parts]
            for index in range(len(config.layers))
        ]
        return Source(folder, stored, by_layer, [*plain_views(empty)], config.num_experts > 1)

    def format_of(self, matrix: Matrix, kind: Kind) -> Kind:
        """The format in which a matrix is written."""
        return kind if ".experts." in matrix.base or not self.has_experts else "fp8"


def quantize_folder(source: Path, target: Path, kind: Kind, on_progress: Progress | None = None) -> None:
    """Writes the model of the folder `source` to the new folder `target`, with SHA256SUMS.

    fp8: all projections, with a scale per row. int4 (groups of 32) and nvfp4 (groups of 16): the experts; other
    projections are fp8, except in a model without a mixture, whose projections all get the same format. Router, norms,
    biases, embedding, head and self-conditioning stay unchanged. on_progress receives bytes read and bytes in total.
    Raises InputError if `target` exists already, ModelError if the source cannot be used or writing fails.
    """
    if kind not in KINDS:
        raise UsageError(f"Unknown format {kind!r}; choose {', '.join(KINDS)}.")
    opened, target = Source.open(source), target.absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} already exists; name a folder that is new or empty.")
    work = target.with_name(f".{target.name}.partial")
    try:
        _prepare(work, opened, kind)
        _write_weights(work, opened, kind, on_progress or (lambda done, total: None))
        _write_config(work, opened, kind)
        (work / PLAN_FILE).unlink()
        write_checksums(work)
        if target.exists():
            target.rmdir()
        os.replace(work, target)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"The model cannot be written to {target} ({error}); check its free space and permissions, and run the "
            "same command again to resume."
        ) from error


def _prepare(work: Path, source: Source, kind: Kind) -> None:
    """Makes the temporary folder, or keeps it if it holds part of the same result."""
    files = {tensor.file for tensor in source.stored.values()}
    states = {file.name: [file.stat().st_size, file.stat().st_mtime_ns] for file in sorted(files)}
    plan = {"source": str(source.folder.resolve()), "kind": kind, "files": states}
    try:
        if read_json_object(work / PLAN_FILE) == plan:
            return
    except (OSError, ValueError):
        pass
    shutil.rmtree(work, ignore_errors=True)
    needed = sum(size for size, _ in states.values()) // (2 if kind == "fp8" else 3) + SPARE_BYTES
    work.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(work.parent).free
    if free < needed:
        raise ModelError(
            f"{work.parent} has {free / 2**30:.1f} GiB free, but the quantized model needs about "
            f"{needed / 2**30:.1f} GiB; free some space or choose another disk."
        )
    work.mkdir()
    (work / PLAN_FILE).write_text(json.dumps(plan), "utf-8")


def _write_weights(work: Path, source: Source, kind: Kind, on_progress: Progress) -> None:
    """One file per layer, and one for everything else; complete files are kept."""
    with ExitStack() as stack:
        shards = _shards(source, kind, _Reader(source.stored, stack))
        total = sum(size for parts in shards for _, _, size in parts)
        done, weight_map = 0, dict[str, str]()
        for number, parts in enumerate(shards):
            file = work / f"model-{number + 1:05}-of-{len(shards):05}.safetensors"
            if not _is_complete(file):
                tensors: dict[str, Tensor] = {}
                read = done
                for _, make, size in parts:
                    tensors |= make()
                    read += size
                    on_progress(read, total)
                partial = file.with_suffix(".writing")
                save_file(tensors, partial, metadata={"format": "pt"})
                shutil.copymode(work / PLAN_FILE, partial)
                os.replace(partial, file)
            done += sum(size for _, _, size in parts)
            on_progress(done, total)
            weight_map |= dict.fromkeys(read_header(file), file.name)
    size = sum(file.stat().st_size for file in work.glob("*.safetensors"))
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (work / INDEX_FILE).write_text(json.dumps(index, indent=1, sort_keys=True) + "\n", "utf-8")


def _shards(source: Source, kind: Kind, reader: _Reader) -> list[list[Part]]:
    rest: list[Part] = [
        (name, lambda name=name: {name: reader.whole(name)}, source.stored[name].bytes)  # type: ignore[misc]
        for name in source.plain
    ]
    return [rest, *([_part(matrix, source.format_of(matrix, kind), reader) for matrix in one] for one in source.layers)]


def _part(matrix: Matrix, kind: Kind, reader: _Reader) -> Part:
    def make() -> dict[str, Tensor]:
        weight = reader.matrix(matrix)
        if not bool(torch.isfinite(weight).all()):
            raise ModelError(
                f"The tensor {matrix.base} holds NaN or infinity; check the source with `gesso model verify`."
            )
        return stored_parts(matrix.base, quantized(weight.float(), kind))

    return matrix.base, make, matrix.rows * matrix.columns * reader.item_bytes(matrix)


def quantized(weight: Tensor, kind: Kind) -> QuantizedWeight:
    """`weight` in `kind`. The scales of int4 are bfloat16, as kernels multiply with them; the precision of float16
    would reduce the error of four bits by only a fiftieth."""
    made = quantize_weight(weight, kind)
    if made.group_scales is None or kind != "int4":
        return made
    return replace(made, group_scales=made.group_scales.to(torch.bfloat16))


def stored_parts(base: str, weight: QuantizedWeight) -> dict[str, Tensor]:
    """The tensors that store a quantized matrix: the inverse of `Matrix.weight`."""
    row, group, shape = weight.row_scales, weight.group_scales, torch.tensor([weight.rows, weight.columns])
    if weight.format == "fp8":
        assert row is not None
        return {f"{base}.weight": weight.numbers, f"{base}.weight_scale": row[:, None].contiguous()}
    assert group is not None
    if weight.format == "int4":
        packed = {"weight_packed": weight.numbers.view(torch.int32), "weight_scale": group, "weight_shape": shape}
        return {f"{base}.{name}": part.contiguous() for name, part in packed.items()}
    assert row is not None
    nvfp4 = {"weight_packed": weight.numbers, "weight_scale": group, "weight_global_scale": 1 / row[:1]}
    return {f"{base}.{name}": part.contiguous() for name, part in nvfp4.items()}


class _Reader:
    """Memory-mapped matrices of a plain checkpoint; of stacked experts, one at a time."""

    def __init__(self, stored: Mapping[str, StoredTensor], stack: ExitStack) -> None:
        self.stored, self._stack = stored, stack
        self._files: dict[Path, Any] = {}

    def whole(self, name: str) -> Tensor:
        return self._file(name).get_tensor(name)

    def matrix(self, matrix: Matrix) -> Tensor:
        name, expert, rows = self._location(matrix)
        part = self._file(name).get_slice(name)
        return part[:] if expert is None else part[expert, rows]

    def item_bytes(self, matrix: Matrix) -> int:
        stored = self.stored[self._location(matrix)[0]]
        return stored.bytes // max(1, torch.Size(stored.shape).numel())

    def _location(self, matrix: Matrix) -> tuple[str, int | None, slice]:
        """Name in the source, index of the expert, rows."""
        front, experts, behind = matrix.base.partition(".experts.")
        if not experts:
            return matrix.base + ".weight", None, slice(None)
        number, _, kind = behind.partition(".")
        if kind == "down_proj":
            return f"{front}.experts.down_proj", int(number), slice(None)
        rows = slice(0, matrix.rows) if kind == "gate_proj" else slice(matrix.rows, 2 * matrix.rows)
        return f"{front}.experts.gate_up_proj", int(number), rows

    def _file(self, name: str) -> Any:
        file = self.stored[name].file
        if file not in self._files:
            self._files[file] = self._stack.enter_context(safe_open(file, framework="pt"))
        return self._files[file]


def _is_complete(file: Path) -> bool:
    try:
        return bool(read_header(file))
    except ModelError:
        return False


def _write_config(work: Path, source: Source, kind: Kind) -> None:
    """Writes how the weights are stored to config.json, and copies the other files that describe the model."""
    left_out = {CONFIG_FILE, INDEX_FILE, SINGLE_FILE, MODELOPT_FILE, SUMS_FILE, PLAN_FILE}
    for file in _described(source.folder):
        if file.name not in left_out:
            shutil.copyfile(file, work / file.name)
    content = read_json(source.folder / CONFIG_FILE)
    content["quantization_config"] = _quantization(kind, source.has_experts)
    (work / CONFIG_FILE).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", "utf-8")


def _described(folder: Path) -> Iterator[Path]:
    for pattern in COPIED:
        yield from (file for file in sorted(folder.glob(pattern)) if file.is_file())


def _quantization(kind: Kind, has_experts: bool) -> dict[str, Any]:
    """The `quantization_config` of compressed-tensors."""
    weights: dict[Format, dict[str, Any]] = {
        "fp8": {"num_bits": 8, "type": "float", "strategy": "channel"},
        "int4": {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32},
        "nvfp4": {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16},
    }
    mixed = kind != "fp8" and has_experts
    targets = {kind: [r"re:.*\.experts\..*"], "fp8": [r"re:.*\.(self_attn|mlp)\..*"]} if mixed else {kind: ["Linear"]}
    groups = {
        f"group_{number}": {
            "format": LAYOUTS[name],
            "targets": target,
            "weights": {**weights[name], "symmetric": True, "dynamic": False},
            "input_activations": None,
        }
        for number, (name, target) in enumerate(targets.items())
    }
    return {
        "quant_method": "compressed-tensors",
        "format": "mixed-precision" if mixed else LAYOUTS[kind],
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": [r"re:.*embed_tokens", "lm_head", r"re:.*router.*", r"re:.*self_conditioning.*"],
    }
