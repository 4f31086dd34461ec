"""A GGUF file or a folder of safetensors becomes a Qwen2 model, or a clear error.

Sizes and names are checked from the headers before a weight is read. On a CPU the layers are packed as they are read.
On a GPU they are copied in 16 bits, or quantized to int4 as they are read if the model does not fit an NVIDIA GPU
otherwise; layers that are stored quantized stay so on an NVIDIA GPU, and are unpacked elsewhere. Names of the tensors:
transformers' `Qwen2ForCausalLM`, and llama.cpp's `gguf-py/gguf/tensor_mapping.py`. No network, no pickle. Must
not know prompts or text.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import torch
from safetensors import safe_open
from torch import Tensor, nn

from engine.checkpoints.config_files import PUBLISHED_METHODS, quantization_method
from engine.checkpoints.gguf import GgufFile
from engine.checkpoints.published import Matrix, one_format
from engine.checkpoints.weight_files import FETCH_AGAIN, StoredTensor, read_json, stored_tensors
from engine.config import KNOWN_ARCHITECTURES, positive
from engine.device import available_memory, cpu_has_bfloat16
from engine.device_setup import enable_kernels, use_kernels
from engine.errors import ModelError
from engine.kernels import FAST_TYPES
from engine.models.packed_qwen2 import LayerWeights, PackedLayer, PackedQwen2, Product, fastest_product
from engine.models.quantized import QuantizedLinear
from engine.models.qwen2 import Qwen2, Qwen2Config
from engine.quantized import INT4_GROUP, QuantizedWeight, concatenate, quantize_weight

ARCHITECTURE = "qwen2"
EMBEDDING, NORM, HEAD = "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"
GGUF_NAMES = {EMBEDDING: "token_embd.weight", NORM: "output_norm.weight", HEAD: "output.weight"}
GGUF_PARTS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
PARTS = {  # transformers' names by those of `engine.models.qwen2`
    "attention.qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attention.o_proj": ("self_attn.o_proj",),
    "mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
    "mlp.down_proj": ("mlp.down_proj",),
    "input_norm": ("input_layernorm",),
    "post_attention_norm": ("post_attention_layernorm",),
}
RESERVE_BYTES = 2**28
MOST_LAYERS, MOST_SIZE = 1024, 1 << 24  # checked before anything is built
CUDA_RESERVE_BYTES = 2**30  # for activations and the keys of prompts; while loading, for `QUANTIZED_AT_ONCE` weights
QUANTIZED_AT_ONCE = 2**23  # weights that are on the GPU in fp32 before they are quantized
INT4_BYTES = 0.5 + 2 / INT4_GROUP  # of a weight and its share of the scale
DEQUANTIZING_BYTES = 12  # of a weight while a product without kernels dequantizes it
READERS = 2  # threads that unpack layers; each holds one layer in fp32

Progress = Callable[[int, int], None]
log = logging.getLogger(__name__)


class Weights(Protocol):
    """The tensors of a checkpoint by transformers' names."""

    place: Path
    config: Qwen2Config
    shapes: Mapping[str, tuple[int, ...]]
    stored_bytes: int | None
    """Bytes of the weights in memory if the layers stay as they are stored; None unless they are stored quantized."""

    def read(self, name: str, first: int = 0, end: int | None = None) -> Tensor:
        """The rows [first, end) of the tensor in fp32, which may be changed; all of a vector."""
        ...

    def rows(self, name: str, tokens: Tensor) -> Tensor:
        """The rows `tokens` [...] of a matrix, in fp32: [..., columns]."""
        ...

    def quantized(self, name: str, dtype: torch.dtype) -> QuantizedWeight:
        """A matrix of a layer as it is stored; one that is not quantized comes in `dtype`."""
        ...

    def drop_pages(self) -> None:
        """Takes the pages of the file that were read out of this process's memory."""
        ...


class GgufWeights:
    """The tensors of a GGUF file, whose blocks are always unpacked."""

    stored_bytes: int | None = None

    def __init__(self, file: GgufFile) -> None:
        self.place, self.file = file.file, file
        self.config = _gguf_config(file)
        self.shapes: Mapping[str, tuple[int, ...]] = {
            ours: file.tensors[theirs].shape for ours, theirs in self._names() if theirs in file.tensors
        }
        self._stored = dict(self._names())

    def read(self, name: str, first: int = 0, end: int | None = None) -> Tensor:
        return self.file.read(self._stored[name], first, end)

    def rows(self, name: str, tokens: Tensor) -> Tensor:
        tensor = self.file.tensors[self._stored[name]]
        blocks = self.file.stored(tensor.name)[tokens.reshape(-1)]
        return tensor.type.decode(blocks.reshape(-1, tensor.type.bytes)).view(*tokens.shape, -1)

    def quantized(self, name: str, dtype: torch.dtype) -> QuantizedWeight:
        return QuantizedWeight("plain", self.read(name).to(dtype))

    def drop_pages(self) -> None:
        self.file.drop_pages()

    def _names(self) -> Iterator[tuple[str, str]]:
        yield from GGUF_NAMES.items()
        for index in range(self.config.num_layers):
            for ours, theirs in GGUF_PARTS.items():
                for kind in ("weight", "bias"):
                    yield f"model.layers.{index}.{ours}.{kind}", f"blk.{index}.{theirs}.{kind}"


class SafetensorsWeights:
    """The tensors of a folder as transformers saves it, or with quantized layers, as `gesso model quantize` does."""

    def __init__(self, folder: Path, known: Sequence[str] = (ARCHITECTURE,)) -> None:
        """known: the names of the architecture that the folder may use."""
        self.place = folder
        self.config = json_config(folder, read_json(folder / "config.json"), known)
        self._stored = stored_tensors(folder)
        self._matrices = _quantized_matrices(folder, self.config, self._stored)
        self.stored_bytes = sum(one.bytes for one in self._stored.values()) if self._matrices else None
        self.shapes: Mapping[str, tuple[int, ...]] = {
            **{name: tuple(tensor.shape) for name, tensor in self._stored.items()},
            **{name: (matrix.rows, matrix.columns) for name, matrix in self._matrices.items()},
        }
        self.drop_pages()

    def read(self, name: str, first: int = 0, end: int | None = None) -> Tensor:
        if name in self._matrices:
            return self.quantized(name, torch.float32).part(first, end).dequantize()
        return self._open[self._stored[name].file].get_slice(name)[first:end].to(torch.float32, copy=True)

    def rows(self, name: str, tokens: Tensor) -> Tensor:
        return self._tensor(name)[tokens].float()

    def quantized(self, name: str, dtype: torch.dtype) -> QuantizedWeight:
        matrix = self._matrices.get(name)
        if matrix is None:
            return QuantizedWeight("plain", self._tensor(name).to(dtype))
        return matrix.weight(self._stored, self._tensor, dtype)

    def drop_pages(self) -> None:
        self._open = {file: safe_open(file, framework="pt") for file in {one.file for one in self._stored.values()}}

    def _tensor(self, name: str) -> Tensor:
        found: Tensor = self._open[self._stored[name].file].get_tensor(name)
        return found


def layer_matrices(config: Qwen2Config, index: int) -> list[Matrix]:
    """The matrices of a layer, by transformers' names."""
    return [
        Matrix(name.removesuffix(".weight"), *shape)
        for name, shape in _expected_of_layer(config, index).items()
        if len(shape) == 2
    ]


def _quantized_matrices(folder: Path, config: Qwen2Config, stored: Mapping[str, StoredTensor]) -> dict[str, Matrix]:
    """By the name of the weight those that are stored quantized; raises ModelError if they cannot be read."""
    method = quantization_method(folder)
    if method is None:
        return {}
    if method not in PUBLISHED_METHODS:
        raise ModelError(
            f"The model in {folder} is quantized by {method}, but only {' and '.join(PUBLISHED_METHODS)} can be "
            "loaded; choose another build of the model."
        )
    found = {}
    for matrix in (one for index in range(config.num_layers) for one in layer_matrices(config, index)):
        name = f"{matrix.base}.weight"
        if matrix.names(stored) != [name]:
            if problem := matrix.problem(stored):
                raise ModelError(f"{problem} The model in {folder} cannot be read; {FETCH_AGAIN}.")
            found[name] = matrix
    return found


def open_weights(place: Path) -> GgufWeights | SafetensorsWeights:
    """The checked weights of a GGUF file or a model folder; raises ModelError for what cannot be loaded."""
    weights = GgufWeights(GgufFile(place)) if place.is_file() else SafetensorsWeights(place)
    check_shapes(weights)
    return weights


def load_qwen2(
    weights: Weights, device: torch.device, dtype: torch.dtype, on_progress: Progress | None = None
) -> Qwen2 | PackedQwen2:
    """The model on `device`: on a CPU packed, elsewhere in `dtype`, or in int4 on an NVIDIA GPU that it does not fit
    otherwise, or as it is stored there. on_progress: layers done and layers in all."""
    if device.type == "cpu":
        return pack_qwen2(weights, fastest_product(), on_progress)
    if device.type == "cuda" and weights.stored_bytes is not None:
        return _quantized_qwen2(weights, device, dtype, on_progress, weights.stored_bytes, "stored")
    if device.type == "cuda" and not _fits(device, weight_bytes(weights.config, dtype)) and _groups(weights.config):
        log.info("The model in %s does not fit %s in %s, so its layers are in int4.", weights.place, device, dtype)
        needed = weight_bytes(weights.config, dtype, int4=True)
        return _quantized_qwen2(weights, device, dtype, on_progress, needed, "int4")
    _check_memory(weights, device, weight_bytes(weights.config, dtype))
    return plain_qwen2(weights, device, dtype, on_progress)


def plain_qwen2(
    weights: Weights,
    device: torch.device,
    dtype: torch.dtype,
    on_progress: Progress | None = None,
    layers: Literal["plain", "int4", "stored"] = "plain",
) -> Qwen2:
    """The model on any device with all weights in `dtype`. layers: int4 if their matrices are quantized as they are
    read, stored if they stay as they are."""
    config = weights.config
    with torch.device("meta"):
        model = Qwen2(config).to(dtype).eval().requires_grad_(False)
    for module, name in ((model.embed_tokens, EMBEDDING), (model.norm, NORM), (model.head, HEAD)):
        if module is not None:
            cast(Tensor, module.to_empty(device=device).weight).copy_(weights.read(name))
    for index, layer in enumerate(model.layers):
        prefix = f"model.layers.{index}."
        for name, parts in PARTS.items() if layers != "plain" else ():
            linear = layer.get_submodule(name)
            if isinstance(linear, nn.Linear):
                matrix = _Joined(weights, [f"{prefix}{part}.weight" for part in parts])
                weight = _int4(matrix, device) if layers == "int4" else matrix.quantized(dtype).to(device)
                layer.set_submodule(name, QuantizedLinear(weight, linear.bias))
        for name, parameter in layer.to_empty(device=device).named_parameters():
            ours, _, kind = name.rpartition(".")
            parameter.copy_(torch.cat([weights.read(f"{prefix}{part}.{kind}") for part in PARTS[ours]]))
        if on_progress is not None:
            on_progress(index + 1, config.num_layers)
    return model


def _quantized_qwen2(
    weights: Weights,
    device: torch.device,
    dtype: torch.dtype,
    on_progress: Progress | None,
    needed: int,
    layers: Literal["int4", "stored"],
) -> Qwen2:
    """The model with quantized layers, which take `needed` bytes with all other weights, on an NVIDIA GPU; without
    working kernels its products dequantize, which is slow."""
    config = weights.config
    on_kernels = dtype in FAST_TYPES and enable_kernels(device.index or 0)
    dequantizing = 0 if on_kernels else DEQUANTIZING_BYTES * 2 * config.intermediate_size * config.hidden_size
    _check_memory(weights, device, needed + dequantizing, " even in 4 bits" if layers == "int4" else "")
    model = plain_qwen2(weights, device, dtype, on_progress, layers)
    if on_kernels:
        use_kernels(model)
    return model


def _int4(matrix: _Joined, device: torch.device) -> QuantizedWeight:
    """The matrix in int4 on `device`, quantized some rows at a time."""
    rows, columns = matrix.shape
    step = max(1, QUANTIZED_AT_ONCE // columns)
    parts = ((first, min(rows, first + step)) for first in range(0, rows, step))
    return concatenate([quantize_weight(matrix.read(*part).to(device), "int4") for part in parts])


@torch.inference_mode()
def pack_qwen2(
    weights: Weights,
    product: Callable[..., Product],
    on_progress: Progress | None = None,
    kv_dtype: torch.dtype | None = None,
) -> PackedQwen2:
    """The model for a CPU with its products made by `product`. kv_dtype: of keys and values, by default what the
    processor multiplies fastest."""
    config = weights.config
    _check_memory(weights, torch.device("cpu"), weight_bytes(config, torch.int8))
    done = 0

    def packed(index: int) -> PackedLayer:
        nonlocal done
        layer = PackedLayer(config, _layer(weights, index), product)
        done += 1
        if on_progress is not None:
            on_progress(done, config.num_layers + 1)
        return layer

    with ThreadPoolExecutor(min(READERS, os.cpu_count() or 1), "load") as threads:
        head = threads.submit(lambda: product(_Joined(weights, [EMBEDDING if config.tied else HEAD])))
        layers = list(threads.map(packed, range(config.num_layers)))
        kept = kv_dtype or (torch.bfloat16 if cpu_has_bfloat16() else torch.float32)

        def embed(tokens: Tensor) -> Tensor:
            return weights.rows(EMBEDDING, tokens)

        model = PackedQwen2(config, embed, layers, weights.read(NORM), head.result(), kept)
    weights.drop_pages()  # only rows of the embedding are read later
    return model


class _Joined:
    """Matrices below each other as one `Matrix`, times `gain` [columns]."""

    def __init__(self, weights: Weights, names: Sequence[str], gain: Tensor | None = None) -> None:
        self.weights, self.names, self.gain = weights, names, gain
        self.counts = [weights.shapes[name][0] for name in names]
        self.shape = sum(self.counts), weights.shapes[names[0]][1]

    def read(self, first: int, end: int) -> Tensor:
        parts, start = [], 0
        for name, count in zip(self.names, self.counts, strict=True):
            low, high = max(first - start, 0), min(end - start, count)
            if low < high:
                parts.append(self.weights.read(name, low, high))
            start += count
        rows = torch.cat(parts) if len(parts) > 1 else parts[0]
        return rows if self.gain is None else rows.mul_(self.gain)

    def quantized(self, dtype: torch.dtype) -> QuantizedWeight:
        """The matrix as it is stored, without the gain."""
        parts = one_format([self.weights.quantized(name, dtype) for name in self.names], self.names[0], dtype)
        return concatenate(parts)


def _layer(weights: Weights, index: int) -> LayerWeights:
    prefix = f"model.layers.{index}."

    def joined(ours: str, norm: str | None = None) -> _Joined:
        gain = None if norm is None else weights.read(f"{prefix}{norm}.weight")
        return _Joined(weights, [f"{prefix}{part}.weight" for part in PARTS[ours]], gain)

    return LayerWeights(
        qkv=joined("attention.qkv_proj", "input_layernorm"),
        qkv_bias=torch.cat([weights.read(f"{prefix}{part}.bias") for part in PARTS["attention.qkv_proj"]]),
        out=joined("attention.o_proj"),
        gate_up=joined("mlp.gate_up_proj", "post_attention_layernorm"),
        down=joined("mlp.down_proj"),
    )


def expected_shapes(config: Qwen2Config) -> dict[str, tuple[int, ...]]:
    """The shapes of all tensors, by transformers' names."""
    shapes: dict[str, tuple[int, ...]] = {EMBEDDING: (config.vocab_size, config.hidden_size)}
    shapes[NORM] = (config.hidden_size,)
    if not config.tied:
        shapes[HEAD] = (config.vocab_size, config.hidden_size)
    for index in range(config.num_layers):
        shapes |= _expected_of_layer(config, index)
    return shapes


def _expected_of_layer(config: Qwen2Config, index: int) -> dict[str, tuple[int, ...]]:
    prefix, hidden, inner = f"model.layers.{index}.", config.hidden_size, config.intermediate_size
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    shapes: dict[str, tuple[int, ...]] = {}
    for name, size in (("q", queries), ("k", keys), ("v", keys)):
        shapes[f"{prefix}self_attn.{name}_proj.weight"] = (size, hidden)
        shapes[f"{prefix}self_attn.{name}_proj.bias"] = (size,)
    shapes[prefix + "self_attn.o_proj.weight"] = (hidden, queries)
    shapes |= {f"{prefix}mlp.{name}_proj.weight": (inner, hidden) for name in ("gate", "up")}
    shapes[prefix + "mlp.down_proj.weight"] = (hidden, inner)
    shapes |= {f"{prefix}{name}.weight": (hidden,) for name in ("input_layernorm", "post_attention_layernorm")}
    return shapes


def check_shapes(weights: Weights) -> None:
    """Raises ModelError if a tensor is missing or of another shape than the sizes ask for."""
    for name, shape in expected_shapes(weights.config).items():
        found = weights.shapes.get(name)
        if found is None:
            raise ModelError(f"The tensor {name} is missing from {weights.place}; {FETCH_AGAIN}.")
        if tuple(found) != shape:
            raise ModelError(
                f"The tensor {name} in {weights.place} has shape {list(found)}, but the model's sizes ask for "
                f"{list(shape)}; {FETCH_AGAIN}."
            )


def weight_bytes(config: Qwen2Config, dtype: torch.dtype, int4: bool = False) -> int:
    """Bytes of the weights in `dtype`; int4: with the matrices of the layers in int4."""
    total = 0.0
    for name, shape in expected_shapes(config).items():
        in_int4 = int4 and name.startswith("model.layers.") and len(shape) == 2
        total += prod(shape) * (INT4_BYTES if in_int4 else dtype.itemsize)
    return int(total)


def _groups(config: Qwen2Config) -> bool:
    """Whether all rows of the layers' matrices are whole groups of int4."""
    columns = config.hidden_size, config.intermediate_size, config.num_heads * config.head_dim
    return not any(size % INT4_GROUP for size in columns)


def _reserve(device: torch.device) -> int:
    return CUDA_RESERVE_BYTES if device.type == "cuda" else RESERVE_BYTES


def _fits(device: torch.device, needed: int) -> bool:
    return needed + _reserve(device) <= available_memory(device)


def _check_memory(weights: Weights, device: torch.device, needed: int, build: str = "") -> None:
    if not _fits(device, needed):
        raise ModelError(
            f"The model in {weights.place} needs {(needed + _reserve(device)) / 2**30:.1f} GiB on {device}{build}, but "
            f"only {available_memory(device) / 2**30:.1f} GiB are free; close other programs or choose a smaller model."
        )


def refuse_architecture(place: Path, found: Any, known: Sequence[str] = (ARCHITECTURE,)) -> None:
    """Raises ModelError unless the architecture `found` is one of `known`."""
    if found not in known:
        raise ModelError(
            f"{place} is a model of type {found!r}, but the engine knows only {KNOWN_ARCHITECTURES}; choose another "
            "model."
        )


def _gguf_config(file: GgufFile) -> Qwen2Config:
    data = file.metadata
    refuse_architecture(file.file, data.get("general.architecture"))
    try:
        heads, hidden = int(data["qwen2.attention.head_count"]), int(data["qwen2.embedding_length"])
        return _checked(
            file.file,
            Qwen2Config(
                vocab_size=len(data["tokenizer.ggml.tokens"]),
                hidden_size=hidden,
                intermediate_size=int(data["qwen2.feed_forward_length"]),
                num_layers=int(data["qwen2.block_count"]),
                num_heads=heads,
                num_kv_heads=int(data.get("qwen2.attention.head_count_kv", heads)),
                head_dim=int(data.get("qwen2.attention.key_length", hidden // max(1, heads))),
                max_positions=int(data.get("qwen2.context_length", 32_768)),
                norm_eps=positive(data["qwen2.attention.layer_norm_rms_epsilon"], "layer_norm_rms_epsilon"),
                rope_theta=positive(data.get("qwen2.rope.freq_base", 1e6), "freq_base"),
                tied=GGUF_NAMES[HEAD] not in file.tensors,
            ),
        )
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as wrong:
        raise ModelError(
            f"{file.file} lacks a size of the model, or has a wrong one ({wrong}); {FETCH_AGAIN}."
        ) from wrong


def json_config(folder: Path, data: Mapping[str, Any], known: Sequence[str]) -> Qwen2Config:
    """The sizes in a config.json of one of the architectures `known`; raises ModelError for others."""
    refuse_architecture(folder, data.get("model_type"), known)
    if data.get("use_sliding_window") or data.get("rope_scaling"):
        raise ModelError(
            f"The model in {folder} uses a sliding window or scaled positions; choose another build of it."
        )
    try:
        heads, hidden = int(data["num_attention_heads"]), int(data["hidden_size"])
        rope = data.get("rope_parameters") or {}
        return _checked(
            folder,
            Qwen2Config(
                vocab_size=int(data["vocab_size"]),
                hidden_size=hidden,
                intermediate_size=int(data["intermediate_size"]),
                num_layers=int(data["num_hidden_layers"]),
                num_heads=heads,
                num_kv_heads=int(data.get("num_key_value_heads") or heads),
                head_dim=int(data.get("head_dim") or hidden // max(1, heads)),
                max_positions=int(data.get("max_position_embeddings") or 32_768),
                norm_eps=positive(data.get("rms_norm_eps", 1e-6), "rms_norm_eps"),
                rope_theta=positive(rope.get("rope_theta") or data.get("rope_theta") or 1e4, "rope_theta"),
                tied=bool(data.get("tie_word_embeddings", False)),
            ),
        )
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as wrong:
        raise ModelError(
            f"The config.json in {folder} lacks a size of the model, or has a wrong one ({wrong}); {FETCH_AGAIN}."
        ) from wrong


def _checked(place: Path, config: Qwen2Config) -> Qwen2Config:
    sizes = (config.vocab_size, config.hidden_size, config.intermediate_size, config.num_layers, config.num_heads)
    grouped = config.num_kv_heads > 0 and config.num_heads % config.num_kv_heads == 0
    largest = max(*sizes, config.head_dim, config.max_positions)
    if config.num_layers > MOST_LAYERS or largest > MOST_SIZE:
        raise ModelError(f"{place} states sizes that no model has; {FETCH_AGAIN}.")
    if min(sizes) < 1 or not grouped or config.head_dim < 2 or config.head_dim % 2 or config.max_positions < 1:
        raise ModelError(f"{place} states sizes that no model can have; {FETCH_AGAIN}.")
    return config
