"""Text to tokens and back without loss, for any `tokenizer.json`, and lookup of the tokens that begin with a text.

Must not know prompts or models. Text has "\\n" line ends; a lone surrogate becomes U+FFFD.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from engine.errors import ModelError, panics_as
from infill.prompts.tokenizer_file import read_tokenizer

MOST_TOKENS = 1 << 21
RECENT_TEXTS, LONGEST_RECENT = 32, 1 << 16  # texts whose tokens are kept; characters of one
_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>\Z")


def _byte_level_alphabet() -> dict[int, int]:
    """The printable characters that byte-level BPE (GPT-2) uses for bytes: code point to byte, for `str.translate`.

    Other characters are translated to one that is not a byte.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    table = dict.fromkeys(others, 0xFFFF)
    return table | {byte: byte for byte in printable} | {256 + i: byte for i, byte in enumerate(others)}


class TextTokens:
    """A tokenizer that never turns text into special tokens. highest: id of a token."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Raises ModelError if there is no token, or one with an id that no vocabulary has."""
        self.tokenizer = tokenizer
        self.tokenizer.encode_special_tokens = True
        self.tokenizer.no_padding()  # the file may ask for any length
        self.tokenizer.no_truncation()
        # the text after the cursor stays the same from key to key
        self._recently_encoded = lru_cache(RECENT_TEXTS)(self._encode)
        self.size = self.tokenizer.get_vocab_size()
        self.highest = max(self.tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
        if not 0 <= self.highest < MOST_TOKENS:
            raise ModelError(
                "The tokenizer has no tokens, or too large ids; fetch the model again with `gesso model pull`."
            )

    @staticmethod
    def read(file: Path) -> TextTokens:
        """The tokenizer in a `tokenizer.json`; raises ModelError if there is none."""
        if not file.is_file():
            raise ModelError(f"{file.parent} has no {file.name}; fetch the model again with `gesso model pull`.")

        def unreadable(reason: BaseException) -> ModelError:
            return ModelError(f"{file} cannot be read ({reason}); fetch the model again with `gesso model pull`.")

        with panics_as(unreadable):
            return TextTokens(read_tokenizer(file))

    def encode(self, text: str) -> list[int]:
        return [*(self._recently_encoded(text) if len(text) <= LONGEST_RECENT else self._encode(text))]

    def _encode(self, text: str) -> tuple[int, ...]:
        clean = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        with panics_as(_cannot_encode):
            return tuple(self.tokenizer.encode(clean, add_special_tokens=False).ids)

    def decode(self, tokens: Sequence[int]) -> str:
        """Special tokens and those that only the model has have no text; bytes that are not UTF-8 become U+FFFD."""
        pieces, size = self.bytes_of, len(self.bytes_of)
        return b"".join(pieces[token] for token in tokens if token < size).decode("utf-8", "replace")

    def check_fits(self, rows: int) -> None:
        """Raises ModelError if a model with an embedding of so many tokens lacks one of these."""
        if self.highest >= rows:
            raise ModelError(
                f"The tokenizer has a token {self.highest}, but the model only {rows} tokens; fetch the model again "
                "with `gesso model pull`."
            )

    def special(self, name: str) -> int:
        token = self.tokenizer.token_to_id(name)
        if token is None:
            raise ModelError(
                f"The tokenizer has no token {name}; correct `gesso.family` in the config.json of the model."
            )
        return token

    def starting_with(self, text: str | bytes, line_breaks: int | None = None) -> Tensor:
        """Ids [n] of all tokens whose text begins with `text`, the shortest first, including `text` itself.

        line_breaks: how many line breaks they contain; None for any number. Takes well under a millisecond for half of
        a vocabulary of 262,144. Must not be changed.
        """
        start = text.encode("utf-8", "replace") if isinstance(text, str) else text
        pieces, order, breaks = self._sorted
        low = bisect.bisect_left(pieces, start)
        after = _after_all_with(start)
        high = len(pieces) if after is None else bisect.bisect_left(pieces, after, low)
        found = order[low:high]
        return found if line_breaks is None else found[breaks[low:high] == line_breaks]

    @cached_property
    def specials(self) -> list[int]:
        """Ids of all special tokens."""
        return [token for token, added in self.tokenizer.get_added_tokens_decoder().items() if added.special]

    @cached_property
    def line_breaks(self) -> list[int]:
        """Ids of all tokens that contain a line break."""
        return [token for token, piece in enumerate(self.bytes_of) if b"\n" in piece]

    @cached_property
    def bytes_of(self) -> list[bytes]:
        """The bytes of every token; empty for special tokens."""
        vocab = self.tokenizer.get_vocab(with_added_tokens=True)
        specials, table = set(self.specials), [b""] * (self.highest + 1)
        alphabet = None if "<0x0A>" in vocab else _byte_level_alphabet()
        for piece, token in vocab.items():
            if token not in specials:
                table[token] = _piece_bytes(piece, alphabet)
        return table

    @cached_property
    def _sorted(self) -> tuple[list[bytes], Tensor, Tensor]:
        """The texts of all tokens in order; the id of each, and the number of its line breaks [n]."""
        order = sorted(filter(self.bytes_of.__getitem__, range(len(self.bytes_of))), key=self.bytes_of.__getitem__)
        pieces = [self.bytes_of[token] for token in order]
        breaks = [piece.count(b"\n") for piece in pieces]
        return pieces, torch.tensor(order, dtype=torch.long), torch.tensor(breaks, dtype=torch.int32)


def _after_all_with(start: bytes) -> bytes | None:
    """The least bytes that are greater than all that begin with `start`; None if there are none."""
    kept = start.rstrip(b"\xff")
    return kept[:-1] + bytes([kept[-1] + 1]) if kept else None


def _cannot_encode(reason: BaseException) -> ModelError:
    """Without the message of `reason`, which may quote the text."""
    return ModelError(f"The model's tokenizer failed ({type(reason).__name__}); check it with `gesso model verify`.")


def _piece_bytes(piece: str, alphabet: dict[int, int] | None) -> bytes:
    if alphabet is not None:
        try:
            return piece.translate(alphabet).encode("latin-1")
        except UnicodeEncodeError:
            return piece.encode()
    byte = _BYTE_PIECE.match(piece)
    return bytes([int(byte[1], 16)]) if byte else piece.replace("▁", " ").encode()
