"""A model folder, laid out as transformers or the hub does, becomes a `DiffusionGemma`, or a clear error.

Everything is checked from the headers, and the memory too, before a byte is allocated; then the weights
stream, memory mapped, into the model's fused parameters. The vision tower and tied copies are skipped. Never
pickle, never remote code, and no network: turning a name into a folder happens elsewhere.

The quantized formats: a weight matrix stands as I8 or U8 under its usual name, next to a float tensor
`<name>.scale`; `engine.quantization` says what they mean, and the weight is computed while loading. The config.json
of such a folder says `"quantization_config": {"quant_method": "gesso_int8"}`, or gesso_int4.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from engine.config import ModelConfig, SamplingConfig
from engine.device import available_memory
from engine.errors import ModelError
from engine.model import DiffusionGemma, FeedForward, Layer
from engine.ops.norm import RMSNorm
from engine.quantization import dequantize, stored_shapes
from engine.weight_files import (
    FETCH_AGAIN,
    INDEX_FILE,
    SINGLE_FILE,
    StoredTensor,
    broken,
    find_shards,
    read_header,
    read_json,
    stored_tensors,
    unreadable,
)

CONFIG_FILE = "config.json"
GENERATION_FILE = "generation_config.json"
MODELOPT_FILE = "hf_quant_config.json"
SUMS_FILE = "SHA256SUMS"
METHODS = {"int8": "gesso_int8", "int4": "gesso_int4"}
SCALE_SUFFIX = ".scale"
FLOATS = ("F64", "F32", "F16", "BF16")
VISION = ("model.encoder.vision_tower.", "model.encoder.embed_vision.")
TIED = ("lm_head.weight", "model.encoder.language_model.")
ELEMENTS_AT_ONCE = 2**23
RESERVE_BYTES = 2**28
READ_BYTES = 2**24
SHA256 = re.compile(r"[0-9a-fA-F]{64}")

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class FileCheck:
    """What `verify` found out about one file; `problems` holds a sentence for each thing wrong with it."""

    file: str
    bytes: int
    sha256: str | None
    problems: tuple[str, ...]


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
    folder: Path, device: torch.device, dtype: torch.dtype, on_progress: Progress | None = None
) -> DiffusionGemma:
    """The model of `folder` on `device` with all weights in `dtype`, in eval mode and without gradients.

    on_progress receives bytes done and bytes in all. Raises ModelError, before anything is allocated, where
    the folder is incomplete, damaged or of another architecture, or memory is too small.
    """
    config = read_config(folder)
    stored = stored_tensors(folder)
    model = _empty_model(folder, config, dtype)
    problems = list(_mismatches(folder, checkpoint_views(model), stored))
    if problems:
        others = f" ({len(problems) - 1} more tensors do not fit.)" if len(problems) > 1 else ""
        raise ModelError(problems[0][1] + others)
    _check_memory(folder, model, device, dtype)
    try:
        model = model.to_empty(device=device)
        _fill(checkpoint_views(model), stored, on_progress or (lambda done, total: None))
    except (SafetensorError, OSError, RuntimeError) as trouble:
        reason = str(trouble).strip().partition("\n")[0].rstrip(".")
        raise ModelError(
            f"The weights of {folder} could not be brought to {device} ({reason}); check the model with "
            "`gesso model verify` and the machine with `gesso doctor`."
        ) from trouble
    return model.eval().requires_grad_(False)


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


def verify(folder: Path, on_progress: Progress | None = None) -> list[FileCheck]:
    """Reads every byte of the model and tells for each file its size, its SHA-256 and what is wrong with it.

    Sums are compared with the folder's `SHA256SUMS`, and with the name of the file that a hub cache links to.
    on_progress receives bytes done and bytes in all. Raises ModelError only where there is no such folder.
    """
    if not folder.is_dir():
        raise ModelError(f"There is no model folder {folder}; name a folder that exists, or {FETCH_AGAIN}.")
    problems = _find_problems(folder)
    sums: dict[str, str] = {}
    with _noting(problems, SUMS_FILE):
        sums = _read_sums(folder / SUMS_FILE)
    files = [folder / name for name in sorted({*problems, *sums})]
    sizes = [file.stat().st_size if file.is_file() else 0 for file in files]
    checks = []
    for number, (file, size) in enumerate(zip(files, sizes, strict=True)):
        digest = None
        found = problems.setdefault(file.name, [])
        try:
            digest = _sha256(file, sum(sizes[:number]), sum(sizes), on_progress)
        except FileNotFoundError:
            if not found:
                found.append(f"The file {file} is missing; {FETCH_AGAIN}.")
        except OSError as reason:
            found.append(str(unreadable(file, reason)))
        if digest and {sums.get(file.name), _sum_in_hub_cache(file)} - {None, digest}:
            found.append(f"{file} is not what was published, its SHA-256 is {digest}; {FETCH_AGAIN}.")
        checks.append(FileCheck(file.name, size, digest, tuple(found)))
    return checks


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


def _refuse_foreign_quantization(folder: Path, content: Mapping[str, Any]) -> None:
    places = (content, content["text_config"])
    quantization = next(filter(None, (place.get("quantization_config") for place in places)), None)
    if not quantization and (folder / MODELOPT_FILE).is_file():
        quantization = read_json(folder / MODELOPT_FILE).get("quantization") or {"quant_method": "modelopt"}
    if not quantization:
        return
    details = quantization if isinstance(quantization, dict) else {}
    known = [str(details[key]) for key in ("quant_method", "quant_algo", "format") if details.get(key)]
    if len(known) != 1 or known[0] not in METHODS.values():
        raise ModelError(
            f"The model in {folder} is quantized ({', '.join(known) or 'method unknown'}), which this build "
            "does not read yet; choose its bfloat16 checkpoint or one that `gesso model list` names."
        )


def _empty_model(folder: Path, config: ModelConfig, dtype: torch.dtype) -> DiffusionGemma:
    """Shapes only: the model on the meta device."""
    try:
        with torch.device("meta"):
            return DiffusionGemma(config).to(dtype)
    except (RuntimeError, ValueError, TypeError) as impossible:
        raise broken(f"{folder / CONFIG_FILE} asks for sizes that cannot be ({impossible})") from impossible


def _is_skipped(name: str) -> bool:
    return name.startswith(VISION) or (name.startswith(TIED) and not name.endswith(".layer_scalar"))


def _mismatches(
    folder: Path, views: Mapping[str, Tensor], stored: Mapping[str, StoredTensor]
) -> Iterator[tuple[str, str]]:
    """File name and sentence for each tensor that is missing, unexpected, misshapen or of a type not read."""
    expected = {name: tuple(view.shape) for name, view in views.items()}
    for name in views.keys() & stored.keys():
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


@contextmanager
def _noting(problems: dict[str, list[str]], name: str) -> Iterator[None]:
    """Files the ModelError of its block under `name`."""
    try:
        yield
    except ModelError as error:
        problems.setdefault(name, []).append(str(error))


def _find_problems(folder: Path) -> dict[str, list[str]]:
    """By name each file the model consists of, with what the loader would refuse in it."""
    problems: dict[str, list[str]] = {CONFIG_FILE: []}
    problems |= {name: [] for name in (GENERATION_FILE, INDEX_FILE) if (folder / name).is_file()}
    config = stored = None
    with _noting(problems, CONFIG_FILE):
        config = read_config(folder)
    with _noting(problems, GENERATION_FILE):
        read_sampling(folder)
    with _noting(problems, INDEX_FILE):
        for shard in find_shards(folder)[0]:
            problems[shard.name] = []
            with _noting(problems, shard.name):
                read_header(shard)
        if not any(problems.values()):
            stored = stored_tensors(folder)
    if config is not None and stored is not None:
        with _noting(problems, CONFIG_FILE):
            views = checkpoint_views(_empty_model(folder, config, torch.float32))
            for name, sentence in _mismatches(folder, views, stored):
                problems[name].append(sentence)
    return problems


def _read_sums(file: Path) -> dict[str, str]:
    """File name to SHA-256 as `sha256sum` writes them; empty where there is no such file."""
    sums = {}
    for line in file.read_text("utf-8", "replace").splitlines() if file.is_file() else []:
        digest, _, name = line.partition(" ")
        name = name.strip().removeprefix("*").removeprefix("./")
        if not SHA256.fullmatch(digest) or not name or Path(name).name != name:
            raise broken(f"{file} has a line that is no checksum ({line!r})")
        sums[name] = digest.lower()
    return sums


def _sum_in_hub_cache(file: Path) -> str | None:
    """A hub cache keeps large files under their SHA-256 and links to them."""
    target = file.resolve()
    return target.name if target.parent.name == "blobs" and SHA256.fullmatch(target.name) else None


def _sha256(file: Path, done: int, total: int, on_progress: Progress | None) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(READ_BYTES):
            digest.update(block)
            done += len(block)
            if on_progress is not None:
                on_progress(done, total)
    return digest.hexdigest()
