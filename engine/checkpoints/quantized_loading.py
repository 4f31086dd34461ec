"""Loads a published quantized checkpoint of DiffusionGemma.

On a GPU weights stay quantized (`engine.models.quantized`). Elsewhere they are dequantized while loading, if memory
suffices, because products with plain weights are many times faster there. Everything is checked from the headers first:
a tensor that is missing, unexpected or of the wrong shape is an error, never a random weight.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from torch import Tensor, nn

from engine.checkpoints.config_files import PUBLISHED_METHODS, quantization_method, read_config
from engine.checkpoints.loading import (
    Progress,
    check_layers,
    empty_model,
    is_skipped,
    loading_errors,
    refuse,
    refuse_too_large,
)
from engine.checkpoints.published import ACTIVATION_SCALES, Matrix, one_format, stack
from engine.checkpoints.tensor_names import matrices_of, plain_views
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
from engine.errors import ModelError
from engine.memory_use import reserved_bytes
from engine.models.diffusion_gemma import DiffusionGemma, Layer
from engine.models.quantized import QuantizedModel, layer_weights
from engine.quantized import QuantizedWeight, concatenate

log = logging.getLogger(__name__)


def load_published(
    folder: Path,
    device: torch.device,
    dtype: torch.dtype,
    on_progress: Progress | None = None,
    fp8_keys: bool = False,
) -> DiffusionGemma:
    """Loads the model of `folder` to `device`; weights that are not quantized come in `dtype`.

    Returns a `QuantizedModel` on a GPU, or if memory suffices for nothing else; otherwise a plain model. Raises
    ModelError before anything is allocated if tensors are missing, unexpected or of the wrong shape, or if memory is
    too small.
    """
    config = read_config(folder)
    if (method := quantization_method(folder)) not in PUBLISHED_METHODS:
        raise ModelError(
            f"The model in {folder} is quantized by {method or 'no method'}, but only "
            f"{' and '.join(PUBLISHED_METHODS)} can be loaded; choose another build of the model."
        )
    stored = stored_tensors(folder)
    check_layers(folder, config, stored)
    model = empty_model(folder, config, dtype)
    refuse(mismatches(folder, model, stored))
    matrices, plain = matrices_of(config), plain_views(model)
    reserved = reserved_bytes(config, dtype.itemsize, 1 if fp8_keys else dtype.itemsize, device.type == "cuda")
    stays_quantized = _stays_quantized(folder, model, matrices, stored, device, reserved)
    reader = _Reader(stored, device, on_progress or (lambda done, total: None))

    def weight_of(name: str, _: Tensor | QuantizedWeight) -> QuantizedWeight:
        parts = matrices[name]
        each = len(parts) // config.num_experts if ".experts." in name else len(parts)
        groups = (parts[start : start + each] for start in range(0, len(parts), each))
        made = (_joined([m.weight(stored, reader.read, dtype) for m in group], name, dtype) for group in groups)
        if not stays_quantized:
            made = (QuantizedWeight("plain", weight.dequantize(dtype)) for weight in made)
        return stack(made, config.num_experts, name) if ".experts." in name else next(made)

    with loading_errors(folder, device):
        _fill_small_parts(model, plain, reader, dtype, device)
        loaded = QuantizedModel(model, weight_of) if stays_quantized else _with_plain_weights(model, weight_of)
    return loaded.eval().requires_grad_(False)


def mismatches(folder: Path, model: DiffusionGemma, stored: Mapping[str, StoredTensor]) -> Iterator[tuple[str, str]]:
    """File name and sentence for each tensor that is missing, unexpected, of the wrong shape or of an unknown type."""
    matrices = [matrix for parts in matrices_of(model.config).values() for matrix in parts]
    plain = plain_views(model)
    entry = SINGLE_FILE if (folder / SINGLE_FILE).is_file() else INDEX_FILE
    advice = (
        f"The model in {folder} ({quantization_method(folder)}) cannot be read; {FETCH_AGAIN} or choose another build."
    )
    for matrix in matrices:
        if problem := matrix.problem(stored):
            names = matrix.names(stored)
            yield stored[names[0]].file.name if names else entry, f"{problem} {advice}"
    for name, view in plain.items():
        tensor = stored.get(name)
        if tensor is None:
            yield entry, f"The tensor {name} is missing. {advice}"
        elif tensor.shape != tuple(view.shape) or tensor.dtype not in FLOATS:
            how = f"{tensor.dtype} {list(tensor.shape)}, not a float {list(view.shape)}"
            yield tensor.file.name, f"The tensor {name} is {how}. {advice}"
    known = {*plain, *(name for matrix in matrices for name in matrix.names(stored))}
    for name in stored.keys() - known:
        if not (is_skipped(name) or name.endswith(ACTIVATION_SCALES)):
            sentence = f"The tensor {name} of {folder} is unexpected in this architecture; choose another build."
            yield stored[name].file.name, sentence


def _stays_quantized(
    folder: Path,
    model: DiffusionGemma,
    matrices: Mapping[str, list[Matrix]],
    stored: Mapping[str, StoredTensor],
    device: torch.device,
    reserved: int,
) -> bool:
    """Whether the weights stay quantized; raises ModelError if memory is too small even then. reserved: bytes that must
    be free beside them."""
    names = [*plain_views(model), *(n for parts in matrices.values() for m in parts for n in m.names(stored))]
    packed, available = sum(stored[name].bytes for name in names) + reserved, available_memory(device)
    refuse_too_large(folder, packed, available, device)
    plain = model.weight_bytes + reserved
    if device.type != "cuda" and plain <= available:
        return False
    if device.type != "cuda":
        log.warning(
            "The weights of %s stay quantized, which is slow on %s: dequantized they would take %.1f GiB.",
            folder, device, plain / 2**30,
        )  # fmt: skip
    return True


def _with_plain_weights(
    model: DiffusionGemma, weight_of: Callable[[str, Tensor | QuantizedWeight], QuantizedWeight]
) -> DiffusionGemma:
    for index, module in enumerate(model.layers):
        for name, weight in list(layer_weights(cast(Layer, module))):
            made = weight_of(f"layers.{index}.{name}", weight).numbers
            parent, _, attribute = (name if ".experts." in f".{name}" else f"{name}.weight").rpartition(".")
            setattr(module.get_submodule(parent), attribute, nn.Parameter(made, requires_grad=False))
    return model


class _Reader:
    """Memory-mapped tensors by name, moved to the device."""

    def __init__(self, stored: Mapping[str, StoredTensor], device: torch.device, on_progress: Progress) -> None:
        self.stored, self.device, self.on_progress = stored, device, on_progress
        self.files: dict[Path, Any] = {}
        self.done, self.total = 0, sum(tensor.bytes for tensor in stored.values())

    def read(self, name: str) -> Tensor:
        tensor = self.stored[name]
        if tensor.file not in self.files:
            self.files[tensor.file] = safe_open(tensor.file, framework="pt").__enter__()
        self.done += tensor.bytes
        self.on_progress(self.done, self.total)
        return self.files[tensor.file].get_tensor(name).to(self.device)


def _fill_small_parts(
    model: DiffusionGemma, plain: Mapping[str, Tensor], reader: _Reader, dtype: torch.dtype, device: torch.device
) -> None:
    """Allocates and fills everything but the layers' projections."""
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        owner_name, _, attribute = name.rpartition(".")
        if name.startswith("layers.") and (attribute.endswith("_proj") or (attribute == "weight" and "_proj." in name)):
            if ".router." not in name:
                continue
        real = torch.empty(tensor.shape, dtype=dtype, device=device)
        parent = model.get_submodule(owner_name)
        if isinstance(tensor, torch.nn.Parameter):
            setattr(parent, attribute, torch.nn.Parameter(real, requires_grad=False))
        else:
            parent.register_buffer(attribute, real)
    views = checkpoint_views(model)
    for name in plain:
        views[name].copy_(reader.read(name))


def _joined(parts: list[QuantizedWeight], name: str, dtype: torch.dtype) -> QuantizedWeight:
    several = one_format(parts, name, dtype)
    return several[0] if len(several) == 1 else concatenate(several)
