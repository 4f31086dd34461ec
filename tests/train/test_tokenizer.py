"""The tokenizer: special ids, how it splits code, and lossless decoding."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from engine.errors import InputError
from train.tokenizer import (
    LANGUAGE_IDS,
    SPECIAL_TOKENS,
    bytes_per_token,
    load_tokenizer,
    train_tokenizer,
)

VOCABULARY = 420
TEXT = (
    "def value(self, other):\n    if self.items[0] == (1, 20):\n        return other.get('name', \"x\")\n\n\n"
    "class Value:\n\tpass\n\n\tfor (;;) { call(); }\n"
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    texts = [TEXT, Path(__file__).read_text(), "()[]{}()[]{}();\n    ();\n" * 50, "2024 1000 2000\n" * 50]
    train_tokenizer(texts * 3, VOCABULARY).save(str(path))
    return load_tokenizer(path)


def pieces(tokenizer: Tokenizer, text: str) -> list[str]:
    return [
        tokenizer.decode([i], skip_special_tokens=False) for i in tokenizer.encode(text, add_special_tokens=False).ids
    ]


def test_vocabulary(tokenizer: Tokenizer) -> None:
    vocabulary = tokenizer.get_vocab()
    assert len(vocabulary) == VOCABULARY
    assert sorted(vocabulary.values()) == list(range(VOCABULARY))
    assert [vocabulary[token] for token in SPECIAL_TOKENS] == list(range(32))
    assert all(len(token) == 1 for token, index in vocabulary.items() if 32 <= index < 288), "the 256 bytes"
    assert [vocabulary[t] for t in ("<pad>", "<eos>", "<bos>", "<|null|>", "<|mask|>")] == [0, 1, 2, 3, 4]
    assert vocabulary["<|neighbour|>"] == 9 and vocabulary["<|reserved_6|>"] == 26
    assert LANGUAGE_IDS["text"] == 16 and LANGUAGE_IDS["python"] == 17 and LANGUAGE_IDS["cpp"] == 25


def test_a_line_end_takes_its_indentation(tokenizer: Tokenizer) -> None:
    assert pieces(tokenizer, "\n    x") == ["\n    ", "x"]
    assert pieces(tokenizer, "\n\n\n    \n") == ["\n", "\n", "\n    ", "\n"]
    for text in pieces(tokenizer, TEXT):
        assert "\n" not in text[1:] and (text[0] != "\n" or not text.strip())


def test_digits_are_single(tokenizer: Tokenizer) -> None:
    assert pieces(tokenizer, " 2024") == [" ", "2", "0", "2", "4"]


def test_no_token_joins_brackets_or_quotes(tokenizer: Tokenizer) -> None:
    assert pieces(tokenizer, "()[]{}();") == list("()[]{}();")
    assert pieces(tokenizer, " (") == [" ("]
    assert pieces(tokenizer, "`'") == ["`", "'"]
    for token in tokenizer.get_vocab():
        if token not in SPECIAL_TOKENS:
            assert sum(character in "()[]{}\"'`" for character in token) <= 1 or token in ('"""', "'''", '""')


def test_tokens_do_not_mix_words_and_others(tokenizer: Tokenizer) -> None:
    for text in pieces(tokenizer, TEXT + "a.b,c;d:e::f...g += -h\n"):
        kinds = {"word" if c.isalpha() or c == "_" else "other" for c in text.strip()}
        assert len(kinds) <= 1


def test_text_that_spells_a_special_token_is_plain_text(tokenizer: Tokenizer) -> None:
    for special in SPECIAL_TOKENS:
        ids = tokenizer.encode(f"a{special}b", add_special_tokens=False).ids
        assert min(ids) >= 32
        assert tokenizer.decode(ids, skip_special_tokens=False) == f"a{special}b"


def test_special_tokens_decode_to_their_names(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode([3], skip_special_tokens=False) == "<|null|>"


@settings(max_examples=300)
@given(st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from(" \t\n\r(){}'\"0a_=<|>.:é😀")), max_size=60))
def test_decoding_restores_every_text(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_bytes_per_token(tokenizer: Tokenizer) -> None:
    records = [{"language": "python", "text": "é\n", "project": "p", "path": "a.py"}]
    assert bytes_per_token(tokenizer, records) == {"python": (3, 3)}


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="use more text"):
        train_tokenizer(["x = 1\n"], VOCABULARY)
    with pytest.raises(InputError, match="is not a tokenizer"):
        load_tokenizer(tmp_path / "none.json")
