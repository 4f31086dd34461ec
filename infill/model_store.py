"""From the name of a model to its place: the shipped model, a known file, the user's own, or the cache of the hub.

Only `pull` downloads. Must not know the contents of the weights.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import ModelError, UsageError
from engine.files import read_json_object
from infill.downloads import KNOWN, Progress, fetch, fetched
from infill.speeds import measured_token_s

AUTO, POCKET = "auto", "pocket"
POCKET_FOLDER = Path(__file__).parent / "models" / POCKET
ALIASES = {"26b": "google/diffusiongemma-26B-A4B-it"}
MODEL_TYPES = ("diffusion_gemma", "Dream")
GGUF = ".gguf"
LARGE_GPU_BYTES = 40 << 30  # for the 26B as it is published; smaller builds are chosen by name
LINE_S, LINE_TOKENS = 1.0, 10  # a line of so many tokens should come within so many seconds
SMI_S = 5.0
FILES = ["*.json", "*.safetensors", "*.jinja", "merges.txt", "SHA256SUMS", "LICENSE*", "README.md"]
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


@dataclass(frozen=True)
class StoredModel:
    """A model on this machine. bytes: of all its files. source: `shipped`, `downloaded` or `hub cache`."""

    name: str
    folder: Path
    bytes: int
    source: str


@dataclass(frozen=True)
class HubModel:
    """A masked diffusion model on the hub, whose revision Gesso does not pin. bytes: in bfloat16."""

    repository: str
    bytes: int
    license: str
    about: str


MASKED_MODELS = (
    HubModel("Dream-org/DreamOn-v0-7B", 15_231_233_024, "Apache-2.0", "infilling, finds the length of a hole"),
    HubModel("Dream-org/Dream-Coder-v0-Base-7B", 15_231_233_024, "Apache-2.0", "code, lengths are probed"),
    HubModel("fredzzp/open-dcoder-0.5B", 1_260_334_848, "Apache-2.0", "small, lengths are probed"),
)


def best_model() -> str:
    """The model that `auto` selects: the best one that is on this machine and that it runs fast enough.

    The 26B on an NVIDIA GPU that holds it, else the larger code model if it was measured to be fast enough, else the
    smaller one, else the pocket model.
    """
    if _hub_has(ALIASES["26b"]) and _gpu_bytes() >= LARGE_GPU_BYTES:
        return "26b"
    return best_code_model() or POCKET


def best_code_model() -> str | None:
    """The largest code model on this machine that is fast enough, else the smallest; None if there is none."""
    present = [model for model in KNOWN.values() if fetched(model) is not None]
    fast = [model for model in present if (measured_token_s(model.name) or 0.0) <= LINE_S / LINE_TOKENS]
    return max(fast or present[:1], key=lambda model: model.bytes).name if present else None


def concrete(name: str) -> str:
    """The name itself, or for `auto` that of the best model."""
    return best_model() if name == AUTO else name


def absolute(name: str, folder: Path, bare: bool = True) -> str:
    """The name with which every process finds the model, in whatever folder it runs: the path of a model in `folder`
    becomes absolute.

    bare: whether a name without "./" may be such a path. If the user did not choose it for this folder, a stranger's
    project could have a folder of that name.
    """
    if name in (AUTO, POCKET, *KNOWN, *ALIASES):
        return name
    path = folder / os.path.expanduser(name)
    is_path = name in (".", "..") or name.startswith(("./", "../", "~"))
    return os.path.abspath(path) if is_path or ((bare or os.path.isabs(name)) and _is_model(path)) else name


def _hub_has(repository: str) -> bool:
    """Whether the cache of the hub has a copy, without importing its library."""
    home = Path(os.environ.get("HF_HOME") or os.path.expanduser("~/.cache/huggingface"))
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    return os.path.isdir(cache / f"models--{repository.replace('/', '--')}" / "snapshots")


def _gpu_bytes() -> int:
    """The memory of the largest NVIDIA GPU, by its driver's own tool; 0 without one."""
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=SMI_S)
        return max((int(line) << 20 for line in run.stdout.split()), default=0)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return 0


def resolve(name: str) -> Path:
    """The folder or file of a model on this machine; raises ModelError, saying what to do, if it is not there."""
    name = concrete(name)
    found = _local(name)
    if found is not None:
        return found
    if name in KNOWN:
        raise ModelError(f"The model {name} is not on this machine; fetch it with `gesso model pull {name}`.")
    return _from_hub(hub_id(name), name, fetch=False)


def pull(name: str, offline: bool = False, on_progress: Progress = lambda done, total: None) -> Path:
    """Downloads a model; returns its folder or file. Those without a short name have the hub's own progress bars.

    Files that are there are not downloaded again, and an interrupted download resumes.
    """
    found = _local(name)
    if found is not None:
        return found
    repository = KNOWN[name].repository if name in KNOWN else hub_id(name)
    if offline or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        raise ModelError(f"Downloading {repository} is refused while `offline` is set; unset it to allow downloads.")
    return fetch(KNOWN[name], on_progress) if name in KNOWN else _from_hub(repository, name, fetch=True)


def hub_id(name: str) -> str:
    """`owner/name`; raises ModelError for a path that does not exist, UsageError for an invalid name."""
    repository = ALIASES.get(name, name)
    if name.startswith(("/", ".", "~")):
        raise ModelError(f"There is no model folder {name}; check the path, or use {POCKET}.")
    if not HUB_ID.fullmatch(repository) or ".." in repository:
        known = ", ".join((POCKET, *KNOWN, *ALIASES))
        raise UsageError(
            f"There is no model {name!r}; use {known}, a hub ID such as {ALIASES['26b']}, a folder or a GGUF file."
        )
    return repository


def stored_models() -> list[StoredModel]:
    """The shipped model, then those in the cache of the hub that are of MODEL_TYPES or among MASKED_MODELS."""
    found = [StoredModel(POCKET, POCKET_FOLDER, _folder_bytes(POCKET_FOLDER), "shipped")]
    found += [
        StoredModel(model.name, file, model.bytes, "downloaded")
        for model in KNOWN.values()
        if (file := fetched(model)) is not None
    ]
    hub = _hub()
    try:
        repositories = hub.scan_cache_dir().repos
    except hub.CacheNotFound:
        repositories = frozenset()
    for repository in sorted(repositories, key=lambda one: one.repo_id):
        revisions = sorted(repository.revisions, key=lambda one: one.last_modified, reverse=True)
        for revision in revisions[:1]:
            known = repository.repo_id in [model.repository for model in MASKED_MODELS]
            if repository.repo_type == "model" and (known or _model_type(revision.snapshot_path) in MODEL_TYPES):
                folder = Path(revision.snapshot_path)
                found.append(StoredModel(repository.repo_id, folder, revision.size_on_disk, "hub cache"))
    return found


def _local(name: str) -> Path | None:
    if name == POCKET:
        return POCKET_FOLDER
    if name in ALIASES:
        return None
    if name in KNOWN:
        return fetched(KNOWN[name])
    path = Path(os.path.expanduser(name))
    is_bare = not path.is_absolute() and HUB_ID.fullmatch(name) and not name.startswith(("./", "../"))
    return path if not is_bare and _is_model(path) else None


def _is_model(path: Path) -> bool:
    """Whether the path may be that of a model: a folder or a GGUF file."""
    return os.path.isdir(path) or (path.suffix == GGUF and os.path.isfile(path))


def _from_hub(repository: str, name: str, fetch: bool) -> Path:
    hub = _hub()
    try:
        return Path(hub.snapshot_download(repository, allow_patterns=FILES, local_files_only=not fetch))
    except (hub.errors.GatedRepoError, hub.errors.RepositoryNotFoundError) as refused:
        raise ModelError(
            f"The hub refuses access to {repository}; check the name, and if the model has terms, accept them on its "
            "page and run `hf auth login`."
        ) from refused
    except Exception as error:  # network and cache raise many classes
        if not fetch:
            raise ModelError(
                f"The model {name} is not on this machine; fetch it with `gesso model pull {name}`."
            ) from error
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise ModelError(
            f"{repository} could not be downloaded ({reason}); check the network and the free disk space, and run "
            f"`gesso model pull {name}` again, which resumes the download."
        ) from error


def _hub() -> Any:
    """huggingface_hub, with telemetry disabled."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import huggingface_hub
    import huggingface_hub.errors

    return huggingface_hub


def _model_type(folder: Path) -> str | None:
    try:
        return read_json_object(folder / "config.json").get("model_type")
    except (OSError, ValueError):
        return None


def _folder_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
