"""Checks whether a model folder is complete: reads every byte, compares headers with the architecture, and checksums.

Collects what the loaders would refuse instead of raising it. Loads no weights.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from engine.checkpoints.checkpoint import mismatches
from engine.checkpoints.config_files import (
    CONFIG_FILE,
    GENERATION_FILE,
    PUBLISHED_METHODS,
    quantization_method,
    read_config,
    read_sampling,
)
from engine.checkpoints.loading import Progress, check_layers, empty_model
from engine.checkpoints.masked import is_masked, open_masked, read_masked_sampling
from engine.checkpoints.quantized_loading import mismatches as published_mismatches
from engine.checkpoints.qwen2 import ARCHITECTURE, open_weights
from engine.checkpoints.weight_files import (
    FETCH_AGAIN,
    INDEX_FILE,
    SUMS_FILE,
    broken,
    find_shards,
    read_header,
    read_json,
    stored_tensors,
    unreadable,
)
from engine.errors import ModelError
from engine.files import open_regular, read_json_object, read_small_file

READ_BYTES = 2**24
SUMS_BYTES = 2**20
TOKENIZER_FILE, TOKENIZER_BYTES = "tokenizer.json", 40 << 20
NOT_PUBLISHED = (SUMS_FILE, ".gitattributes")
SHA256 = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True)
class FileCheck:
    """What `verify` found in one file; `problems` holds one sentence per problem."""

    file: str
    bytes: int
    sha256: str | None
    problems: tuple[str, ...]


def verify(folder: Path, on_progress: Progress | None = None) -> list[FileCheck]:
    """Reads every byte of the model and returns size, SHA-256 and problems of each file.

    Checksums are compared with the folder's `SHA256SUMS`, and with the name of the file that a hub cache links to.
    on_progress receives bytes done and bytes in total. Raises ModelError only if there is no such folder.
    """
    if not folder.is_dir():
        raise ModelError(f"There is no model folder {folder}; name a folder that exists, or {FETCH_AGAIN}.")
    try:
        problems = _find_problems(folder)
    except OSError as reason:
        raise unreadable(folder, reason) from reason
    sums: dict[str, str] = {}
    with _collecting(problems, SUMS_FILE):
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
        if digest and {sums.get(file.name), _hub_cache_sum(file)} - {None, digest}:
            found.append(f"{file} differs from the published file, its SHA-256 is {digest}; {FETCH_AGAIN}.")
        checks.append(FileCheck(file.name, size, digest, tuple(found)))
    return checks


@contextmanager
def _collecting(problems: dict[str, list[str]], name: str) -> Iterator[None]:
    """Adds a ModelError of its block to the problems of `name`."""
    try:
        yield
    except ModelError as error:
        problems.setdefault(name, []).append(str(error))


def _find_problems(folder: Path) -> dict[str, list[str]]:
    """By name, each file of the folder with what the loader would refuse in it."""
    problems: dict[str, list[str]] = {CONFIG_FILE: []}
    problems |= {file.name: [] for file in folder.iterdir() if file.is_file() and file.name not in NOT_PUBLISHED}
    if TOKENIZER_FILE in problems:
        with _collecting(problems, TOKENIZER_FILE):
            _check_json(folder / TOKENIZER_FILE)
    config = stored = None
    masked, causal = is_masked(folder), False
    with _collecting(problems, CONFIG_FILE):
        causal = not masked and read_json(folder / CONFIG_FILE).get("model_type") == ARCHITECTURE
        if not masked and not causal:
            config = read_config(folder)
    with _collecting(problems, GENERATION_FILE):
        if not causal:
            read_masked_sampling(folder) if masked else read_sampling(folder)
    with _collecting(problems, INDEX_FILE):
        for shard in find_shards(folder)[0]:
            problems[shard.name] = []
            with _collecting(problems, shard.name):
                read_header(shard)
        if not any(problems.values()):
            stored = stored_tensors(folder)
    if config is not None and stored is not None:
        with _collecting(problems, CONFIG_FILE):
            check_layers(folder, config, stored)
            model = empty_model(folder, config, torch.float32)
            find = published_mismatches if quantization_method(folder) in PUBLISHED_METHODS else mismatches
            for name, sentence in find(folder, model, stored):
                problems[name].append(sentence)
    if (masked or causal) and stored is not None:
        with _collecting(problems, CONFIG_FILE):
            open_masked(folder) if masked else open_weights(folder)
    return problems


def _check_json(file: Path) -> None:
    try:
        read_json_object(file, TOKENIZER_BYTES)
    except OSError as reason:
        raise unreadable(file, reason) from reason
    except ValueError as reason:
        raise broken(f"{file} is not a JSON object ({reason})") from reason


def _read_sums(file: Path) -> dict[str, str]:
    """Maps file names to SHA-256 as `sha256sum` writes them; empty if there is no such file."""
    sums = {}
    for line in read_small_file(file, SUMS_BYTES).decode("utf-8", "replace").splitlines() if file.is_file() else []:
        digest, _, name = line.partition(" ")
        name = name.strip().removeprefix("*").removeprefix("./")
        if not SHA256.fullmatch(digest) or not name or Path(name).name != name:
            raise broken(f"{file} has a line that is not a checksum ({line!r})")
        sums[name] = digest.lower()
    return sums


def _hub_cache_sum(file: Path) -> str | None:
    """The SHA-256 that a hub cache uses as the file's name; None outside of a hub cache."""
    target = file.resolve()
    return target.name if target.parent.name == "blobs" and SHA256.fullmatch(target.name) else None


def _sha256(file: Path, done: int, total: int, on_progress: Progress | None) -> str:
    digest = hashlib.sha256()
    with open_regular(file) as stream:
        while block := stream.read(READ_BYTES):
            digest.update(block)
            done += len(block)
            if on_progress is not None:
                on_progress(done, total)
    return digest.hexdigest()
