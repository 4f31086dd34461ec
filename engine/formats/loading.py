"""A published quantized checkpoint of DiffusionGemma becomes a `FusedModel`, its weights as they are stored.

As in `engine.checkpoint` everything is checked from the headers first: a tensor that is missing, unexpected or of the
wrong shape is an error, never a random weight. Experts are read one by one, stacked as the kernels take them. No
network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from engine.checkpoint import CONFIG_FILE, MODELOPT_FILE, TIED, VISION, Progress, checkpoint_views
from engine.config import ModelConfig
from engine.device import available_memory
from engine.errors import ModelError
from engine.formats.published import OF_ACTIVATIONS, Matrix, one_format, stack
from engine.kernels.model import FusedModel
from engine.model import DiffusionGemma
from engine.quantized import QuantizedWeight, concatenate
from engine.weight_files import FETCH_AGAIN, StoredTensor, read_json, stored_tensors

METHODS = ("modelopt", "compressed-tensors")
RESERVE_BYTES = 2**30  # for activations and the keys of a prompt
DECODER = "model.decoder."


def is_published_quantization(folder: Path) -> bool:
    """Whether `folder` is quantized by a method that is read here."""
    return _method(folder, read_json(folder / CONFIG_FILE)) in METHODS


def load_published(
    folder: Path, device: torch.device, dtype: torch.dtype, on_progress: Progress | None = None
) -> FusedModel:
    """The model of `folder` on `device`; what is not quantized comes in `dtype`.

    on_progress receives bytes done and bytes in all. Raises ModelError before anything is allocated where tensors are
    missing, unexpected or of the wrong shape, or memory is too small.
    """
    content = read_json(folder / CONFIG_FILE)
    method = _method(folder, content)
    if method not in METHODS:
        raise ModelError(
            f"The model in {folder} is quantized by {method or 'no method'}, and only {' and '.join(METHODS)} are read "
            "here; choose another build of the model."
        )
    config = ModelConfig.from_json(content)
    stored = stored_tensors(folder)
    with torch.device("meta"):
        model = DiffusionGemma(config).to(dtype)
    matrices = _matrices(config)
    plain = {name: view for name, view in checkpoint_views(model).items() if not _is_of_a_layer(name)}
    _check(folder, [m for parts in matrices.values() for m in parts], plain, stored)
    _check_memory(folder, [*plain, *(n for parts in matrices.values() for m in parts for n in m.names(stored))],
                  stored, device)  # fmt: skip
    reader = _Reader(stored, device, on_progress or (lambda done, total: None))
    _fill_small_parts(model, plain, reader, dtype, device)

    def weight_of(name: str, meta: Tensor) -> QuantizedWeight:
        parts = matrices[name]
        if ".experts." not in name:
            return _joined([part.weight(stored, reader.read, dtype) for part in parts], name, dtype)
        each = len(parts) // config.num_experts
        experts = (parts[start : start + each] for start in range(0, len(parts), each))
        made = (_joined([m.weight(stored, reader.read, dtype) for m in expert], name, dtype) for expert in experts)
        return stack(made, config.num_experts, name)

    return FusedModel(model.eval().requires_grad_(False), weight_of)


class _Reader:
    """Tensors by name, memory mapped, brought to the device."""

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


def _method(folder: Path, content: Mapping[str, Any]) -> str | None:
    for place in (content, content.get("text_config") or {}):
        if quantization := place.get("quantization_config"):
            return str(quantization.get("quant_method") or "modelopt") if isinstance(quantization, dict) else None
    return "modelopt" if (folder / MODELOPT_FILE).is_file() else None


def _matrices(config: ModelConfig) -> dict[str, list[Matrix]]:
    """By name of a weight in `engine.model` the stored matrices of which it consists, one below the other; those of the
    experts expert by expert."""
    hidden, inner, size = config.hidden_size, config.intermediate_size, config.expert_intermediate_size
    found: dict[str, list[Matrix]] = {}
    for index, layer in enumerate(config.layers):
        base, own = f"{DECODER}layers.{index}.", f"layers.{index}."
        width = {"q": config.num_heads, "k": layer.num_kv_heads, "v": layer.num_kv_heads}
        if not layer.has_value_projection:
            del width["v"]
        found[own + "attention.qkv_proj"] = [
            Matrix(f"{base}self_attn.{name}_proj", heads * layer.head_dim, hidden) for name, heads in width.items()
        ]
        attended = config.num_heads * layer.head_dim
        found[own + "attention.o_proj"] = [Matrix(base + "self_attn.o_proj", hidden, attended)]
        found[own + "mlp.gate_up_proj"] = [Matrix(f"{base}mlp.{name}_proj", inner, hidden) for name in ("gate", "up")]
        found[own + "mlp.down_proj"] = [Matrix(base + "mlp.down_proj", hidden, inner)]
        experts = [f"{base}experts.{expert}." for expert in range(config.num_experts)]
        found[own + "experts.gate_up_proj"] = [
            Matrix(f"{expert}{name}_proj", size, hidden) for expert in experts for name in ("gate", "up")
        ]
        found[own + "experts.down_proj"] = [Matrix(expert + "down_proj", hidden, size) for expert in experts]
    return found


def _is_of_a_layer(name: str) -> bool:
    """Whether a tensor of a plain checkpoint is one of the matrices above."""
    kinds = (".self_attn.", ".mlp.", ".experts.")
    return name.startswith(DECODER + "layers.") and any(kind in name for kind in kinds) and "_norm." not in name


def _check(
    folder: Path, matrices: list[Matrix], plain: Mapping[str, Tensor], stored: Mapping[str, StoredTensor]
) -> None:
    for matrix in matrices:
        if problem := matrix.problem(stored):
            raise ModelError(f"{problem} The model in {folder} cannot be read; {FETCH_AGAIN} or choose another build.")
    for name, view in plain.items():
        tensor = stored.get(name)
        if tensor is None or tensor.shape != tuple(view.shape) or tensor.dtype not in ("F64", "F32", "F16", "BF16"):
            how = (
                "missing" if tensor is None else f"{tensor.dtype} {list(tensor.shape)}, not a float {list(view.shape)}"
            )
            raise ModelError(f"The tensor {name} of {folder} is {how}; {FETCH_AGAIN} or choose another build.")
    known = {*plain, *(name for matrix in matrices for name in matrix.names(stored))}
    for name in stored.keys() - known:
        tied = name.startswith(TIED) and not name.endswith(".layer_scalar")
        if not (tied or name.startswith(VISION) or name.endswith(OF_ACTIVATIONS)):
            raise ModelError(f"The tensor {name} of {folder} is unexpected in this architecture; choose another build.")


def _check_memory(
    folder: Path, names: list[str], stored: Mapping[str, StoredTensor], device: torch.device
) -> None:  # fmt: skip
    needed, available = sum(stored[name].bytes for name in names) + RESERVE_BYTES, available_memory(device)
    if needed > available:
        raise ModelError(
            f"The model in {folder} needs {needed / 2**30:.1f} GiB on {device}, but only {available / 2**30:.1f} GiB "
            "are free; close other programs or choose a smaller model (`gesso doctor` tells which fits)."
        )


def _fill_small_parts(
    model: DiffusionGemma, plain: Mapping[str, Tensor], reader: _Reader, dtype: torch.dtype, device: torch.device
) -> None:
    """Makes everything but the layers' projections real, and fills it."""
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        owner_name, _, own = name.rpartition(".")
        if name.startswith("layers.") and (own.endswith("_proj") or (own == "weight" and "_proj." in name)):
            if ".router." not in name:
                continue
        real = torch.empty(tensor.shape, dtype=dtype, device=device)
        owner = model.get_submodule(owner_name)
        if isinstance(tensor, torch.nn.Parameter):
            setattr(owner, own, torch.nn.Parameter(real, requires_grad=False))
        else:
            owner.register_buffer(own, real)
    views = checkpoint_views(model)
    for name in plain:
        views[name].copy_(reader.read(name))


def _joined(parts: Iterator[QuantizedWeight] | list[QuantizedWeight], name: str, dtype: torch.dtype) -> QuantizedWeight:
    several = one_format(list(parts), name, dtype)
    return several[0] if len(several) == 1 else concatenate(several)
