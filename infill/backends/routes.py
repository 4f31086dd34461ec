"""Which task is answered where, and the servers that are named for it: two tables of the user's own settings file.

A project's file may not hold them, since they name addresses to which code is sent. Must not know how a server is
asked.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from engine.errors import InputError

Task = Literal["inline", "block", "edit", "lint", "batch"]
Kind = Literal["gesso", "vllm", "openai"]
HERE = "here"  # the model of the service itself
TABLES = ("routes", "backends")
LEAST_CANVAS, WIDEST_CANVAS = 192, 256  # columns; the lines around a hole take some 140 of them
LONGEST_TIMEOUT_S = 120.0
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


@dataclass(frozen=True)
class BackendSettings:
    """One server. url: with what its paths begin with, /v1 where it speaks as OpenAI does. token_file: its first line
    is sent as a bearer's token. ca_file: authorities to trust in place of the system's. plain: whether http may leave
    this machine. timeout_ms: for an answer.

    Of `openai` and `vllm`: model, the name there. Of `openai`: prompt, a template with {prefix} and {suffix};
    logprobs, whether it can tell them. Of `vllm`: tokenizer, folder or name of the model with the tokenizer; canvas,
    the served width; steps.
    """

    kind: Kind
    url: str
    token_file: str | None = None
    ca_file: str | None = None
    plain: bool = False
    timeout_ms: float = 10_000.0
    model: str | None = None
    prompt: str | None = None
    logprobs: bool = True
    tokenizer: str | None = None
    canvas: int = WIDEST_CANVAS
    steps: int = 48


@dataclass(frozen=True)
class Routes:
    """For each task the names of the backends in the order in which they are asked; those not named are done here."""

    order: Mapping[Task, tuple[str, ...]]
    backends: Mapping[str, BackendSettings]

    def of(self, task: Task) -> tuple[str, ...]:
        return self.order.get(task, (HERE,))


NONE = Routes({}, {})


def read_routes(file: Path) -> Routes:
    """Those in `file`, none where it is not there; raises InputError that names what is wrong."""
    if not file.is_file():
        return NONE
    try:
        content = tomllib.loads(file.read_text("utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as wrong:
        raise InputError(f"{file} cannot be read ({wrong}); correct it or remove it.") from wrong
    tables = {name: content.get(name, {}) for name in TABLES}
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise InputError(f"{file}: {name} must be a table; write [{name}].")
    backends = {name: _backend(file, name, table) for name, table in tables["backends"].items()}
    order = {_task(file, name): _route(file, name, value, backends) for name, value in tables["routes"].items()}
    return Routes(order, backends)


def _task(file: Path, name: str) -> Task:
    if name not in get_args(Task):
        raise InputError(f"{file}: there is no task {name!r} in routes; known are {', '.join(get_args(Task))}.")
    return name  # type: ignore[return-value]


def _route(file: Path, task: str, value: Any, backends: Mapping[str, BackendSettings]) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else value
    known = (HERE, *backends)
    if not isinstance(names, list) or not names or any(name not in known for name in names):
        raise InputError(f"{file}: routes.{task} is {value!r}; name one or several of {', '.join(known)}.")
    return tuple(dict.fromkeys(names))


def _backend(file: Path, name: str, table: Any) -> BackendSettings:
    place = f"{file}: backends.{name}"
    if name == HERE or _NAME.fullmatch(name) is None:
        raise InputError(f"{place}: a backend's name is of small letters and digits, and not {HERE}; choose another.")
    if not isinstance(table, dict):
        raise InputError(f"{place} must be a table; write [backends.{name}].")
    known = {entry.name: entry.type for entry in fields(BackendSettings)}
    for entry, value in table.items():
        if entry not in known:
            raise InputError(f"{place}: there is no setting {entry!r}; known are {', '.join(known)}.")
        kinds = {"bool": bool, "int": int, "float": (int, float)}
        fits = isinstance(value, kinds.get(str(known[entry]), str))  # type: ignore[arg-type]
        if not fits or (isinstance(value, bool) and known[entry] != "bool"):
            raise InputError(f"{place}.{entry} is {value!r}; see docs/service.md for what it must be.")
    if table.get("kind") not in get_args(Kind) or "url" not in table:
        raise InputError(f"{place} needs a url, and a kind that is one of {', '.join(get_args(Kind))}.")
    settings = BackendSettings(**table)
    _check(place, settings)
    return settings


def _check(place: str, settings: BackendSettings) -> None:
    if settings.kind != "gesso" and not settings.model:
        raise InputError(f"{place} needs a model; write the name that it has at the server.")
    if settings.kind == "vllm" and not settings.tokenizer:
        raise InputError(f"{place} needs a tokenizer; name the folder or the model that has it, for instance 26b.")
    if settings.prompt is not None and any(part not in settings.prompt for part in ("{prefix}", "{suffix}")):
        raise InputError(f"{place}.prompt must hold {{prefix}} and {{suffix}}; see the model's card for its marks.")
    limits = (
        ("timeout_ms", settings.timeout_ms, 1, 1000 * LONGEST_TIMEOUT_S),
        ("canvas", settings.canvas, LEAST_CANVAS, WIDEST_CANVAS),
        ("steps", settings.steps, 1, 1000),
    )
    for name, value, least, most in limits:
        if not least <= value <= most:
            raise InputError(f"{place}.{name} is {value:g}; it must be from {least:g} to {most:g}.")
