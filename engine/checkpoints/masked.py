"""A published folder of a masked diffusion model on Qwen2 becomes a model with its special tokens and its sampling.

Dream, Dream-Coder and DreamOn have an architecture name of their own and Qwen2's tensors. Open-dCoder calls itself
Qwen2; its tokenizer has a mask token, which no causal Qwen2 has. Remote code that a folder names is never run. Must not
know prompts or text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine.checkpoints.config_files import CONFIG_FILE, GENERATION_FILE
from engine.checkpoints.qwen2 import ARCHITECTURE, SafetensorsWeights, check_shapes, json_config
from engine.checkpoints.weight_files import broken, read_json
from engine.errors import ModelError
from engine.files import LARGE_JSON_BYTES, read_json_object
from engine.masked.config import MaskedConfig, MaskedSampling
from engine.models.qwen2 import Qwen2Config

DREAM = re.compile(r"Dream(On|Coder)?(Model)?", re.IGNORECASE)
ADDED_FILE, TOKENIZER_FILE, TOKENIZER_CONFIG_FILE = "added_tokens.json", "tokenizer.json", "tokenizer_config.json"
EXPAND = "<|expand|>"
TOKENIZER_CONFIG_BYTES = 4 << 20  # that of Gemma has 1.2 MB


def is_masked(folder: Path) -> bool:
    """Whether the folder holds a model that this module loads."""
    try:
        config = read_json_object(folder / CONFIG_FILE)
        kind = config.get("model_type")
        if isinstance(kind, str) and DREAM.fullmatch(kind):
            return True
        return kind == ARCHITECTURE and special_token(folder, "mask_token") is not None
    except (OSError, ValueError, ModelError):
        return False


def open_masked(folder: Path) -> SafetensorsWeights:
    """The checked weights of the folder, with a `MaskedConfig`; raises ModelError for what cannot be loaded."""
    content = read_json(folder / CONFIG_FILE)
    named = content.get("architectures")
    named = named if isinstance(named, list) else []
    if content.get("model_type") != ARCHITECTURE and not all(DREAM.fullmatch(str(name)) for name in named):
        raise ModelError(
            f"{folder} is a model of the architecture {', '.join(map(str, named))}, but of Dream's only DreamModel and "
            "DreamOnModel are known; choose another model."
        )
    weights = SafetensorsWeights(folder, _names(content))
    weights.config = _config(folder, content, weights.config)
    check_shapes(weights)
    return weights


def open_config(folder: Path) -> MaskedConfig:
    """The sizes and special tokens of the folder; raises ModelError as `open_masked`."""
    content = read_json(folder / CONFIG_FILE)
    return _config(folder, content, json_config(folder, content, _names(content)))


def _names(content: Mapping[str, Any]) -> tuple[str, ...]:
    kind = str(content.get("model_type"))
    return (ARCHITECTURE, kind) if DREAM.fullmatch(kind) else (ARCHITECTURE,)


def read_masked_sampling(folder: Path) -> MaskedSampling:
    """The sampling settings of `generation_config.json`, with those under `gesso.sampling` in config.json before
    them."""
    file = folder / GENERATION_FILE
    try:
        own = (read_json(folder / CONFIG_FILE).get("gesso") or {}).get("sampling") or {}
        stored = read_json(file) if file.exists() else {}
        return MaskedSampling.from_json({**({} if stored.get("_from_model_config") else stored), **own})
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise broken(f"{file} has a wrong field ({error})") from error


def special_token(folder: Path, name: str) -> str | None:
    """The text of the special token that `tokenizer_config.json` calls `name`; None if there is none."""
    try:
        value = read_json_object(folder / TOKENIZER_CONFIG_FILE, TOKENIZER_CONFIG_BYTES).get(name)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as reason:
        raise broken(f"{folder / TOKENIZER_CONFIG_FILE} cannot be read ({reason})") from reason
    content = value.get("content") if isinstance(value, Mapping) else value
    return content if isinstance(content, str) else None


def added_tokens(folder: Path) -> dict[str, int]:
    """The ids of the tokens that were added to the vocabulary, by their texts, from whichever files list them."""
    found: dict[str, Any] = {}
    with suppress(FileNotFoundError):
        found |= _read(folder / ADDED_FILE)
    with suppress(FileNotFoundError):
        decoder = _read(folder / TOKENIZER_CONFIG_FILE).get("added_tokens_decoder") or {}
        found |= {entry["content"]: int(token) for token, entry in decoder.items()}
    with suppress(FileNotFoundError):
        entries = _read(folder / TOKENIZER_FILE).get("added_tokens") or []
        found |= {entry["content"]: entry["id"] for entry in entries}
    if not all(isinstance(text, str) and type(token) is int and token >= 0 for text, token in found.items()):
        raise broken(f"The added tokens of {folder} are not texts with ids")
    return found


def _read(file: Path) -> dict[str, Any]:
    try:
        return read_json_object(file, LARGE_JSON_BYTES)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as reason:
        raise broken(f"{file} cannot be read ({reason})") from reason


def _config(folder: Path, content: Mapping[str, Any], backbone: Qwen2Config) -> MaskedConfig:
    try:
        tokens, gesso = added_tokens(folder), content.get("gesso") or {}
        mask = content.get("mask_token_id")
        if mask is None:
            mask = tokens.get(special_token(folder, "mask_token") or "")
        if type(mask) is not int:
            raise broken(f"{folder} does not say which token is the mask")
        expand = content.get("expand_token_id", tokens.get(EXPAND))
        if expand is not None and type(expand) is not int:
            raise broken(f"{folder / CONFIG_FILE} has expand_token_id {expand!r}, which is not a token")
        delete = None if expand is None else tokens.get(special_token(folder, "eos_token") or "")
        if delete is None and expand is not None:
            delete = content.get("eos_token_id")
        if expand is not None and type(delete) is not int:
            raise broken(f"{folder} does not say which token is the end of the text")
        sizes = vars(backbone)
        return MaskedConfig(**sizes, mask=mask, expand=expand, delete=delete, shifted=bool(gesso.get("shifted", True)))
    except (AttributeError, TypeError, KeyError, ValueError) as error:
        raise broken(f"The files of the tokenizer in {folder} have a wrong field ({error})") from error
