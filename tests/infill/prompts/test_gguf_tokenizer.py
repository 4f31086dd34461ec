"""The tokenizer of a GGUF file: lossless, without special tokens in text, and refused if it is of another kind."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ModelError
from infill.prompts.gguf_tokenizer import gguf_tokenizer
from tests.infill.tiny_coder import CONTROLS, CORPUS, MARKS, coder_tokens, metadata


def pieces(text: str) -> list[bytes]:
    tokens = coder_tokens()
    return [tokens.bytes_of[token] for token in tokens.encode(text)]


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=80))
def test_any_text_round_trips(text: str) -> None:
    assert coder_tokens().decode(coder_tokens().encode(text)) == text


def test_ids_are_positions_in_the_list_of_the_file() -> None:
    tokenizer = gguf_tokenizer(metadata(), "tiny.gguf")
    listed = metadata()["tokenizer.ggml.tokens"]
    assert [tokenizer.id_to_token(number) for number in range(len(listed))] == listed
    assert tokenizer.get_vocab_size() == len(listed)


def test_merges_apply() -> None:
    text = CORPUS[0]
    assert len(coder_tokens().encode(text)) < len(text) / 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12 34", [b"1", b"2", b" ", b"3", b"4"]),
        ("\n\n", [b"\n\n"]),
        ("¶!", ["¶".encode()[:1], "¶".encode()[1:], b"!"]),
    ],
)
def test_text_is_split_as_qwen2_splits_it(text: str, expected: list[bytes]) -> None:
    assert pieces(text) == expected


def test_no_piece_crosses_a_word_or_a_line() -> None:
    for piece in coder_tokens().bytes_of:
        text = piece.decode("utf-8", "replace")
        assert not any(character.isdigit() for character in text) or len(text) == 1
        assert "\n" not in text.rstrip("\n") or not text.strip()


@pytest.mark.parametrize("name", [*CONTROLS, *MARKS])
def test_special_tokens_never_come_from_text(name: str) -> None:
    tokens = coder_tokens()
    special = tokens.special(name)
    assert special in tokens.specials and tokens.bytes_of[special] == b""
    encoded = tokens.encode(f"x = '{name}'{name}")
    assert not set(encoded) & set(tokens.specials)
    assert tokens.decode(encoded) == f"x = '{name}'{name}"


@pytest.mark.parametrize(
    "entries",
    [
        {"tokenizer.ggml.model": "llama"},
        {"tokenizer.ggml.pre": "llama-bpe"},
        {"tokenizer.ggml.model": None, "tokenizer.ggml.pre": None},
    ],
)
def test_another_kind_of_tokenizer_is_refused(entries: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=r"a\.gguf has a tokenizer of .*; choose another model\.$"):
        gguf_tokenizer({**metadata(), **entries}, "a.gguf")


@pytest.mark.parametrize("entry", ["tokens", "merges", "token_type"])
def test_a_missing_entry_is_a_model_error(entry: str) -> None:
    rest = {name: value for name, value in metadata().items() if name != f"tokenizer.ggml.{entry}"}
    with pytest.raises(ModelError, match=rf"a\.gguf is damaged \('tokenizer\.ggml\.{entry}'\); fetch the model again"):
        gguf_tokenizer(rest, "a.gguf")


@pytest.mark.parametrize(
    "entries",
    [
        {"tokenizer.ggml.merges": ["no such", "pieces here"]},
        {"tokenizer.ggml.merges": ["one"]},
        {"tokenizer.ggml.merges": [3]},
        {"tokenizer.ggml.tokens": 3},
        {"tokenizer.ggml.tokens": ["a", "b"]},
        {"tokenizer.ggml.token_type": None},
        {"tokenizer.ggml.token_type": [1, 1]},
    ],
)
def test_damaged_entries_are_a_model_error(entries: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=r"a\.gguf is damaged .*; fetch the model again"):
        gguf_tokenizer({**metadata(), **entries}, "a.gguf")


def test_a_file_without_tokenizer_is_refused() -> None:
    with pytest.raises(ModelError, match="a.gguf has a tokenizer of"):
        gguf_tokenizer({}, "a.gguf")
