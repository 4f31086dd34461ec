"""The registry of prompt families: adding one takes a file with its class, and an entry here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from engine.errors import ModelError
from infill.prompts.chat import ChatPrompt
from infill.prompts.masked import Marks, MaskedPrompt
from infill.prompts.pocket import PocketPrompt, Window
from infill.prompts.prompt import Family
from infill.prompts.qwen2_tokenizer import folder_tokens
from infill.prompts.text_tokens import TextTokens

FAMILIES: dict[str, Callable[[TextTokens, Path], Family]] = {
    "pocket": lambda tokens, folder: PocketPrompt(tokens, Window.read(folder)),
    "chat": lambda tokens, folder: ChatPrompt(tokens),
    "masked": lambda tokens, folder: MaskedPrompt(tokens, Marks.read(folder)),
}


def load_family(name: str, folder: Path) -> Family:
    """The family that `config.json` names, with the tokenizer of the model's folder."""
    if name not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise ModelError(
            f"The model belongs to the prompt family {name!r}, but this version only has {known}; update Gesso."
        )
    return FAMILIES[name](folder_tokens(folder), folder)
