"""The language server's settings: one table, which also makes the lists of settings in editors' extensions.

A wrong value becomes the default, with a sentence for the user. Files and variables, which the command line reads too,
supply what the editor does not set. Must not know the protocol.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin

from engine.errors import InputError
from infill.model_store import absolute
from infill.privacy import is_pattern
from infill.settings import Resolved, resolve, setting
from infill.validation import Limits, field_types, json_schema, structure, unpack

Eagerness = Literal["calm", "balanced", "eager"]
Severity = Literal["hint", "information", "warning", "error"]
LANGUAGES = {"*": True, "plaintext": False, "markdown": False}
ALL_PATHS = ("*",)  # pattern of `disabled_paths`
REMOVED = {"engine": "The service is always used; remove the setting."}  # name: what to do
_EXTENSION_SETTINGS = ("server", "trace")
_MACHINE_SETTINGS = ("model", "device", "threads")


@dataclass(frozen=True)
class LspSettings:
    """The editor's settings, section `gesso`; `delay_ms` is `gesso.delayMs` there."""

    enabled: bool = setting(True, "Offer suggestions at all.")
    eagerness: Eagerness = setting(
        "balanced",
        "How often to suggest: calm only where a suggestion is most often right, eager nearly everywhere.",
    )
    delay_ms: Annotated[int, Limits(0, 10_000)] | None = setting(
        None,
        "Milliseconds to wait after a key press before asking the model. null: from your typing speed and the model's.",
    )
    languages: Mapping[str, bool] = field(
        default_factory=lambda: dict(LANGUAGES),
        metadata={"help": "Languages by their ids in the editor, on or off; * is for all others."},
    )
    disabled_paths: tuple[str, ...] = setting((), "Patterns, as in .gitignore, of files that are never read.")
    multiline: Literal["auto", "never"] = setting(
        "auto", "Suggest several lines where the syntax calls for a block, or never."
    )
    alternatives: Annotated[int, Limits(1, 10)] = setting(3, "Suggestions to choose from when you ask for one by hand.")
    ordinary_completion: Literal["auto", "never"] = setting(
        "auto", "Offer suggestions in the ordinary completion list of editors that cannot show them in the text."
    )
    next_edits: bool = setting(
        True, "After an edit, propose the same change where it is due elsewhere in the file, such as at uses of a name."
    )
    lint: bool | None = setting(
        None,
        "Mark likely mistakes while you type. null: only if the model's findings are reliable enough.",
    )
    lint_severity: Severity = setting("hint", "Severity of the marks of likely mistakes.")
    lint_ignore: tuple[str, ...] = setting((), "Kinds of findings to hide, by their codes, such as wrong-name.")
    lint_include: tuple[str, ...] = setting(
        (), "Kinds of findings to show too that are off by default, by their codes, such as style-naming."
    )
    statistics: bool = setting(
        True, "Count on this machine what was shown and accepted (`gesso stats`). The counts are never sent."
    )
    model: str | None = setting(None, "Name, hub ID or folder of the model. null: as `gesso config` says.")
    device: str | None = setting(None, "auto, cpu, cuda, cuda:N or mps. null: as `gesso config` says.")
    threads: Annotated[int, Limits(least=1)] | None = setting(
        None, "Maximum number of CPU threads. null: as `gesso config` says."
    )
    min_confidence: Annotated[float, Limits(0, 1)] | None = setting(
        None, "Show nothing below this confidence. null: the threshold measured for the model."
    )

    def engine_settings(self, start: Path, is_trusted: bool = False) -> Resolved:
        """The engine's settings: the editor's override files and variables; raises GessoError for a wrong one of these.

        is_trusted: the editor's user trusts the workspace.
        The path of a model is relative to `start` and begins with "./" or "../".
        """
        flags = {
            "model": absolute(self.model, start, bare=False) if self.model else self.model,
            "device": self.device,
            "threads": self.threads,
            "min_confidence": self.min_confidence,
        }
        return resolve(flags, start, os.environ, is_trusted, bare_paths=False)


def _editor_name(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


NAMES: dict[str, str] = {_editor_name(entry.name): entry.name for entry in fields(LspSettings)}


def parse(value: Mapping[str, Any]) -> tuple[LspSettings, list[str]]:
    """The settings, and a sentence about each wrong one; ignores the extensions' own settings.

    Languages that are not named keep their default. Wrong `disabledPaths` exclude every file.
    """
    values: dict[str, Any] = {}
    problems: list[str] = []
    for name, given in value.items():
        if name in NAMES:
            kind = field_types(LspSettings)[NAMES[name]]
            try:
                values[NAMES[name]] = structure(kind, given, f"The setting gesso.{name}")
            except InputError as wrong:
                if NAMES[name] == "disabled_paths":
                    values[NAMES[name]] = ALL_PATHS
                    problems.append(f"{wrong} No file is read until it is corrected.")
                else:
                    problems.append(f"{wrong} The default is used.")
        elif name in REMOVED:
            problems.append(f"The setting gesso.{name} no longer exists. {REMOVED[name]}")
        elif name not in _EXTENSION_SETTINGS:
            problems.append(f"Ignoring unknown setting gesso.{name}.")
    values["languages"] = {**LANGUAGES, **values.get("languages", {})}
    patterns = values.get("disabled_paths", ())
    values["disabled_paths"] = tuple(filter(is_pattern, patterns))
    for pattern in (one for one in patterns if not is_pattern(one)):
        problems.append(f"Ignoring {pattern!r} in gesso.disabledPaths: it is not a .gitignore pattern.")
    return LspSettings(**values), problems


def may_hold_text(name: str) -> bool:
    """Whether the setting, by its name in `LspSettings`, may hold the user's own words."""
    base = unpack(field_types(LspSettings)[name])[0]
    return base not in (bool, int, float) and get_origin(base) is not Literal


def schema() -> dict[str, dict[str, Any]]:
    """The settings as VS Code's `contributes.configuration.properties`."""
    described = {}
    for (name, field_name), entry in zip(NAMES.items(), fields(LspSettings), strict=True):
        default = getattr(LspSettings(), field_name)
        described[f"gesso.{name}"] = {
            **json_schema(field_types(LspSettings)[field_name]),
            "default": list(default) if isinstance(default, tuple) else default,
            "markdownDescription": entry.metadata["help"],
            "scope": "machine-overridable" if name in _MACHINE_SETTINGS else "resource",
        }
    return described
