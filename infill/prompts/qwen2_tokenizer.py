"""Qwen2's tokenizer from its parts: byte-level BPE with Qwen2's pre-tokenizer, and special tokens.

Source of the pattern: the `tokenizer.json` of Qwen2.5-Coder. Dream publishes the parts as files, without a
`tokenizer.json`. Must not know prompts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from engine.checkpoints.masked import added_tokens
from engine.errors import ModelError, panics_as
from engine.files import read_small_file
from infill.prompts.text_tokens import MOST_TOKENS, TextTokens
from infill.prompts.tokenizer_file import CODE_PATTERN, MOST_BYTES

VOCABULARY_FILE, MERGES_FILE = "vocab.json", "merges.txt"


def qwen2_tokenizer(
    vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]], special: Sequence[str]
) -> Tokenizer:
    """vocabulary: the ids of all tokens, the special ones too."""
    tokenizer = Tokenizer(models.BPE(vocab=dict(vocabulary), merges=list(merges)))
    split = pre_tokenizers.Split(Regex(CODE_PATTERN), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(piece, special=True, normalized=False) for piece in special])
    return tokenizer


def folder_tokens(folder: Path) -> TextTokens:
    """The tokenizer of a model folder: its `tokenizer.json`, or else its vocabulary, merges and added tokens.

    Raises ModelError if they are missing or damaged.
    """
    if (folder / "tokenizer.json").is_file() or not (folder / VOCABULARY_FILE).is_file():
        return TextTokens.read(folder / "tokenizer.json")

    def damaged(reason: BaseException) -> ModelError:
        first_line = str(reason).partition("\n")[0]
        return ModelError(f"The tokenizer in {folder} is damaged ({first_line}); fetch the model again.")

    added = added_tokens(folder)
    with panics_as(damaged):
        vocabulary = json.loads(read_small_file(folder / VOCABULARY_FILE, MOST_BYTES))
        lines = read_small_file(folder / MERGES_FILE, MOST_BYTES).decode().split("\n")
        merges = [tuple(line.split(" ", 1)) for line in lines if line and not line.startswith("#version")]
        ids = [*vocabulary.values(), *added.values()]
        if len(set(ids)) != len(ids) or not all(type(token) is int and 0 <= token < MOST_TOKENS for token in ids):
            raise ValueError("a token has no id of its own")
        special = sorted(added, key=added.__getitem__)
        return TextTokens(qwen2_tokenizer({**vocabulary, **added}, merges, special))  # type: ignore[arg-type]
