"""The tokenizer that a GGUF file carries, as a `tokenizers.Tokenizer`.

Byte-level BPE with the pre-tokenizer of Qwen2; source of the pattern: the `tokenizer.json` of Qwen2.5-Coder. Must not
know prompts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from engine.errors import ModelError, panics_as

PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
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
    merges = [tuple(pair.split(" ", 1)) for pair in metadata["tokenizer.ggml.merges"]]
    typed = [*zip(pieces, metadata["tokenizer.ggml.token_type"], strict=True)]
    vocabulary = {piece: token for token, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    split = pre_tokenizers.Split(Regex(PATTERN), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [piece for piece, kind in typed if kind in (CONTROL, USER_DEFINED)]
    tokenizer.add_special_tokens([AddedToken(piece, special=True, normalized=False) for piece in special])
    return tokenizer
