"""An autoregressive code model in memory, with its prompt format and what was learnt about it.

The counterpart of `infill.complete.loaded_model` for models without a denoiser. Must not know requests.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from engine.checkpoints.gguf import GgufFile
from engine.checkpoints.masked import TOKENIZER_CONFIG_BYTES, TOKENIZER_CONFIG_FILE, is_masked
from engine.checkpoints.qwen2 import GgufWeights, SafetensorsWeights, load_qwen2, open_weights
from engine.decoder import Decoder
from engine.device import choose_device, choose_dtype, cpu_name, set_threads, threads_are_given
from engine.errors import ModelError
from engine.files import read_json_object, read_small_file
from engine.memory import CausalModel
from engine.threads import settle_decoder_threads
from infill.code.context import ContextBudget
from infill.complete.confidence import Calibration
from infill.model_store import resolve
from infill.prompts.chatml import MARK
from infill.prompts.fim import FimPrompt
from infill.prompts.gguf_tokenizer import gguf_tokenizer
from infill.prompts.text_tokens import TextTokens
from infill.settings import Settings
from infill.speeds import Speed, remember_speed, remembered_speed
from infill.version import installed_version

CALIBRATIONS = Path(__file__).parents[1] / "models" / "calibrations.json"
CHARACTERS_PER_TOKEN = 3.2
PROMPT_S = 1.0  # reading a whole prompt should take no longer
LEAST_PROMPT, MOST_PROMPT = 640, 2048  # tokens
MOST_TEMPLATE = 1 << 20  # bytes of a chat template
PREFIX, SUFFIX, HEADER = 0.55, 0.25, 0.2  # shares of the prompt


@dataclass(frozen=True)
class CodeModel:
    """name: as the user gave it. min_confidence: the stored threshold. has_chat: whether it follows instructions in
    ChatML."""

    name: str
    decoder: Decoder
    family: FimPrompt
    calibration: Calibration = Calibration({})
    min_confidence: float = 0.0
    has_chat: bool = False

    def with_decoder(self, decoder: Decoder) -> CodeModel:
        """The same model behind another decoder: one request's view of it."""
        return replace(self, decoder=decoder)

    @staticmethod
    def load(settings: Settings, on_progress: Callable[[int, int], None] | None = None) -> CodeModel:
        """Loads the model that `settings` name; raises ModelError, saying what to do."""
        weights = open_weights(resolve(settings.model))
        device = choose_device(settings.device)
        set_threads(settings.threads)
        size = max(1, weights.place.stat().st_size)

        def advance(done: int, total: int) -> None:
            if on_progress is not None:
                on_progress(size * done // total, size)

        with ThreadPoolExecutor(1, "tokenizer") as threads:
            reading = threads.submit(_tokens, weights)
            model = load_qwen2(weights, device, choose_dtype(device, settings.dtype), advance)
            tokens = reading.result()
        speed = _speed(settings.model, weights.place, model)
        tokens.check_fits(model.config.vocab_size)
        family = FimPrompt(tokens, _budget(speed.prompt), model.config.vocab_size)
        return CodeModel(
            settings.model, Decoder(model), family, *_calibration(settings.model), has_chat=_has_chat(weights)
        )


def is_code_model(place: Path) -> bool:
    """Whether the file or folder is a model that this module loads."""
    if place.is_file():
        return True
    try:
        return read_json_object(place / "config.json").get("model_type") == "qwen2" and not is_masked(place)
    except (OSError, ValueError):
        return False


def _speed(name: str, place: Path, model: CausalModel) -> Speed:
    """Sets the number of threads to the fastest for `model`; measures it, unless it was measured on this machine."""
    if model.device.type != "cpu":  # where measuring also compiles what requests use
        return _measured(name, "", model)
    files = [place] if place.is_file() else sorted(file for file in place.iterdir() if file.is_file())
    states = [(str(file), state.st_size, state.st_mtime_ns) for file in files for state in (file.stat(),)]
    versions = cpu_name(), torch.__version__, installed_version()
    setup = hashlib.sha256(repr((versions, states, torch.get_num_threads(), threads_are_given())).encode()).hexdigest()
    speed = remembered_speed(name, setup)
    if speed is None:
        return _measured(name, setup, model)
    torch.set_num_threads(speed.threads)
    return speed


def _measured(name: str, setup: str, model: CausalModel) -> Speed:
    found = settle_decoder_threads(model)
    speed = Speed(found.prompt, found.token_s, found.threads)
    remember_speed(name, setup, speed)
    return speed


def _tokens(weights: GgufWeights | SafetensorsWeights) -> TextTokens:
    if isinstance(weights, GgufWeights):
        file: GgufFile = weights.file
        tokens = TextTokens(gguf_tokenizer(file.metadata, str(file.file)))
    else:
        tokens = TextTokens.read(weights.place / "tokenizer.json")
    tokens.starting_with("")  # makes its table
    return tokens


def _has_chat(weights: GgufWeights | SafetensorsWeights) -> bool:
    """Whether the model comes with a chat template in ChatML.

    Source of the names: llama.cpp's `gguf-py/gguf/constants.py`, and transformers' `save_pretrained`.
    """
    if isinstance(weights, GgufWeights):
        return MARK in str(weights.file.metadata.get("tokenizer.chat_template"))
    templates: list[object] = []
    with suppress(OSError):
        templates.append(read_small_file(weights.place / "chat_template.jinja", MOST_TEMPLATE))
    with suppress(OSError, ValueError):
        config = read_json_object(weights.place / TOKENIZER_CONFIG_FILE, TOKENIZER_CONFIG_BYTES)
        templates.append(config.get("chat_template"))
    return any(MARK in str(template) for template in templates)


def _budget(tokens_per_s: float) -> ContextBudget:
    """What is shown of a file, so that a prompt that is not cached is read in PROMPT_S."""
    characters = CHARACTERS_PER_TOKEN * min(max(PROMPT_S * tokens_per_s, LEAST_PROMPT), MOST_PROMPT)
    return ContextBudget(int(PREFIX * characters), int(SUFFIX * characters), int(HEADER * characters))


def _calibration(name: str) -> tuple[Calibration, float]:
    """The calibration and threshold that ship for a model, by its name; for a model without one, those of `coder`."""
    try:
        shipped = json.loads(CALIBRATIONS.read_text("utf-8"))
        stored = shipped.get(name) or shipped["coder"]
        return Calibration(stored["weights"], stored["intercept"]), stored["min_confidence"]
    except (OSError, ValueError, KeyError) as reason:
        raise ModelError(f"{CALIBRATIONS} cannot be read ({reason}); install Gesso again.") from reason
