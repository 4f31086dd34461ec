"""From the name of a model to its folder: the shipped model, a folder of the user, or the cache of the hub.

Only `pull` downloads. Must not know the contents of the weights.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import ModelError, UsageError

POCKET = "pocket"
POCKET_FOLDER = Path(__file__).parent / "models" / POCKET
ALIASES = {"26b": "google/diffusiongemma-26B-A4B-it"}
MODEL_TYPE = "diffusion_gemma"
FILES = ["*.json", "*.safetensors", "*.jinja", "SHA256SUMS", "LICENSE*", "README.md"]
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


@dataclass(frozen=True)
class StoredModel:
    """A model on this machine. bytes: of all its files. source: `shipped` or `hub cache`."""

    name: str
    folder: Path
    bytes: int
    source: str


def resolve(name: str) -> Path:
    """The folder of a model on this machine; raises ModelError, saying what to do, if it is not there."""
    found = _local_folder(name)
    if found is not None:
        return found
    return _from_hub(hub_id(name), name, fetch=False)


def pull(name: str, offline: bool = False) -> Path:
    """Downloads a model to the cache of the hub, with the hub's progress bars; returns its folder.

    Files that are there are not downloaded again, and an interrupted download resumes.
    """
    found = _local_folder(name)
    if found is not None:
        return found
    repository = hub_id(name)
    if offline or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        raise ModelError(f"Downloading {repository} is refused while `offline` is set; unset it to allow downloads.")
    return _from_hub(repository, name, fetch=True)


def hub_id(name: str) -> str:
    """`owner/name`; raises ModelError for a path that does not exist, UsageError for an invalid name."""
    repository = ALIASES.get(name, name)
    if name.startswith(("/", ".", "~")):
        raise ModelError(f"There is no model folder {name}; check the path, or use {POCKET}.")
    if not HUB_ID.fullmatch(repository) or ".." in repository:
        known = ", ".join((POCKET, *ALIASES))
        raise UsageError(
            f"There is no model {name!r}; use {known}, a hub ID such as {ALIASES['26b']}, or a model's folder."
        )
    return repository


def stored_models() -> list[StoredModel]:
    """The shipped model, then the models of MODEL_TYPE in the cache of the hub."""
    found = [StoredModel(POCKET, POCKET_FOLDER, _folder_bytes(POCKET_FOLDER), "shipped")]
    hub = _hub()
    try:
        repositories = hub.scan_cache_dir().repos
    except hub.CacheNotFound:
        repositories = frozenset()
    for repository in sorted(repositories, key=lambda one: one.repo_id):
        revisions = sorted(repository.revisions, key=lambda one: one.last_modified, reverse=True)
        for revision in revisions[:1]:
            if repository.repo_type == "model" and _model_type(revision.snapshot_path) == MODEL_TYPE:
                folder = Path(revision.snapshot_path)
                found.append(StoredModel(repository.repo_id, folder, revision.size_on_disk, "hub cache"))
    return found


def _local_folder(name: str) -> Path | None:
    if name == POCKET:
        return POCKET_FOLDER
    if name in ALIASES:
        return None
    folder = Path(name).expanduser()
    return folder if folder.is_dir() else None


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
        content = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return None
    return content.get("model_type") if isinstance(content, dict) else None


def _folder_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
