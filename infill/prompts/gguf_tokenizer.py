"""The tokenizer that a GGUF file carries, as a `tokenizers.Tokenizer`. Must not know prompts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenizers import Tokenizer

from engine.errors import ModelError, panics_as
from infill.prompts.qwen2_tokenizer import qwen2_tokenizer

CONTROL, USER_DEFINED = 3, 4  # llama.cpp's token types that never come from text


def gguf_tokenizer(metadata: Mapping[str, Any], place: str) -> Tokenizer:
    """The tokenizer in `metadata`; raises ModelError, naming `place`, for one of another kind or without its parts."""
    kind = (metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre"))
    if kind != ("gpt2", "qwen2"):
        raise ModelError(
            f"{place} has a tokenizer of the kind {kind}, but only Qwen2's is known; choose another model."
        )

    def damaged(reason: BaseException) -> ModelError:
        first_line = str(reason).partition("\n")[0]
        return ModelError(f"The tokenizer in {place} is damaged ({first_line}); fetch the model again.")

    with panics_as(damaged):
        return _tokenizer(metadata)


def _tokenizer(metadata: Mapping[str, Any]) -> Tokenizer:
    pieces = metadata["tokenizer.ggml.tokens"]
    merges = [(first, second) for first, second in (pair.split(" ", 1) for pair in metadata["tokenizer.ggml.merges"])]
    typed = [*zip(pieces, metadata["tokenizer.ggml.token_type"], strict=True)]
    special = [piece for piece, kind in typed if kind in (CONTROL, USER_DEFINED)]
    return qwen2_tokenizer({piece: token for token, piece in enumerate(pieces)}, merges, special)
