"""Tiny masked diffusion models in folders laid out as Dream, DreamOn and Open-dCoder are published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from infill.complete.completion import Completer
from infill.complete.loaded_model import LoadedModel
from infill.settings import Settings
from tests.engine.tiny_qwen2 import reference, save_folder
from tests.infill.tiny_coder import metadata

END, BEGIN, MASK, EXPAND = "<|endoftext|>", "<|beginoftext|>", "<|mask|>", "<|expand|>"
UNUSED_ROWS = 6  # of the head, beyond the tokenizer


def save_dream(folder: Path, grows: bool = False, seed: int = 0, **config: Any) -> Path:
    """A random model as Dream-org publishes it: Qwen2's tensors, and the tokenizer in parts."""
    return _save(folder, [BEGIN, MASK, *([EXPAND] if grows else [])], seed, **{
        "model_type": "Dream", "architectures": ["DreamModel"], "rope_theta": 1e6, "rope_scaling": None,
        "auto_map": {"AutoModel": "modeling_dream.DreamModel"}, **config,
    })  # fmt: skip


def save_open_dcoder(folder: Path, seed: int = 0) -> Path:
    """A random model as Open-dCoder is published: it calls itself Qwen2, and has a mask token in its tokenizer."""
    saved = _save(folder, ["<M>"], seed)
    config = json.loads((saved / "tokenizer_config.json").read_text("utf-8"))
    (saved / "tokenizer_config.json").write_text(
        json.dumps({**config, "mask_token": "<M>", "bos_token": None}), "utf-8"
    )
    return saved


def load(folder: Path, **settings: Any) -> LoadedModel:
    return LoadedModel.load(Settings(model=str(folder), device="cpu", threads=1, **settings))


def completer(folder: Path, **settings: Any) -> Completer:
    asked = Settings(model=str(folder), device="cpu", threads=1, **settings)
    return Completer(LoadedModel.load(asked), asked)


def _save(folder: Path, added: list[str], seed: int, **config: Any) -> Path:
    data = metadata()
    special = {piece for piece in data["tokenizer.ggml.tokens"] if piece.startswith("<|")}
    pieces = [piece for piece in data["tokenizer.ggml.tokens"] if piece not in special]
    everything = [*pieces, *sorted(special), *added]
    ids = {piece: token for token, piece in enumerate(everything)}
    rows = len(everything) + UNUSED_ROWS
    model = reference(
        seed, vocab_size=rows, num_hidden_layers=2, max_position_embeddings=4096, tie_word_embeddings=False
    )
    save_folder(model, folder)
    stored = json.loads((folder / "config.json").read_text("utf-8"))
    if "mask_token_id" not in config and MASK in added:
        config = {**config, "mask_token_id": ids[MASK], "eos_token_id": ids[END], "bos_token_id": ids[END]}
    (folder / "config.json").write_text(json.dumps({**stored, **config}), "utf-8")
    (folder / "generation_config.json").unlink(missing_ok=True)
    (folder / "vocab.json").write_text(json.dumps({piece: ids[piece] for piece in pieces}), "utf-8")
    merges = "\n".join(data["tokenizer.ggml.merges"])
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", "utf-8")
    (folder / "added_tokens.json").write_text(json.dumps({piece: ids[piece] for piece in (*special, *added)}), "utf-8")
    names = {"bos_token": BEGIN, "eos_token": END, "mask_token": MASK, "pad_token": END}
    (folder / "tokenizer_config.json").write_text(json.dumps(names), "utf-8")
    return folder
