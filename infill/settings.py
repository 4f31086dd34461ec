"""Settings, and where each came from: defaults < the user's file < the project's file < environment < flags.

The table of settings is the dataclass itself; a new one is one new field. Must not know what a setting does,
and names no address: nothing is sent anywhere by what is set here (`infill.backends.routes` has the servers that a user names).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import platformdirs

from engine.errors import InputError, UsageError
from infill.backends.routes import TABLES
from infill.request import Lines

PROJECT_FILE, PYTHON_PROJECT_FILE = "gesso.toml", "pyproject.toml"
ENVIRONMENT_PREFIX = "GESSO_"
WORDS = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


@dataclass(frozen=True)
class Rule:
    """What a value must be. `empty`: may be left open, written as an empty string in files and environment."""

    kind: type
    help: str
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()
    empty: bool = False

    def wanted(self) -> str:
        """What would be right, as the end of a sentence."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        names = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
        bounds = [f"{word} {limit:g}" for word, limit in (("from", self.least), ("to", self.most)) if limit is not None]
        return " ".join([names[self.kind], *bounds]) + (" (or empty)" if self.empty else "")


def _setting(default: Any, kind: type, help: str, **limits: Any) -> Any:
    return field(default=default, metadata={"rule": Rule(kind, help, **limits)})


@dataclass(frozen=True)
class Settings:
    """Everything that can be set. None means: left to the model or the machine."""

    model: str = _setting("pocket", str, "name, hub id or folder of the model")
    meanwhile: str | None = _setting(
        "pocket", str, "what the service answers with while a larger model loads or has no memory", empty=True
    )
    device: str = _setting("auto", str, "auto, cpu, cuda, cuda:N or mps")
    dtype: str = _setting("auto", str, "number type of the weights", choices=("auto", "float32", "bfloat16"))
    keys: str = _setting("auto", str, "number type of keys and values; fp8 halves them", choices=("auto", "fp8"))
    threads: int = _setting(8, int, "most CPU threads to use", least=1, most=1024)
    steps: int | None = _setting(None, int, "most denoising steps", least=1, most=1000, empty=True)
    seed: int = _setting(0, int, "seed of the noise", least=0, most=2**63 - 1)
    deadline_ms: float | None = _setting(None, float, "return the best so far after this", least=1, empty=True)
    lines: Lines = _setting("auto", str, "how much to write", choices=("one", "block", "auto"))
    candidates: int = _setting(1, int, "suggestions to make for a hole", least=1, most=32)
    min_confidence: float | None = _setting(None, float, "show nothing below this", least=0, most=1, empty=True)
    copy_drafts: bool = _setting(True, bool, "offer similar lines of the context beside the model's own")
    causal_draft: bool = _setting(True, bool, "offer what the causal encoder writes beside the canvas")
    batch_size: int = _setting(8, int, "rows that `gesso batch` fills together", least=1, most=1024)
    offline: bool = _setting(False, bool, "refuse every download, also a wanted one")


@dataclass(frozen=True)
class Resolved:
    """The settings, the origin of each by name, and variables that look like settings and are none."""

    settings: Settings
    origins: Mapping[str, str]
    unknown_variables: tuple[str, ...] = ()


RULES: dict[str, Rule] = {entry.name: entry.metadata["rule"] for entry in fields(Settings)}


def user_file() -> Path:
    """The user's own settings file, whether or not it exists."""
    return Path(platformdirs.user_config_dir("gesso", appauthor=False)) / "config.toml"


def resolve(flags: Mapping[str, Any], start: Path, environment: Mapping[str, str]) -> Resolved:
    """The settings for work in the folder `start`; flags that are None were not given.

    Raises InputError for a file, UsageError for a variable or flag, naming the place and what would be right.
    """
    values: dict[str, Any] = {}
    origins = dict.fromkeys(RULES, "default")
    for file, table in _files(start):
        for name, value in table.items():
            values[name] = _from_file(file, name, value)
            origins[name] = str(file)
    unknown = []
    for variable, written in environment.items():
        name = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
        if not variable.startswith(ENVIRONMENT_PREFIX) or (not written.strip() and not _may_be_empty(name)):
            continue
        if name not in RULES:
            unknown.append(variable)
            continue
        values[name] = _checked(name, _parsed(RULES[name], written.strip()), variable, UsageError)
        origins[name] = f"variable {variable}"
    for name, value in flags.items():
        if value is not None:
            flag = "--" + name.replace("_", "-")
            values[name] = _checked(name, value, flag, UsageError)
            origins[name] = f"flag {flag}"
    return Resolved(Settings(**values), origins, tuple(sorted(unknown)))


def project_file(start: Path) -> Path | None:
    """The nearest gesso.toml, or pyproject.toml with a [tool.gesso] table, in `start` or above it."""
    for folder in (start, *start.parents):
        if (folder / PROJECT_FILE).is_file():
            return folder / PROJECT_FILE
        file = folder / PYTHON_PROJECT_FILE
        if file.is_file() and _speaks_of_us(file) and _tool_table(file, _read(file)) is not None:
            return file
    return None


def _files(start: Path) -> list[tuple[Path, Mapping[str, Any]]]:
    """Settings files that exist, the more general one first, each with its table."""
    found: list[tuple[Path, Mapping[str, Any]]] = []
    own = user_file()
    if own.is_file():
        found.append((own, {name: value for name, value in _read(own).items() if name not in TABLES}))
    project = project_file(start.resolve())
    if project is not None and project != own:
        content = _read(project)
        table = content if project.name == PROJECT_FILE else _tool_table(project, content)
        found.append((project, table or {}))
    return found


def _speaks_of_us(file: Path) -> bool:
    """So that a pyproject.toml that is broken, but none of our business, stops nobody."""
    try:
        return b"gesso" in file.read_bytes()
    except OSError:
        return False


def _tool_table(file: Path, content: Mapping[str, Any]) -> Mapping[str, Any] | None:
    tools = content.get("tool")
    table = tools.get("gesso") if isinstance(tools, dict) else None
    if table is not None and not isinstance(table, dict):
        raise InputError(f"{file}: tool.gesso must be a table; write [tool.gesso] and the settings below it.")
    return table


def _read(file: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8-sig"))
    except OSError as reason:
        raise InputError(f"{file} cannot be read ({reason.strerror}); check its permissions.") from reason
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as wrong:
        raise InputError(f"{file} is not valid TOML ({wrong}); correct it or remove it.") from wrong


def _from_file(file: Path, name: str, value: Any) -> Any:
    """A model written as ./folder or ../folder is meant from where the file stands."""
    if name in TABLES:
        raise InputError(f"{file}: [{name}] says where code is sent, so only your own file {user_file()} may hold it.")
    if name not in RULES:
        raise InputError(f"{file}: there is no setting {name!r}; `gesso config` lists them all.")
    value = _checked(name, None if value == "" and _may_be_empty(name) else value, f"{file}: {name}", InputError)
    if name == "model" and value.startswith(("./", "../")):
        return str((file.parent / value).resolve())
    return value


def _may_be_empty(name: str) -> bool:
    return name in RULES and RULES[name].empty


def _parsed(rule: Rule, written: str) -> Any:
    """A text as the kind of value that the rule wants; what cannot be read so stays text, and fails later."""
    if not written and rule.empty:
        return None
    try:
        return WORDS.get(written.lower(), written) if rule.kind is bool else rule.kind(written)
    except ValueError:
        return written


def _checked(name: str, value: Any, place: str, error: type[InputError] | type[UsageError]) -> Any:
    """The value, a whole number as a float where one is wanted; raises `error` where it breaks its rule."""
    rule = RULES[name]
    if value is None and rule.empty:
        return None
    if rule.kind is float and type(value) is int:
        value = float(value)
    fits = type(value) is rule.kind and value != "" and (not rule.choices or value in rule.choices)
    if fits and rule.kind in (int, float):
        # written so that nan fits nowhere
        fits = (rule.least is None or value >= rule.least) and (rule.most is None or value <= rule.most)
        fits = fits and value == value and abs(value) != float("inf")
    if not fits:
        raise error(f"{place} is {value!r}; it must be {rule.wanted()}.")
    return value
