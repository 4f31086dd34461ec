"""From the settings of a backend to the backend. Must not know when it is used."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from engine.errors import InputError
from infill.backends.autoregressive import AutoregressiveBackend, CompletionOptions
from infill.backends.backend import Backend
from infill.backends.gesso import GessoBackend
from infill.backends.remote import Address, Remote
from infill.backends.router import Member
from infill.backends.routes import BackendSettings, Routes
from infill.backends.vllm import ServedModel, VllmBackend
from infill.model_store import resolve
from infill.prompts.prompt import Family


def members(routes: Routes) -> dict[str, Member]:
    """All configured backends by name; raises InputError for invalid settings."""
    return {
        name: Member(_backend(name, settings), settings.timeout_ms / 1000) for name, settings in routes.backends.items()
    }


def _backend(name: str, settings: BackendSettings) -> Backend:
    setting = f"The url of the backend {name}"
    address = Address(settings.url, _token(name, settings.token_file), _file(name, settings.ca_file))
    address.check(setting, settings.plain)
    try:
        remote = Remote(name, address)
    except OSError as reason:  # also from ssl
        raise InputError(f"The ca_file of the backend {name} holds no certificates; check the path.") from reason
    model = settings.model or ""
    if settings.kind == "gesso":
        return GessoBackend(name, remote)
    if settings.kind == "vllm":
        load = partial(_family, settings.tokenizer or "")
        return VllmBackend(name, remote, load, ServedModel(model, settings.canvas, settings.steps))
    return AutoregressiveBackend(name, remote, CompletionOptions(model, settings.prompt, settings.logprobs))


def _family(tokenizer: str) -> Family:
    from infill.prompts.families import load_family

    return load_family("chat", resolve(os.path.expanduser(tokenizer)))


def _file(name: str, path: str | None) -> Path | None:
    if path is None:
        return None
    file = Path(os.path.expanduser(path))
    if not file.is_file():
        raise InputError(f"The backend {name} names the file {file}, which does not exist; correct the path.")
    return file


def _token(name: str, path: str | None) -> str | None:
    file = _file(name, path)
    if file is None:
        return None
    try:
        lines = file.read_text("ascii").split()
    except (OSError, UnicodeDecodeError) as reason:
        raise InputError(f"The token file {file} cannot be read as plain text; check the path.") from reason
    if len(lines) != 1:
        raise InputError(f"The token file {file} must hold one token and nothing else; correct it.")
    return lines[0]
