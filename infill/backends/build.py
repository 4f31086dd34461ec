"""From the settings of a backend to the backend. Must not know when it is asked."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from engine.errors import InputError
from infill.backends.autoregressive import Asking, AutoregressiveBackend
from infill.backends.backend import Backend
from infill.backends.gesso import GessoBackend
from infill.backends.remote import Address, Remote
from infill.backends.router import Member
from infill.backends.vllm import Served, VllmBackend
from infill.model_store import resolve
from infill.prompts.prompt import Family
from infill.routes import BackendSettings, Routes


def members(routes: Routes) -> dict[str, Member]:
    """All backends that are named; raises InputError where one cannot be as it is set."""
    return {
        name: Member(_backend(name, settings), settings.timeout_ms / 1000) for name, settings in routes.backends.items()
    }


def _backend(name: str, settings: BackendSettings) -> Backend:
    place = f"The url of the backend {name}"
    address = Address(settings.url, _token(name, settings.token_file), _file(name, settings.ca_file))
    address.check(place, settings.plain)
    try:
        remote = Remote(name, address)
    except OSError as reason:  # of ssl, too
        raise InputError(f"The ca_file of the backend {name} holds no certificates; check the path.") from reason
    model = settings.model or ""
    if settings.kind == "gesso":
        return GessoBackend(name, remote)
    if settings.kind == "vllm":
        load = partial(_family, settings.tokenizer or "")
        return VllmBackend(name, remote, load, Served(model, settings.canvas, settings.steps))
    return AutoregressiveBackend(name, remote, Asking(model, settings.prompt, settings.logprobs))


def _family(tokenizer: str) -> Family:
    from infill.prompts.families import load_family

    return load_family("chat", resolve(str(Path(tokenizer).expanduser()) if tokenizer.startswith("~") else tokenizer))


def _file(name: str, written: str | None) -> Path | None:
    if written is None:
        return None
    file = Path(written).expanduser()
    if not file.is_file():
        raise InputError(f"The backend {name} names the file {file}, which is not there; correct the path.")
    return file


def _token(name: str, written: str | None) -> str | None:
    file = _file(name, written)
    if file is None:
        return None
    try:
        lines = file.read_text("ascii").split()
    except (OSError, UnicodeDecodeError) as reason:
        raise InputError(f"The token file {file} cannot be read as plain text; check the path.") from reason
    if len(lines) != 1:
        raise InputError(f"The token file {file} must hold one token and nothing else; correct it.")
    return lines[0]
