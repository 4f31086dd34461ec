"""The settings of the language server: one table, from which editors' own lists of settings are made.

An editor's value that is wrong becomes its default, with a sentence for the user. What is not set in the editor comes
from the files and variables that the command line reads too. Must not know the protocol.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from infill import settings as infill_settings
from lsp.privacy import is_pattern

Eagerness = Literal["calm", "balanced", "eager"]
Severity = Literal["hint", "information", "warning", "error"]


@dataclass(frozen=True)
class Rule:
    """type: of JSON Schema; optional: may be null, which means that Gesso decides."""

    type: str
    help: str
    choices: tuple[str, ...] = ()
    optional: bool = False
    least: float | None = None
    most: float | None = None

    def problem(self, value: Any) -> str | None:
        """What would be right, where `value` is wrong."""
        if value is None and self.optional:
            return None
        kinds: dict[str, tuple[type, ...]] = {
            "boolean": (bool,),
            "string": (str,),
            "integer": (int,),
            "number": (int, float),
            "array": (list, tuple),
            "object": (Mapping,),
        }
        fits = isinstance(value, kinds[self.type]) and (self.type == "boolean" or not isinstance(value, bool))
        if fits and self.choices:
            fits = value in self.choices
        if fits and self.type in ("integer", "number"):
            low, high = self.least, self.most
            fits = (low is None or value >= low) and (high is None or value <= high)
        if fits and self.type == "array":
            fits = all(isinstance(one, str) for one in value)
        if fits and self.type == "object":
            fits = all(isinstance(name, str) and isinstance(on, bool) for name, on in value.items())
        return None if fits else self._wanted()

    def _wanted(self) -> str:
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        words = {
            "boolean": "true or false",
            "string": "a text",
            "integer": "a whole number",
            "number": "a number",
            "array": "a list of texts",
            "object": "names with true or false",
        }[self.type]
        bounds = [f"{word} {limit:g}" for word, limit in (("from", self.least), ("to", self.most)) if limit is not None]
        return " ".join((words, *bounds)) + (" or null" if self.optional else "")


def _setting(name: str, default: Any, type: str, help: str, **limits: Any) -> Any:
    metadata = {"name": name, "rule": Rule(type, help, **limits)}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class LspSettings:
    """The editor's settings, section `gesso`."""

    enabled: bool = _setting("enabled", True, "boolean", "Offer suggestions at all.")
    eagerness: Eagerness = _setting(
        "eagerness",
        "balanced",
        "string",
        "How often to suggest: calm waits for places where it is most often right, eager asks nearly everywhere.",
        choices=("calm", "balanced", "eager"),
    )
    delay_ms: int | None = _setting(
        "delayMs",
        None,
        "integer",
        "Milliseconds to wait after a key before the model is asked. null: from how fast you type and it answers.",
        optional=True,
        least=0,
        most=10_000,
    )
    languages: Mapping[str, bool] = _setting(
        "languages",
        {"*": True, "plaintext": False, "markdown": False},
        "object",
        "Languages by the editor's name for them, on or off; * is for those that are not named.",
    )
    disabled_paths: Sequence[str] = _setting(
        "disabledPaths", (), "array", "Patterns, as in .gitignore, of files that are never read."
    )
    multiline: Literal["auto", "never"] = _setting(
        "multiline",
        "auto",
        "string",
        "Suggest several lines where the syntax calls for a block, or never.",
        choices=("auto", "never"),
    )
    alternatives: int = _setting(
        "alternatives", 3, "integer", "Suggestions to choose from when you ask for one by hand.", least=1, most=10
    )
    ordinary_completion: Literal["auto", "never"] = _setting(
        "ordinaryCompletion",
        "auto",
        "string",
        "Offer suggestions in the ordinary completion list of editors that cannot show them in the text.",
        choices=("auto", "never"),
    )
    lint: bool | None = _setting(
        "lint",
        None,
        "boolean",
        "Mark what looks wrong to the model while you type. null: if its findings are good enough to be shown unasked.",
        optional=True,
    )
    lint_severity: Severity = _setting(
        "lintSeverity",
        "hint",
        "string",
        "How what looks wrong to the model is marked.",
        choices=("hint", "information", "warning", "error"),
    )
    lint_ignore: Sequence[str] = _setting(
        "lintIgnore", (), "array", "Kinds of findings that are never shown, by their codes, such as wrong-name."
    )
    lint_include: Sequence[str] = _setting(
        "lintInclude",
        (),
        "array",
        "Kinds of style against a file's own habits that are shown too, by their codes, such as style-naming.",
    )
    statistics: bool = _setting(
        "statistics", True, "boolean", "Count on this machine what was shown and accepted (`gesso stats`). Never sent."
    )
    model: str | None = _setting(
        "model", None, "string", "Name, hub id or folder of the model. null: as `gesso config` says.", optional=True
    )
    device: str | None = _setting(
        "device", None, "string", "auto, cpu, cuda, cuda:N or mps. null: as `gesso config` says.", optional=True
    )
    threads: int | None = _setting(
        "threads", None, "integer", "Most CPU threads to use. null: as `gesso config` says.", optional=True, least=1
    )
    min_confidence: float | None = _setting(
        "minConfidence",
        None,
        "number",
        "Show nothing of which the model is less sure than this. null: as was measured for the model.",
        optional=True,
        least=0,
        most=1,
    )

    def engine_settings(self, start: Path) -> infill_settings.Settings:
        """For the engine: the editor's values over those of files and variables; raises GessoError for one of those.

        A model written as ./folder or ../folder is meant from `start`.
        """
        relative = self.model is not None and self.model.startswith(("./", "../"))
        flags = {
            "model": str((start / self.model).resolve()) if self.model and relative else self.model,
            "device": self.device,
            "threads": self.threads,
            "min_confidence": None if self.min_confidence is None else float(self.min_confidence),
        }
        return infill_settings.resolve(flags, start, os.environ).settings


NAMES: dict[str, str] = {entry.metadata["name"]: entry.name for entry in fields(LspSettings)}
RULES: dict[str, Rule] = {entry.metadata["name"]: entry.metadata["rule"] for entry in fields(LspSettings)}
_UNUSED_HERE = frozenset(("server", "trace"))  # of the extensions alone
_REMOVED = {"engine": "The service is always used; remove the setting."}


def parse(value: Mapping[str, Any]) -> tuple[LspSettings, list[str]]:
    """Settings, and a sentence for each that was wrong; names of the extensions' own settings are passed over.

    Languages that are not named keep their default; of the patterns, those that mean something stand.
    """
    taken: dict[str, Any] = {}
    problems: list[str] = []
    for name, given in value.items():
        if name in _UNUSED_HERE:
            continue
        if name in _REMOVED:
            problems.append(f"The setting gesso.{name} no longer exists. {_REMOVED[name]}")
        elif name not in RULES:
            problems.append(f"There is no setting gesso.{name}; it is ignored.")
        elif (wanted := RULES[name].problem(given)) is not None:
            default = getattr(LspSettings(), NAMES[name])
            stands = default if isinstance(default, str) else "its default"
            problems.append(f"The setting gesso.{name} must be {wanted}; {stands} is used instead.")
        else:
            taken[NAMES[name]] = given
    if "languages" in taken:
        taken["languages"] = {**LspSettings().languages, **taken["languages"]}
    if "disabled_paths" in taken:
        wrong = [pattern for pattern in taken["disabled_paths"] if not is_pattern(pattern)]
        problems += [
            f"{pattern!r} in gesso.disabledPaths is no pattern of .gitignore; it is ignored." for pattern in wrong
        ]
        taken["disabled_paths"] = tuple(pattern for pattern in taken["disabled_paths"] if pattern not in wrong)
    for name in ("lint_ignore", "lint_include"):
        if name in taken:
            taken[name] = tuple(taken[name])
    return LspSettings(**taken), problems


def schema() -> dict[str, dict[str, Any]]:
    """The settings as VS Code's `contributes.configuration.properties`."""
    defaults, described = LspSettings(), {}
    for name, rule in RULES.items():
        value = getattr(defaults, NAMES[name])
        entry: dict[str, Any] = {
            "type": [rule.type, "null"] if rule.optional else rule.type,
            "default": list(value) if isinstance(value, tuple) else value,
            "markdownDescription": rule.help,
            "scope": "machine-overridable" if name in ("model", "device", "threads") else "resource",
        }
        if rule.choices:
            entry["enum"] = list(rule.choices)
        if rule.least is not None:
            entry["minimum"] = rule.least
        if rule.most is not None:
            entry["maximum"] = rule.most
        if rule.type == "array":
            entry["items"] = {"type": "string"}
        if rule.type == "object":
            entry["additionalProperties"] = {"type": "boolean"}
        described[f"gesso.{name}"] = entry
    return described
