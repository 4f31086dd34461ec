"""Qwen2.5-Coder itself, if the variable GESSO_TEST_CODER names the GGUF file of its 0.5B model."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

import engine
from engine.checkpoints.qwen2 import HEAD, GgufWeights, open_weights, pack_qwen2
from engine.key_values import KeyValues, PromptMemory
from engine.models.packed_qwen2 import FloatProduct, Product
from engine.ops.int8_linear import FEW_ROWS, Int8Product, int8_works
from engine.prefix_cache import PrefixCache
from infill.complete.causal_completion import CausalCompleter
from infill.complete.code_model import CodeModel
from infill.complete.pipeline import load_model, make_completer
from infill.prompts.gguf_tokenizer import gguf_tokenizer
from infill.prompts.text_tokens import TextTokens
from infill.settings import Settings
from tests.infill.fakes import request

FILE = Path(os.environ.get("GESSO_TEST_CODER", ""))  # read before the tests remove the variables of this machine
LENGTH = 300  # tokens
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not FILE.is_file(), reason="GESSO_TEST_CODER names no file")]


@pytest.fixture(scope="module")
def completer() -> CausalCompleter:
    settings = Settings(model=str(FILE))
    model = load_model(settings)
    assert isinstance(model, CodeModel)
    found = make_completer(model, settings)
    assert isinstance(found, CausalCompleter)
    return found


@pytest.fixture(scope="module")
def weights() -> GgufWeights:
    found = open_weights(FILE)
    assert isinstance(found, GgufWeights)
    return found


@pytest.fixture(scope="module")
def tokens(weights: GgufWeights) -> torch.Tensor:
    """The beginning of a source file, [LENGTH]."""
    text = (Path(engine.__file__).parent / "prefix_cache.py").read_text("utf-8")
    return torch.tensor(TextTokens(gguf_tokenizer(weights.file.metadata, str(FILE))).encode(text)[:LENGTH])


@pytest.fixture(scope="module")
def expected(weights: GgufWeights, tokens: torch.Tensor) -> torch.Tensor:
    """The likeliest token after each of `tokens`, by transformers with the same weights in fp32."""
    config = weights.config
    sizes: dict[str, Any] = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "rms_norm_eps": config.norm_eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "tie_word_embeddings": config.tied,
    }
    with torch.device("meta"):
        model = Qwen2ForCausalLM(Qwen2Config(**sizes))
    model = model.to_empty(device="cpu").eval()
    model.tie_weights()
    model.model.rotary_emb = type(model.model.rotary_emb)(model.config)  # its frequencies are not in the file
    with torch.inference_mode():
        for name, parameter in model.state_dict().items():
            if not (config.tied and name == HEAD):
                parameter.copy_(weights.read(name))
        return model(tokens[None]).logits[0].argmax(-1)


@torch.inference_mode()
def agreement(
    weights: GgufWeights,
    tokens: torch.Tensor,
    expected: torch.Tensor,
    product: Callable[..., Product],
    at_once: int = 1024,
) -> float:
    """The share of positions with the same likeliest token, reading `at_once` tokens per pass."""
    model = pack_qwen2(weights, product)
    kv = KeyValues(model.config, model.device, model.kv_dtype)
    found = []
    for part in tokens.split(at_once):
        memory = PromptMemory(kv, len(part))
        hidden = model.encode(part[None], memory.positions(), memory.masks(), memory)
        found.append(model.logits(hidden)[0].argmax(-1))
        memory.commit()
    return float((torch.cat(found) == expected).float().mean())


def test_the_body_of_a_function(completer: CausalCompleter) -> None:
    completion = completer.complete(request("def add(a, b):\n    return §\n")).completions[0]
    assert (completion.text, completion.shown) == ("a + b", True)


def test_a_method_that_uses_its_object(completer: CausalCompleter) -> None:
    text = (
        "class Stack:\n    def __init__(self):\n        self.items = []\n\n"
        "    def push(self, item):\n        self.§\n\n    def pop(self):\n        return self.items.pop()\n"
    )
    completion = completer.complete(request(text)).completions[0]
    assert (completion.text, completion.shown) == ("items.append(item)", True)


def test_after_reading_ahead_a_completion_reads_few_tokens(completer: CausalCompleter) -> None:
    text = (Path(engine.__file__).parent / "prefix_cache.py").read_text("utf-8")
    before, after = text.split("        entry.users += 1\n")
    cache = completer.decoder.cache
    assert isinstance(cache, PrefixCache)
    read = completer.read_ahead(request(f"{before}        §\n{after}"))
    assert read > 100  # the size of the prompt depends on the speed of this machine
    for typed in ("en", "entry.", "entry.users "):
        encoded = cache.encoded_tokens
        completer.complete(request(f"{before}        {typed}§\n{after}"))
        assert cache.encoded_tokens - encoded <= 12


def test_in_fp32_the_likeliest_tokens_are_those_of_transformers(
    weights: GgufWeights, tokens: torch.Tensor, expected: torch.Tensor
) -> None:
    assert agreement(weights, tokens, expected, FloatProduct) >= 0.99


@pytest.mark.skipif(not int8_works(), reason="this machine has no products in 8 bits")
def test_in_8_bits_few_tokens_at_once_are_nearly_as_precise(
    weights: GgufWeights, tokens: torch.Tensor, expected: torch.Tensor
) -> None:
    assert agreement(weights, tokens, expected, Int8Product, FEW_ROWS) >= 0.97


@pytest.mark.skipif(not int8_works(), reason="this machine has no products in 8 bits")
def test_in_8_bits_a_whole_prompt_loses_little(
    weights: GgufWeights, tokens: torch.Tensor, expected: torch.Tensor
) -> None:
    assert agreement(weights, tokens, expected, Int8Product) >= 0.93
