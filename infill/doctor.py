"""What this machine has, which model fits its memory, and what to do next.

Reports, and changes nothing. Must not load a model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

from engine.checkpoint import RESERVE_BYTES
from engine.device import describe
from engine.errors import ModelError
from engine.weight_files import stored_tensors
from infill.languages import LANGUAGES
from infill.model_store import POCKET, POCKET_FOLDER

GIB = 2**30
BYTES_A_WEIGHT = {"float32": 4, "bfloat16": 2}
LARGE_BYTES = {"bfloat16": 50.5e9, "float32": 101e9, "fp8": 25.3e9, "nvfp4": 18.8e9, "int4": 16e9}
READ_BY_THIS_VERSION = ("float32", "bfloat16")  # see engine/checkpoint.py


@dataclass(frozen=True)
class Fit:
    """A model in one number type. bytes: weights and working room; runs: this version can read and hold it here."""

    model: str
    dtype: str
    bytes: int
    device: str
    fits: bool
    runs: bool
    note: str


@dataclass(frozen=True)
class Report:
    """machine: see `engine.device.describe`; languages: whether the grammar of each is installed."""

    machine: Mapping[str, Any]
    models: tuple[Fit, ...]
    languages: Mapping[str, bool]
    advice: tuple[str, ...]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, ensure_ascii=False)


def examine(machine: Mapping[str, Any] | None = None) -> Report:
    """The report for this machine, or for one described as `engine.device.describe` does."""
    machine = describe() if machine is None else machine
    free = _free_memory(machine)
    models = (_pocket(machine, free), *_large(machine, free))
    languages = {name: language.grammar() is not None for name, language in LANGUAGES.items()}
    return Report(machine, models, languages, tuple(_advice(machine, models, languages)))


def _free_memory(machine: Mapping[str, Any]) -> int:
    """Bytes free on the device that would be chosen."""
    if machine["device"].startswith("cuda"):
        return max(gpu["memory_available"] for gpu in machine["gpus"])
    return int(machine["memory_available"])


def _pocket(machine: Mapping[str, Any], free: int) -> Fit:
    dtype = machine["dtype"]
    try:
        weights = [tensor for tensor in stored_tensors(POCKET_FOLDER).values() if not tensor.name.endswith(".scale")]
    except ModelError as broken:
        return Fit(POCKET, dtype, 0, machine["device"], False, False, str(broken))
    size = sum(prod(tensor.shape) for tensor in weights) * BYTES_A_WEIGHT[dtype] + RESERVE_BYTES
    fits = size <= free
    return Fit(POCKET, dtype, size, machine["device"], fits, fits, "shipped with Gesso")


def _large(machine: Mapping[str, Any], free: int) -> list[Fit]:
    """The released model in every build, the one this machine would load first."""
    native = machine["dtype"]
    builds = [native, *(name for name in LARGE_BYTES if name not in (native, *READ_BY_THIS_VERSION))]
    found = []
    for build in builds:
        size = int(LARGE_BYTES[build]) + RESERVE_BYTES
        readable = build in READ_BY_THIS_VERSION
        note = "gesso model pull 26b" if readable else "this version does not read it yet"
        fits = size <= free
        found.append(Fit("26b", build, size, machine["device"], fits, fits and readable, note))
    return found


def _advice(machine: Mapping[str, Any], models: tuple[Fit, ...], languages: Mapping[str, bool]) -> list[str]:
    advice = [f"{gpu['name']} cannot be used: {gpu['trouble']}." for gpu in machine["gpus"] if gpu["trouble"]]
    pocket, large = models[0], models[1]
    if not pocket.runs:
        lack = f"it needs {pocket.bytes / GIB:.1f} GiB of free memory; close other programs."
        advice.append(f"The pocket model cannot be loaded: {lack if pocket.bytes else pocket.note}")
    if large.runs:
        speed = "" if machine["device"] != "cpu" else ", slowly on this CPU"
        advice.append(f"The 26B model fits{speed}: `gesso model pull 26b`, then `gesso infill … --model 26b`.")
    elif pocket.runs:
        advice.append(
            f"Use the pocket model: the 26B model needs {large.bytes / GIB:.0f} GiB in {large.dtype}, and "
            f"{_free_memory(machine) / GIB:.0f} GiB are free."
        )
    if pocket.runs:
        advice.append("Try it: `gesso infill FILE --at LINE:COL --watch`.")
    absent = [name for name, present in languages.items() if not present]
    if absent:
        advice.append(
            f"These languages are filled without a syntax tree: {', '.join(absent)}; "
            "install their tree-sitter grammars (`pip install --upgrade gesso`)."
        )
    return advice
