"""Which models follow instructions, as far as that can be read before they are loaded. Imports nothing slow."""

from __future__ import annotations

from engine.errors import GessoError
from engine.files import read_json_object
from infill.downloads import KNOWN
from infill.model_store import concrete, resolve

FAMILY = "chat"


def follows_instructions(model: str) -> bool:
    """Whether the model belongs to a family that does; False if it is not on this machine."""
    name = concrete(model)
    if name in KNOWN:
        return True
    try:
        config = read_json_object(resolve(name) / "config.json")
        return (config.get("gesso") or {}).get("family", FAMILY) == FAMILY
    except (OSError, ValueError, AttributeError, GessoError):
        return False


def cannot_explain(model: str) -> str:
    """The error message for a model that does not follow instructions."""
    return (
        f"The model {model} does not follow instructions and cannot explain findings; use another one, such as coder."
    )


def cannot_rewrite(model: str) -> str:
    """The error message for a model that cannot rewrite code by instruction."""
    return (
        f"The model {model} does not rewrite code by instruction; use coder or coder-1.5b, which `gesso model pull "
        "coder` downloads, or another Qwen2 model that was trained on instructions."
    )
