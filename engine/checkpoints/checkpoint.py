"""A model folder, laid out as transformers or the hub does, becomes a `DiffusionGemma`, or a clear error.

Everything is checked from the headers, and the memory too, before a byte is allocated; then the weights
stream, memory mapped, into the model's fused parameters. The vision tower and tied copies are skipped. Never
pickle, never remote code, and no network: turning a name into a folder happens elsewhere.

The quantized formats of its own: a weight matrix stands as I8 or U8 under its usual name, next to a float tensor
`<name>.scale`; `engine.quantization` says what they mean, and the weight is computed while loading. The config.json
of such a folder says `"quantization_config": {"quant_method": "gesso_int8"}`, or gesso_int4. Those of others, whose
weights stay in few bits on a GPU, are read by `engine.checkpoints.quantized_loading`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from engine.checkpoints.weight_files import (
    FETCH_AGAIN,
    INDEX_FILE,
    SINGLE_FILE,
    StoredTensor,
    broken,
    read_json,
    stored_tensors,
)
from engine.config import ModelConfig, SamplingConfig
from engine.device import available_memory
from engine.device_setup import for_device
from engine.errors import ModelError
from engine.models.diffusion_gemma import DiffusionGemma, FeedForward, Layer
from engine.ops.norm import RMSNorm
from engine.quantization import dequantize, stored_shapes

CONFIG_FILE = "config.json"
GENERATION_FILE = "generation_config.json"
MODELOPT_FILE = "hf_quant_config.json"
METHODS = {"int8": "gesso_int8", "int4": "gesso_int4"}
PUBLISHED_METHODS = ("modelopt", "compressed-tensors")
SCALE_SUFFIX = ".scale"
FLOATS = ("F64", "F32", "F16", "BF16")
VISION = ("model.encoder.vision_tower.", "model.encoder.embed_vision.")
TIED = ("lm_head.weight", "model.encoder.language_model.")
ELEMENTS_AT_ONCE = 2**23
RESERVE_BYTES = 2**28

Progress = Callable[[int, int], None]


def read_config(folder: Path) -> ModelConfig:
    """The architecture from `config.json`; raises ModelError where it is absent or not for this build."""
    if not folder.is_dir():
        raise ModelError(f"There is no model folder {folder}; name a folder that exists, or {FETCH_AGAIN}.")
    content = read_json(folder / CONFIG_FILE)
    try:
        config = ModelConfig.from_json(content)
    except (AttributeError, TypeError, ValueError, LookupError) as wrong:
        raise broken(f"{folder / CONFIG_FILE} has a field of the wrong kind ({wrong})") from wrong
    if content.get("tie_word_embeddings") is False:
        raise ModelError(
            f"{folder / CONFIG_FILE} unties encoder, decoder and head, which this build cannot run; "
            "choose another model."
        )
    _refuse_foreign_quantization(folder, content)
    return config


def read_sampling(folder: Path) -> SamplingConfig:
    """The sampling settings from `generation_config.json`; the released defaults where there is none.

    What transformers' file may not hold (`token_choice`) stands in `config.json` under `gesso.sampling`.
    """
    file = folder / GENERATION_FILE
    try:
        own = (read_json(folder / CONFIG_FILE).get("gesso") or {}).get("sampling") or {}
        return SamplingConfig.from_json({**(read_json(file) if file.exists() else {}), **own})
    except (AttributeError, TypeError, ValueError) as wrong:
        raise broken(f"{file} has a field of the wrong kind ({wrong})") from wrong


def load_model(
    folder: Path,
    device: torch.device,
    dtype: torch.dtype,
    on_progress: Progress | None = None,
    fp8_keys: bool = False,
) -> DiffusionGemma:
    """The model of `folder` on `device` with all weights in `dtype`, in eval mode and without gradients.

    Weights of a published quantized checkpoint stay in few bits on a GPU (`engine.checkpoints.quantized_loading`). There the kernels
    of `engine.kernels` are taken, if they work. on_progress receives bytes done and bytes in all. fp8_keys: keeps keys
    and values in half the memory. Raises ModelError, before anything is allocated, where the folder is incomplete,
    damaged or of another architecture, or memory is too small.
    """
    config = read_config(folder)
    if quantization_method(folder) in PUBLISHED_METHODS:
        from engine.checkpoints.quantized_loading import load_published

        return for_device(load_published(folder, device, dtype, on_progress), fp8_keys)
    stored = stored_tensors(folder)
    model = empty_model(folder, config, dtype)
    refuse(mismatches(folder, model, stored))
    _check_memory(folder, model, device, dtype)
    with bringing(folder, device):
        model = model.to_empty(device=device)
        _fill(checkpoint_views(model), stored, on_progress or (lambda done, total: None))
    return for_device(model.eval().requires_grad_(False), fp8_keys)


def refuse(mismatches: Iterable[tuple[str, str]]) -> None:
    """Raises ModelError with the first of these sentences, if there is one."""
    problems = list(mismatches)
    if problems:
        others = f" ({len(problems) - 1} more tensors do not fit.)" if len(problems) > 1 else ""
        raise ModelError(problems[0][1] + others)


@contextmanager
def bringing(folder: Path, device: torch.device) -> Iterator[None]:
    """Makes what may go wrong while weights are read and moved a ModelError."""
    try:
        yield
    except (SafetensorError, OSError, RuntimeError) as trouble:
        reason = str(trouble).strip().partition("\n")[0].rstrip(".")
        raise ModelError(
            f"The weights of {folder} could not be brought to {device} ({reason}); check the model with "
            "`gesso model verify` and the machine with `gesso doctor`."
        ) from trouble


def quantization_method(folder: Path) -> str | None:
    """By which method the checkpoint says that it is quantized; None where it is not."""
    content = read_json(folder / CONFIG_FILE)
    return _method(_quantization(folder, content))


def checkpoint_views(model: DiffusionGemma) -> dict[str, Tensor]:
    """Every tensor of a checkpoint by name, as a view into the model's parameters, of which some are fused.

    On the meta device it tells the shapes; on a real one, writing to a view writes the model.
    """
    conditioning = model.self_conditioning
    views = {
        "model.decoder.embed_tokens.weight": model.embed_tokens.weight.detach(),
        "model.decoder.norm.weight": _gain(model.norm),
        "model.decoder.self_conditioning.pre_norm.weight": _gain(conditioning.pre_norm),
        **_feed_forward_views("model.decoder.self_conditioning.", conditioning.mlp),
    }
    for index, layer in enumerate(model.layers):
        views |= _layer_views(f"model.decoder.layers.{index}.", cast(Layer, layer))
        views[f"model.encoder.language_model.layers.{index}.layer_scalar"] = cast(Layer, layer).encoder_scalar
    return views


def _feed_forward_views(prefix: str, mlp: FeedForward) -> dict[str, Tensor]:
    gate, up = mlp.gate_up_proj.weight.detach().chunk(2)
    weights = {"gate": gate, "up": up, "down": mlp.down_proj.weight.detach()}
    return {f"{prefix}{name}_proj.weight": weight for name, weight in weights.items()}


def _layer_views(prefix: str, layer: Layer) -> dict[str, Tensor]:
    attention, router = layer.attention, layer.router
    norms = {
        "self_attn.q_norm": attention.q_norm,
        "self_attn.k_norm": attention.k_norm,
        "input_layernorm": layer.input_norm,
        "post_attention_layernorm": layer.post_attention_norm,
        "pre_feedforward_layernorm": layer.pre_mlp_norm,
        "post_feedforward_layernorm_1": layer.post_mlp_norm,
        "pre_feedforward_layernorm_2": layer.pre_experts_norm,
        "post_feedforward_layernorm_2": layer.post_experts_norm,
        "post_feedforward_layernorm": layer.post_feedforward_norm,
    }
    heads = {"q": attention.heads, "k": attention.kv_heads, "v": attention.kv_heads}
    if not attention.has_value:
        del heads["v"]
    projections = attention.qkv_proj.weight.detach().split([count * attention.head_dim for count in heads.values()])
    return {
        **{f"{prefix}{name}.weight": _gain(norm) for name, norm in norms.items()},
        **{f"{prefix}self_attn.{name}_proj.weight": part for name, part in zip(heads, projections, strict=True)},
        prefix + "self_attn.o_proj.weight": attention.o_proj.weight.detach(),
        **_feed_forward_views(prefix + "mlp.", layer.mlp),
        prefix + "router.proj.weight": router.proj.weight.detach(),
        prefix + "router.scale": router.scale.detach(),
        prefix + "router.per_expert_scale": router.per_expert_scale.detach(),
        prefix + "experts.gate_up_proj": layer.experts.gate_up_proj.detach(),
        prefix + "experts.down_proj": layer.experts.down_proj.detach(),
        prefix + "layer_scalar": layer.decoder_scalar,
    }


def _gain(norm: RMSNorm) -> Tensor:
    return cast(Tensor, norm.weight).detach()


def _quantization(folder: Path, content: Mapping[str, Any]) -> Any:
    """What config.json, or ModelOpt's own file, says of quantization; None where it says nothing."""
    places = (content, content.get("text_config") or {})
    found = next(filter(None, (place.get("quantization_config") for place in places)), None)
    if not found and (folder / MODELOPT_FILE).is_file():
        found = read_json(folder / MODELOPT_FILE).get("quantization") or {}
        found = {"quant_method": "modelopt", **(found if isinstance(found, dict) else {})}
    return found


def _method(quantization: Any) -> str | None:
    if not quantization:
        return None
    return str(quantization.get("quant_method") or "unknown") if isinstance(quantization, dict) else "unknown"


def _refuse_foreign_quantization(folder: Path, content: Mapping[str, Any]) -> None:
    quantization = _quantization(folder, content)
    if not quantization or _method(quantization) in PUBLISHED_METHODS:
        return
    details = quantization if isinstance(quantization, dict) else {}
    known = [str(details[key]) for key in ("quant_method", "quant_algo", "format") if details.get(key)]
    if len(known) != 1 or known[0] not in METHODS.values():
        raise ModelError(
            f"The model in {folder} is quantized ({', '.join(known) or 'method unknown'}), which this build "
            "does not read; choose its bfloat16 checkpoint, or a build in NVFP4 (ModelOpt) or FP8 (compressed-tensors)."
        )


def empty_model(folder: Path, config: ModelConfig, dtype: torch.dtype) -> DiffusionGemma:
    """Shapes only: the model on the meta device."""
    try:
        with torch.device("meta"):
            return DiffusionGemma(config).to(dtype)
    except (RuntimeError, ValueError, TypeError) as impossible:
        raise broken(f"{folder / CONFIG_FILE} asks for sizes that cannot be ({impossible})") from impossible


def _is_skipped(name: str) -> bool:
    return name.startswith(VISION) or (name.startswith(TIED) and not name.endswith(".layer_scalar"))


def mismatches(folder: Path, model: DiffusionGemma, stored: Mapping[str, StoredTensor]) -> Iterator[tuple[str, str]]:
    """File name and sentence for each tensor that is missing, unexpected, misshapen or of a type not read."""
    expected = {name: tuple(view.shape) for name, view in checkpoint_views(model).items()}
    for name in expected.keys() & stored.keys():
        if shapes := stored_shapes(stored[name].dtype, expected[name]):
            expected[name], expected[name + SCALE_SUFFIX] = shapes
    entry = SINGLE_FILE if (folder / SINGLE_FILE).is_file() else INDEX_FILE
    for name in sorted(expected.keys() - stored.keys()):
        yield entry, f"The tensor {name} is missing from {folder}; {FETCH_AGAIN}."
    for name, tensor in stored.items():
        if _is_skipped(name):
            continue
        where = f"The tensor {name} in {tensor.file}"
        shape = expected.get(name)
        if shape is None:
            fault = "is unexpected in this architecture; choose another model"
        elif tensor.shape != shape:
            fault = f"has shape {list(tensor.shape)} where {CONFIG_FILE} asks for {list(shape)}; check it"
        elif tensor.dtype not in FLOATS and name + SCALE_SUFFIX not in expected:
            fault = f"is of type {tensor.dtype}, which cannot be read there; choose a bfloat16 model"
        else:
            continue
        yield tensor.file.name, f"{where} {fault}, or {FETCH_AGAIN}."


def _check_memory(folder: Path, model: DiffusionGemma, device: torch.device, dtype: torch.dtype) -> None:
    weights = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    available = available_memory(device)
    if weights + RESERVE_BYTES > available:
        raise ModelError(
            f"The model in {folder} needs {(weights + RESERVE_BYTES) / 2**30:.1f} GiB on {device} in "
            f"{str(dtype).removeprefix('torch.')}, but only {available / 2**30:.1f} GiB are free; close "
            "other programs or choose a smaller model (`gesso doctor` tells which fits)."
        )


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
                part = dequantize(part, scales[name + SCALE_SUFFIX][start : start + rows])
            view[start : start + rows].copy_(part.to(view.dtype))
            on_progress(done, total)


def _read(wanted: Iterable[StoredTensor]) -> Iterator[tuple[str, Tensor]]:
    """Memory-mapped tensors, file by file, each in the order in which it lies there."""
    by_file: dict[Path, list[StoredTensor]] = defaultdict(list)
    for tensor in wanted:
        by_file[tensor.file].append(tensor)
    for file in sorted(by_file):
        with safe_open(file, framework="pt") as reader:
            for tensor in sorted(by_file[file], key=lambda tensor: tensor.start):
                yield tensor.name, reader.get_tensor(tensor.name)
