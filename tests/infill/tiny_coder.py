"""A small tokenizer with the special tokens of Qwen2.5-Coder, and tiny code models that write random or given text."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

from engine.checkpoints.qwen2 import pack_qwen2
from engine.decoder import Decoder
from engine.models.packed_qwen2 import FloatProduct, PackedQwen2
from engine.models.qwen2 import Qwen2Config
from infill.code.context import ContextBudget
from infill.complete.causal_completion import CausalCompleter
from infill.complete.code_model import CodeModel
from infill.prompts.fim import FimPrompt
from infill.prompts.gguf_tokenizer import CONTROL, USER_DEFINED, gguf_tokenizer
from infill.prompts.text_tokens import TextTokens
from infill.prompts.tokenizer_file import CODE_PATTERN
from infill.settings import Settings
from tests.engine.tiny_qwen2 import MemoryWeights, packed, reference

FOLDER = Path(__file__).parent / "tiny_coder_corpus"  # old code of the engine; what is tested depends on its words
CORPUS = [(FOLDER / name).read_text("utf-8") for name in ("tree.txt", "cache.txt")]
CONTROLS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MARKS = ["<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"]
BUDGET = ContextBudget(prefix=2000, suffix=800, header=400)  # characters
UNUSED_ROWS = 5  # of the model's head, beyond the tokenizer
NORMAL = 1
PREFERENCE = 12.0  # nats by which a scripted model prefers its script


@cache
def metadata() -> dict[str, Any]:
    """The entries of a GGUF file for a tokenizer trained on CORPUS."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(CODE_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    trained = json.loads(tokenizer.to_str())["model"]
    pieces = sorted(trained["vocab"], key=trained["vocab"].__getitem__)
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in trained["merges"]]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": [*pieces, *CONTROLS, *MARKS],
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.token_type": [
            *[NORMAL] * len(pieces),
            *[CONTROL] * len(CONTROLS),
            *[USER_DEFINED] * len(MARKS),
        ],
    }


@cache
def coder_tokens() -> TextTokens:
    return TextTokens(gguf_tokenizer(metadata(), "tiny.gguf"))


@cache
def fim_prompt(budget: ContextBudget = BUDGET) -> FimPrompt:
    tokens = coder_tokens()
    return FimPrompt(tokens, budget, len(tokens.bytes_of) + UNUSED_ROWS)


@cache
def random_model() -> PackedQwen2:
    """Two layers with random weights."""
    rows = len(coder_tokens().bytes_of) + UNUSED_ROWS
    return packed(reference(vocab_size=rows, num_hidden_layers=2, max_position_embeddings=4096))


@cache
def scripted_model(script: str) -> PackedQwen2:
    """After each token prefers the one that follows it in `script` first; begins with the script after a special token,
    and ends after all others.

    Its layers add nothing, and the embedding has a dimension per token, so the head is a table of successors.
    """
    tokens = coder_tokens()
    rows = len(tokens.bytes_of) + UNUSED_ROWS
    hidden = rows + rows % 2
    config = Qwen2Config(rows, hidden, 2, 1, 1, 1, 2, max_positions=4096, tied=False)
    end = tokens.special("<|endoftext|>")
    following = dict.fromkeys(range(rows), end)
    written = tokens.encode(script)
    following |= dict.fromkeys(tokens.specials, written[0])
    following |= dict(reversed([*zip(written, [*written[1:], end], strict=True)]))
    embedding, head = torch.eye(rows, hidden), torch.zeros(rows, hidden)
    for token, successor in following.items():
        head[successor, token] = PREFERENCE / hidden**0.5
    layer = {
        "self_attn.q_proj.weight": torch.zeros(2, hidden),
        "self_attn.q_proj.bias": torch.zeros(2),
        "self_attn.k_proj.weight": torch.zeros(2, hidden),
        "self_attn.k_proj.bias": torch.zeros(2),
        "self_attn.v_proj.weight": torch.zeros(2, hidden),
        "self_attn.v_proj.bias": torch.zeros(2),
        "self_attn.o_proj.weight": torch.zeros(hidden, 2),
        "mlp.gate_proj.weight": torch.zeros(2, hidden),
        "mlp.up_proj.weight": torch.zeros(2, hidden),
        "mlp.down_proj.weight": torch.zeros(hidden, 2),
        "input_layernorm.weight": torch.ones(hidden),
        "post_attention_layernorm.weight": torch.ones(hidden),
    }
    state = {f"model.layers.0.{name}": tensor for name, tensor in layer.items()}
    state |= {"model.embed_tokens.weight": embedding, "model.norm.weight": torch.ones(hidden), "lm_head.weight": head}
    return pack_qwen2(MemoryWeights(config, state), FloatProduct, kv_dtype=torch.float32)


def coder(script: str | None = None, **settings: Any) -> CausalCompleter:
    """The pipeline with a model that writes `script`, or with random weights; without copies unless they are set."""
    model = random_model() if script is None else scripted_model(script)
    chosen = Settings(**{"model": "tiny", "copy_drafts": False, **settings})
    return CausalCompleter(CodeModel("tiny", Decoder(model), fim_prompt()), chosen)
