"""Which backends answer a task, and the servers behind them: two tables of the user's own settings file.

Projects' files may not hold them, since they name addresses to which code is sent. Must not know how to ask a server.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from engine.errors import InputError
from infill.settings import SERVER_TABLES, read_toml
from infill.validation import Limits, field_types, structure

RoutedTask = Literal["inline", "block", "edit", "lint", "batch"]
HERE = "here"  # the model of the service itself
MAX_CANVAS = 256  # columns; the lines around a hole take some 140 of them
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


@dataclass(frozen=True)
class BackendSettings:
    """One server. url: the prefix of its paths, with /v1 for an OpenAI-compatible one. token_file: its first line is
    sent as a bearer token. ca_file: certificate authorities instead of the system's. plain: allow http over the
    network. timeout_ms: for an answer.

    For `openai` and `vllm`, model: its name on the server. For `openai`, prompt: a template with {prefix} and {suffix};
    logprobs: whether the server can return them. For `vllm`, tokenizer: folder or name of the model with the
    tokenizer; canvas: the width that the server was started with; steps: the most denoising steps.
    """

    kind: Literal["gesso", "vllm", "openai"]
    url: str
    token_file: str | None = None
    ca_file: str | None = None
    plain: bool = False
    timeout_ms: Annotated[float, Limits(1, 120_000)] = 10_000.0
    model: str | None = None
    prompt: str | None = None
    logprobs: bool = True
    tokenizer: str | None = None
    canvas: Annotated[int, Limits(192, MAX_CANVAS)] = MAX_CANVAS
    steps: Annotated[int, Limits(1, 1000)] = 48


@dataclass(frozen=True)
class Routes:
    """For each task, the names of its backends in the order in which to ask them; tasks without one are done here."""

    order: Mapping[RoutedTask, tuple[str, ...]]
    backends: Mapping[str, BackendSettings]

    def of(self, task: RoutedTask) -> tuple[str, ...]:
        return self.order.get(task, (HERE,))


NONE = Routes({}, {})


def read_routes(file: Path) -> Routes:
    """The routes in `file`, or `NONE` without the file; raises InputError that names what is wrong."""
    if not file.is_file():
        return NONE
    content = read_toml(file)
    routes, servers = (_table(file, name, content.get(name, {})) for name in SERVER_TABLES)
    backends = {name: _backend(file, name, table) for name, table in servers.items()}
    return Routes({_task(file, name): _route(file, name, value, backends) for name, value in routes.items()}, backends)


def _table(file: Path, name: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{file}: {name} must be a table; write [{name}].")
    return value


def _task(file: Path, name: str) -> RoutedTask:
    if name not in get_args(RoutedTask):
        raise InputError(f"{file}: there is no task {name!r} in routes; choose from {', '.join(get_args(RoutedTask))}.")
    return name  # type: ignore[return-value]


def _route(file: Path, task: str, value: Any, backends: Mapping[str, BackendSettings]) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else value
    known = (HERE, *backends)
    if not isinstance(names, list) or not names or any(name not in known for name in names):
        raise InputError(f"{file}: routes.{task} is {value!r}; name one or more of {', '.join(known)}.")
    return tuple(dict.fromkeys(names))


def _backend(file: Path, name: str, value: Any) -> BackendSettings:
    place = f"{file}: backends.{name}"
    if name == HERE or _NAME.fullmatch(name) is None:
        raise InputError(f"{place}: use lower-case letters and digits for the name, and not {HERE}.")
    table, known = _table(file, f"backends.{name}", value), field_types(BackendSettings)
    for entry in table:
        if entry not in known:
            raise InputError(f"{place}: there is no setting {entry!r}; choose from {', '.join(known)}.")
    settings: BackendSettings = structure(BackendSettings, table, place)
    if settings.kind != "gesso" and not settings.model:
        raise InputError(f"{place} needs a model; write its name on the server.")
    if settings.kind == "vllm" and not settings.tokenizer:
        raise InputError(f"{place} needs a tokenizer; name a folder or model that has it, for instance 26b.")
    if settings.prompt is not None and any(part not in settings.prompt for part in ("{prefix}", "{suffix}")):
        raise InputError(f"{place}.prompt must contain {{prefix}} and {{suffix}}; the model's card names its tokens.")
    return settings
