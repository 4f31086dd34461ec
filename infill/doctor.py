"""`gesso doctor`: what this machine has, which models fit its memory, and what to do next.

Must not load a model or change anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import torch

from engine.checkpoints.config_files import read_config
from engine.checkpoints.qwen2 import CUDA_RESERVE_BYTES, RESERVE_BYTES, weight_bytes
from engine.checkpoints.weight_files import stored_tensors
from engine.config import ModelConfig
from engine.device import describe
from engine.errors import ModelError
from engine.memory_use import DRIVER_BYTES, key_bytes, reserved_bytes
from engine.models.qwen2 import Qwen2Config
from engine.released import TRUE_26B
from infill.code.languages import LANGUAGES
from infill.downloads import KNOWN, fetched
from infill.model_store import MASKED_MODELS, POCKET, POCKET_FOLDER, HubModel, best_model, measured_token_s
from infill.printable import json_text

GIB = 2**30
SMALL_MODEL_BYTES = 4 * GIB
# Of a code model in memory, for each byte of its file. In int4 the embedding and the head stay in 16 bits.
BYTES_PER_FILE_BYTE = {"int8": 1.15, "int4": 1.6, "bfloat16": 3.4, "float32": 6.8}
BYTES_PER_WEIGHT = {"float32": 4, "bfloat16": 2}
# The 26B without its vision tower, from its shapes and the formats of engine/checkpoints/quantizing.py; nvfp4 as
# NVIDIA publishes it, with only the experts in nvfp4.
LARGE_BYTES = {"bfloat16": 50.5e9, "float32": 101.0e9, "fp8": 26.1e9, "nvfp4": 17.8e9, "int4": 16.1e9}
# The sizes of Qwen2.5-7B, and of Qwen2.5-Coder-0.5B with a head of its own, that masked models were made from.
LARGE_QWEN = Qwen2Config(152_064, 3584, 18_944, 28, 28, 4, 128, tied=False)
SMALL_QWEN = Qwen2Config(151_936, 896, 4864, 24, 14, 2, 64, tied=False)
MASKED_CONTEXT = 4096  # tokens, of which keys and values are kept
QUANTIZED = ("fp8", "nvfp4", "int4")
HOW = {
    "bfloat16": "gesso model pull 26b",
    "float32": "gesso model pull 26b",
    "fp8": "gesso model quantize 26b DEST --format fp8",
    "nvfp4": "NVIDIA's NVFP4 build, by `gesso model pull OWNER/NAME`",
    "int4": "gesso model quantize 26b DEST --format int4",
}


@dataclass(frozen=True)
class Fit:
    """A model in one number type. bytes: for weights and activations, and for the 26B 8k of context.

    runs: whether it fits and is fast enough on this device to be useful.
    """

    model: str
    dtype: str
    bytes: int
    device: str
    fits: bool
    runs: bool
    note: str


@dataclass(frozen=True)
class MachineReport:
    """machine: see `engine.device.describe`. languages: whether the grammar of each is installed."""

    machine: Mapping[str, Any]
    models: tuple[Fit, ...]
    languages: Mapping[str, bool]
    advice: tuple[str, ...]

    def to_json(self) -> str:
        return json_text(asdict(self), indent=2)


def examine(machine: Mapping[str, Any] | None = None) -> MachineReport:
    """The report for this machine, or for one as described by `engine.device.describe`."""
    machine = describe() if machine is None else machine
    free = _free_memory(machine)
    models = (
        _pocket(machine, free),
        *_code_models(machine, free),
        *_large(machine, free),
        *(_masked(model, machine, free) for model in MASKED_MODELS),
    )
    languages = {name: language.grammar() is not None for name, language in LANGUAGES.items()}
    return MachineReport(machine, models, languages, tuple(_advice(machine, models, languages)))


def _free_memory(machine: Mapping[str, Any]) -> int:
    """Free bytes on the default device."""
    gpu = _gpu(machine)
    return int(machine["memory_available"] if gpu is None else gpu["memory_available"])


def _gpu(machine: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The NVIDIA GPU if it is the default device."""
    if not machine["device"].startswith("cuda"):
        return None
    return machine["gpus"][int(machine["device"].partition(":")[2] or 0)]


def _pocket(machine: Mapping[str, Any], free: int) -> Fit:
    dtype = machine["dtype"]
    try:
        weights = [tensor for tensor in stored_tensors(POCKET_FOLDER).values() if not tensor.name.endswith(".scale")]
    except ModelError as broken:
        return Fit(POCKET, dtype, 0, machine["device"], False, False, str(broken))
    size = sum(prod(tensor.shape) for tensor in weights) * BYTES_PER_WEIGHT[dtype]
    size += _beside_weights(read_config(POCKET_FOLDER), dtype, _gpu(machine) is not None)
    fits = size <= free
    return Fit(POCKET, dtype, size, machine["device"], fits, fits, "shipped with Gesso")


def _code_models(machine: Mapping[str, Any], free: int) -> list[Fit]:
    """The downloadable code models: on a CPU in 8 bits, on an NVIDIA GPU in int4 if they do not fit otherwise."""
    found = []
    reserve = RESERVE_BYTES if _gpu(machine) is None else CUDA_RESERVE_BYTES
    for model in KNOWN.values():
        dtype = "int8" if machine["device"] == "cpu" else machine["dtype"]
        if _gpu(machine) is not None and model.bytes * BYTES_PER_FILE_BYTE[dtype] + reserve > free:
            dtype = "int4"
        size = int(model.bytes * BYTES_PER_FILE_BYTE[dtype]) + reserve
        here = fetched(model) is not None
        token_s = measured_token_s(model.name)
        speed = "" if token_s is None else f", {1000 * token_s:.0f} ms per token"
        note = f"on this machine{speed}" if here else f"gesso model pull {model.name}"
        found.append(Fit(model.name, dtype, size, machine["device"], size <= free, size <= free, note))
    return found


def _masked(model: HubModel, machine: Mapping[str, Any], free: int) -> Fit:
    """A masked diffusion model with the keys of MASKED_CONTEXT tokens: on a CPU in 8 bits, on an NVIDIA GPU in int4 if
    it does not fit otherwise."""
    config = LARGE_QWEN if model.bytes > SMALL_MODEL_BYTES else SMALL_QWEN
    gpu, dtype = _gpu(machine), machine["dtype"]
    keys = key_bytes(config, MASKED_CONTEXT, BYTES_PER_WEIGHT[dtype])
    beside = keys + (RESERVE_BYTES if gpu is None else CUDA_RESERVE_BYTES + DRIVER_BYTES)
    size = beside + weight_bytes(config, getattr(torch, dtype))
    if machine["device"] == "cpu":
        dtype, size = "int8", beside + weight_bytes(config, torch.int8)
    elif gpu is not None and size > free:
        dtype, size = "int4", beside + weight_bytes(config, getattr(torch, dtype), int4=True)
    is_usable = machine["device"] != "cpu" or config is SMALL_QWEN
    note = f"gesso model pull {model.repository}" if is_usable else "needs a GPU to be useful"
    if machine["device"] == "cpu" and is_usable:
        note += ", slow on a CPU"
    return Fit(model.repository, dtype, size, machine["device"], size <= free, size <= free and is_usable, note)


def _large(machine: Mapping[str, Any], free: int) -> list[Fit]:
    """The released model with 8k of context in every number type, the default one of this machine first."""
    gpu, native = _gpu(machine), machine["dtype"]
    found = []
    for build in (native, *QUANTIZED):
        size = int(LARGE_BYTES[build]) + _beside_weights(ModelConfig.from_json(TRUE_26B), native, gpu is not None)
        fits, note, runs = size <= free, HOW[build], True
        if build in QUANTIZED and gpu is None:
            note, runs = "needs an NVIDIA GPU to be useful", False
        elif build in QUANTIZED and gpu is not None and gpu.get("no_kernels"):
            note = f"slow here: {gpu['no_kernels']}"
        found.append(Fit("26b", build, size, machine["device"], fits, fits and runs, note))
    return found


def _beside_weights(config: ModelConfig, dtype: str, on_gpu: bool) -> int:
    """As the engine counts it when it loads a model."""
    element = BYTES_PER_WEIGHT[dtype]
    return reserved_bytes(config, element, element, recorded=on_gpu) + DRIVER_BYTES * on_gpu


def _advice(machine: Mapping[str, Any], models: tuple[Fit, ...], languages: Mapping[str, bool]) -> list[str]:
    advice = list(_gpu_advice(machine))
    pocket, large = models[0], [fit for fit in models if fit.model == "26b"]
    if not pocket.runs:
        need = f"it needs {pocket.bytes / GIB:.1f} GiB of free memory; close other programs."
        advice.append(f"The pocket model cannot be loaded: {need if pocket.bytes else pocket.note}")
    best = next((fit for fit in large if fit.runs), None)
    if best is not None:
        speed = "" if machine["device"] != "cpu" else ", slowly on this CPU"
        way = f"`{best.note}`" if best.note.startswith("gesso ") else best.note
        use = "`gesso infill … --model 26b`" if best.dtype not in QUANTIZED else "`gesso infill … --model DEST`"
        advice.append(f"The 26B model fits in {best.dtype} with 8k of context{speed}: {way}, then {use}.")
    else:
        advice += _why_not_large(machine, large, pocket.runs)
    advice += _infilling_advice(machine, models)
    advice.append(f"The model `auto` uses {best_model()} here.")
    if (
        missing := next((fit for fit in models if fit.note == "gesso model pull coder" and fit.fits), None)
    ) is not None:
        advice.append(f"For far better suggestions run `{missing.note}` ({KNOWN['coder'].bytes / 2**20:.0f} MiB).")
    if _gpu(machine) is not None:
        advice.append(
            "Gesso's kernels and CUDA graphs are experimental: they have not been run on a GPU yet; set "
            "GESSO_KERNELS=off to do without them."
        )
    if pocket.runs:
        advice.append("Try it: `gesso infill FILE --at LINE:COL --watch`.")
    absent = [name for name, present in languages.items() if not present]
    if absent:
        advice.append(
            f"These languages have no syntax tree: {', '.join(absent)}; "
            "install their tree-sitter grammars (`pip install --upgrade gesso`)."
        )
    return advice


def _infilling_advice(machine: Mapping[str, Any], models: Sequence[Fit]) -> Iterator[str]:
    """Whether the model that was trained to infill fits the GPU; without one it is too slow."""
    fit = next(fit for fit in models if fit.model == MASKED_MODELS[0].repository)
    if _gpu(machine) is not None and fit.runs:
        note = "its real weights have not run with Gesso yet"
        yield f"For infilling, {fit.model} fits in {fit.dtype}: `{fit.note}`; {note}."


def _gpu_advice(machine: Mapping[str, Any]) -> Iterator[str]:
    """Problems of the GPUs, and what to do."""
    for gpu in machine["gpus"]:
        if gpu["trouble"]:
            yield f"{gpu['name']} cannot be used: {gpu['trouble']}."
        elif reason := gpu.get("no_kernels"):
            yield f"{gpu['name']} runs without Gesso's kernels, slower: {reason}."
    if not machine["gpus"] and machine.get("driver"):
        yield f"No GPU can be used: {machine['no_cuda']}."
    gpu = _gpu(machine)
    if gpu is not None and machine["dtype"] == "float32":
        too_old = f"{gpu['name']} (compute capability {gpu['compute_capability']}) is too old for bfloat16"
        yield f"{too_old}, so weights take twice the memory."


def _why_not_large(machine: Mapping[str, Any], large: Sequence[Fit], has_pocket: bool) -> list[str]:
    """The memory that the smallest usable number type needs, and whether other programs take it."""
    gpu, free = _gpu(machine), _free_memory(machine)
    smallest = min(large if gpu is not None else large[:1], key=lambda fit: fit.bytes)
    if gpu is not None and smallest.bytes <= gpu["memory_total"]:
        used = (gpu["memory_total"] - free) / GIB
        return [
            f"Other programs use {used:.1f} GiB of {gpu['name']}; close them, and the 26B model fits in "
            f"{smallest.dtype}, which needs {smallest.bytes / GIB:.1f} GiB."
        ]
    if not has_pocket:
        return []
    return [
        f"The 26B model does not fit: it needs {smallest.bytes / GIB:.0f} GiB in {smallest.dtype} with 8k of "
        f"context, and {free / GIB:.0f} GiB are free."
    ]
