"""Which models can be asked in words; told by a model's folder, before it is loaded. Imports nothing slow."""

from __future__ import annotations

import json

from engine.errors import GessoError
from infill.model_store import resolve

FAMILY = "chat"


def follows_instructions(model: str) -> bool:
    """Whether the model of this name is of a family that does; False where it is not on this machine."""
    try:
        config = json.loads((resolve(model) / "config.json").read_text("utf-8"))
        return (config.get("gesso") or {}).get("family", FAMILY) == FAMILY
    except (OSError, ValueError, AttributeError, GessoError):
        return False


def cannot_explain(model: str) -> str:
    """What a user of a model that does not is told."""
    return f"The model {model} follows no instructions, so it cannot explain findings; use one that does, such as 26b."
