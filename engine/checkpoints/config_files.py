"""What `config.json` and `generation_config.json` of a model folder say: architecture, sampling, quantization.

Refuses a folder that this build cannot run. Must not know weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.checkpoints.weight_files import FETCH_AGAIN, broken, read_json
from engine.config import ModelConfig, SamplingConfig
from engine.errors import ModelError

CONFIG_FILE = "config.json"
GENERATION_FILE = "generation_config.json"
MODELOPT_FILE = "hf_quant_config.json"
INT8_METHOD = "gesso_int8"  # int8 on disk, `engine.checkpoints.int8`; everything is dequantized while loading
REMOVED_INT4_METHOD = "gesso_int4"
PUBLISHED_METHODS = ("modelopt", "compressed-tensors")


def read_config(folder: Path) -> ModelConfig:
    """Reads the architecture from `config.json`; raises ModelError if it is absent or not for this build."""
    if not folder.is_dir():
        raise ModelError(f"There is no model folder {folder}; name a folder that exists, or {FETCH_AGAIN}.")
    content = read_json(folder / CONFIG_FILE)
    try:
        config = ModelConfig.from_json(content)
    except (AttributeError, TypeError, ValueError, LookupError, OverflowError) as error:
        raise broken(f"{folder / CONFIG_FILE} has a wrong field ({error})") from error
    if content.get("tie_word_embeddings") is False:
        raise ModelError(
            f"{folder / CONFIG_FILE} unties encoder, decoder and head, which this build cannot run; "
            "choose another model."
        )
    _refuse_unknown_quantization(folder, content)
    return config


def read_sampling(folder: Path) -> SamplingConfig:
    """Reads the sampling settings from `generation_config.json`; without the file, returns the released defaults.

    `token_choice`, which transformers does not allow in that file, is read from `gesso.sampling` in `config.json`.
    """
    file = folder / GENERATION_FILE
    try:
        gesso = (read_json(folder / CONFIG_FILE).get("gesso") or {}).get("sampling") or {}
        return SamplingConfig.from_json({**(read_json(file) if file.exists() else {}), **gesso})
    except (AttributeError, TypeError, ValueError) as error:
        raise broken(f"{file} has a wrong field ({error})") from error


def quantization_method(folder: Path) -> str | None:
    """The quantization method that the checkpoint names; None if it is not quantized."""
    return _method(_quantization(folder, read_json(folder / CONFIG_FILE)))


def _quantization(folder: Path, content: Mapping[str, Any]) -> Any:
    """The quantization entry of config.json, or of ModelOpt's own file; None if there is none."""
    sections = (content, content.get("text_config") or {})
    found = next(filter(None, (section.get("quantization_config") for section in sections)), None)
    if not found and (folder / MODELOPT_FILE).is_file():
        found = read_json(folder / MODELOPT_FILE).get("quantization") or {}
        found = {"quant_method": "modelopt", **(found if isinstance(found, dict) else {})}
    return found


def _method(quantization: Any) -> str | None:
    if not quantization:
        return None
    return str(quantization.get("quant_method") or "unknown") if isinstance(quantization, dict) else "unknown"


def _refuse_unknown_quantization(folder: Path, content: Mapping[str, Any]) -> None:
    quantization = _quantization(folder, content)
    method = _method(quantization)
    if method is None or method in PUBLISHED_METHODS:
        return
    if method == REMOVED_INT4_METHOD:
        raise ModelError(
            f"The model in {folder} is stored as {method}, which this build no longer reads; quantize its bfloat16 or "
            "float32 checkpoint again with `gesso model quantize --format int4`."
        )
    details = quantization if isinstance(quantization, dict) else {}
    named = [str(details[key]) for key in ("quant_method", "quant_algo", "format") if details.get(key)]
    if named != [INT8_METHOD]:
        raise ModelError(
            f"The model in {folder} is quantized ({', '.join(named) or 'unknown method'}), which this build "
            "does not read; choose its bfloat16 checkpoint, or a build in NVFP4 (ModelOpt) or FP8 (compressed-tensors)."
        )
