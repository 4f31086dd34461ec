"""Loads a model folder, laid out as transformers or the hub does, as a `DiffusionGemma`, or fails with a clear error.

Everything, including free memory, is checked from the headers before any weight is allocated. Then the weights stream,
memory mapped, into the model's fused parameters. The vision tower and tied copies are skipped. Never unpickles, never
runs remote code, never uses the network: turning a name into a folder happens elsewhere.

int8 checkpoints of this project keep a weight matrix as I8 under its usual name, next to a float tensor `<name>.scale`
(`engine.checkpoints.int8`), and their config.json holds `"quantization_config": {"quant_method": "gesso_int8"}`.
Published quantized checkpoints are loaded by `engine.checkpoints.quantized_loading`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from engine.checkpoints.config_files import CONFIG_FILE, PUBLISHED_METHODS, quantization_method, read_config
from engine.checkpoints.int8 import dequantize_rows, stored_shapes
from engine.checkpoints.loading import (
    Progress,
    check_layers,
    empty_model,
    is_skipped,
    loading_errors,
    refuse,
    refuse_too_large,
)
from engine.checkpoints.quantized_loading import load_published
from engine.checkpoints.tensor_views import checkpoint_views
from engine.checkpoints.weight_files import (
    FETCH_AGAIN,
    FLOATS,
    INDEX_FILE,
    SINGLE_FILE,
    StoredTensor,
    stored_tensors,
)
from engine.device import available_memory
from engine.device_setup import prepare_for_device
from engine.memory_use import reserved_bytes
from engine.models.diffusion_gemma import DiffusionGemma
from engine.models.text_model import TextModel

SCALE_SUFFIX = ".scale"
ELEMENTS_AT_ONCE = 2**23


def load_model(
    folder: Path,
    device: torch.device,
    dtype: torch.dtype,
    on_progress: Progress | None = None,
    fp8_keys: bool = False,
) -> TextModel:
    """Loads the model of `folder` to `device` with all weights in `dtype`, in eval mode and without gradients.

    Weights of a published quantized checkpoint stay quantized on a GPU (`engine.checkpoints.quantized_loading`). On a
    GPU the kernels of `engine.kernels` are used if they work. fp8_keys: stores keys and values in half the memory.
    Raises ModelError, before anything is allocated, if the folder is incomplete, damaged or of another architecture, or
    if memory is too small.
    """
    config = read_config(folder)
    if quantization_method(folder) in PUBLISHED_METHODS:
        return prepare_for_device(load_published(folder, device, dtype, on_progress, fp8_keys), fp8_keys)
    stored = stored_tensors(folder)
    check_layers(folder, config, stored)
    model = empty_model(folder, config, dtype)
    refuse(mismatches(folder, model, stored))
    weights = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    reserved = reserved_bytes(config, dtype.itemsize, 1 if fp8_keys else dtype.itemsize, device.type == "cuda")
    refuse_too_large(folder, weights + reserved, available_memory(device), device)
    with loading_errors(folder, device):
        model = model.to_empty(device=device)
        _fill(checkpoint_views(model), stored, on_progress or (lambda done, total: None))
    return prepare_for_device(model.eval().requires_grad_(False), fp8_keys)


def mismatches(folder: Path, model: DiffusionGemma, stored: Mapping[str, StoredTensor]) -> Iterator[tuple[str, str]]:
    """File name and sentence for each tensor that is missing, unexpected, of the wrong shape or of an unknown type."""
    expected = {name: tuple(view.shape) for name, view in checkpoint_views(model).items()}
    for name in expected.keys() & stored.keys():
        if shapes := stored_shapes(stored[name].dtype, expected[name]):
            expected[name], expected[name + SCALE_SUFFIX] = shapes
    entry = SINGLE_FILE if (folder / SINGLE_FILE).is_file() else INDEX_FILE
    for name in sorted(expected.keys() - stored.keys()):
        yield entry, f"The tensor {name} is missing from {folder}; {FETCH_AGAIN}."
    for name, tensor in stored.items():
        if is_skipped(name):
            continue
        shape = expected.get(name)
        if shape is None:
            fault = "is unexpected in this architecture; choose another model"
        elif tensor.shape != shape:
            fault = f"has shape {list(tensor.shape)} where {CONFIG_FILE} asks for {list(shape)}; check it"
        elif tensor.dtype not in FLOATS and name + SCALE_SUFFIX not in expected:
            fault = f"is of type {tensor.dtype}, which cannot be read there; choose a bfloat16 model"
        else:
            continue
        yield tensor.file.name, f"The tensor {name} in {tensor.file} {fault}, or {FETCH_AGAIN}."


def _fill(views: Mapping[str, Tensor], stored: Mapping[str, StoredTensor], on_progress: Progress) -> None:
    """Streams the stored tensors into the views, in the order of the files, some rows at a time."""
    scale_names = {name + SCALE_SUFFIX for name in views if name + SCALE_SUFFIX in stored}
    total = sum(stored[name].bytes for name in (*views, *scale_names))
    scales = dict(_read(stored[name] for name in scale_names))
    done = sum(stored[name].bytes for name in scale_names)
    for name, values in _read(stored[name] for name in views):
        view = views[name]
        rows = max(1, ELEMENTS_AT_ONCE * len(view) // max(1, view.numel()))
        for start in range(0, len(view), rows):
            part = values[start : start + rows]
            done += part.nbytes
            if name + SCALE_SUFFIX in scales:
                part = dequantize_rows(part, scales[name + SCALE_SUFFIX][start : start + rows])
            view[start : start + rows].copy_(part.to(view.dtype))
            on_progress(done, total)


def _read(tensors: Iterable[StoredTensor]) -> Iterator[tuple[str, Tensor]]:
    """Memory-mapped tensors, file by file, in the order of their offsets."""
    by_file: dict[Path, list[StoredTensor]] = defaultdict(list)
    for tensor in tensors:
        by_file[tensor.file].append(tensor)
    for file in sorted(by_file):
        with safe_open(file, framework="pt") as reader:
            for tensor in sorted(by_file[file], key=lambda tensor: tensor.start):
                yield tensor.name, reader.get_tensor(tensor.name)
