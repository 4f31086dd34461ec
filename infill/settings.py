"""Settings, and where each one came from: defaults < the user's file < the project's file < environment < flags.

The dataclass `Settings` is the table of settings; a new setting is a new field. A project may be a stranger's, so its
file sets what needs trust only in a folder that the user trusts. Must not know what a setting does, and holds no
network address: `infill.backends.routes` reads the servers that a user names.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
import tomllib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from engine.errors import InputError, UsageError
from engine.files import read_small_file
from infill.model_store import AUTO, absolute, best_code_model, concrete
from infill.request import Lines
from infill.trust import FILE_NAME, TrustList
from infill.user_folders import config_folder
from infill.validation import Limits, NonEmpty, field_types, structure, unpack

PROJECT_FILE, PYTHON_PROJECT_FILE = "gesso.toml", "pyproject.toml"
SERVER_TABLES = ("routes", "backends")  # of `infill.backends.routes`, in the user's file only
ENVIRONMENT_PREFIX = "GESSO_"
MODELS = ("model", "fallback_model", "retry_model")  # settings that name a model
TRUSTED = (*MODELS, "device", "dtype", "keys", "threads", "offline")  # what is loaded or downloaded, and how
FILE_BYTES = 256 << 10  # of a settings file
LONG_KEY = re.compile(  # tomllib takes quadratic time for the parts of a key
    r"""(?<![\w-])(?:(?:[\w-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){100}"""
)
RENAMED = {"meanwhile": "fallback_model"}  # old name: new name
BOOLEANS = dict.fromkeys(("true", "yes", "on", "1"), True) | dict.fromkeys(("false", "no", "off", "0"), False)


def setting(default: Any, help: str) -> Any:
    """A field of a dataclass of settings."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class Settings:
    """Everything that can be set. None, an empty string in files and variables, lets the model or machine decide."""

    model: NonEmpty = setting(AUTO, "auto (the best one here), or a name, hub ID, folder or file")
    fallback_model: NonEmpty | None = setting(
        "pocket", "smaller model with which the service answers while the model loads or lacks memory"
    )
    retry_model: NonEmpty | None = setting(
        None, "model that fills a hole again if the checks refuse the text of `model`; auto: the best code model here"
    )
    device: NonEmpty = setting("auto", "auto, cpu, cuda, cuda:N or mps")
    dtype: Literal["auto", "float32", "bfloat16"] = setting("auto", "number type of the weights")
    keys: Literal["auto", "fp8"] = setting("auto", "number type of keys and values; fp8 halves their memory")
    self_conditioning: Literal["all", "likeliest"] = setting(
        "all", "tokens that a denoising step passes to the next: all, or the 32 likeliest, faster on a GPU"
    )
    exact: bool = setting(False, "compute everything again at every denoising step, instead of keeping keys and values")
    threads: Annotated[int, Limits(1, 1024)] = setting(8, "maximum number of CPU threads")
    steps: Annotated[int, Limits(1, 1000)] | None = setting(None, "maximum number of denoising steps")
    seed: Annotated[int, Limits(0, 2**63 - 1)] = setting(0, "seed of the noise")
    deadline_ms: Annotated[float, Limits(least=1)] | None = setting(
        None, "after this many ms, return the best result so far"
    )
    lines: Lines = setting("auto", "how much to write")
    candidates: Annotated[int, Limits(1, 32)] = setting(1, "suggestions to make for a hole")
    min_confidence: Annotated[float, Limits(0, 1)] | None = setting(None, "show nothing below this confidence")
    copy_drafts: bool = setting(True, "also offer similar lines of the context")
    causal_draft: bool = setting(True, "also offer what the causal encoder writes")
    batch_size: Annotated[int, Limits(1, 1024)] = setting(8, "rows that `gesso batch` fills together")
    offline: bool = setting(False, "refuse every download, even one you ask for")


@dataclass(frozen=True)
class Resolved:
    """The settings and the origin of each by name.

    notices: sentences about old names and settings without effect. unknown_variables: names of variables that look
    like settings. auto_model: whether the setting `model` was `auto`, which `settings` has replaced by a name.
    """

    settings: Settings
    origins: Mapping[str, str]
    notices: tuple[str, ...] = ()
    unknown_variables: tuple[str, ...] = ()
    auto_model: bool = False


_last_valid: dict[Path, Mapping[str, Any] | None] = {}  # [tool.gesso] of each pyproject.toml
HELP: dict[str, str] = {entry.name: entry.metadata["help"] for entry in fields(Settings)}


def user_file() -> Path:
    """The user's own settings file, whether or not it exists."""
    return config_folder() / "config.toml"


def trust_list() -> TrustList:
    """The folders whose project files may set everything."""
    return TrustList(user_file().with_name(FILE_NAME))


def resolve(
    flags: Mapping[str, Any],
    start: Path,
    environment: Mapping[str, str],
    is_trusted: bool = False,
    bare_paths: bool = True,
) -> Resolved:
    """The settings for work in the folder `start`; a flag that is None was not given.

    is_trusted: the user trusts the project, even if its folder is not in the trust list. bare_paths: of flags, as
    `bare` of `absolute`.
    Raises InputError for a file and UsageError for a variable or flag, naming it and what it must be.
    """
    values: dict[str, Any] = {}
    origins, notices = dict.fromkeys(HELP, "default"), list[str]()
    for file, table in _files(start, notices):
        table, renamed = current_names(table, RENAMED)
        notices += [f"{file}: {notice}" for notice in renamed]
        checked = {name: _from_file(file, name, value) for name, value in table.items()}
        needing_trust = [name for name in TRUSTED if name in checked]
        if needing_trust and file != user_file() and not is_trusted and not trust_list().includes(file.parent):
            notices.append(
                f"Ignoring {', '.join(needing_trust)} in {file}, because the folder is not trusted; to use them, run "
                f"`gesso trust {shlex.quote(str(file.parent))}`."
            )
            checked = {name: value for name, value in checked.items() if name not in needing_trust}
        values |= checked
        origins |= dict.fromkeys(checked, str(file))
    variables, renamed = current_names(_variables(environment), RENAMED, _variable)
    notices += renamed
    unknown = sorted(_variable(name) for name, written in variables.items() if written and name not in HELP)
    for name, written in variables.items():
        if name in HELP and (written or _is_optional(name)):
            variable = _variable(name)
            values[name] = _checked_here(name, _parsed(name, written), variable, True)
            origins[name] = f"variable {variable}"
    given, renamed = current_names({name: flags[name] for name in flags if flags[name] is not None}, RENAMED, _flag)
    for name, value in given.items():
        values[name] = _checked_here(name, value, _flag(name), bare_paths)
        origins[name] = f"flag {_flag(name)}"
    settings = Settings(**values)
    auto_model = settings.model == AUTO
    if auto_model:
        settings = replace(settings, model=concrete(AUTO))
        origins["model"] = f"{AUTO}, {origins['model']}"
    if settings.retry_model == AUTO:
        found = best_code_model()
        settings = replace(settings, retry_model=None if found == settings.model else found)
        origins["retry_model"] = f"{AUTO}, {origins['retry_model']}"
    notices += renamed
    if settings.retry_model == settings.model:
        notices.append(f"Nothing is retried: retry_model and model are both {settings.model}; choose two models.")
    return Resolved(settings, origins, tuple(notices), tuple(unknown), auto_model)


def current_names(
    given: Mapping[str, Any], renamed: Mapping[str, str], written: Callable[[str], str] = str
) -> tuple[dict[str, Any], list[str]]:
    """`given` with the new names of settings, and a notice for each old one; `written` is how users write a name."""
    current, notices = {name: value for name, value in given.items() if name not in renamed}, []
    for old, new in renamed.items():
        if old in given:
            current.setdefault(new, given[old])
            notices.append(f"The setting {written(old)} is now called {written(new)}; the old name still works.")
    return current, notices


def _project_table(start: Path, notices: list[str]) -> tuple[Path, Mapping[str, Any]] | None:
    """The nearest gesso.toml, or pyproject.toml with a [tool.gesso] table, in `start` or above it, with its table.

    While a pyproject.toml is not valid TOML, as when it is edited, its last valid table counts, and `notices` gets a
    sentence.
    """
    for folder in (start, *start.parents):
        if _may_be_strangers(folder):
            continue
        file = folder / PROJECT_FILE
        if os.path.isfile(file):
            return file, read_toml(file)
        file = folder / PYTHON_PROJECT_FILE
        if not _mentions_gesso(file):
            continue
        try:
            content = read_toml(file)
        except InputError as wrong:
            table = _last_valid.get(file)
            used = "no settings" if table is None else "the last valid settings"
            notices.append(f"Using {used} of the project: {wrong}")
        else:
            table = _last_valid[file] = _tool_table(file, content)
        if table is not None:
            return file, table
    return None


def _may_be_strangers(folder: Path) -> bool:
    """Whether every user of this machine can put files there, as in the folder for temporary files."""
    try:
        status = os.stat(folder)
    except OSError:
        return False
    is_shared = status.st_uid != os.getuid() or bool(status.st_mode & stat.S_ISVTX)
    return bool(status.st_mode & stat.S_IWOTH) and is_shared


def _is_file(file: Path) -> bool:
    """Raises InputError if that cannot be found out."""
    try:
        return file.is_file()
    except OSError as reason:
        raise InputError(
            f"{file} cannot be read ({reason.strerror}); correct the permissions of its folder, or set XDG_CONFIG_HOME "
            "to another one."
        ) from reason


def read_toml(file: Path) -> Mapping[str, Any]:
    """Raises InputError if the file cannot be read or is not TOML."""
    try:
        text = read_small_file(file, FILE_BYTES).decode("utf-8-sig")
        if LONG_KEY.search(text):
            raise ValueError("a key has too many parts")
        return tomllib.loads(text)
    except OSError as reason:
        raise InputError(f"{file} cannot be read ({reason.strerror}); correct that or remove it.") from reason
    except (ValueError, RecursionError) as wrong:
        raise InputError(f"{file} is not valid TOML ({wrong}); correct it or remove it.") from wrong


def _files(start: Path, notices: list[str]) -> list[tuple[Path, Mapping[str, Any]]]:
    """The settings files that exist, the user's first, each with its table; `notices` as in `_project_table`."""
    found: list[tuple[Path, Mapping[str, Any]]] = []
    user = user_file()
    if _is_file(user):
        found.append((user, {name: value for name, value in read_toml(user).items() if name not in SERVER_TABLES}))
    project = _project_table(start.resolve(), notices)
    if project is not None and project[0] != user:
        found.append(project)
    return found


def _mentions_gesso(file: Path) -> bool:
    """So that a broken pyproject.toml without settings for Gesso is no error."""
    try:
        return b"gesso" in read_small_file(file, FILE_BYTES)
    except OSError:
        return False


def _tool_table(file: Path, content: Mapping[str, Any]) -> Mapping[str, Any] | None:
    tools = content.get("tool")
    table = tools.get("gesso") if isinstance(tools, dict) else None
    if table is not None and not isinstance(table, dict):
        raise InputError(f"{file}: tool.gesso must be a table; write [tool.gesso] and the settings below it.")
    return table


def _from_file(file: Path, name: str, value: Any) -> Any:
    """The path of a model is relative to the folder of the file."""
    if name in SERVER_TABLES:
        raise InputError(f"{file}: [{name}] says where code is sent, so only your own file {user_file()} may hold it.")
    if name not in HELP:
        raise InputError(f"{file}: there is no setting {name!r}; `gesso config` lists them all.")
    value = _checked(name, None if value == "" and _is_optional(name) else value, f"{file}: {name}", InputError)
    return absolute(value, file.parent) if name in MODELS and value is not None else value


def _variables(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        variable.removeprefix(ENVIRONMENT_PREFIX).lower(): written.strip()
        for variable, written in environment.items()
        if variable.startswith(ENVIRONMENT_PREFIX)
    }


def _variable(name: str) -> str:
    return ENVIRONMENT_PREFIX + name.upper()


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _is_optional(name: str) -> bool:
    return name in HELP and unpack(field_types(Settings)[name])[2]


def _parsed(name: str, written: str) -> Any:
    """The text as the type of the setting; text that cannot be converted stays, and fails the check."""
    kind = unpack(field_types(Settings)[name])[0]
    if kind is bool:
        return BOOLEANS.get(written.lower(), written)
    if kind in (int, float):
        with suppress(ValueError):
            return kind(written) if written else None
    return written or None


def _checked_here(name: str, value: Any, place: str, bare: bool) -> Any:
    """The value of a variable or a flag; the path of a model is relative to the working directory."""
    value = _checked(name, value, place, UsageError)
    return absolute(value, Path(), bare) if name in MODELS and value is not None else value


def _checked(name: str, value: Any, place: str, error: type[InputError] | type[UsageError]) -> Any:
    return structure(field_types(Settings)[name], value, place, error, none="empty")
