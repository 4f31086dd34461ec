"""The settings that a client sends or is asked for. Must not know what a setting means."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from lsprotocol import types
from pygls.lsp.server import LanguageServer

logger = logging.getLogger(__name__)
SECTION = "gesso"
PATHS = "disabledPaths"
TRUST = "workspaceTrusted"  # beside SECTION in the initialization options; no file of a project can set it
# What clients of copilot-language-server send where our settings may be.
OF_OTHERS = frozenset(("editorInfo", "editorPluginInfo", "nextEditSuggestions"))
SETTINGS_S = 2.0  # longest wait for the client's settings
EXTENDS = "extendsSuggestions"  # beside them: the client requests a suggestion again when it is told to


def as_dict(value: Any) -> Any:
    """The parameters of a method outside the protocol as a dictionary; pygls may pass them as objects."""
    return value if isinstance(value, dict) else getattr(value, "__dict__", None) or getattr(value, "_asdict", dict)()


def is_trusted(initialization_options: Any) -> bool:
    """Whether the client says that its user trusts the workspace."""
    return as_dict(initialization_options).get(TRUST) is True


def extends_suggestions(initialization_options: Any) -> bool:
    """Whether the client shows the rest of a suggestion after `gesso/suggestionExtended`."""
    return as_dict(initialization_options).get(EXTENDS) is True


def section(value: Any) -> Mapping[str, Any]:
    """Our settings from what a client sent: all its settings, or only ours."""
    value = value if isinstance(value, Mapping) else getattr(value, "__dict__", {})
    inner = value.get(SECTION, value)
    if not isinstance(inner, Mapping):
        return {}
    return {name: value for name, value in inner.items() if name not in OF_OTHERS}


async def pulled_settings(server: LanguageServer, folders: Sequence[Path]) -> Mapping[str, Any]:
    """The settings from `workspace/configuration`; empty if the client does not support it or does not answer."""
    workspace = server.client_capabilities.workspace
    if workspace is None or not workspace.configuration:
        return {}
    scopes = [None, *(folder.as_uri() for folder in folders if len(folders) > 1)]
    params = types.ConfigurationParams([types.ConfigurationItem(scope, SECTION) for scope in scopes])
    try:
        values = await asyncio.wait_for(server.workspace_configuration_async(params), SETTINGS_S)
    except Exception as error:  # noqa: BLE001 - a client's error must not stop the server from starting
        logger.warning("The client did not send its settings: %s", error)
        return {}
    sections = [section(value) for value in values]
    return _with_all_paths(sections[0], sections[1:]) if sections else {}


def _with_all_paths(settings: Mapping[str, Any], of_folders: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The settings, with the `disabledPaths` of each folder too."""
    values = [one[PATHS] for one in (settings, *of_folders) if one.get(PATHS)]
    wrong = [value for value in values if not isinstance(value, (list, tuple))]
    if not values:
        return settings
    return {**settings, PATHS: wrong[0] if wrong else [*chain(*values)]}
